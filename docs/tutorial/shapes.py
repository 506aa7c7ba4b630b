#!/usr/bin/env python3
"""Draws 60 images of coloured shapes and writes questions about them. It needs only Python's standard library.

usage: shapes.py DIR
  DIR/images/N.png   56 x 56 pixels, one shape each
  DIR/train.jsonl      48 images, two questions each: an answer to imitate (omr sft) and the right answer (omr rl)
  DIR/test.jsonl       12 other images, two questions each, and the right answer
  DIR/shapes.yaml      the questions of test.jsonl as a task for omr eval
"""

import json
import random
import struct
import sys
import zlib
from pathlib import Path

SIDE = 56
COLOURS = {"red": (220, 40, 40), "green": (30, 160, 60), "blue": (40, 70, 220), "yellow": (240, 200, 30)}
SHAPES = {
    "circle": lambda x, y: x * x + y * y <= 1,
    "square": lambda x, y: max(abs(x), abs(y)) <= 0.9,
    "triangle": lambda x, y: y <= 0.9 and abs(x) <= (y + 1) / 2,
}
TASK = """data: test.jsonl
images: [image]
prompt: "{{ question }}"
gold: answer
scorer: strict
subject: kind
"""
QUESTIONS = {"shape": "Which shape is this?", "colour": "Which colour is this?"}


def image(shape, colour, rng):
    """Returns the rows of an image with one shape of about the same size and place, as RGB bytes."""
    radius = rng.uniform(17, 22)
    centre = [SIDE / 2 + rng.uniform(-3, 3) for _ in range(2)]
    inside = SHAPES[shape]
    rows = []
    for y in range(SIDE):
        pixels = [inside((x - centre[0]) / radius, (y - centre[1]) / radius) for x in range(SIDE)]
        rows.append(b"".join(bytes(COLOURS[colour] if hit else (255, 255, 255)) for hit in pixels))
    return rows


def png(rows):
    """Encodes rows of RGB bytes as a PNG file."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out, rng = Path(sys.argv[1]), random.Random(1)
    (out / "images").mkdir(parents=True, exist_ok=True)
    kinds = [(shape, colour) for shape in SHAPES for colour in COLOURS] * 5
    train, test = [], []
    for i, (shape, colour) in enumerate(kinds):
        name = f"images/{i}.png"
        (out / name).write_bytes(png(image(shape, colour, rng)))
        for kind, answer in (("shape", shape), ("colour", colour)):
            question = QUESTIONS[kind]
            if i < 48:
                user = {"role": "user", "content": f"<image>{question}"}
                text = f"<think>I see a {colour} {shape}.</think><answer>{answer}</answer>"
                messages = [user, {"role": "assistant", "content": text}]
                train.append({"id": f"{i}-{kind}", "images": [name], "messages": messages, "answer": answer})
            else:
                test.append({"id": f"{i}-{kind}", "image": name, "question": question, "answer": answer, "kind": kind})
    for name, rows in (("train", train), ("test", test)):
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (out / "shapes.yaml").write_text(TASK)
    print(f"{len(kinds)} images, {len(train)} rows to train on, {len(test)} to measure, in {out}")


if __name__ == "__main__":
    main()
