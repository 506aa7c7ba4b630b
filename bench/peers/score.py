"""Makes the input of bench/peers/score for both sides, and summarises the results.

usage: score.py make WORK --responses N | pairs WORK | summary WORK --out DIR --command C --commit C --cpu C
"""

import argparse
import json
import random
import statistics

import results

PAIRS = ("tests/goldens/verify/cases.jsonl", "tests/goldens/verify/symbolic.jsonl")
SENTENCES = (
    "The image shows a triangle whose base is marked, so its height is what is missing. ",
    "Let $x$ be the number of tiles; then $3x + 7 = 52$, which gives $x = 15$. ",
    "Wait, the legend says that each unit is 10 people, so I read the axis again. ",
    "Adding the areas of both parts, \\(12 + \\frac{9}{2}\\), and comparing them with the options: ",
)
TASK = "data: questions.jsonl\nprompt: '{{ question }}'\ngold: answer\nscorer: strict\n"


def read(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]


def write(path, rows):
    with open(path, "w") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)


def make(work, count):
    """Makes responses: the answer of each pair after reasoning text of log-normal length. The median of all lengths is
    1,000 characters."""
    pairs = [pair for path in PAIRS for pair in read(path)]
    draw = random.Random(1)
    rows, questions, recorded = [], [], []
    for i in range(count):
        gold, answer = pairs[i % len(pairs)]["gold"], pairs[i % len(pairs)]["answer"]
        length, thinking = draw.lognormvariate(6.86, 0.6), ""
        while len(thinking) < length - 100:
            thinking += draw.choice(SENTENCES)
        response = f"<think>{thinking}</think>\n<answer>{answer}</answer>"
        rows.append({"response": response, "ground_truth": gold})
        questions.append({"question": f"Question {i}?", "answer": gold})
        recorded.append({"task": "task", "index": i, "responses": [response]})
    write(f"{work}/responses.jsonl", rows)
    write(f"{work}/questions.jsonl", questions)
    write(f"{work}/recorded.jsonl", recorded)
    with open(f"{work}/task.yaml", "w") as out:
        out.write(TASK)


def pairs(work):
    responses, scored = read(f"{work}/responses.jsonl"), read(f"{work}/compat.jsonl")
    write(f"{work}/whole.jsonl", [{"gold": r["ground_truth"], "answer": r["response"]} for r in responses])
    taken = zip(responses, scored)
    write(f"{work}/answers.jsonl", [{"gold": r["ground_truth"], "answer": s["predict_str"]} for r, s in taken])


def summary(work, options):
    responses = read(f"{work}/responses.jsonl")
    verdicts = {f"omr score, {m}": [r["acc_score"] == 1 for r in read(f"{work}/{m}.jsonl")] for m in ("strict", "compat")}
    for name, file in (("answers", "answers"), ("responses", "whole")):
        with open(f"{work}/{file}.json") as lines:
            verdicts[f"math-verify, {name}"] = json.load(lines)["equal"]
    turns = {}
    with open(f"{work}/turns") as lines:
        for line in lines:
            name, seconds, load = line.rstrip("\n").split("\t")
            turns.setdefault(name, []).append({"cpu_seconds": float(seconds), "load": float(load)})
    best = {name: min(turn["cpu_seconds"] for turn in all_turns) for name, all_turns in turns.items()}
    peer = "math-verify, answers"
    sides = {}
    for name, seconds in best.items():
        same = [a == b for a, b in zip(verdicts[name], verdicts[peer])] if name in verdicts else None
        sides[name] = {
            "cpu_seconds": round(seconds, 3),
            "us_per_response": round(seconds / len(responses) * 1e6, 1),
            "times_math_verify": round(best[peer] / seconds, 1),
            "agrees_with_math_verify": round(sum(same) / len(same), 4) if same else None,
            "turns": turns[name],
        }
    median = statistics.median(len(row["response"]) for row in responses)
    result = {key: getattr(options, key) for key in ("command", "commit", "cpu")}
    result |= {"responses": len(responses), "median_characters": median, "sides": sides}
    lines = [
        "# Whole responses: omr's rules beside math-verify",
        "",
        f"`{options.command}`, commit {options.commit}, {options.cpu}; {len(responses)} responses of {median:.0f} characters",
        "(median), CPU time of one core, fastest turn; the load beside each turn is in `score.json`. omr's is of whole",
        "processes; `omr eval` reads rows, writes samples, summary and page. math-verify 0.9.0 is measured warm, without its",
        "import, on the answers that were extracted for it, and on the whole responses.",
        "",
        "| | CPU s | us a response | times math-verify on answers | agrees with it |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in sides.items():
        agrees = "-" if row["agrees_with_math_verify"] is None else row["agrees_with_math_verify"]
        lines.append(f"| {name} | {row['cpu_seconds']} | {row['us_per_response']} | {row['times_math_verify']} | {agrees} |")
    results.write(options.out, "score.json", result, lines)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("what", choices=("make", "pairs", "summary"))
    arguments.add_argument("work")
    arguments.add_argument("--responses", type=int, default=10000)
    for name in ("out", "command", "commit", "cpu"):
        arguments.add_argument(f"--{name}")
    options = arguments.parse_args()
    if options.what == "make":
        make(options.work, options.responses)
    elif options.what == "pairs":
        pairs(options.work)
    else:
        summary(options.work, options)


if __name__ == "__main__":
    main()
