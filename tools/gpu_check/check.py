"""One call on one device: its steps, each within the time of its part and of the call."""
import concurrent.futures
import contextlib
import datetime
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
import threading
import time
import traceback

from . import base, plan
from .base import PEERS, ROOT, fail, said
from .pack import BINARIES
from .parts import STEPS
from .record import WORDS, Record
from .verdicts import kept

sys.path.append(str(PEERS))
from smi import Log  # noqa: E402

# Words of `omr` where the start check of wgmma ends a program (src/app/cli/context/mod.rs).
REFUSED = "start again with --kernel-variant mma.sync"
# Prints the path of the NCCL library that PyTorch brings.
NCCL = "import glob, nvidia; print(next(f for p in nvidia.__path__ for f in glob.glob(p + '/**/libnccl.so.2', recursive=True)))"


def smi_says(what):
    """Returns a property of the first GPU, or None without an answer."""
    return said(["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader", "--id=0"], 20)


def unpacked(archive):
    """Returns a folder with the files of an archive. It is named after their hash and stays there for later calls."""
    name = f"omr-gpu-check-{os.getuid()}-{hashlib.sha256(archive.read_bytes()).hexdigest()[:16]}"
    folder = pathlib.Path(tempfile.gettempdir()) / name
    if not folder.exists():
        fresh = pathlib.Path(tempfile.mkdtemp(prefix=name))
        with tarfile.open(archive) as files:
            files.extractall(fresh)
        fresh.rename(folder)
    if folder.stat().st_uid != os.getuid():
        fail(f"{folder} belongs to another user")
    return folder


class Check:
    def __init__(self, args):
        self.args, self.on_gpu, self.begun = args, args.device == "cuda", time.monotonic()
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="gpu-check-scratch-"))
        self.deadline = self.end = float("inf")
        # Why no further step runs, why wgmma is not used any more, and when the GPU was last seen to answer.
        self.gone = self.no_wgmma = None
        self.answered = -float("inf")
        self.python = os.environ.get("PYTHON", "python3")
        self.ask()
        commit = self.binaries(args.bin)
        gpu = self.name()
        self.out = args.out or self.folder(gpu, commit)
        self.out.mkdir(parents=True, exist_ok=True)
        call = f"call{args.call}" if args.call else "log"
        self.log = (self.out / f"{call}.txt").open("a")
        self.environment = os.environ | {"OMR_TEST_DEVICE": args.device, "OMR_GOLDENS": str(base.goldens(self.scratch / "goldens")),
                                         "PYTHONUNBUFFERED": "1"}
        build = hashlib.sha256(b"".join(path.read_bytes() for path in self.tests.paths)).hexdigest()[:16]
        identity = {"device": args.device, "gpu": gpu, "commit": commit, "build": build,
                    "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}"}
        self.record = Record(self.out, identity, [])
        self.record.earlier()
        self.lock = threading.RLock()
        self.smi = Log(self.out / f"{call}-smi.csv", starts=self.on_gpu)

    def binaries(self, asked):
        """Finds the binaries to run. Returns the commit they were built from."""
        given = asked or ROOT / "gpu-check-bin"
        if given.is_dir():
            self.bin = unpacked(given / BINARIES) if (given / BINARIES).exists() else given
            self.tests, self.omr = base.Tests(self.bin.glob("omr-*-tests")), self.bin / "omr"
            manifest = given / "MANIFEST.json"
            return json.loads(manifest.read_text())["commit"] if manifest.exists() else base.commit()
        if asked or not shutil.which("cargo"):
            fail(f"{given} does not exist: run `tools/gpu-check pack {given}` on a machine with Rust")
        subprocess.run(["cargo", "build", "--release", "--bin", "omr"], cwd=ROOT, check=True)
        self.bin, self.tests, self.omr = None, base.built_tests(), ROOT / "target/release/omr"
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
        smi = smi_says("name") or "GPU"
        return re.sub(r"[^a-z0-9]+", "-", smi.lower().replace("nvidia", "")).strip("-")

    def say(self, text):
        with self.lock:
            print(text, flush=True)
            print(text, file=self.log, flush=True)

    def left(self):
        return max(0.0, min(self.deadline, self.end) - time.monotonic())

    def run(self, command, box=None, **environment):
        """Runs a command within the time of its part. Returns its exit status (None after a timeout) and its output."""
        status, output = base.run(command, max(1.0, min(self.left(), box or self.left())), self.environment | environment)
        # The size of the files returned from a lent machine is limited.
        shown = output if len(output) < 400_000 else f"{output[:200_000]}\n[...]\n{output[-200_000:]}"
        with self.lock:
            print(f"\n$ {' '.join(str(word) for word in command)} {environment or ''}\n{shown}\n[exit status {status}]", file=self.log, flush=True)
        if self.on_gpu and REFUSED in output:
            self.switch_off(next(line for line in output.splitlines() if REFUSED in line))
        if self.on_gpu and status is None and self.end - time.monotonic() > 1.0:
            with self.lock:
                self.check_gpu()
        return status, output

    def switch_off(self, reason):
        """Selects mma.sync for the rest of the call."""
        if not self.no_wgmma:
            self.no_wgmma = self.environment["OMR_BODY"] = "mma.sync"
            self.say(f"   wgmma is switched off for the rest of this call: {reason}")

    def check_gpu(self):
        """Checks after a timeout that the GPU still answers. If it does not, no further step runs."""
        # Processes that run side by side end together.
        if time.monotonic() - self.answered < base.KILL_SECONDS:
            return
        test = [self.tests.of(plan.SANITIZER_PROBE), plan.SANITIZER_PROBE, "--exact", "--test-threads=1"]
        for name, command in [("nvidia-smi", ["nvidia-smi"]), (plan.SANITIZER_PROBE, test)]:
            if not self.gone and base.run(command, plan.CANARY_SECONDS, self.environment)[0] != 0:
                self.gone = f"the GPU does not answer after a timeout: {name} failed"
                self.say(f"   {self.gone}")
        self.answered = time.monotonic()

    @contextlib.contextmanager
    def step(self, part, name):
        """Runs a step. Yields None if the step has already passed or no time is left, otherwise the result to fill in."""
        if self.record.green(name):
            self.say(f"   {name}: already passed")
            yield None
        elif self.gone or self.left() < 1.0:
            with self.lock:
                if name not in self.record.steps:
                    self.record.put(name, part, "cut", [self.gone or "no time left"])
            self.say(f"   {name}: {'not run' if self.gone else 'no time left'}")
            yield None
        else:
            since, made = time.time(), {"status": "green", "notes": [], "rows": [], "lines": []}
            try:
                yield made
            except Exception as error:  # noqa: BLE001 - an unexpected error must end only this step, not the call
                made |= {"status": "cut", "notes": [f"tools/gpu-check failed: {error!r}", *made["notes"]]}
                traceback.print_exc(file=self.log)
            with self.lock:
                self.record.put(name, part, seconds=time.time() - since, gpu=self.smi.during((since, time.time())), **made)
            self.say(f"   {name}: {WORDS[made['status']]}{''.join('; ' + note for note in made['notes'])}")

    def ask(self):
        """Starts the programs whose answers are needed later. On a new machine their first start can take a minute."""
        asked = {
            "card": ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit", "--format=csv,noheader"],
            "nvcc": ["nvcc", "--version"], "python": [self.python, "--version"],
            "torch": [self.python, "-c", "import torch; print(torch.__version__, torch.cuda.is_available())"],
            "transformers": [self.python, "-c", "import transformers as t; t.Qwen2_5_VLForConditionalGeneration; print(t.__version__)"],
            "compute-sanitizer": ["compute-sanitizer", "--version"], "ncu": ["ncu", "--version"],
            "nccl": [self.python, "-c", NCCL], "memory": ["grep", "MemAvailable", "/proc/meminfo"],
            "nsys": ["nsys", "--version"], "c++": ["c++", "--version"], "system": ["uname", "-sm"],
        }
        pool = concurrent.futures.ThreadPoolExecutor(2)
        # A cold start may need more than one attempt.
        self.answers = {what: pool.submit(lambda command=command: said(command) or said(command)) for what, command in asked.items()}

    def environment_lines(self):
        """Returns the answers to `ask` that are known so far."""
        found = {what: future.result() for what, future in self.answers.items() if future.done()}
        return [f"{what}: {text.splitlines()[-1 if what in ('nvcc', 'ncu') else 0] if text else 'absent'}" for what, text in found.items()]

    def has_wgmma(self):
        """True if linear layers have a second kernel variant (wgmma)."""
        return not self.no_wgmma and (not self.on_gpu or smi_says("compute_cap") == "9.0")

    def has(self, what):
        """Returns the answer to `ask`, or None. Waits for it: the import of a module runs in the background."""
        try:
            return self.answers[what].result(self.left())
        except concurrent.futures.TimeoutError:
            return None

    def tested(self, part, names, label="", prefix=(), **environment):
        """Runs test modules, several at the same time on a GPU. Each has its own process, because an error of the GPU ends
        the process."""
        with concurrent.futures.ThreadPoolExecutor(plan.TOGETHER if self.on_gpu and not prefix else 1) as pool:
            list(pool.map(lambda name: self.tested_one(part, name, label, prefix, environment), names))

    def tested_one(self, part, name, label, prefix, environment):
        with self.step(part, f"{label}{name}") as made:
            if made is None:
                return
            filter_ = [f"{name}::"]
            if name == plan.SANITIZER_PROBE:
                filter_ = [name, "--exact"]
            elif name in plan.SLOW_ON_EMULATOR or name in plan.IGNORED and self.on_gpu:
                filter_ = [name, "--include-ignored"]
            seconds = plan.IGNORED_SECONDS if name in plan.IGNORED else plan.MODULE_SECONDS
            status, output = self.run([*prefix, self.tests.of(name), *filter_, "--test-threads=1", "--nocapture"], seconds * self.args.minutes, **environment)
            made |= self.judged(name, status, output)
            if status is None and name.endswith("_sm90a") and self.on_gpu:
                self.switch_off(f"{name} hangs or takes too long")

    def judged(self, name, status, output):
        counts = re.search(r"(\d+) passed; (\d+) failed; (\d+) ignored", output)
        passed, failed, ignored = (int(n) for n in counts.groups()) if counts else (0, 0, 0)
        skipped = len(re.findall(r"skipped on a GPU: ", output))
        notes = [f"{passed} passed, {failed} failed" + (f", {skipped} skipped that need the emulator" if skipped else "")]
        lines = kept(output)
        if status is None and (self.left() < 1.0 or name in plan.IGNORED):
            return {"status": "cut", "notes": ["no time left"], "lines": lines}
        if status == 0 and counts and passed + failed == 0:
            what = ("skipped", f"all {ignored} tests are ignored") if ignored else ("red", "no test has this name")
            return {"status": what[0], "notes": [what[1]], "lines": lines}
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
            self.end = self.begun + (plan.CALL_SECONDS[args.call] - plan.START_AND_END / 2) * args.minutes
            self.record.calls.append(f"call {args.call} of {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M}")
            limits = "; ".join(f"{part} {plan.seconds({part: steps})}: {', '.join(steps)}" for part, steps in parts.items())
            self.say(f"call {args.call}, at most {plan.CALL_SECONDS[args.call]} s, times {args.minutes:g}; limits in seconds: {limits}")
        for part, steps in parts.items():
            if args.only and part not in args.only.split(","):
                continue
            self.say(f"== {part} ({time.monotonic() - self.begun:.0f} s)")
            self.deadline = time.monotonic()
            for name, limit in steps.items():
                # Unused time goes to the next step of the part.
                self.deadline += limit * args.minutes
                STEPS[name](self, part, name)
                self.record.environment = self.environment_lines()
        self.smi.stop()
        concurrent.futures.wait(self.answers.values(), 20)
        self.record.environment = self.environment_lines()
        red = self.record.red()
        self.record.write()
        for line in [*self.record.environment, *self.record.verdicts(), *self.record.step_table(), "", *self.record.tables()]:
            self.say(line)
        cut = [name for name, step in self.record.steps.items() if step["status"] == "cut"]
        told = f"FAILED: {'; '.join(red)}" if red else "no test failed"
        told += f"; cut short: {', '.join(cut)}" if cut else ""
        self.say(f"{told}; {time.monotonic() - self.begun:.0f} s; {self.out}")
        self.log.close()
        shutil.rmtree(self.scratch, ignore_errors=True)
        return 1 if red or self.gone else 0
