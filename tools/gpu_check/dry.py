"""Rehearses a day with a GPU without one, in two ways. "As on a GPU" runs the emulator behind a driver that offers
only what a real GPU offers. "On the stand-in library" runs the real driver code with a library that computes nothing,
so that only numbers may be wrong."""
import concurrent.futures
import os
import pathlib
import re
import subprocess
import tempfile
import time

from . import base, plan
from .base import ROOT, fail

# Failures that do not depend on numbers: a test requests more than a GPU has (tests/kernels/mod.rs), the program itself
# panics, omr's driver code refuses a launch, or CUDA returns an error.
OWN_REASONS = re.compile(r"not on a GPU: .*|panicked at src/.*|launch of \S+ refused.*|CUDA_ERROR\S*.*|bytes of memory wanted.*")
CARD = {"FAKE_GPUS": "9.0", "FAKE_SMEM": "232448"}
# Memory of an H200. Only the parts that the host writes are really allocated.
LARGE = {"FAKE_MEMORY": str(143_771 << 20), "FAKE_LARGEST_COPY": str(1 << 20)}
# Time limit of a test module in seconds. It includes the compilation of kernels that were never run on this machine.
SECONDS = 400


def stand_in(folder):
    """Compiles tests/cuda/driver.c as libcuda.so. Returns the environment with which a process finds it."""
    library = pathlib.Path(folder) / "libcuda.so"
    command = ["cc", "-std=gnu11", "-O1", "-shared", "-fPIC", "-pthread", "-o", str(library), str(ROOT / "tests/cuda/driver.c")]
    if subprocess.run(command).returncode != 0:
        fail("tests/cuda/driver.c does not compile")
    return {"LD_LIBRARY_PATH": str(folder), "XDG_CACHE_HOME": str(pathlib.Path(folder) / "cache"), "OMR_TEST_DEVICE": "cuda"} | CARD


def judged_as_gpu(status, output):
    counts = re.search(r"(\d+) passed; (\d+) failed", output)
    if status == 0 and counts:
        return None
    if status is None:
        return "hangs or takes too long"
    names = re.findall(r"^    (\w+::\S+)$", output, re.M)
    return f"{', '.join(dict.fromkeys(names)) or f'exit status {status}'}: {(OWN_REASONS.findall(output) or ['wrong numbers'])[0]}"


def judged_on_stand_in(status, output):
    own = OWN_REASONS.findall(output)
    if own:
        return ", ".join(dict.fromkeys(own))
    # Exit status 101 is a failed assertion of a test, which wrong numbers may cause. A signal or a hang has another
    # cause.
    return None if status in (0, 101) else "hangs or takes too long" if status is None else f"exit status {status}"


def judged_job(status, output):
    """Judges a job of the 7B model: its launches must match the plan and fit into the memory."""
    refused = re.search(r" skipped: .*", output)
    return judged_on_stand_in(status, output) or (refused and refused[0].strip()) or (None if status == 0 else base.why(status, output))


def as_gpu(jobs, only):
    tests, omr, begun, red = base.test_binary(), ROOT / "target/release/omr", time.monotonic(), []
    if "machine code" in base.images(omr):
        fail("as-card: this build contains machine code, whose arguments the stand-in library cannot read: build with PTXAS= (empty)")
    modules = only or [*plan.by_risk(base.modules(tests)), *plan.CALIBRATION, *plan.FAULTS]
    environment = os.environ | {"OMR_GOLDENS": str(ROOT / "tests/goldens")}
    for name in ("OUT", "OMR_BODY", "OMR_EMU_SITES", "OMR_EMU_SKIP"):
        environment.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        library = stand_in(folder)
        ways = [("as on a GPU", {"OMR_TEST_DEVICE": "as-card"}, judged_as_gpu),
                ("on the stand-in library", library, judged_on_stand_in)]
        work = [(way, name, [tests, f"{name}::", "--test-threads=1"]) for way in ways for name in modules]
        of_jobs = ("on the stand-in library", library | LARGE, judged_job)
        asked = {} if only else plan.SLICE | plan.JOBS
        work += [(of_jobs, name, [omr, "--device", "cuda", "bench", *words]) for name, words in asked.items()]

        def one(job):
            (what, more, judged), name, command = job
            status, output = base.run(command, SECONDS, environment | more)
            return what, name, judged(status, output), output

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for what, name, why, output in pool.map(one, work):
                if why:
                    red.append(f"{name} {what}: {why}")
                    print(f"FAILED {red[-1]}\n{output}", flush=True)
    print(f"{len(modules)} modules as on a GPU and on the stand-in library, {len(asked)} jobs of the 7B on the library,"
          f" {time.monotonic() - begun:.0f} s: {'FAILED: ' + '; '.join(red) if red else 'all passed'}")
    return 1 if red else 0
