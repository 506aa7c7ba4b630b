"""Parses the arguments and starts the requested tool."""
import argparse
import gzip
import json
import os
import pathlib
import shutil
import tempfile

from . import plan
from .base import ROOT, compile_ceilings, fail
from .check import Check
from .dry import COLUMNS, as_gpu
from .pack import pack
from .record import Record
from .rehearse import rehearse


def merge(folder, out):
    """Copies the results of a call to the folder where later calls and readers look for them."""
    try:
        identity = {key: json.loads((folder / "results.json").read_text())[key] for key in ("device", "gpu", "commit", "build", "date")}
    except (OSError, ValueError, KeyError) as error:
        fail(f"{folder}/results.json is not a record of a call: {error}")
    out = out or ROOT / "bench/results" / f"{identity['date']}-{identity['gpu']}-{identity['commit']}"
    out.mkdir(parents=True, exist_ok=True)
    record = Record(out, identity, [])
    for file in (out / "results.json", folder / "results.json"):
        record.take(file)
    record.write()
    # The logs stay behind: they name paths of the machine, and the record has the result of each step.
    for file in [*folder.glob("profiles.*"), *folder.glob("exp2.gz")]:
        if file.parent != out:
            shutil.copyfile(file, out / file.name)
    for file in folder.glob("*-smi.csv"):
        (out / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
    print(f"{len(record.steps)} steps, {len(record.rows())} rows: {out}")


def parser(usage):
    path = lambda p: pathlib.Path(p).resolve()  # noqa: E731
    made = argparse.ArgumentParser(prog="tools/gpu-check", add_help=False, usage=usage)
    made.add_argument("command", nargs="?", choices=["call", "pack", "merge", "compile", "as-card"])
    made.add_argument("what", nargs="?")
    made.add_argument("--device", choices=["cuda", "emu"], default="cuda")
    made.add_argument("--bin", type=path)
    made.add_argument("--out", type=path)
    made.add_argument("--only", default="")
    made.add_argument("--columns", default=",".join(COLUMNS))
    made.add_argument("--call", type=int, choices=plan.CALLS)
    made.add_argument("--jobs", type=int, default=os.cpu_count())
    made.add_argument("--minutes", type=float, default=1.0)
    made.add_argument("-h", "--help", action="store_true")
    return made


def main(doc, arguments):
    args = parser(doc.split("usage: ")[1]).parse_args(arguments)
    if args.help:
        print(doc.strip())
        return 0
    if args.command in ("call", "pack", "merge") and not args.what:
        fail(f"{args.command} needs an argument, see --help")
    only = [name for name in args.only.split(",") if name]
    if args.command == "pack":
        pack(pathlib.Path(args.what).resolve())
    elif args.command == "merge":
        merge(pathlib.Path(args.what).resolve(), args.out)
    elif args.command == "compile":
        with tempfile.TemporaryDirectory() as folder:
            compiled = compile_ceilings(pathlib.Path(folder))
        print("bench/peers/ceilings compiles" if compiled else "skipped: no nvcc")
    elif args.command == "as-card":
        if args.call:
            return rehearse(args)
        columns = args.columns.split(",")
        if unknown := set(columns) - set(COLUMNS):
            fail(f"unknown column {min(unknown)}, expected some of {', '.join(COLUMNS)}")
        return as_gpu(args.jobs, only, columns, args.bin)
    else:
        if args.command == "call":
            if args.what not in map(str, plan.CALLS):
                fail(f"unknown call {args.what}, expected one of {', '.join(map(str, plan.CALLS))}")
            args.call = int(args.what)
        parts = plan.CALLS[args.call] if args.call else plan.PARTS
        unknown = set(only) - set(parts)
        if unknown:
            fail(f"unknown part {min(unknown)}, expected one of {', '.join(parts)}")
        return Check(args).all()
    return 0
