"""Summarises the turns of `bench/peers/run` as results.json and README.md.

usage: python bench/peers/summary.py TURNS_DIR OUT_DIR --command TEXT --commit HASH --cpu NAME --dtype TYPE
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
from pathlib import Path

p = argparse.ArgumentParser()
p.add_argument("turns", type=Path)
p.add_argument("out", type=Path)
p.add_argument("--command", required=True)
p.add_argument("--commit", required=True)
p.add_argument("--cpu", required=True)
p.add_argument("--dtype", required=True)
a = p.parse_args()

# Speed that the project aims for on its CPU: PyTorch's time divided by omr's time.
TARGETS = {
    "f32": {("train-step", "digits"): 1.0, ("train-step", "22m"): 1.3, ("train-step", "22m, rank 16"): 1.3, ("generate", "digits"): 2.0},
    "bf16": {("train-step", "22m"): 1.0},
}[a.dtype]


def omr_turn(path):
    """Reads a turn of omr and renames its fields to those of the peer."""
    record = json.loads(path.read_text())
    row = record["rows"][0]
    row["median_ms"] = row["ours_ms"]
    row["peer"] = f"omr {record['version']} ({record['isa']})"
    return row


def together(turns):
    """Combines all turns of one side."""
    return {
        "median_ms": statistics.median(turn["median_ms"] for turn in turns),
        "min_ms": min(turn["min_ms"] for turn in turns),
        "max_ms": max(turn["max_ms"] for turn in turns),
        "cpu_ms": statistics.median(turn["cpu_ms"] for turn in turns),
        "repetitions": sum(turn["repetitions"] for turn in turns),
        "load": [turn["load"] for turn in turns],
        # For a peer that can run in several ways: the fastest way of each turn, and the minimum time of each way.
        **({"way": sorted({turn["way"] for turn in turns}),
            "ways": {way: min(turn["ways"][way] for turn in turns) for way in turns[0]["ways"]}} if "ways" in turns[0] else {}),
    }


groups, sides = {}, {}
for path in sorted(a.turns.glob("*.load")):
    path = path.with_suffix("")
    side, name, shape, threads, _ = path.name.split(".")
    turn = omr_turn(path) if side == "omr" else json.loads(path.read_text())
    turn["load"] = float(Path(f"{path}.load").read_text())
    sides[side] = turn["peer"]
    groups.setdefault((int(threads), name, shape), {"omr": [], "peer": []})[side].append(turn)

rows = []
for (threads, name, shape), found in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1] != "train-step", item[0][2] == "22m")):
    ours, theirs = found["omr"][0], found["peer"][0]
    sizes = [(turn["parameters"], turn["tokens"]) for turn in (ours, theirs)]
    if sizes[0] != sizes[1]:
        raise SystemExit(f"{name} {shape}: parameters and tokens differ, {sizes[0]} here and {sizes[1]} there")
    row = {"name": name, "shape": shape, "threads": threads, "parameters": sizes[0][0], "tokens": sizes[0][1],
           "omr": together(found["omr"]), "peer": together(found["peer"]), "target": TARGETS.get((name, shape))}
    for what in ["median", "min", "cpu"]:
        row[f"ratio_{what}"] = row["peer"][f"{what}_ms"] / row["omr"][f"{what}_ms"]
    rows.append(row)

flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
record = {
    "command": a.command, "commit": a.commit, "cpu": a.cpu, "processors": os.cpu_count(), "sides": sides,
    "python": platform.python_version(), "rustc": subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.strip(),
    "avx512": "avx512f" in flags, "dtype": a.dtype, "rows": rows,
}
a.out.mkdir(parents=True, exist_ok=True)
(a.out / "results.json").write_text(json.dumps(record, indent=1) + "\n")

busiest = max(load for row in rows for side in ("omr", "peer") for load in row[side]["load"])
lines = [
    f"# {sides['omr']} beside {sides['peer']}", "",
    f"`{a.command}` at {a.commit}, {a.cpu}, {os.cpu_count()} processors, Python {record['python']}, {record['rustc']}.", "",
    f"The same model, batch and threads, {a.dtype}, both sides in turn. Milliseconds of wall clock: the median of the turns' "
    "medians, the least and the most of all repetitions; `cpu` is processor time of all threads, a repetition's mean. "
    "A ratio is the peer's time over omr's: above 1 omr is the faster."
    + (" Of the peer the faster of bf16 weights and autocast." if a.dtype == "bf16" else ""), "",
    f"Load when a turn began: at most {busiest:g} on {os.cpu_count()} processors."
    + ("" if busiest < os.cpu_count() + 0.5 else
       " Other work shared the machine: wall clock holds its share too, and processor time on one thread compares better."),
    "", "| job | model | threads | omr median (min, max) | cpu | peer median (min, max) | cpu | ratio of medians | of minima | of cpu | wanted |",
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
]
for row in rows:
    cells = [row["name"], f"{row['shape']} ({row['parameters'] / 1e6:.2f} M)", str(row["threads"])]
    for side in ("omr", "peer"):
        found = row[side]
        cells.append(f"{found['median_ms']:.1f} ({found['min_ms']:.1f}, {found['max_ms']:.1f})")
        cells.append(f"{found['cpu_ms']:.1f}")
    cells += [f"{row[f'ratio_{what}']:.2f}" for what in ("median", "min", "cpu")]
    cells.append(f"{row['target']:.1f}" if row["target"] else "")
    lines.append("| " + " | ".join(cells) + " |")
(a.out / "README.md").write_text("\n".join(lines) + "\n")
