"""Profiles the slowest ops with Nsight Compute and stores the reasons it reports as text, because few readers have the
program that opens its reports."""
import csv
import re
import shutil
import sys

from . import tables
from .base import ROOT, why

# Ops to profile if no measurement is recorded yet.
ELSE = ["linear", "attention", "adamw"]
# Number of launches to profile per op. An op has one to five kernels.
LAUNCHES = 6
# Time limits in seconds of making a profile and of reading it.
PROFILE, READ = 60, 30
# Upper bound on the size of a file that a lent machine returns.
LARGEST = 16 << 20

# Columns of `--page raw`, which has metric names and base units. The factor converts nanoseconds to microseconds.
METRICS = {"us": ("gpu__time_duration.sum", 1e-3), "sm_percent": ("sm__throughput.avg.pct_of_peak_sustained_elapsed", 1.0),
           "memory_percent": ("gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed", 1.0),
           "occupancy_percent": ("sm__warps_active.avg.pct_of_peak_sustained_active", 1.0),
           "registers": ("launch__registers_per_thread", 1.0)}
STALL = re.compile(r"smsp__average_warps_issue_stalled_(\w+)_per_issue_active\.ratio$")


def csv_rows(output):
    """Returns the rows of the launches from a page that ncu printed as CSV. Messages before the header and the row of
    units are skipped."""
    lines = output.splitlines(keepends=True)
    begin = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    found = []
    try:
        for row in csv.DictReader(lines[begin:]):
            if (row.get("ID") or "").isdigit():
                found.append(row)
    except csv.Error:
        # The rows that were read before the error are kept.
        pass
    return found


def value(text):
    try:
        return float((text or "").replace(",", ""))
    except ValueError:
        return None


def reasons(raw, details):
    """Returns a row per kernel: the metrics of its longest launch, the most frequent stalls of its warps, and the
    advice of ncu's rules."""
    found = {}
    for row in csv_rows(raw):
        figures = {key: value(row.get(name)) for key, (name, _) in METRICS.items()}
        figures = {key: round(figure * METRICS[key][1], 3) for key, figure in figures.items() if figure is not None}
        stalls = {match[1]: value(row[name]) for name in row if name and (match := STALL.match(name))}
        # `selected` is not a stall, because the warp issues an instruction. Metrics ending in `_not_issued` are part of
        # another metric.
        stalls = {what: ratio for what, ratio in stalls.items() if ratio and what != "selected" and not what.endswith("_not_issued")}
        top = sorted(((ratio, what) for what, ratio in stalls.items()), reverse=True)[:5]
        made = {"kernel": row.get("Kernel Name") or "?", "id": row["ID"], **figures,
                "stalls": {what: round(ratio, 3) for ratio, what in top}, "rules": []}
        known = found.get(made["kernel"])
        if known is None or known.get("us", 0.0) < made.get("us", 0.0):
            found[made["kernel"]] = made
    launches = {made["id"]: made for made in found.values()}
    for row in csv_rows(details):
        if row.get("Rule Name") and row["ID"] in launches:
            speedup = f" (estimated speedup {row['Estimated Speedup']} %)" if row.get("Estimated Speedup") else ""
            rule = f"{row['Rule Name']}: {' '.join((row.get('Rule Description') or '').split())}{speedup}"
            launches[row["ID"]]["rules"].append(rule)
    return [{key: kept for key, kept in made.items() if key != "id"} for made in found.values()]


def slowest(record, count=3):
    """Returns the names, as `omr bench` uses them, of the ops that are furthest behind their peer or prediction.
    Returns ELSE if there are none."""
    ops, _ = tables.timed(record.rows())
    return list(dict.fromkeys(f"{row['name']} {row['shape']}" for row in tables.gaps(ops)))[:count] or ELSE


def profiles(check, part):
    with check.step(part, "profiles") as made:
        if made is None:
            return
        if not check.on_gpu or not shutil.which("ncu"):
            made |= {"status": "skipped", "notes": ["ncu " + ("is absent" if check.on_gpu else "needs a GPU")]}
            return
        folder = check.scratch / "profiles"
        folder.mkdir(exist_ok=True)
        made["reasons"] = []
        for i, case in enumerate(slowest(check.record)):
            file = folder / f"{i}-{re.sub(r'[^a-z0-9_]+', '-', case.lower()).strip('-')}.ncu-rep"
            command = [sys.executable, ROOT / "tools/profile", "ncu", case, "--count", LAUNCHES, "--out", file]
            status, output = check.run(command, PROFILE, OMR=str(check.omr))
            if not file.exists():
                made["notes"].append(f"{case}: no profile: {why(status, output)}")
                continue
            shown = ["ncu", "--import", file, "--csv", "--print-units", "base", "--page"]
            raw, details = [check.run([*shown, page], READ)[1] for page in ("raw", "details")]
            made["reasons"] += [{"case": case} | found for found in reasons(raw, details)]
            if not made["reasons"] or made["reasons"][-1]["case"] != case:
                made["notes"].append(f"{case}: the output of ncu contains no kernel")
        packed(check, folder, made)
        made["notes"].insert(0, f"{len({found['case'] for found in made['reasons']})} profiles read")
        if not made["reasons"]:
            made["status"] = "cut"


def packed(check, folder, made):
    """Packs the reports themselves, if they can be packed and are small enough to be returned."""
    file = check.out / "profiles.tar.zst"
    if not any(folder.iterdir()):
        return
    if check.run(["tar", "--zstd", "-cf", file, "-C", folder, "."], READ)[0] != 0:
        made["notes"].append("tar cannot pack the profiles, because zstd is missing")
    elif file.stat().st_size > LARGEST:
        made["notes"].append(f"the packed profiles are {file.stat().st_size >> 20} MiB, which is too large to be returned")
    else:
        return
    file.unlink(missing_ok=True)
