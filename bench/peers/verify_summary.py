"""Summarises the turns of bench/peers/verify as verify.json and README.md."""

import argparse
import json
import os

import results


def share(verdicts, labels, key):
    known = [(v, l[key]) for v, l in zip(verdicts, labels) if l[key] is not None]
    return sum(v == w for v, w in known) / len(known)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("work")
    arguments.add_argument("out")
    for name in ("copies", "commit", "cpu", "command"):
        arguments.add_argument(f"--{name}", required=True)
    options = arguments.parse_args()
    with open(os.path.join(options.work, "labels.jsonl")) as lines:
        labels = [json.loads(line) for line in lines]
    pairs = len(labels)
    verdicts = {}
    for mode in ("strict", "compat"):
        with open(os.path.join(options.work, f"omr.{mode}")) as lines:
            verdicts[f"omr {mode}"] = [json.loads(line)["equal"] for line in lines][:pairs]
    with open(os.path.join(options.work, "peer.json")) as file:
        verdicts["math-verify default"] = json.load(file)["equal"]
    turns = {}
    with open(os.path.join(options.work, "turns")) as lines:
        for line in lines:
            side, mode, seconds, load = line.split()
            copies = int(options.copies) if side == "omr" else 1
            micros = float(seconds) / copies / pairs * 1e6
            turns.setdefault(f"{side} {mode}", []).append({"us_per_pair": round(micros, 2), "load": float(load)})
    best = {name: min(t["us_per_pair"] for t in all_turns) for name, all_turns in turns.items()}
    rows = {}
    for name, micros in best.items():
        rows[name] = {
            "us_per_pair": micros,
            "times_math_verify": round(best["math-verify default"] / micros, 1),
            "right": round(share(verdicts[name], labels, "truth"), 4),
            "agrees_with_math_verify_label": round(share(verdicts[name], labels, "equal"), 4),
            "turns": turns[name],
        }
    result = {"command": options.command, "commit": options.commit, "cpu": options.cpu, "pairs": pairs, "sides": rows}
    lines = [
        "# omr verify beside math-verify",
        "",
        f"`{options.command}`, commit {options.commit}, {options.cpu}, {pairs} pairs (`tests/goldens/verify`), CPU time of one core,",
        "fastest turn; the load beside each turn is in `verify.json`. math-verify 0.9.0 is measured warm, without its import.",
        "",
        "| | us a pair | times math-verify | right | agrees with math-verify's label |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row['us_per_pair']} | {row['times_math_verify']} | {row['right']} | "
            f"{row['agrees_with_math_verify_label']} |"
        )
    results.write(options.out, "verify.json", result, lines)


if __name__ == "__main__":
    main()
