"""Writes questions of a parquet file as lines for `omr generate --jsonl`: id, messages, images as data URLs.

usage: python bench/peers/questions.py HELDOUT.parquet QUESTIONS.jsonl [--count 20]
The questions are spread evenly over the file.
"""
import argparse
import base64
import json

import pyarrow.parquet as pq

p = argparse.ArgumentParser()
p.add_argument("heldout")
p.add_argument("questions")
p.add_argument("--count", type=int, default=20)
a = p.parse_args()
rows = pq.read_table(a.heldout).to_pylist()
with open(a.questions, "w") as out:
    for i in range(min(a.count, len(rows))):
        row = rows[i * len(rows) // a.count]
        images = ["data:image/png;base64," + base64.b64encode(image["bytes"]).decode() for image in row["images"]]
        line = {"id": row["id"], "messages": row["prompt"], "images": images}
        out.write(json.dumps(line) + "\n")
