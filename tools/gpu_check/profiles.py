"""Profiles the slowest ops with Nsight Compute and stores its findings as text, because few readers have the program that
opens its reports."""
import pathlib
import re
import shutil
import sys

from . import tables
from .base import ROOT, why

# Ops to profile if no measurement is recorded yet.
ELSE = ["linear", "attention", "adamw"]
# Number of launches to profile per op. An op has one to five kernels.
LAUNCHES = 6
# Time limit in seconds of a profile.
PROFILE = 60


def slowest(record, count=3):
    """Returns the names of the ops (for `omr bench`) that are furthest behind their peer or prediction, or ELSE."""
    ops, _ = tables.timed(record.rows())
    return list(dict.fromkeys(f"{row['name']} {row['shape']}" for row in tables.gaps(ops)))[:count] or ELSE


def profiles(check, part, _):
    with check.step(part, "profiles") as made:
        if made is None:
            return
        if not check.on_gpu or not shutil.which("ncu"):
            made |= {"status": "skipped", "notes": ["ncu " + ("is absent" if check.on_gpu else "needs a GPU")]}
            return
        folder = check.scratch / "profiles"
        folder.mkdir(exist_ok=True)
        texts = []
        for i, case in enumerate(slowest(check.record)):
            file = folder / f"{i}-{re.sub(r'[^a-z0-9_]+', '-', case.lower()).strip('-')}"
            command = [sys.executable, ROOT / "tools/profile", "ncu", case, "--count", LAUNCHES, "--out", file]
            status, output = check.run(command, PROFILE, OMR=str(check.omr))
            text = pathlib.Path(f"{file}.txt")
            if text.exists():
                texts.append(f"{case}\n{text.read_text()}")
            else:
                made["notes"].append(f"{case}: no profile: {why(status, output)}")
        (check.out / "profiles.txt").write_text("\n".join(texts))
        made["notes"].insert(0, f"{len(texts)} profiles in profiles.txt")
        if not texts:
            made["status"] = "cut"
