#!/usr/bin/env python3
"""Draws images of two coloured shapes and writes questions about them. It needs only Python's standard library.

usage: shapes.py DIR
  DIR/images/N.png   112 x 56 pixels, two shapes each
  DIR/train.jsonl      300 images, two questions each, with an answer to imitate (omr sft)
  DIR/questions.jsonl  400 other images, two questions each, with the right answer alone (omr rl)
  DIR/test.jsonl       100 other images, two questions each, and the right answer
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
# For each shape: whether a point is inside, and the number of corners.
SHAPES = {
    "circle": (lambda x, y: x * x + y * y <= 1, 0),
    "triangle": (lambda x, y: y <= 0.9 and abs(x) <= (y + 1) / 2, 3),
    "square": (lambda x, y: max(abs(x), abs(y)) <= 0.9, 4),
}
TASK = """data: test.jsonl
images: [image]
prompt: "{{ question }}"
gold: answer
scorer: strict
subject: kind
"""


def image(shapes, rng):
    """Returns the rows of an image with shapes of about the same size and place, as RGB bytes."""
    drawn = []
    for place, (colour, shape) in enumerate(shapes):
        centre = [SIDE * (place + 0.5) + rng.uniform(-3, 3), SIDE / 2 + rng.uniform(-3, 3)]
        drawn.append((SHAPES[shape][0], COLOURS[colour], rng.uniform(17, 22), *centre))
    rows = []
    for y in range(SIDE):
        row = b""
        for x in range(len(shapes) * SIDE):
            inside, colour, radius, left, top = drawn[x // SIDE]
            row += bytes(colour if inside((x - left) / radius, (y - top) / radius) else (255, 255, 255))
        rows.append(row)
    return rows


def png(rows):
    """Encodes rows of RGB bytes as a PNG file."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", len(rows[0]) // 3, SIDE, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def questions(shapes, rng):
    """Returns two questions about an image: kind, question, reasoning, answer. Half of the answers about corners have no
    reasoning, as in many data sets; they are harder to get right."""
    colours, counts = [colour for colour, _ in shapes], [SHAPES[shape][1] for _, shape in shapes]
    seen = "I see " + ", ".join(f"a {colour} {shape}" for colour, shape in shapes) + "."
    total = str(sum(counts))
    thought = f"{seen} {' + '.join(map(str, counts))} = {total}" if rng.random() < 0.5 else "This is easy."
    yield "corners", "How many corners do the shapes have?", thought, total
    yield "colours", "Which colours do the shapes have?", seen, ", ".join(colours)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out, rng = Path(sys.argv[1]), random.Random(1)
    (out / "images").mkdir(parents=True, exist_ok=True)
    files = {"train": [], "questions": [], "test": []}
    for i in range(800):
        shapes = [(rng.choice(list(COLOURS)), rng.choice(list(SHAPES))) for _ in range(2)]
        name = f"images/{i}.png"
        (out / name).write_bytes(png(image(shapes, rng)))
        for kind, question, thought, answer in questions(shapes, rng):
            user = {"role": "user", "content": f"<image>{question}"}
            if i < 300:
                text = f"<think>{thought}</think><answer>{answer}</answer>"
                messages = [user, {"role": "assistant", "content": text}]
                files["train"].append({"id": f"{i}-{kind}", "images": [name], "messages": messages, "answer": answer})
            elif i < 700:
                files["questions"].append({"id": f"{i}-{kind}", "images": [name], "prompt": [user], "answer": answer})
            else:
                files["test"].append({"id": f"{i}-{kind}", "image": name, "question": question, "answer": answer, "kind": kind})
    for name, rows in files.items():
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (out / "shapes.yaml").write_text(TASK)
    print(", ".join(f"{len(rows)} rows in {name}.jsonl" for name, rows in files.items()) + f", in {out}")


if __name__ == "__main__":
    main()
