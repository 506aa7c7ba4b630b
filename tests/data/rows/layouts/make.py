"""Writes the 60 rows of tests/data/rows/layouts.rs in every layout that omr reads, with the libraries that users write them
with, and packs them as rows.zip.

    pip install datasets pillow webdataset
    python tests/data/rows/layouts/make.py
"""

import csv
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path

import webdataset
from datasets import Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as Pil

HERE = Path(__file__).resolve().parent
ROWS = 60
NAMES = ["one", "two", "three", "four"]


def picture(i):
    """A 28 x 28 picture with 1 to 4 white squares; the first pixel shows the row."""
    image = Pil.new("P", (28, 28))
    image.putpalette([i, 0, 0] + [255, 255, 255] * 255)
    for k in range(count(i)):
        image.paste(1, (2 + 13 * (k % 2), 2 + 13 * (k // 2), 10 + 13 * (k % 2), 10 + 13 * (k // 2)))
    file = io.BytesIO()
    image.convert("RGB").save(file, "PNG")
    return file.getvalue()


def count(i):
    return 1 + i % 4


def question(i):
    return f"How many squares, in picture {i}?"


def think(i):
    return f"I count to {count(i)}."


def reply(i):
    return f"<think>{think(i)}</think><answer>{count(i)}</answer>"


def folder(name):
    path = Path(name)
    path.mkdir(parents=True)
    return path


def pictures(path):
    path = folder(path)
    for i in range(ROWS):
        (path / f"{i}.png").write_bytes(picture(i))
    return path


def jsonl(path, row):
    Path(path).write_text("".join(json.dumps(row(i)) + "\n" for i in range(ROWS)))


def array(path, row):
    Path(path).write_text(json.dumps([row(i) for i in range(ROWS)], indent=1))


def table(path, rows, delimiter):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def user(text):
    return {"role": "user", "content": text}


def verl():
    """verl's columns; the pictures are paths below the folder in which the script ran."""
    path = folder("verl")
    pictures("verl/pics")
    rows = [
        {
            "data_source": "squares",
            "prompt": [user("<image>" + question(i))],
            "images": [{"bytes": None, "path": f"verl/pics/{i}.png"}],
            "ability": "counting",
            "reward_model": {"style": "rule", "ground_truth": str(count(i))},
            "extra_info": {"index": i, "split": "train"},
        }
        for i in range(ROWS)
    ]
    Dataset.from_list(rows).to_parquet(path / "train.parquet")


def llama_factory():
    """ShareGPT with a system column, a masked turn and a media folder; Alpaca with a history."""
    path = folder("llama_factory")
    pictures("llama_factory/media/pics")
    turn = lambda name, value: {"from": name, "value": value}
    array(path / "sharegpt.json", lambda i: {
        "conversations": [
            turn("human", "<image>Is this a picture?"),
            turn("gpt", "Yes.") | {"loss": 0},
            turn("human", question(i)),
            turn("gpt", reply(i)),
        ],
        "system": "Think first.",
        "images": [f"pics/{i}.png"],
    })
    array(path / "alpaca.json", lambda i: {
        "instruction": "<image>Count the squares.",
        "input": f"Picture {i}." if i % 2 == 0 else "",
        "output": reply(i),
        "system": "Think first.",
        "history": [["Are you ready?", "Yes."]] if i % 3 == 0 else [],
        "images": [f"pics/{i}.png"],
    })


def trl():
    """Pictures without marks, as TRL's trainers for vision models expect them."""
    path = folder("trl")
    text = {"role": Value("string"), "content": Value("string")}
    bytes_of = lambda i: {"bytes": picture(i), "path": None}
    several = List(Image())
    answer = lambda i: {"role": "assistant", "content": reply(i)}
    sets = {
        "messages": (
            lambda i: {"messages": [user(question(i)), answer(i)], "images": [bytes_of(i)]},
            {"messages": List(text), "images": several},
        ),
        "completion": (
            lambda i: {"prompt": [user(question(i))], "completion": [answer(i)], "images": [bytes_of(i)]},
            {"prompt": List(text), "completion": List(text), "images": several},
        ),
        "grpo": (
            lambda i: {"prompt": [user(question(i))], "image": bytes_of(i), "solution": reply(i)},
            {"prompt": List(text), "image": Image(), "solution": Value("string")},
        ),
    }
    for name, (row, features) in sets.items():
        Dataset.from_list([row(i) for i in range(ROWS)], features=Features(features)).to_parquet(path / f"{name}.parquet")


def questions():
    """Questions with answers as JSON, CSV and TSV; with a response (MMFineReason) and with reasoning."""
    path = folder("questions")
    pictures("questions/pics")
    asked = lambda i: {"question": question(i), "answer": str(count(i)), "image": f"pics/{i}.png"}
    jsonl(path / "answers.jsonl", asked)
    rows = [asked(i) | {"note": 'a comma, a "quote"\nand a line'} for i in range(ROWS)]
    table(path / "answers.csv", rows, ",")
    table(path / "answers.tsv", rows, "\t")
    jsonl(path / "thinking.jsonl", lambda i: asked(i) | {"thinking": think(i)})
    fine = [
        {
            "id": f"m{i}",
            "source": "squares",
            "question": question(i),
            "answer": str(count(i)),
            "image": {"bytes": picture(i), "path": None},
            "qwen3vl_235b_thinking_response": reply(i),
            "pass_rate": 0.5,
            "caption": "squares",
        }
        for i in range(ROWS)
    ]
    Dataset.from_list(fine).cast_column("image", Image()).to_parquet(path / "fine_reason.parquet")


def vero():
    path = folder("vero")
    pictures("vero/pics")
    rows = [
        {
            "prompt": [
                {"role": "system", "content": [{"type": "text", "text": "Think first.", "image": None}]},
                {"role": "user", "content": [
                    {"type": "image", "image": f"pics/{i}.png", "text": None},
                    {"type": "text", "text": question(i), "image": None},
                ]},
            ],
            "images": [f"pics/{i}.png"],
            "answer": str(count(i)),
            "reward_type": "numeric",
            "data_source": "squares",
            "domain": "counting",
        }
        for i in range(ROWS)
    ]
    Dataset.from_list(rows).to_parquet(path / "train.parquet")


def imagefolder():
    """Pictures with a metadata file, and pictures in a folder of their class."""
    row = lambda i: {"file_name": f"{i}.png", "question": question(i), "answer": str(count(i))}
    jsonl(pictures("imagefolder/jsonl") / "metadata.jsonl", row)
    table(pictures("imagefolder/csv") / "metadata.csv", [row(i) for i in range(ROWS)], ",")
    for name in NAMES:
        folder(f"imagefolder/classes/train/{name}")
    for i in range(ROWS):
        Path(f"imagefolder/classes/train/{NAMES[i % 4]}/{i:02}.png").write_bytes(picture(i))


def arrow():
    """Folders of `save_to_disk`, of one split and of two."""
    rows = [
        {"question": question(i), "answer": count(i), "image": {"bytes": picture(i), "path": None}} for i in range(ROWS)
    ]
    made = Dataset.from_list(rows).cast_column("image", Image())
    made.save_to_disk("arrow/one", num_shards=2)
    DatasetDict(train=made, test=made.select(range(4))).save_to_disk("arrow/splits")


def webdataset_tar():
    path = folder("webdataset")
    with webdataset.TarWriter(str(path / "squares-0000.tar"), mtime=0) as out:
        for i in range(ROWS):
            out.write({
                "__key__": f"{i:04}",
                "png": picture(i),
                "json": {"question": question(i), "answer": str(count(i))},
            })


def hub():
    """The cache of the hub after `omr download` with HF_HOME: a set with two configurations and two splits."""
    repo = folder("hub/datasets--made--squares")
    folder(repo / "refs").joinpath("main").write_text("c0ffee")
    snapshot = folder(repo / "snapshots/c0ffee")
    rows = [
        {"question": question(i), "answer": str(count(i)), "image": {"bytes": picture(i), "path": None}}
        for i in range(ROWS)
    ]
    made = Dataset.from_list(rows).cast_column("image", Image())
    for name, split, part in [("all", "train", made), ("all", "test", made.select(range(4))), ("few", "train", made.select(range(8)))]:
        folder(snapshot / name) if not (snapshot / name).exists() else None
        part.to_parquet(snapshot / name / f"{split}-00000-of-00001.parquet")
    readme = """---
configs:
- config_name: all
  default: true
  data_files:
  - split: train
    path: all/train-*
  - split: test
    path: all/test-*
- config_name: few
  data_files:
  - split: train
    path: few/train-*
---
# Squares
"""
    (snapshot / "README.md").write_text(readme)


def main():
    place = os.getcwd()
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        for write in [verl, llama_factory, trl, questions, vero, imagefolder, arrow, webdataset_tar, hub]:
            write()
        with zipfile.ZipFile(HERE / "rows.zip", "w", zipfile.ZIP_DEFLATED) as out:
            for path in sorted(Path(".").rglob("*")):
                if path.is_file() and ".cache" not in path.parts:
                    member = zipfile.ZipInfo(path.as_posix())
                    member.compress_type = zipfile.ZIP_DEFLATED
                    out.writestr(member, path.read_bytes())
        os.chdir(place)


if __name__ == "__main__":
    main()
