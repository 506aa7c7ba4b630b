"""Packs the binaries for a machine without Rust."""
import json
import os
import pathlib
import re
import subprocess
import tarfile
import tempfile

from .base import ROOT, built_tests, commit, compile_ceilings, fail, images, said

BINARIES = "binaries.tar.xz"
# Upper bound on the bytes that are sent to a lent machine, files of the repository included. The machine takes 64 MiB; the
# rest is for the growth of the repository until the next check.
LIMIT = 56 << 20
# Files that nothing on a GPU reads (ptx is part of the binaries), the one among them that tests read, and a command that leaves the others
# out of the working tree, which stays without changes.
LEFT_OUT = ["tests/goldens/*.tgz", "tests/goldens/hf/tokenizer", "tests/goldens/verify", "tests/cli", "tests/data", "verifier", "docs", "ptx"]
KEPT = "tests/goldens/qwen3_vl.tgz"
LEAVE_OUT = " ".join(["git sparse-checkout set --no-cone '/*'", *(f"'!/{path}'" for path in LEFT_OUT), f"'/{KEPT}'"])


def glibc(path):
    """Returns the newest glibc version that a binary requires."""
    symbols = said(["objdump", "-T", str(path)]) or ""
    versions = {tuple(int(n) for n in v.split(".")) for v in re.findall(r"GLIBC_([\d.]+)", symbols)}
    return ".".join(str(n) for n in max(versions)) if versions else None


def travels():
    """Returns the size in bytes of the repository files that are sent to a lent machine: tracked files, and untracked
    files that are not ignored, without those that `LEAVE_OUT` leaves out."""
    listed = said(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *(f":!{path}" for path in LEFT_OUT)]) or ""
    files = [ROOT / name for name in [*listed.split("\0"), KEPT] if name]
    return sum(path.lstat().st_size for path in files if path.is_symlink() or path.is_file())


def pack(out):
    # Without ptxas the GPU's driver would compile the kernels on the lent machine. That takes minutes of GPU time and
    # tests the code of another compiler.
    toolkit = said([str(ROOT / "tools/cuda-toolchain"), "--pinned"], 600) or fail("tools/cuda-toolchain --pinned failed: no ptxas")
    os.environ["PTXAS"] = f"{toolkit}/bin/ptxas"
    if subprocess.run(["cargo", "build", "--release", "--bin", "omr", "--features", "candidates"], cwd=ROOT).returncode != 0:
        fail("cargo build --release failed")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name, source in {"omr": ROOT / "target/release/omr", **built_tests().named}.items():
            if subprocess.run(["strip", "-o", str(folder / name), str(source)]).returncode != 0:
                fail(f"strip {source} failed")
        ceilings = compile_ceilings(folder)
        files = sorted(folder.iterdir())
        manifest = {"commit": commit(), "target": "x86-64 (further instructions are chosen as the program runs)",
                    "bytes": {p.name: p.stat().st_size for p in files}, "glibc": {p.name: glibc(p) for p in files},
                    "images": images(folder / "omr"), "ceilings": ceilings}
        # The dictionary of preset 9 (64 MiB) reaches back to the code of `omr` that the tests repeat.
        with tarfile.open(out / BINARIES, "w:xz", preset=9) as archive:
            for path in files:
                archive.add(path, path.name)
    (out / "MANIFEST.json").write_text(json.dumps(manifest, indent=1) + "\n")
    for name, size in manifest["bytes"].items():
        print(f"{name:12} {size / 2**20:6.1f} MiB, glibc {manifest['glibc'][name] or 'none'} or later")
    print(f"kernel images: {manifest['images']}")
    packed = sum((out / name).stat().st_size for name in (BINARIES, "MANIFEST.json"))
    # In a folder that git does not ignore, the packed files are already counted among the files of the repository.
    ignored = said(["git", "check-ignore", "-q", str(out / BINARIES)]) is not None or ROOT not in out.parents
    total = travels() + (packed if ignored else 0)
    print(f"{out / BINARIES}: {packed / 2**20:.1f} MiB with its manifest; {total / 2**20:.1f} MiB with the repository's files")
    print(f"Before a call: {LEAVE_OUT}; afterwards: git sparse-checkout disable")
    if total > LIMIT:
        fail(f"{total} bytes are more than {LIMIT}")
