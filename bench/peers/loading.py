"""Measures the loading of rows with JPEGs: Hugging Face `datasets`, DataLoader and processor, and omr, alternately on the same
files.

usage: python bench/peers/loading.py --model DIR [--omr target/release/omr] [--threads 2] [--rounds 3] [--rows 400]
                                     [--out DIR] [--layouts]

Makes ROWS rows with one JPEG of 0.3 to 4 megapixels each, and rows of 200 and of 6,000 characters without an image.
Writes DIR/loading.json and DIR/README.md. The tokenizer is that of the --model folder; the image processor is that of
Qwen2.5-VL as published.

With --layouts only omr is measured, on ROWS rows with an embedded PNG of 150 KB, in three parquet layouts written by pyarrow,
alternately. Writes DIR/layouts.json.
"""
import argparse
import datetime
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import results

PROCESSOR = {
    "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
}
LAYOUTS = {"default": {}, "groups of 100": {"row_group_size": 100}, "page index": {"write_page_index": True}}
WORDS = "the of angle is number and a circle has radius so that equation we find value by sum area each".split()


def make(folder, rows):
    """Makes a folder with pictures.jsonl, short.jsonl and long.jsonl, whose rows have `messages`."""
    import numpy
    from PIL import Image

    draw = numpy.random.default_rng(1)
    os.makedirs(folder, exist_ok=True)

    def text(characters):
        out = []
        while sum(map(len, out)) + len(out) < characters:
            out.append(WORDS[draw.integers(len(WORDS))] if draw.random() < 0.8 else str(draw.integers(1000)))
        return " ".join(out)[:characters]

    def write(name, count, characters, image):
        with open(os.path.join(folder, name), "w") as file:
            for i in range(count):
                question = [{"type": "text", "text": text(characters // 4)}]
                if image:
                    question.insert(0, {"type": "image_url", "image_url": {"url": f"{i}.jpg"}})
                answer = [{"type": "text", "text": text(characters * 3 // 4)}]
                messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
                file.write(json.dumps({"id": str(i), "messages": messages}) + "\n")

    for i in range(rows):
        pixels = 0.3e6 * (4 / 0.3) ** (i / rows)
        width = int((pixels * (1.0, 1.5, 0.7)[i % 3]) ** 0.5)
        height = int(pixels / width)
        y, x = numpy.mgrid[0:height, 0:width]
        noise = draw.integers(0, 32, (height, width))
        planes = [(x // 97 + y // 61) % 2 * 200 + noise, x * 255 // width, y * 255 // height]
        Image.fromarray(numpy.stack(planes, -1).astype("uint8")).save(os.path.join(folder, f"{i}.jpg"), quality=85)
    write("pictures.jsonl", rows, 800, True)
    write("short.jsonl", 20000, 200, False)
    write("long.jsonl", 2000, 6000, False)


def cpu():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def load(backend, model, folder, threads):
    """Runs one turn of Hugging Face. Measures the seconds from the first image to the last sample."""
    import datasets
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLProcessor, Qwen2VLVideoProcessor

    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(model)
    images = AutoImageProcessor.from_pretrained(model, backend=backend)
    assert backend[:3].lower() in type(images).__name__.lower() or backend == "torchvision", type(images)
    processor = Qwen2_5_VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=tokenizer.chat_template)
    data = datasets.load_dataset("json", data_files=os.path.join(folder, "pictures.jsonl"), split="train",
                                 cache_dir=os.path.join(folder, "cache"))

    def sample(rows):
        messages = rows[0]["messages"]
        urls = [part["image_url"]["url"] for m in messages for part in m["content"] if part.get("image_url")]
        for message in messages:
            for part in message["content"]:
                if part["type"] == "image_url":
                    part["type"] = "image"
        text = processor.apply_chat_template(messages, tokenize=False)
        images = [Image.open(os.path.join(folder, url)).convert("RGB") for url in urls]
        out = processor(text=[text], images=images, return_tensors="pt")
        return out["input_ids"].shape, out["pixel_values"]

    loader = torch.utils.data.DataLoader(data, batch_size=1, num_workers=threads, collate_fn=sample, prefetch_factor=16)
    begun, tokens = time.perf_counter(), 0
    for shape, pixels in loader:
        tokens += shape[1]
        assert pixels.dtype == torch.float32
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "cpu_seconds": cpu(), "rows": len(data), "tokens": tokens,
            "processor": type(images).__name__}


def tokenize(model, folder, name, threads):
    """Runs one turn of `tokenizers`: encodes texts in batches. The template is applied before the measurement."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    path = os.path.join(folder, name)
    texts = [tokenizer.apply_chat_template(json.loads(line)["messages"], tokenize=False) for line in open(path)]
    begun, tokens = time.perf_counter(), 0
    for first in range(0, len(texts), 1024):
        batch = tokenizer.backend_tokenizer.encode_batch(texts[first:first + 1024])
        tokens += sum(len(encoding.ids) for encoding in batch)
    return {"seconds": time.perf_counter() - begun, "rows": len(texts), "tokens": tokens,
            "bytes": os.path.getsize(path)}


def omr(binary, model, folder, name, threads):
    """Runs one turn of omr."""
    out = os.path.join(folder, "omr.json")
    command = [binary, "--quiet", "--threads", str(threads), "bench", "loading", "--model", model, "--data",
               os.path.join(folder, name), "--json", out]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.load(open(out))


def turns(options, folder, model):
    """Runs all turns, alternating between the sides."""
    child = [sys.executable, os.path.abspath(__file__), "--model", model, "--threads", str(options.threads), "--data", folder]
    found = {}
    for _ in range(options.rounds):
        def note(side, record):
            record["load"] = os.getloadavg()[0]
            found.setdefault(side, []).append(record)
        for name in ("pictures", "short", "long"):
            note(f"omr {name}", omr(options.omr, model, folder, name + ".jsonl", options.threads))
        for side in ("pil", "torchvision", "short", "long"):
            out = subprocess.run(child + ["--side", side], check=True, stdout=subprocess.PIPE, text=True).stdout
            note(side, json.loads(out.splitlines()[-1]))
    return found


def report(options, found, out):
    """Writes loading.json and README.md."""
    best = {side: min(r.get("loading", r)["seconds"] for r in records) for side, records in found.items()}
    index = {s: min(r["indexing"]["seconds"] for r in found[f"omr {s}"]) for s in ("short", "long")}
    first = {side: records[0] for side, records in found.items()}
    # Both sides use the same template and tokenizer, so they must count the same tokens. The only difference is the
    # newline after the last message, which is not trained on.
    ends = {side: first[side]["tokens"] - first[side]["rows"] * (side != "omr pictures") for side in ("omr pictures", "pil", "torchvision")}
    assert len(set(ends.values())) == 1, ends
    lines = [
        "# Rows to samples beside Hugging Face", "",
        f"`{options.command}`, commit {options.commit}, {options.cpu}, {options.threads} threads or workers; best of "
        f"{options.rounds} turns each, one after another; the load beside each turn is in `loading.json`.", "",
        f"{first['pil']['rows']} rows with a JPEG of 0.3 to 4 megapixels: decoded, resized, cut into patches, tokens made.", "",
        "| | ms an image | omr = 1 |", "| --- | ---: | ---: |",
    ]
    for side, what in (("omr pictures", "omr"), ("pil", first["pil"]["processor"]), ("torchvision", first["torchvision"]["processor"])):
        each = best[side] / first["pil"]["rows"] * 1e3
        lines.append(f"| {what} | {each:.1f} | {best[side] / best['omr pictures']:.2f} |")
    lines += ["", "Rows of text: omr's index (rows read, template, tokens, hashes) beside `tokenizers` on texts that are "
              "read and have their template.", "", "| characters a row | omr rows/s | omr MB/s | tokenizers rows/s | tokenizers MB/s |",
              "| --- | ---: | ---: | ---: | ---: |"]
    for side, characters in (("short", 200), ("long", 6000)):
        rows, size = first[side]["rows"], first[side]["bytes"]
        figures = [f"{rows / s:.0f} | {size / s / 1e6:.1f}" for s in (index[side], best[side])]
        lines.append(f"| {characters} | {' | '.join(figures)} |")
    record = {"command": options.command, "commit": options.commit, "cpu": options.cpu, "turns": found}
    results.write(out, "loading.json", record, lines)
    print("\n".join(lines))


def layouts(options, folder, model, out):
    """Writes the same table to one file per layout and measures omr on each: layouts.json and README.md."""
    import io
    import numpy
    import pyarrow.parquet
    from PIL import Image

    draw, rows = numpy.random.default_rng(1), []
    for i in range(options.rows):
        png = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (223, 223, 3), numpy.uint8)).save(png, "PNG")
        messages = [{"role": "user", "content": f"<image>What is number {i}?"}, {"role": "assistant", "content": f"It is {i}."}]
        rows.append({"id": str(i), "messages": messages, "images": [{"bytes": png.getvalue(), "path": f"{i}.png"}]})
    for name, keys in LAYOUTS.items():
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), os.path.join(folder, name + ".parquet"), **keys)
    found = {name: [] for name in LAYOUTS}
    for _ in range(options.rounds):
        for name, turns in found.items():
            turns.append(omr(options.omr, model, folder, name + ".parquet", options.threads))
    median = lambda name, part: statistics.median(turn[part]["seconds"] for turn in found[name])
    record = {"command": options.command, "commit": options.commit, "cpu": options.cpu, "pyarrow": pyarrow.__version__, "rows": options.rows,
              "threads": options.threads, "load": os.getloadavg()[0],
              "layouts": {name: {part: median(name, part) for part in ("loading", "indexing")} for name in LAYOUTS}}
    lines = ["# Layouts of parquet", "", f"`{options.command}`, commit {options.commit}, {options.cpu}; medians of {options.rounds} turns, the layouts "
             f"in turn, in seconds for {options.rows} rows. `indexing` holds the copy of rows that are costly to read one by one."]
    results.write(out, "layouts.json", record, lines)
    print(json.dumps(record["layouts"]))


def main():
    arguments = argparse.ArgumentParser(usage=__doc__)
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--omr", default="target/release/omr")
    arguments.add_argument("--threads", type=int, default=os.cpu_count())
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--rows", type=int, default=400)
    arguments.add_argument("--out")
    arguments.add_argument("--layouts", action="store_true")
    arguments.add_argument("--side")
    arguments.add_argument("--data")
    options = arguments.parse_args()
    if options.side in ("pil", "torchvision"):
        return print(json.dumps(load(options.side, options.model, options.data, options.threads)))
    if options.side:
        return print(json.dumps(tokenize(options.model, options.data, options.side + ".jsonl", options.threads)))
    git = lambda *words: subprocess.run(("git",) + words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    options.commit = git("rev-parse", "--short", "HEAD")
    options.cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())[1]
    options.command = "bench/peers/loading.py --model DIR" + "".join(f" --{k} {getattr(options, k)}" for k in ("threads", "rounds", "rows"))
    options.command += " --layouts" * options.layouts
    slug = re.sub(r"[^a-z0-9]+", "-", options.cpu.lower()).strip("-")
    day = datetime.date.today().isoformat()
    out = options.out or f"bench/results/{day}-{slug}-{options.commit}-{'layouts' if options.layouts else 'loading'}"
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model")
        shutil.copytree(options.model, model)
        with open(os.path.join(model, "preprocessor_config.json"), "w") as file:
            json.dump(PROCESSOR, file)
        if options.layouts:
            return layouts(options, folder, model, out)
        make(folder, options.rows)
        report(options, turns(options, folder, model), out)


if __name__ == "__main__":
    main()
