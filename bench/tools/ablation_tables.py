"""Tables of the results of bench/tools/ablations: means over seeds with intervals, costs, and differences between stages."""
import json
import math
import pathlib
import statistics
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# Two-sided 95 % points of Student's t, by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365}
# With fewer seeds, tables of accuracies show each seed: the interval of a share can reach beyond 100 %.
SEEDS_OF_INTERVAL = 4
ACCURACIES = ["greedy", "pass@1", "pass@k", "maj@k"]
ARMS = {"sft": "SFT", "rl": "RL", "more-sft": "continued SFT", "taught": "SFT on teacher traces", "rft": "RFT", "raft": "RAFT",
        "lora-1": "RL, rank 1", "lora-4": "RL, rank 4", "lora-16": "RL, rank 16", "lora-64": "RL, rank 64"}

# Rows of README's table.


def newest(holds):
    """Returns the newest result folder that contains a file of this name. Names of folders begin with the date."""
    found = [p for p in (ROOT / "bench/results").iterdir() if (p / holds).exists()]
    if not found:
        sys.exit(f"bench/tools/figures: no file bench/results/*/{holds}")
    return max(found, key=lambda p: p.name)


def mean_and_half(values):
    """Mean over seeds, and half the width of its 95 % t interval, which is infinite for one seed."""
    spread = T95[len(values) - 1] * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else math.inf
    return statistics.mean(values), spread


def interval(values, sign="+"):
    """Mean and 95 % t interval over seeds, in points."""
    mean, half = mean_and_half(values)
    if len(values) == 1:
        return f"{mean:{sign}.1f}"
    return f"{mean:{sign}.1f} ({mean - half:{sign}.1f} to {mean + half:{sign}.1f})"


def shares(values):
    """Mean of shares in percent with its 95 % t interval over seeds, or with each seed if there are few."""
    if 1 < len(values) < SEEDS_OF_INTERVAL:
        return f"{statistics.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})"
    return interval(values, "")


def cells(folder):
    """Returns the results of bench/tools/ablations: stage to seed to cell."""
    found = {}
    for path in sorted(folder.glob("*-seed-*.json")):
        cell = json.loads(path.read_text())
        found.setdefault(cell["stage"], {})[cell["seed"]] = cell
    return found


def ablations(name):
    """Returns a list of bench/ablations, the folder of its results, and the results: stage to seed to cell."""
    listed = tomllib.loads((ROOT / "bench" / "ablations" / f"{name}.toml").read_text())
    folder = ROOT / "bench" / "results" / listed["results"]
    return listed, folder, cells(folder)


def arms(name):
    """Tables of the arms of a list: accuracies and costs, and the differences from RL."""
    _, folder, found = ablations(name)
    if "rl" not in found:
        return [f"Not computed yet: `bench/tools/ablations bench/ablations/{name}.toml`."]
    first = next(iter(found["rl"].values()))
    spread = "in brackets: 95 % interval" if len(found["rl"]) >= SEEDS_OF_INTERVAL else "in brackets: each seed"
    out = [f"Held-out accuracy in percent, n = {first['n']:,}, means over seeds ({spread}), and the cost so"
           f" far of each method (`{folder.relative_to(ROOT)}`). Answers with pass@{first['k']} and maj@{first['k']} are sampled at temperature 1:", "",
           f"| | seeds | greedy | temperature 1 | pass@{first['k']} | maj@{first['k']} | tokens | labels | answers sampled | sequences | CPU s |",
           "| --- |" + " --- |" * 10]
    for stage, name in ARMS.items():
        if by_seed := found.get(stage):
            of = lambda key, scale=1: [scale * cell[key] for cell in by_seed.values()]
            accuracies = " | ".join(shares(of(key, 100)) for key in ACCURACIES)
            costs = " | ".join(f"{statistics.mean(of(key)):,.0f}" for key in ["labels", "answers", "sequences", "cpu_seconds"])
            out.append(f"| {name} | {len(by_seed)} | {accuracies} | {statistics.mean(of('tokens')):.1f} | {costs} |")
    out += ["", "RL minus the others, paired by seed, in points:", "",
            f"| RL minus | greedy | temperature 1 | pass@{first['k']} | maj@{first['k']} |", "| --- | --- | --- | --- | --- |"]
    for stage, name in ARMS.items():
        if stage != "rl" and stage in found:
            out.append(f"| {name} | " + " | ".join(interval(differences(found, "rl", stage, lambda cell: cell[key])) for key in ACCURACIES) + " |")
    return out


def lora():
    """The tables of the arms, and the share of full RL's gain that adapters reach."""
    _, _, found = ablations("lora")
    at_1 = lambda cell: cell["pass@1"]
    out = [*arms("lora"), "", "Gain over SFT at temperature 1 in points, and its share of the gain of full RL with the same seeds:", "",
           "| | seeds | gain | share |", "| --- | --- | --- | --- |"]
    for stage in [stage for stage in ARMS if stage.startswith("lora-")]:
        gains = differences(found, stage, "sft", at_1)
        full = [100 * (at_1(found["rl"][seed]) - at_1(found["sft"][seed])) for seed in sorted(found[stage])]
        each = ", ".join(f"{100 * gain / of:.0f}" for gain, of in zip(gains, full))
        out.append(f"| {ARMS[stage]} | {', '.join(map(str, sorted(found[stage])))} | {interval(gains)} | {each} % |")
    return out


def lengths():
    """The accuracies of the list `lengths` for each limit on the tokens of an answer."""
    listed, folder, found = ablations("lengths")
    if not found:
        return ["Not computed yet: `bench/tools/ablations bench/ablations/lengths.toml`."]
    limits = listed["limits"]
    out = [f"Held-out accuracy in percent against `max_new_tokens`, means of {len(found['sft'])} seeds, greedy / temperature 1"
           f" (`{folder.relative_to(ROOT)}`):", "", f"| | {' | '.join(map(str, limits))} | tokens |", "| --- |" + " --- |" * (len(limits) + 1)]
    for stage, name in {"sft": "SFT", "rl": "RL", "overlong": "RL with a penalty for long answers"}.items():
        mean = lambda limit, key: 100 * statistics.mean(cell["limits"][str(limit)][key] for cell in found[stage].values())
        tokens = statistics.mean(cell["tokens"] for cell in found[stage].values())
        accuracies = " | ".join(f"{mean(limit, 'greedy'):.1f} / {mean(limit, 'pass@1'):.1f}" for limit in limits)
        out.append(f"| {name} | {accuracies} | {tokens:.1f} |")
    return out


def cpu():
    """CPU hours of the lists. A stage that several cells of a list share is counted once."""
    rows = []
    for name in ["headline", "second-start", "claims", "charts", "lora", "rewards", "losses", "distillation"]:
        listed, _, found = ablations(name)

        def before(name):
            """Yields the nearest stages with a cell that a stage starts from."""
            stage = listed["stage"].get(name, {"model": name})
            for other in {stage["model"], stage.get("teacher", name), *stage.get("rows", [])} - {name}:
                yield from [other] if other in found else before(other)

        own = [cell["cpu_seconds"] - sum(found[other][seed]["cpu_seconds"] for other in set(before(stage)))
               for stage, by_seed in found.items() for seed, cell in by_seed.items()]
        rows.append((name, len(own), sum(own) / 3600))
    rows.append(("together", *(sum(column) for column in list(zip(*rows))[1:])))
    return ["CPU hours of the stages that train or sample. Measuring the cells is not included:", "",
            "| list | cells | CPU hours |", "| --- | --- | --- |", *(f"| {name} | {cells} | {hours:.1f} |" for name, cells, hours in rows)]


def differences(found, arm, against, value):
    """Differences between two stages, paired by seed, in points."""
    return [100 * (value(found[arm][seed]) - value(found[against][seed])) for seed in sorted(found[arm].keys() & found[against].keys())]


def compared(name):
    """The differences that the claims of a list name, with what was expected, and the curves of its RL runs."""
    listed, folder, found = ablations(name)
    if not found:
        return [f"Not computed yet: `bench/tools/ablations bench/ablations/{name}.toml`."]
    first, has_paper = next(iter(found["sft"].values())), "paper" in listed["claim"][0]
    paper = lambda text: f" {text} |" if has_paper else ""
    out = [f"Accuracy at temperature 1, difference in points with its 95 % interval over {len(listed['seeds'])} seeds, n = {first['n']:,}, {first['k']}"
           f" answers per question (`{folder.relative_to(ROOT)}`). Direction only:", "",
           f"| claim |{paper('the paper')} expected here | found here | verdict | tokens, before to after |", "| --- |" + " --- |" * (4 + has_paper)]
    for claim in listed["claim"]:
        kinds = claim.get("kinds")
        accuracy = lambda cell: statistics.mean(cell["kinds"][kind] for kind in kinds) if kinds else cell["pass@1"]
        if not (found.get(claim["arm"], {}).keys() & found.get(claim["against"], {}).keys()):
            continue
        values = differences(found, claim["arm"], claim["against"], accuracy)
        mean, half = mean_and_half(values)
        direction = "within noise" if abs(mean) < max(1, half) else "more" if mean > 0 else "less"
        is_told = not has_paper or direction == "within noise"
        verdict = direction if is_told else "agrees" if direction == claim["direction"] else "disagrees"
        tokens = [statistics.mean(cell["tokens"] for cell in found[stage].values()) for stage in (claim["against"], claim["arm"])]
        out.append(f"| {claim['claim']} |{paper(claim.get('paper'))} {claim['expected']} | {interval(values)} | {verdict} | {tokens[0]:.1f} to {tokens[1]:.1f} |")
    return out


def curves(found, stages):
    """Rewards, entropies and clipped tokens of RL runs, and their accuracies."""
    out = ["| | reward: first, fifth, last tenth | entropy | clipped | greedy | temperature 1 | CPU s |", "| --- |" + " --- |" * 6]
    for stage in stages:
        if by_seed := found.get(stage):
            mean = lambda value: statistics.mean(value(cell) for cell in by_seed.values())
            curve = lambda name, digits: ", ".join(f"{mean(lambda cell: cell['curves'][name][tenth]):.{digits}f}" for tenth in (0, 4, 9))
            name = {"reinforce-plus-plus": "REINFORCE++"}.get(stage, stage.upper())
            out.append(f"| {name} | {curve('reward', 3)} | {curve('entropy', 3)} | {curve('clipped', 4)} | {mean(lambda c: 100 * c['greedy']):.1f}"
                       f" | {mean(lambda c: 100 * c['pass@1']):.1f} | {mean(lambda c: c['cpu_seconds']):.0f} |")
    return ["", "Four updates per batch. Means over seeds: the reward, the entropy in nats per token and the share of clipped tokens in tenths of the run,"
            " and the accuracy in percent:", "", *out]


def claims():
    return [*compared("claims"), *curves(ablations("claims")[2], ["gspo", "grpo", "dapo"])]


def losses():
    return [*compared("losses"), *curves(ablations("losses")[2], ["gspo", "cispo", "rloo", "reinforce-plus-plus"])]


def kinds(name, stages):
    """Accuracies of stages at temperature 1 in percent, by kind of question."""
    _, _, found = ablations(name)
    names = sorted(next(iter(found["sft"].values()))["kinds"])
    out = ["", "| temperature 1, % | " + " | ".join(f"`{kind}`" for kind in names) + " | all |", "| --- |" + " --- |" * (len(names) + 1)]
    for stage, title in stages.items():
        if by_seed := found.get(stage):
            values = [[100 * cell["kinds"][kind] for cell in by_seed.values()] for kind in names]
            values.append([100 * cell["pass@1"] for cell in by_seed.values()])
            out.append(f"| {title} | " + " | ".join(map(shares, values)) + " |")
    return out


def rewards():
    arms = {"sft": "SFT", "one-verifier": "RL, one verifier for all rows", "by-row": "RL, a reward for each row"}
    return [*compared("rewards"), *kinds("rewards", arms)]


def distillation():
    """Accuracies of a student by the number of sequences that it was trained on after its SFT."""
    _, _, found = ablations("distillation")
    out = ["", "| | sequences after the student's SFT | greedy | temperature 1 |", "| --- |" + " --- |" * 3]
    for stage, title in {"teacher": "teacher, three layers", "student": "student, two layers, short SFT", "copied-30": "SFT on the teacher's answers",
                         "copied-120": "SFT on the teacher's answers", "distilled-30": "on-policy distillation", "distilled-120": "on-policy distillation"}.items():
        if by_seed := found.get(stage):
            sequences = f"{512 * int(stage.rsplit('-', 1)[1]):,}" if "-" in stage else ""
            accuracies = " | ".join(shares([100 * cell[key] for cell in by_seed.values()]) for key in ("greedy", "pass@1"))
            out.append(f"| {title} | {sequences} | {accuracies} |")
    return [*compared("distillation"), *out]
