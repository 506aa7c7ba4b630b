"""Common functions of all parts: the repository, running programs, the compiler, the test binary."""
import contextlib
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


def goldens(folder):
    """Makes a folder with the unpacked archives of tests/goldens and links to its other entries, as tests/golden/mod.rs does. Returns it."""
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


def test_binary():
    """Builds the tests and returns the path of their binary. They are optimised, because a lent machine's minutes are few
    and the tests compute their references themselves."""
    built = subprocess.run(["cargo", "test", "--release", "--test", "omr", "--no-run", "--message-format=json",
                            "--config", "profile.release.package.omr.opt-level=1"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        fail("cargo test --release --no-run fails")
    found = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    paths = [m["executable"] for m in found if m.get("executable") and "test" in m["target"]["kind"]]
    return pathlib.Path(paths[-1])


def images(omr):
    """Returns the kind of kernel images in a binary, PTX or machine code, as `omr doctor` prints it."""
    found = re.search(r"^kernel images +(.*)$", said([str(omr), "doctor"]) or "", re.M)
    return found[1] if found else "unknown"


def modules(tests):
    """Returns the modules of kernel tests in a test binary."""
    listed = said([str(tests), "kernels::", "--list"]) or ""
    lines = [line for line in listed.splitlines() if line.endswith(": test") and line.count("::") >= 2]
    return list(dict.fromkeys("::".join(line.split("::")[:2]) for line in lines))


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
