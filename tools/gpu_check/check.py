"""One call on one device: its steps, each within the time of its part and of the call."""
import contextlib
import datetime
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback

from . import base, plan
from .base import ROOT, fail, said
from .pack import BINARIES
from .parts import PARTS
from .record import Record
from .verdicts import kept


# Printed words for the states in results.json.
WORDS = {"green": "passed", "red": "failed", "cut": "cut short", "skipped": "skipped"}


class Check:
    def __init__(self, args):
        self.args, self.on_gpu, self.begun = args, args.device == "cuda", time.monotonic()
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="gpu-check-scratch-"))
        self.deadline = self.end = float("inf")
        commit = self.binaries(args.bin)
        gpu = self.name()
        self.out = args.out or self.folder(gpu, commit)
        self.out.mkdir(parents=True, exist_ok=True)
        call = f"call{args.call}" if args.call else "log"
        self.log = (self.out / f"{call}.txt").open("a")
        self.environment = os.environ | {"OMR_TEST_DEVICE": args.device, "OMR_GOLDENS": str(ROOT / "tests/goldens"),
                                         "PYTHONUNBUFFERED": "1"}
        self.python = os.environ.get("PYTHON", "python3")
        build = hashlib.sha256(self.tests.read_bytes()).hexdigest()[:16]
        identity = {"device": args.device, "gpu": gpu, "commit": commit, "build": build,
                    "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}"}
        self.record = Record(self.out, identity, [])
        self.record.earlier()

    def binaries(self, asked):
        """Finds the binaries to run. Returns the commit they were built from."""
        given = asked or ROOT / "gpu-check-bin"
        if given.is_dir():
            if (given / BINARIES).exists():
                with tarfile.open(given / BINARIES) as archive:
                    archive.extractall(self.scratch)
            self.bin = self.scratch if (given / BINARIES).exists() else given
            self.tests, self.omr = self.bin / "omr-tests", self.bin / "omr"
            manifest = given / "MANIFEST.json"
            return json.loads(manifest.read_text())["commit"] if manifest.exists() else base.commit()
        if asked or not shutil.which("cargo"):
            fail(f"{given} does not exist: run `tools/gpu-check pack {given}` on a machine with Rust")
        subprocess.run(["cargo", "build", "--release", "--bin", "omr"], cwd=ROOT, check=True)
        self.bin, self.tests, self.omr = None, base.test_binary(), ROOT / "target/release/omr"
        # The clock of the call starts here, because a machine with a GPU does not build.
        self.begun = time.monotonic()
        return base.commit()

    def folder(self, gpu, commit):
        if os.environ.get("OUT"):
            return pathlib.Path(os.environ["OUT"]).resolve()
        if not self.on_gpu:
            return pathlib.Path(tempfile.mkdtemp(prefix="gpu-check-"))
        return ROOT / "bench/results" / f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}-{gpu}-{commit}"

    def name(self):
        if not self.on_gpu:
            return "emu"
        smi = said(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "--id=0"]) or "GPU"
        return re.sub(r"[^a-z0-9]+", "-", smi.lower().replace("nvidia", "")).strip("-")

    def say(self, text):
        print(text, flush=True)
        print(text, file=self.log, flush=True)

    def left(self):
        return max(0.0, min(self.deadline, self.end) - time.monotonic())

    def run(self, command, box=None, **environment):
        """Runs a command within the time of its part. Returns its exit status (None after a timeout) and its output."""
        print(f"\n$ {' '.join(str(word) for word in command)} {environment or ''}", file=self.log, flush=True)
        status, output = base.run(command, max(1.0, min(self.left(), box or self.left())), self.environment | environment)
        # The size of the files returned from a lent machine is limited.
        shown = output if len(output) < 400_000 else f"{output[:200_000]}\n[...]\n{output[-200_000:]}"
        print(f"{shown}\n[exit status {status}]", file=self.log, flush=True)
        return status, output

    @contextlib.contextmanager
    def step(self, part, name):
        """Runs a step. Yields None if the step has already passed or no time is left, otherwise the result to fill in."""
        if self.record.green(name):
            self.say(f"   {name}: already passed")
            yield None
        elif self.left() < 1.0:
            if name not in self.record.steps:
                self.record.put(name, part, "cut", ["no time left"])
            self.say(f"   {name}: no time left")
            yield None
        else:
            begun, made = time.monotonic(), {"status": "green", "notes": [], "rows": [], "lines": []}
            try:
                yield made
            except Exception as error:  # noqa: BLE001 - an unexpected error must end only this step, not the call
                made |= {"status": "cut", "notes": [f"tools/gpu-check failed: {error!r}", *made["notes"]]}
                traceback.print_exc(file=self.log)
            self.record.put(name, part, seconds=time.monotonic() - begun, **made)
            self.say(f"   {name}: {WORDS[made['status']]}{''.join('; ' + note for note in made['notes'])}")

    def environment_lines(self):
        asked = {
            "card": ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit", "--format=csv,noheader"],
            "nvcc": ["nvcc", "--version"], "python": [self.python, "--version"],
            "torch": [self.python, "-c", "import torch; print(torch.__version__, torch.cuda.is_available())"],
            "compute-sanitizer": ["compute-sanitizer", "--version"], "ncu": ["ncu", "--version"],
            "nsys": ["nsys", "--version"], "c++": ["c++", "--version"], "kernel": ["uname", "-srm"],
        }
        found = {what: said(command, 20) for what, command in asked.items()}
        return [f"{what}: {text.splitlines()[-1 if what in ('nvcc', 'ncu') else 0] if text else 'absent'}" for what, text in found.items()]

    def has_wgmma(self):
        """True if linear layers have a second kernel variant (wgmma)."""
        return not self.on_gpu or said(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]) == "9.0"

    @functools.cache  # noqa: B019 - the import takes seconds, and there is only one check
    def has(self, module):
        return said([self.python, "-c", f"import {module}"]) is not None

    def tested(self, part, names, label="", prefix=(), **environment):
        """Runs test modules, each in its own process, because an error of the GPU ends the process."""
        for name in names:
            with self.step(part, f"{label}{name}") as made:
                if made is None:
                    continue
                filter_ = [name, "--exact"] if name == plan.SANITIZER_PROBE else [f"{name}::"]
                status, output = self.run([*prefix, self.tests, *filter_, "--test-threads=1", "--nocapture"],
                                          plan.MODULE_SECONDS * self.args.minutes, **environment)
                made |= self.judged(name, status, output)

    def judged(self, name, status, output):
        counts = re.search(r"(\d+) passed; (\d+) failed; (\d+) ignored", output)
        passed, failed, ignored = (int(n) for n in counts.groups()) if counts else (0, 0, 0)
        skipped = len(re.findall(r"skipped on a GPU: ", output))
        notes = [f"{passed} passed, {failed} failed" + (f", {skipped} skipped that need the emulator" if skipped else "")]
        lines = kept(output)
        if status is None and self.left() < 1.0:
            return {"status": "cut", "notes": ["no time left"], "lines": lines}
        if status == 0 and counts and passed + failed + ignored == 0:
            return {"status": "red", "notes": ["no test has this name"], "lines": lines}
        if status != 0:
            names = re.findall(r"^    (\w+::\S+)$", output, re.M)
            why = "hangs or takes too long" if status is None else ", ".join(dict.fromkeys(names)) or f"exit status {status}"
            return {"status": "red", "notes": [why, *notes], "lines": lines}
        return {"status": "green", "notes": notes, "lines": lines}

    def all(self):
        """Runs the requested parts. Returns exit status 1 if a test failed."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("tools/gpu-check: stopped"))
        args = self.args
        parts = plan.CALLS[args.call] if args.call else plan.PARTS
        if args.call:
            self.end = self.begun + plan.CALL_MINUTES * 60 * args.minutes - 10
            self.record.calls.append(f"call {args.call} of {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M}")
        if not self.record.environment:
            self.record.environment = self.environment_lines()
        for line in self.record.environment:
            self.say(line)
        self.record.write()
        self.deadline = time.monotonic()
        for part, minutes in parts.items():
            if args.only and part not in args.only.split(","):
                continue
            # The deadline is counted from the end of the previous part's time, so that unused time goes to this part.
            self.deadline += minutes * 60 * args.minutes
            self.say(f"== {part} ({time.monotonic() - self.begun:.0f} s)")
            PARTS[part](self, part)
        for verdict in self.record.verdicts():
            self.say(verdict)
        red = self.record.red()
        self.record.write()
        cut = [name for name, step in self.record.steps.items() if step["status"] == "cut"]
        told = f"FAILED: {'; '.join(red)}" if red else "no test failed"
        told += f"; cut short: {', '.join(cut)}" if cut else ""
        self.say(f"{told}; {time.monotonic() - self.begun:.0f} s; {self.out}")
        shutil.rmtree(self.scratch, ignore_errors=True)
        return 1 if red else 0
