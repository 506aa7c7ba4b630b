"""Runs omr in turns with PyTorch, or in turns with itself, so that all have the temperature and the power limit of one GPU.

usage: python bench/peers/turns.py [--device cuda|emu] [--seconds 1] [--limit 60] [--smi FILE] --omr OMR [--python PYTHON]
       [--side "NAME=ARGUMENTS"]... CASE...
OMR is the program, with `bench --turns CASE...`; each --side is a run of it with more arguments (default: one without). PYTHON is a
Python with torch: then gpu_ops.py takes turns, too. With three programs, the order of the turns of a case is A B C C B A, S seconds
each. Prints one JSON line per case and program when its turns are over: `name`, `shape`, `side`; `burst_ms`, the fastest of the first
repetitions; `sustained_ms`, the median of the last ones; `clock_mhz`, the mean of the program's turns; `spans`, when the turns began
and ended (seconds since 1970); with --smi, what the log of nvidia-smi has of these times (smi.py); or `skipped` with the reason. A
program that does not answer within --limit seconds is killed, and the others continue.

A program prints {"ready": true, "name", "shape"} when it has made a case, and a line for each line "turn" that it reads. "next" ends
the case. A case that it cannot run is a line with "ready": false and the reason as "skipped". omr makes the cases in the order of its arguments,
gpu_ops.py when a line names one.
"""
import argparse
import json
import pathlib
import queue
import shlex
import statistics
import subprocess
import sys
import threading
import time

from smi import Log


class Program:
    def __init__(self, name, command):
        self.name, self.lines, self.lost = name, queue.Queue(), None
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.child.stdout:
            if line.startswith("{"):
                self.lines.put(json.loads(line))
        self.lines.put(None)

    def tell(self, line):
        try:
            print(line, file=self.child.stdin, flush=True)
        except OSError:
            # It has ended, which its next answer shows.
            pass

    def answer(self, seconds):
        """Returns the next line of the program. Returns None and sets `lost` if it has ended or does not answer in time."""
        if self.lost:
            return None
        try:
            line = self.lines.get(timeout=seconds)
            if line is None:
                self.lost = f"exit status {self.child.wait()}"
        except queue.Empty:
            line, self.lost = None, f"no answer in {seconds:.0f} s"
            self.child.kill()
        return line

    def case(self, seconds):
        """Returns the next case that the program has made, and prints those before it that it cannot run. Returns None at the end."""
        while (line := self.answer(seconds)) and not line.get("ready"):
            show(line, self)
        return line and (line["name"], line["shape"])


def show(row, program, **more):
    print(json.dumps(row | {"side": program.name} | more), flush=True)


def summary(turns, log):
    """Returns the results of a program's turns: pairs of a span of time and the program's line."""
    lines = [line for _, line in turns]
    clocks = [line["clock_mhz"] for line in lines if line.get("clock_mhz")]
    spans = [span for span, _ in turns]
    return {"burst_ms": min(ms for line in lines for ms in line["first_ms"]),
            "sustained_ms": statistics.median(ms for line in lines for ms in line["last_ms"]),
            "clock_mhz": round(statistics.mean(clocks)) if clocks else None, "peer": lines[0].get("peer"),
            "repetitions": sum(line["repetitions"] for line in lines), "spans": spans} | (log.during(*spans) if log else {})


def played(sides, peers, limit, log):
    """Runs the turns of the next case. Returns False after the last one."""
    cases = {side: side.case(limit) for side in sides}
    chosen = next(filter(None, cases.values()), None)
    if chosen is None:
        return False
    row = dict(zip(("name", "shape"), chosen))
    left_out = {}
    for peer in peers:
        peer.tell(json.dumps(row))
        told = peer.answer(limit) or {}
        cases[peer] = chosen if told.get("ready") else None
        left_out[peer] = told.get("skipped")
    turns = {program: [] for program, case in cases.items() if case == chosen}
    for program in [*turns, *reversed(turns)]:
        began = time.time()
        program.tell("turn")
        if line := program.answer(limit):
            turns[program].append(((began, time.time()), line))
    for program, case in cases.items():
        if turns.get(program):
            show(row, program, **summary(turns[program], log))
            program.tell("next")
        else:
            show(row, program, skipped=left_out.get(program) or program.lost or f"is at {case}")
    return True


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cuda")
    p.add_argument("--seconds", default="1")
    p.add_argument("--limit", type=float, default=60.0)
    p.add_argument("--smi")
    p.add_argument("--omr", required=True)
    p.add_argument("--python")
    p.add_argument("--side", action="append")
    p.add_argument("cases", nargs="+", metavar="CASE")
    args = p.parse_args()
    turns = ["--turns", "--seconds", args.seconds]
    bench = [args.omr, "--device", args.device, "bench", *args.cases, *turns]
    sides = [Program(name, bench + shlex.split(more)) for name, _, more in (side.partition("=") for side in args.side or ["omr"])]
    small = [] if args.device == "cuda" else ["--device", "cpu", "--tiny"]
    ops = pathlib.Path(__file__).with_name("gpu_ops.py")
    peers = [Program("PyTorch", [args.python, ops, *turns, *small])] if args.python else []
    while played(sides, peers, args.limit, Log(args.smi) if args.smi else None):
        pass
    lost = [side for side in sides if side.lost not in (None, "exit status 0")]
    for side in lost:
        print(f"error: {side.name}: {side.lost}", file=sys.stderr)
    for program in sides + peers:
        program.child.stdin.close()
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
