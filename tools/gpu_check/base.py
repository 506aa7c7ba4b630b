"""Common functions of all parts: the repository, running programs, the compiler, the test binary."""
import contextlib
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PEERS = ROOT / "bench/peers"
CEILINGS = PEERS / "ceilings"
# Time limit in seconds of the end of a killed process.
KILL_SECONDS = 10
# Packages whose tests run on a GPU, and those that they link.
GPU_TESTS = ["omr-runtime-tests", "omr-train-tests"]
LINKED = ["omr-base-tests", "omr-data-tests", "omr-model-tests", *GPU_TESTS]


def goldens(folder):
    """Makes a folder with the unpacked archives of tests/goldens and links to its other entries, as tests/base/golden/mod.rs does. Returns it."""
    folder.mkdir()
    for path in (ROOT / "tests/goldens").iterdir():
        if path.suffix == ".tgz":
            with tarfile.open(path) as files:
                files.extractall(folder)
        else:
            (folder / path.name).symlink_to(path)
    return folder


def fail(text):
    sys.exit(f"tools/gpu-check: {text}")


def said(command, seconds=60):
    """Returns the output of a command, or None if the command is missing, fails or takes too long."""
    status, output = run(command, seconds, stderr=subprocess.DEVNULL)
    return output.strip() if status == 0 else None


def run(command, seconds, environment=None, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT):
    """Runs a command in the folder `cwd`, together with its child processes, for at most `seconds`. Returns
    its exit status (None after a timeout) and its output, if `stdout` is not None."""
    try:
        child = subprocess.Popen([str(word) for word in command], cwd=cwd, env=environment, stdout=stdout, stderr=stderr,
                                 stdin=subprocess.DEVNULL, text=True, errors="replace", start_new_session=True)
    except OSError as error:
        return 127, str(error)
    try:
        output, _ = child.communicate(timeout=seconds)
        return child.returncode, output
    except subprocess.TimeoutExpired:
        pass
    finally:
        # Kills the whole process group. A surviving child would keep the pipe open, and `communicate` below would wait
        # for it.
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    try:
        return None, child.communicate(timeout=KILL_SECONDS)[0]
    except subprocess.TimeoutExpired as stuck:
        # A process inside a call of the GPU's driver ends only when the call returns, which may be never.
        return None, (stuck.output or b"").decode(errors="replace")


def why(status, output):
    """Explains why a command gave less than was requested."""
    if status is None:
        return "no time left"
    lines = output.strip().splitlines() or [f"exit status {status}"]
    return next((line for line in lines if line.startswith(("error", "==ERROR=="))), lines[-1])


def json_lines(output):
    """Returns the JSON lines printed by a peer or a ceiling program."""
    found = []
    for line in filter(lambda line: line.startswith("{"), output.splitlines()):
        # A program may be stopped while it writes its last line.
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def commit():
    found = said(["git", "rev-parse", "--short", "HEAD"])
    changed = said(["git", "status", "--porcelain", "--untracked-files=no"])
    return (found or "unknown") + ("-changed" if changed else "")


class Tests:
    """The test binaries of GPU_TESTS."""

    def __init__(self, paths):
        self.paths = sorted(paths)

    @property
    def named(self):
        """The binaries by the names that `pack` gives them."""
        return {name: path for path in self.paths for name in GPU_TESTS if path.name.replace("_", "-").startswith(name)}

    @functools.cached_property
    def names(self):
        """The names of the tests of each binary."""
        listed = {path: said([path, "--list"]) or "" for path in self.paths}
        return {path: [line.removesuffix(": test") for line in text.splitlines() if line.endswith(": test")] for path, text in listed.items()}

    def of(self, name):
        """Returns the binary that contains the test or module `name`, or any if none does."""
        return next((path for path, names in self.names.items() if any(test.startswith(name) for test in names)), self.paths[0])

    def modules(self):
        """Returns the modules of kernel tests."""
        names = [test for tests in self.names.values() for test in tests if test.startswith("kernels::") and test.count("::") >= 2]
        return list(dict.fromkeys("::".join(test.split("::")[:2]) for test in names))


def built_tests():
    """Builds the tests. They are optimised, because a lent machine's minutes are few and the tests compute their references
    themselves."""
    chosen = [word for name in GPU_TESTS for word in ("--package", name)]
    optimised = [word for name in LINKED for word in ("--config", f"profile.release.package.{name}.opt-level=1")]
    built = subprocess.run(["cargo", "test", "--release", *chosen, "--no-run", "--message-format=json", *optimised], cwd=ROOT,
                           stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        fail("cargo test --release --no-run fails")
    found = json_lines(built.stdout)
    return Tests(pathlib.Path(m["executable"]) for m in found if m.get("executable") and m["target"]["name"].endswith("_tests"))


def images(omr):
    """Returns the kind of kernel images in a binary, PTX or machine code, as `omr doctor` prints it."""
    found = re.search(r"^kernel images +(.*)$", said([str(omr), "doctor"]) or "", re.M)
    return found[1] if found else "unknown"


def nvcc(install):
    """Returns nvcc from the PATH, otherwise from tools/cuda-toolchain, with the arguments for linking. `install` is
    false on a lent machine, which has no network and would wait for a download."""
    found = shutil.which("nvcc")
    if found:
        return [found]
    if not install or not shutil.which("g++"):
        return None
    home = said([str(ROOT / "tools/cuda-toolchain")], 600)
    return [f"{home}/bin/nvcc", "-L", f"{home}/lib"] if home else None


def compile_ceilings(out, install=True):
    """Compiles the programs of bench/peers/ceilings. Returns False without nvcc. The C++ libraries are linked
    statically, because the other machine may not have them."""
    compiler = nvcc(install)
    if not compiler:
        return False
    for source in sorted(CEILINGS.glob("*.cu")):
        command = [*compiler, "-O3", "-std=c++17", "-gencode", "arch=compute_90a,code=sm_90a", "-cudart", "static",
                   "-Xcompiler", "-static-libstdc++,-static-libgcc", str(source), "-o", str(out / source.stem)]
        if subprocess.run(command).returncode != 0:
            fail(f"{source.relative_to(ROOT)} does not compile")
    return True
