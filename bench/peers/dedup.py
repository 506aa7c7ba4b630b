"""Removes duplicates among generated rows with omr and with the same rules in numpy and Pillow, alternately on the same files.

usage: python bench/peers/dedup.py [--omr target/release/omr] [--threads 2] [--rounds 1] [--rows 100000] [--out DIR]

tests/app/pipeline/dedup.rs makes the rows, as for `bench/tools/data-at-size --dedup`: a tenth are duplicates of other rows, a hundredth
are rows of a benchmark. Both sides remove them. The numpy side copies the remaining lines, whereas omr writes parquet and a
page. Times are those of whole processes with the same number of threads or processes. Writes DIR/dedup.json and DIR/README.md.
"""
import argparse
import base64
import datetime
import io
import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import tempfile
import time

import results

TEXT, DISTANCE, CORRELATION, PART, HASHES, BAND = 0.99, 8, 0.95, 5, 64, 4
NUMBERING = re.compile(r"^\s*(?:(?:question|problem|exercise|q|no)\.?\s*\d{1,5}\s*[.):\-]?\s+|[(\[#]?\d{1,5}\s*[.):\]]+\s+)")
MARKS = str.maketrans({**dict.fromkeys("\u2018\u2019\u201c\u201d\"", "'"), **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
                       **dict.fromkeys("\u200b\ufeff\u00ad", None)})


def fold(text):
    text = NUMBERING.sub("", text.replace("<image>", " ").replace("<video>", " ").lower())
    text = re.sub(r"\s+", " ", text.translate(MARKS)).strip()
    return re.sub(r"(?<![^\W_]) | (?![^\W_])", "", text)


def parts(text):
    """Returns the distinct hashes of all substrings of five characters."""
    import numpy

    points = numpy.frombuffer(text.encode("utf-32-le"), numpy.uint32).astype(numpy.uint64)
    windows = numpy.lib.stride_tricks.sliding_window_view(points, min(PART, len(points))) if len(points) else points[:, None]
    found = numpy.full(len(windows), 0xcbf29ce484222325, numpy.uint64)
    for column in windows.T:
        found = (found ^ column) * numpy.uint64(0x100000001b3)
    return numpy.unique((found ^ (found >> numpy.uint64(33))) * numpy.uint64(0xff51afd7ed558ccd))


def look(line):
    """Computes the features by which a row is compared: id, folded text, numbers, bands of the text, hash and cells of
    the image."""
    import numpy
    from PIL import Image

    row = json.loads(line)
    text = fold(row["problem"])
    multiples = numpy.random.default_rng(1).integers(0, 2**63, HASHES, numpy.uint64) * numpy.uint64(2) + numpy.uint64(1)
    least = ((parts(text)[:, None] * multiples) >> numpy.uint64(32)).min(0, initial=2**32 - 1).astype(numpy.uint32)
    bands = [hash(band.tobytes()) for band in least.reshape(-1, BAND)]
    images = []
    for image in row["images"]:
        small = Image.open(io.BytesIO(base64.b64decode(image["bytes"]))).convert("L").resize((9, 8), Image.Resampling.BOX)
        cells = numpy.asarray(small, numpy.float32)
        bits = numpy.packbits(cells[:, 1:] > cells[:, :-1] + 2, bitorder="little")
        images.append((int(bits.view(numpy.uint64)[0]), cells.astype(numpy.uint8).ravel()))
    return row["id"], text, re.findall(r"[0-9]+", text), bands, images


def pairs_in_bands(rows, texts, numbers):
    """Yields pairs of similar rows: they share a band of the text and a band of the first image's hash, and their
    images correlate."""
    import numpy

    hashes = numpy.array([row[4][0][0] if row[4] else 0 for row in rows], numpy.uint64)
    has = numpy.array([len(row[4]) for row in rows])
    cells = numpy.stack([row[4][0][1] if row[4] else numpy.zeros(72, numpy.uint8) for row in rows])
    bands = numpy.array([row[3] for row in rows], numpy.int64)
    for text_band in range(bands.shape[1] + 1):
        text = texts if text_band == 0 else bands[:, text_band - 1]
        for band in range(DISTANCE + 1):
            start, end = 64 * band // (DISTANCE + 1), 64 * (band + 1) // (DISTANCE + 1)
            piece = (hashes >> numpy.uint64(start)) & numpy.uint64((1 << (end - start)) - 1)
            rest = numpy.nonzero((band == 0) | (has > 0))[0]
            keys = mixed(text[rest], numbers[rest], has[rest], piece[rest])
            order = numpy.argsort(keys)
            rest, keys = rest[order], keys[order]
            for distance in range(1, len(rest)):
                same = keys[distance:] == keys[:-distance]
                if not same.any():
                    break
                one, other = rest[:-distance][same], rest[distance:][same]
                near = numpy.bitwise_count(hashes[one] ^ hashes[other]) <= DISTANCE
                one, other = one[near], other[near]
                goes = correlated(cells[one], cells[other])
                yield from zip(one[goes].tolist(), other[goes].tolist())


def mixed(*words):
    """Mixes several words into one hash."""
    import numpy

    found = numpy.zeros(len(words[0]), numpy.uint64)
    for word in words:
        found = (found ^ word.astype(numpy.uint64)) * numpy.uint64(0xff51afd7ed558ccd)
        found ^= found >> numpy.uint64(33)
    return found


def correlated(one, other):
    import numpy

    one, other = one.astype(numpy.float32), other.astype(numpy.float32)
    means = numpy.abs(one.mean(1) - other.mean(1))
    one, other = one - one.mean(1, keepdims=True), other - other.mean(1, keepdims=True)
    xx, yy, xy = (one * one).mean(1), (other * other).mean(1), (one * other).mean(1)
    flat = (xx < 1) & (yy < 1)
    return numpy.where(flat, means <= 4, (xx >= 1) & (yy >= 1) & (xy >= CORRELATION * numpy.sqrt(xx * yy)))


def numpy_side(folder, threads):
    """Runs the whole job in numpy. Returns the ids of the removed rows, by reason."""
    lines = []
    for name in ("benchmark", "rows"):
        with open(os.path.join(folder, name + ".jsonl")) as file:
            lines.append(file.read().splitlines())
    first = len(lines[0])
    with multiprocessing.Pool(threads) as pool:
        rows = pool.map(look, lines[0] + lines[1], chunksize=256)
    import numpy

    texts = numpy.array([hash(row[1]) for row in rows], numpy.int64)
    numbers = numpy.array([hash(tuple(row[2])) for row in rows], numpy.int64)
    root = list(range(len(rows)))

    def find(row):
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for one, other in pairs_in_bands(rows, texts, numbers):
        one, other = sorted((find(one), find(other)))
        if one != other and (texts[one] == texts[other] or alike(rows[one][1], rows[other][1])):
            root[other] = one
    gone = {"benchmark": [], "duplicate": []}
    with open(os.path.join(folder, "numpy.jsonl"), "w") as out:
        for row in range(first, len(rows)):
            if find(row) == row:
                out.write(lines[1][row - first] + "\n")
            else:
                gone["benchmark" if find(row) < first else "duplicate"].append(rows[row][0])
    return gone


def alike(one, other):
    import numpy

    one, other = parts(one), parts(other)
    common = len(numpy.intersect1d(one, other, assume_unique=True))
    return common >= TEXT * (len(one) + len(other) - common)


def turn(command, **options):
    """Runs a process and returns its seconds and CPU seconds, children included, and the load before it."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    load = os.getloadavg()[0]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": wall, "cpu_seconds": cpu, "load": load}


def judged(gone, planted):
    """Computes precision and recall of the duplicates, and the number of benchmark rows found."""
    found, doubles = set(gone["duplicate"]), set(planted["doubles"])
    benchmark, wanted = set(gone["benchmark"]), set(planted["benchmark"])
    return {"precision": len(found & doubles) / max(len(found), 1), "recall": len(found & doubles) / len(doubles),
            "benchmark_found": len(benchmark & wanted), "benchmark_wrong": len(benchmark - wanted),
            "benchmark": len(wanted)}


def turns(options, folder):
    planted = json.load(open(os.path.join(folder, "planted.json")))
    config = os.path.join(folder, "dedup.yaml")
    with open(config, "w") as file:
        file.write("datasets: [%s/rows.jsonl]\nagainst: [%s/benchmark.jsonl]\n" % (folder, folder))
    found = {"omr": [], "numpy": []}
    for k in range(options.rounds):
        out = os.path.join(folder, f"omr-{k}")
        record = turn([options.omr, "--quiet", "--threads", str(options.threads), "data", "dedup", config, "--out", out])
        gone = {"benchmark": [], "duplicate": []}
        for line in open(os.path.join(out, "rejected.jsonl")):
            line = json.loads(line)
            gone[line["reason"]].append(line["id"])
        found["omr"].append({**record, **judged(gone, planted)})
        # All processes need the same seed of Python's hashes. Libraries must not start threads of their own.
        env = {**os.environ, "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}
        gone = os.path.join(folder, "gone.json")
        command = [sys.executable, os.path.abspath(__file__), "--threads", str(options.threads), "--numpy", folder]
        record = turn(command, env=env)
        found["numpy"].append({**record, **judged(json.load(open(gone)), planted)})
    return found


def report(options, found, out):
    import numpy
    import PIL

    record = {"command": options.command, "commit": options.commit, "cpu": options.cpu, "rows": options.rows,
              "threads": options.threads, "numpy": numpy.__version__, "pillow": PIL.__version__, "turns": found}
    lines = ["# Doubles beside numpy", "", f"`{options.command}`, commit {options.commit}, {options.cpu}, {options.threads} threads or "
             f"processes, numpy {numpy.__version__}, Pillow {PIL.__version__}; best of {options.rounds} turns each.", "",
             "| | precision | recall | benchmark rows found | seconds | CPU seconds |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for side, records in found.items():
        best = min(records, key=lambda r: r["seconds"])
        lines.append(f"| {side} | {best['precision']:.4f} | {best['recall']:.4f} | {best['benchmark_found']} of {best['benchmark']}"
                     f" | {best['seconds']:.1f} | {best['cpu_seconds']:.1f} |")
    results.write(out, "dedup.json", record, lines)
    print("\n".join(lines))


def main():
    arguments = argparse.ArgumentParser(usage=__doc__)
    arguments.add_argument("--omr", default="target/release/omr")
    arguments.add_argument("--threads", type=int, default=os.cpu_count())
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--out")
    arguments.add_argument("--numpy", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.numpy:
        with open(os.path.join(options.numpy, "gone.json"), "w") as file:
            return json.dump(numpy_side(options.numpy, options.threads), file)
    git = lambda *words: subprocess.run(("git",) + words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    options.commit = git("rev-parse", "--short", "HEAD")
    options.cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())[1]
    options.command = "bench/peers/dedup.py" + "".join(f" --{k} {getattr(options, k)}" for k in ("threads", "rounds", "rows"))
    slug = re.sub(r"[^a-z0-9]+", "-", options.cpu.lower()).strip("-")
    out = options.out or f"bench/results/{datetime.date.today().isoformat()}-{slug}-{options.commit}-dedup"
    with tempfile.TemporaryDirectory() as folder:
        test = ["cargo", "test", "--release", "--test", "omr", "--", "--ignored", "--exact", "pipeline::dedup::planted_files"]
        env = {**os.environ, "OMR_PLANTED": folder, "OMR_ROWS": str(options.rows)}
        subprocess.run(test, check=True, stdout=subprocess.DEVNULL, env=env)
        report(options, turns(options, folder), out)


if __name__ == "__main__":
    main()
