"""Runs math-verify on pairs of a gold answer and an answer: verdicts and the CPU time of one core.

usage: verify.py PAIRS.jsonl OUT.json [--rounds N]

PAIRS.jsonl contains {"gold", "answer"} lines. The first pass warms up the parsers and is not counted.
"""

import argparse
import json
import logging
import sys
import time

from math_verify import parse, verify


def verdict(gold, answer):
    try:
        return bool(verify(parse(gold), parse(answer)))
    except Exception:
        return False


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("pairs")
    arguments.add_argument("out")
    arguments.add_argument("--rounds", type=int, default=1)
    options = arguments.parse_args()
    logging.disable(logging.CRITICAL)
    with open(options.pairs) as lines:
        pairs = [json.loads(line) for line in lines]
    for pair in pairs[:50]:
        verdict(pair["gold"], pair["answer"])
    seconds = []
    for _ in range(options.rounds):
        start = time.process_time()
        verdicts = [verdict(pair["gold"], pair["answer"]) for pair in pairs]
        seconds.append(time.process_time() - start)
    with open(options.out, "w") as out:
        json.dump({"pairs": len(pairs), "cpu_seconds": min(seconds), "equal": verdicts}, out)
    print(f"{len(pairs)} pairs, {min(seconds):.2f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
