"""Tables and curves of the runs of bench/tools/smollm2-cells, and the comparisons of bench/peers/smollm2."""
import gzip
import itertools
import json
import statistics

from ablation_tables import ROOT, interval, newest
from drawings import framed, text

# Methods, in the order of the rows.
METHODS = {"base": "the model as it is", "sft": "SFT on generated traces", "gspo": "GSPO from the model as it is", "gspo-lora": "GSPO from the model as it is, LoRA of rank 16",
           "sft+gspo": "GSPO from SFT", "raft": "RAFT (RL on right answers only) from SFT", "more-sft": "continued SFT", "sft-answers": "SFT on bare answers",
           "base-boxed": "the model as it is, asked for the answer in `\\boxed{}`"}
# Methods with one seed that are compared with GSPO from the model as it is, with name and colour in docs/user/smollm2.svg.
CLAIMS = {"gspo": ("GSPO, 16 questions x 8 answers", "#2f7d5f"), "grpo": ("GRPO", "#3b6fb6"), "dapo": ("DAPO", "#b5762a"),
          "gspo-16": ("GSPO, 8 questions x 16 answers", "#8a5bb0"), "gspo-hot": ("GSPO at temperature 1.4", "#c0453b"),
          "gspo-2": ("GSPO, two updates per batch", "#7a8699")}
# Metrics of the curves, with titles. A point is a mean of SPAN steps.
PANELS = [("critic/score/mean", "reward in training"), ("actor/entropy", "entropy, nats"), ("response_length/mean", "tokens of a response")]
SPAN = 10


def folder():
    """Returns the newest folder with cells of bench/tools/smollm2-cells."""
    return newest("cells.jsonl")


def cells():
    return [json.loads(line) for line in (folder() / "cells.jsonl").read_text().splitlines()]


def metrics(method, task="chain_sum", seed=1):
    """Returns the steps of a run."""
    with gzip.open(folder() / f"metrics/{task}-{method}-{seed}.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def sequences(cell):
    """Returns the number of answers that a run of RL sampled, with those whose advantage is not 0, or of rows that SFT read."""
    if cell["rollout_probs_diff_max"] is None:
        return f"{cell['sequences']:,}"
    with_gradient = sum(128 * (1 - step["critic/advantages/zero_ratio"]) for step in metrics(cell["method"], cell["task"], cell["seed"]))
    return f"{cell['sequences']:,} ({with_gradient:,.0f})"


def accuracy(cell):
    return f"{100 * cell['greedy']:.1f} / {100 * cell['t1']:.1f}"


def table():
    found = cells()
    out = [f"Right answers to {found[0]['n']} held-out questions in percent, greedy / temperature 1, for each seed (`{folder().relative_to(ROOT)}`):", "",
           "| task | method | seeds | accuracy | SFT: rows; RL: sampled answers (of these with a gradient); first seed |"
           " largest difference of a probability, sampler and trainer | minutes |",
           "| --- | --- | --- | --- | --- | --- | --- |"]
    for task in dict.fromkeys(cell["task"] for cell in found):
        for method, name in METHODS.items():
            of = sorted((c for c in found if (c["task"], c["method"]) == (task, method)), key=lambda c: c["seed"])
            if of:
                differences = [c["rollout_probs_diff_max"] for c in of if c["rollout_probs_diff_max"] is not None]
                out.append(f"| {task} | {name} | {', '.join(str(c['seed']) for c in of)} | {', '.join(map(accuracy, of))} | {sequences(of[0])} |"
                           f" {max(differences) if differences else ''} | {statistics.mean(c['seconds'] for c in of) / 60:.0f} |")
    return out


def in_short():
    found = cells()
    out = [f"Right answers to {found[0]['n']} held-out questions in percent, greedy / temperature 1, and number of seeds (`{folder().relative_to(ROOT)}`). The"
           " questions alone give an error of 2 to 4 points. After SFT, RL and continued SFT make 100 updates more:", "",
           "| | sums | products |", "| --- | --- | --- |"]
    for method in ["base", "base-boxed", "gspo", "sft", "sft+gspo", "raft", "more-sft"]:
        def of_task(task):
            of = [cell for cell in found if (cell["task"], cell["method"]) == (task, method)]
            mean = lambda key: statistics.mean(100 * cell[key] for cell in of)  # noqa: E731
            return f"{mean('greedy'):.1f} / {mean('t1'):.1f} ({len(of)})" if of else "" if method == "base-boxed" else "not run yet"
        out.append(f"| {METHODS[method]} | {of_task('chain_sum')} | {of_task('products')} |")
    return out


def differences():
    """Returns the table of differences between methods, paired by seed."""
    of = {(cell["task"], cell["method"], cell["seed"]): cell for cell in cells()}
    pairs = [("gspo", "base"), ("sft", "gspo"), ("gspo-lora", "gspo"), ("sft+gspo", "sft"), ("sft+gspo", "raft"), ("more-sft", "sft+gspo")]
    out = ["In points, paired by seed, with 95 % intervals (t over seeds), where two seeds or more have both:", "",
           "| | seeds | greedy | temperature 1 |", "| --- | --- | --- | --- |"]
    for task, (method, other) in itertools.product(["chain_sum", "products"], pairs):
        seeds = [seed for *name, seed in of if name == [task, method] and (task, other, seed) in of]
        gain = lambda key: interval([100 * (of[task, method, seed][key] - of[task, other, seed][key]) for seed in seeds])  # noqa: E731
        if len(seeds) > 1:
            out.append(f"| {task}: {METHODS[method]} minus {METHODS[other]} | {len(seeds)} | {gain('greedy')} | {gain('t1')} |")
    return out


def claims():
    """Returns the table of methods of RL with one seed."""
    one = {cell["method"]: cell for cell in cells() if (cell["task"], cell["seed"]) == ("chain_sum", 1)}
    out = ["Sums, seed 1. With 500 questions, differences below about 6 points are within noise, and seeds differ by up to 6 points (GSPO):", "",
           "| method | accuracy | reward of the last ten steps | tokens of a response | clipped |", "| --- | --- | --- | --- | --- |"]
    for method, (name, _) in CLAIMS.items():
        if method in one:
            steps = metrics(method)
            mean = lambda key: statistics.mean(step[key] for step in steps[-SPAN:])  # noqa: E731
            clipped = statistics.mean(step["actor/pg_clipfrac"] for step in steps)
            out.append(f"| {name} | {accuracy(one[method])} | {mean('critic/score/mean'):.2f} | {mean('response_length/mean'):.1f} |"
                       f" {100 * clipped:.1f} % |")
    return out


def kinds():
    """Returns the tables of greedy accuracies by the kind of a question."""
    names = {"addition": "additions", "difference": "differences of 0 or more", "negative": "negative differences",
             "digit": "a factor of one digit", "round": "else a factor that ends in 0", "other": "other products"}
    # A claim that is also a method of the table has the name of the table.
    methods = {**{method: name for method, (name, _) in CLAIMS.items()}, **METHODS}
    out = ["Greedy accuracy in percent, by kind. Some older runs have no such record, so the seeds differ:"]
    for task, title in [("chain_sum", "sums"), ("products", "products")]:
        found = [cell for cell in cells() if cell["task"] == task and "kinds" in cell]
        first = {cell["method"]: cell for cell in sorted(found, key=lambda cell: -cell["seed"])}
        of = {kind: name for kind, name in names.items() if kind in found[0]["kinds"]}
        head = [f"{name} ({found[0]['kinds'][kind][1]})" for kind, name in of.items()]
        out += ["", f"| {title} | {' | '.join(head)} |", "| --- " * (len(of) + 1) + "|"]
        shares = lambda cell: " | ".join(f"{100 * cell['kinds'][kind][0]:.1f}" for kind in of)  # noqa: E731
        out += [f"| {name}, seed {first[method]['seed']} | {shares(first[method])} |" for method, name in methods.items() if method in first]
    return out


def scorers():
    """Returns the table of runs whose questions ask for \\boxed{}, by three rules."""
    names = {"base-boxed": "the model as it is", "gspo-strict": "40 updates of GSPO, reward `strict`", "gspo-compat": "40 updates of GSPO, reward `compat`",
             "gspo-no-format": "40 updates of GSPO, reward `strict` without the part for the format"}
    out = ["Sums, seed 1, accuracy in percent, greedy / temperature 1, by each scorer:", "",
           "| | `strict` | `compat` | the rule of the task |", "| --- | --- | --- | --- |"]
    one = {cell["method"]: cell for cell in cells()}
    by = lambda cell: " | ".join(accuracy(found) for found in (cell["scorers"]["strict"], cell["scorers"]["compat"], cell))  # noqa: E731
    return out + [f"| {name} | {by(one[method])} |" for method, name in names.items() if method in one]


def curves():
    """Draws reward, entropy and length of the runs of `claims`."""
    runs = {method: metrics(method) for method in CLAIMS if (folder() / f"metrics/chain_sum-{method}-1.jsonl.gz").exists()}
    width, height, gap = 170, 150, 38
    body = [text(16, 28, "RL of SmolLM2 on sums, seed 1: means of ten steps", "strong")]
    for column, (key, title) in enumerate(PANELS):
        lines = {method: [statistics.mean(step[key] for step in steps[i:i + SPAN]) for i in range(0, len(steps), SPAN)] for method, steps in runs.items()}
        high = max(max(values) for values in lines.values())
        x0, y0 = 40 + column * (width + gap), 72 + height
        body += [text(x0, 58, title, "small"), text(x0 - 5, 80, f"{high:.2g}", "small", "end"), text(x0 - 5, y0, "0", "small", "end"),
                 f'<path class="axis" fill="none" d="M{x0} 72 V{y0} H{x0 + width}"/>', text(x0, y0 + 17, "step 1", "small"), text(x0 + width, y0 + 17, "100", "small", "end")]
        for method, values in lines.items():
            points = " ".join(f"{x0 + (i + 0.5) * SPAN / 100 * width:.1f},{y0 - value / high * height:.1f}" for i, value in enumerate(values))
            body.append(f'<polyline fill="none" stroke="{CLAIMS[method][1]}" stroke-width="2" points="{points}"/>')
    y = 72 + height + 42
    for i, (name, colour) in enumerate(CLAIMS[method] for method in runs):
        x, line = 16 + i % 2 * 300, y + i // 2 * 22
        body += [f'<line x1="{x}" x2="{x + 20}" y1="{line - 4}" y2="{line - 4}" stroke="{colour}" stroke-width="3"/>', text(x + 28, line, name, "small")]
    return framed("Reward, entropy and length of the responses in each run", body, y + (len(runs) + 1) // 2 * 22)


def beside(ours, others):
    """Returns the cells of others' rates, each with the times as fast as ours."""
    return " | ".join(f"{rate:,.0f} ({rate / ours:.2f})" for rate in others)


def record(name):
    """Returns the newest file of this name among the results, and its folder."""
    where = newest(name)
    return json.loads((where / name).read_text()), where.relative_to(ROOT)


def sft_step():
    """Returns the table of SFT steps beside torch."""
    found, where = record("sft_step.json")
    rates = {(row["dtype"], row["system"]): row["tokens_per_s"] for row in found["rows"]}
    systems = list(dict.fromkeys(row["system"] for row in found["rows"]))
    out = [f"Tokens per second, and in brackets the times as fast as omr; {found['threads']} threads, torch {found['torch']} (`{where}`):", "",
           f"| | {' | '.join(systems)} |", "| --- |" + " --- |" * len(systems)]
    for dtype in dict.fromkeys(row["dtype"] for row in found["rows"]):
        ours = rates[dtype, "omr"]
        out.append(f"| {dtype} | {ours:,.0f} | {beside(ours, (rates[dtype, name] for name in systems[1:]))} |")
    return out


def beside_trl():
    """Returns the table of a run beside TRL's GRPOTrainer."""
    found, where = record("trl.json")
    out = [f"{found['updates']} updates of 128 answers on sums, seed {found['seed']}, {found['dtype']}, {found['threads']} thread of {found['cpu']},"
           f" TRL {found['trl']} with torch {found['torch']} (`{where}`):", "",
           "| | median seconds per update | largest resident memory, GiB | answers in the backward pass, mean | reward of the last five updates |"
           " accuracy, greedy / temperature 1 |", "| --- | --- | --- | --- | --- | --- |"]
    for name, system in found["systems"].items():
        steps = system["steps"]
        seconds, reward = statistics.median(step["seconds"] for step in steps), statistics.mean(step["reward"] for step in steps[-5:])
        computed = statistics.mean(step.get("responses_computed", 128) for step in steps)
        out.append(f"| {name} | {seconds:.0f} | {system['memory_gib']:.1f} | {computed:.0f} | {reward:.2f} | {accuracy(system)} |")
    return out


def four_bits():
    """Returns the table of servers with weights of 4 bits and more."""
    found, where = record("four_bits.json")
    systems = list(dict.fromkeys(row["system"] for row in found["rows"]))
    out = [f"Tokens per second, and in brackets the times as fast as {systems[0]}; {found['threads']} threads, median of"
           f" {len(found['rows'][0]['rounds'])} turns (`{where}`):", "", f"| requests at a time | {' | '.join(systems)} |",
           "| --- |" + " --- |" * len(systems)]
    for concurrent in dict.fromkeys(row["concurrent"] for row in found["rows"]):
        first, *others = [row["tokens_per_s"] for row in found["rows"] if row["concurrent"] == concurrent]
        out.append(f"| {concurrent} | {first:,.0f} | {beside(first, others)} |")
    return out


BLOCKS = {"smollm2": table, "smollm2 in short": in_short, "smollm2 differences": differences, "smollm2 claims": claims, "smollm2 kinds": kinds, "smollm2 scorers": scorers, "smollm2 sft step": sft_step,
          "smollm2 beside TRL": beside_trl, "smollm2 four bits": four_bits}
