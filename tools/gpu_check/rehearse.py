"""Rehearses a call without a GPU, on the stand-in library (dry.py), with a job that hangs and one that fails."""
import os
import pathlib
import tempfile

from . import base, dry, plan
from .check import Check

# The job of each call that hangs, and the one that fails.
JOBS = {1: ("decode 7b, 1 of 1536, int8", "rl.yaml"), 2: ("decode 7b, 1 of 1536, LoRA", "sft.yaml, rows of 4096, LoRA")}
# The test that shows that the GPU answers would fail, as all that compare numbers.
TESTS = """#!/bin/bash
[[ $* = *{probe}* ]] || exec {tests} "$@"
"""
OMR = """#!/bin/bash
case "$*" in
  *' bench {hangs}'*) exec sleep 1000 ;;
  *' bench {fails}'*) echo 'error: a rehearsal'; exit 1 ;;
esac
exec {omr} "$@"
"""
SMI = """#!/bin/bash
case $* in *compute_cap*) echo 9.0 ;; *loop-ms*) ;; *) echo stand-in ;; esac
while [[ $* = *loop-ms* ]]; do date '+%Y/%m/%d %H:%M:%S.%3N, 1410, 699.00, 0x0000000000000004, 61'; sleep 0.1; done
"""


def script(file, text):
    file.write_text(text)
    file.chmod(0o755)


def problems(call, check):
    """Returns in what a call differs from its plan, and faults of its log that are not wrong numbers."""
    steps, order = check.record.steps, list(dict.fromkeys(step["part"] for step in check.record.steps.values()))
    hung, failed = (steps[f"bench {name}"] for name in JOBS[call])
    # After its limit a process is killed, and the GPU is asked for an answer.
    limit = sum(plan.CALLS[call][hung["part"]].values()) * check.args.minutes + base.KILL_SECONDS + plan.CANARY_SECONDS
    found = [] if order == list(plan.CALLS[call]) else [f"the parts ran as {', '.join(order)}"]
    found += [] if (hung["status"], failed["status"]) == ("cut", "red") and hung["seconds"] < limit else [f"{hung}, {failed}"]
    return found + list(dict.fromkeys(dry.OWN_REASONS.findall((check.out / f"call{call}.txt").read_text())))


def rehearse(args):
    tests, omr = dry.binaries(args.bin)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as name:
        folder = pathlib.Path(name)
        hangs, fails = (" ".join(plan.JOBS[name]) for name in JOBS[args.call])
        script(folder / "omr", OMR.format(hangs=hangs, fails=fails, omr=omr.resolve()))
        script(folder / "nvidia-smi", SMI)
        for name, path in tests.named.items():
            script(folder / name, TESTS.format(probe=plan.SANITIZER_PROBE, tests=path.resolve()))
        os.environ |= dry.stand_in(folder) | dry.variables("h200") | dry.SPARSE | {"PATH": f"{folder}:{os.environ['PATH']}"}
        args.bin, args.out, args.device = folder, args.out or folder / "out", "cuda"
        check = Check(args)
        check.all()
        found = problems(args.call, check)
    print(f"call {args.call} on a library that computes nothing, so that tests fail: {'; '.join(found) or 'order and limits are as planned'}")
    return 1 if found else 0
