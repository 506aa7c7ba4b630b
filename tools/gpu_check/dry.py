"""Rehearses a day with a GPU without one, in two ways. "As on a GPU" runs the emulator behind a driver that offers
only what a real GPU offers. "On the stand-in library" runs the real driver code with a library that computes nothing,
so that only numbers may be wrong."""
import concurrent.futures
import functools
import os
import pathlib
import re
import subprocess
import tempfile
import time

from . import base, plan
from .base import ROOT, fail

# Failures that do not depend on numbers: a test requests more than a GPU has (tests/runtime/kernels/mod.rs), the program itself
# panics, omr's driver code refuses a launch, or CUDA returns an error.
OWN_REASONS = re.compile(r"not on a GPU: .*|panicked at src/.*|launch of \S+ refused.*|CUDA_ERROR\S*.*|bytes of memory wanted.*")
# GPUs that the stand-in library can be: compute capability, bytes of shared memory of a CTA, and MiB of memory.
COLUMNS = {"h200": ("9.0", 232_448, 143_771), "h100": ("9.0", 232_448, 81_559), "a100": ("8.0", 166_912, 81_920),
           "a40": ("8.6", 101_376, 46_068), "4090": ("8.9", 101_376, 24_564), "5090": ("12.0", 101_376, 32_607)}
# Jobs of both released sizes that only this rehearsal runs.
STEPS = {f"{job} {shape}": [job, "--model-shape", shape, *more] for shape in ("3b", "7b") for job, more in
         {"prefill": ["--batch-size", "4"], "train-step": ["--lora-rank", "16", "--row-tokens", "2048", "--image-tokens", "512"],
          "rl-step": ["--lora-rank", "16"]}.items()}
# Variables of the jobs. Only the parts of a GPU's memory that the host writes are really allocated.
SPARSE = {"FAKE_LARGEST_COPY": str(1 << 20)}
# Reason of a job that `omr plan` rejects for this GPU.
TOO_LARGE = re.compile(r" skipped: takes \S+ \S+ of .*|^error: memory: found a run that needs at least .*", re.M)
# Reason of a job whose optimizer state does not fit into the memory of this machine. The machine with the GPU may have more.
HOST_TOO_SMALL = re.compile(r" skipped: optimizer_offload: .*the free memory of the host.*")
# Time limit of a test module in seconds. It includes the compilation of kernels that were never run on this machine.
SECONDS = 400


def stand_in(folder):
    """Compiles tests/app/cuda/driver.c as libcuda.so. Returns the environment with which a process finds it."""
    library = pathlib.Path(folder) / "libcuda.so"
    command = ["cc", "-std=gnu11", "-O1", "-shared", "-fPIC", "-pthread", "-o", str(library), str(ROOT / "tests/app/cuda/driver.c")]
    if subprocess.run(command).returncode != 0:
        fail("tests/app/cuda/driver.c does not compile")
    return {"LD_LIBRARY_PATH": str(folder), "XDG_CACHE_HOME": str(pathlib.Path(folder) / "cache"), "OMR_TEST_DEVICE": "cuda"}


def variables(column):
    """Returns the variables of the stand-in library for a GPU of `COLUMNS`."""
    capability, shared, memory = COLUMNS[column]
    return {"FAKE_GPUS": capability, "FAKE_SMEM": str(shared), "FAKE_MEMORY": str(memory << 20)}


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


def judged_job(status, output, required):
    """Judges a job of the 7B model: its launches must match the plan. A `required` job must fit into the memory of the
    GPU. Returns why it failed, and whether it does not fit into the GPU or this machine."""
    unfit = [HOST_TOO_SMALL] if required else [HOST_TOO_SMALL, TOO_LARGE]
    too_large = any(pattern.search(output) for pattern in unfit)
    for pattern in unfit if too_large else []:
        status, output = 0, pattern.sub("", output)
    refused = re.search(r" skipped: .*", output)
    why = judged_on_stand_in(status, output) or (refused and refused[0].strip()) or (None if status == 0 else base.why(status, output))
    return why, bool(too_large)


def required(column, name):
    """True if a job must fit into the memory of a GPU of `COLUMNS`."""
    memory = COLUMNS[column][2]
    return memory >= plan.LARGE or name in (plan.FITS if memory > 80_000 else list(plan.FITS)[:1])


def work(modules, columns, library, tests, omr, asked):
    """Lists what is run: name, where it runs, command, variables, and the function that returns why it failed and whether
    it does not fit. The emulator runs the modules once, and each kind of kernels and of shared memory once."""
    module = lambda name: [tests.of(f"{name}::"), f"{name}::", "--test-threads=1"]  # noqa: E731
    alone = lambda judge: lambda *done: (judge(*done), False)  # noqa: E731
    found = [(name, "as on a GPU", module(name), {"OMR_TEST_DEVICE": "as-card"}, alone(judged_as_gpu)) for name in modules]
    seen = set()
    for column in columns:
        gpu = variables(column)
        kind = gpu["FAKE_GPUS"], gpu["FAKE_SMEM"]
        ours = [name for name in modules if kind not in seen and (kind[0] == "9.0" or not re.search("sm90a|wgmma", name))]
        seen.add(kind)
        # The memory is given to jobs only, because a test asks for more than it uses.
        small = library | {key: gpu[key] for key in ("FAKE_GPUS", "FAKE_SMEM")}
        found += [(name, f"as {column}", module(name), small, alone(judged_on_stand_in)) for name in ours]
        found += [(name, f"as {column}", [omr, "--device", "cuda", "bench", *words], library | gpu | SPARSE,
                   functools.partial(judged_job, required=required(column, name))) for name, words in asked.items()]
    return found


def binaries(given):
    tests, omr = (base.Tests(given.glob("omr-*-tests")), given / "omr") if given else (base.built_tests(), ROOT / "target/release/omr")
    if "machine code" in base.images(omr):
        fail("as-card: this build contains machine code, whose arguments the stand-in library cannot read: build with PTXAS= (empty)")
    return tests, omr


def as_gpu(jobs, only, columns, given):
    tests, omr = binaries(given)
    begun, red = time.monotonic(), []
    modules = only or [*plan.by_risk(tests.modules()), *plan.CALIBRATION, *plan.FAULTS]
    environment = dict(os.environ)
    for name in ("OUT", "OMR_GOLDENS", "OMR_BODY", "OMR_EMU_SITES", "OMR_EMU_SKIP"):
        environment.pop(name, None)
    asked = {} if only else {name: words for name, words in (plan.SLICE | plan.JOBS | STEPS).items() if name not in plan.NOT_YET}
    large = {column: 0 for column in columns}
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:

        def one(job):
            name, where, command, more, judged = job
            status, output = base.run(command, SECONDS, environment | more)
            return name, where, *judged(status, output), output

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for name, where, why, too_large, output in pool.map(one, work(modules, columns, stand_in(folder), tests, omr, asked)):
                if too_large:
                    large[where.removeprefix("as ")] += 1
                if why:
                    red.append(f"{name} {where}: {why}")
                    print(f"FAILED {red[-1]}\n{output}", flush=True)
    shown = ", ".join(f"{column} (the GPU or this machine is too small for {large[column]})" for column in columns)
    print(f"{len(modules)} modules as on a GPU, and with {len(asked)} jobs of the 7B on the stand-in library as {shown};"
          f" {time.monotonic() - begun:.0f} s: {'FAILED: ' + '; '.join(red) if red else 'all passed'}")
    return 1 if red else 0
