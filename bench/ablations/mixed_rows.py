"""Makes a task of three types of rewards from the digits recipe's rows: mixed_rows.py DATA

DATA is the folder `data` of a recipe. Its questions of the kind `read`, whose answers name both digits, are used. The files
DATA/mixed/{sft,rl,rl-untyped,heldout}.parquet have the same images, with three kinds of questions in turn:
  numeric            the sum of the two digits
  clicking           a point on the larger digit; the label is its half of the image
  list_string_match  one of the two digits as a word; both are right
`rl-untyped` has the rows of `rl` without their types: one verifier scores all of them by comparing with the label.
"""
import json
import pathlib
import random
import re
import sys

import pyarrow
import pyarrow.parquet

WORDS = "zero one two three four five six seven eight nine".split()
QUESTIONS = {"numeric": "Add the two digits.", "clicking": "Click the larger digit.", "list_string_match": "Name one digit."}


def question(index, digits):
    """Returns the type of the row, its question, and its label."""
    name = list(QUESTIONS)[index % len(QUESTIONS)]
    half = 28 * int(digits[1] > digits[0])
    labels = {"numeric": str(sum(digits)), "clicking": json.dumps([{"bbox_2d": [half, 0, half + 28, 28]}]),
              "list_string_match": json.dumps([WORDS[digit] for digit in digits])}
    return name, QUESTIONS[name], labels[name]


def answer(name, digits, thinking, chance):
    """Returns the reasoning and the answer of the teacher. A hasty answer of the recipe stays hasty."""
    a, b = digits
    point = [chance.randrange(4, 24) + 28 * int(b > a), chance.randrange(4, 24)]
    word = WORDS[chance.choice(digits)]
    result = {"numeric": str(a + b), "clicking": f'[{{"point_2d": {point}}}]', "list_string_match": word}[name]
    found = {"numeric": result, "clicking": str(max(a, b)), "list_string_match": word}[name]
    careful = {"numeric": f"{a} + {b} = {found}.", "clicking": f"The larger is {found}.", "list_string_match": f"One is {found}."}[name]
    seen = re.match(r"(I see|The digits are) \d and \d\.", thinking)
    boxed = result if name == "clicking" else f"\\boxed{{{result}}}"
    return f"<think>{f'{seen[0]} {careful}' if seen else f'It looks like {found}.'}</think><answer>{boxed}</answer>"


def rewritten(path, typed):
    """Yields the rows of a file with their new questions."""
    chance = random.Random(1)
    for row in pyarrow.parquet.read_table(path).to_pylist():
        extra = row["extra_info"]
        digits = [int(digit) for digit in extra["answer"].zfill(2)]
        # Equal digits have no larger one. The held-out questions are of all kinds.
        if digits[0] == digits[1] or extra["kind"] != "read":
            continue
        name, text, label = question(extra["index"], digits)
        kept = {key: extra[key] for key in ("index", "split", "left", "right", "cluster")}
        new = {"id": f"{row['id']}-{extra.get('rollout', 0)}", "data_source": "digits", "images": row["images"],
               "extra_info": {**kept, "kind": name, "question": text, "answer": label}}
        prompt = {"role": "user", "content": f"<image>{text}"}
        if "messages" in row:
            thinking = re.search("<think>(.*)</think>", row["messages"][-1]["content"][0]["text"])[1]
            reply = {"role": "assistant", "content": answer(name, digits, thinking, chance)}
            yield {**new, "messages": [prompt, reply]}
        else:
            if typed:
                new["extra_info"]["reward_type"] = name
            yield {**new, "prompt": [prompt], "reward_model": {"ground_truth": label, "style": "rule"}}


def main():
    data = pathlib.Path(sys.argv[1])
    (data / "mixed").mkdir(exist_ok=True)
    for name, source, typed in [("sft", "distill/questions", False), ("rl", "rl", True), ("rl-untyped", "rl", False), ("heldout", "heldout", True)]:
        rows = list(rewritten(data / f"{source}.parquet", typed))
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), data / "mixed" / f"{name}.parquet")
        print(f"{name}: {len(rows)} rows")


if __name__ == "__main__":
    main()
