"""Measures the ops of gpu_ops.py: one after another with a cold L2, or in turns with other programs."""
import gc
import json
import statistics
import sys
import time

import torch

# Repetitions that choose the fastest way of an op before its turns.
TRIALS = 5
# Repetitions that are queued at most, so that the host does not run ahead of the GPU.
QUEUED = 8
# Repetitions whose times a turn prints, from its beginning and from its end.
SHOWN = 20


class Cases:
    def __init__(self, args, peer):
        self.args, self.peer, self.cuda = args, peer, args.device == "cuda"
        self.flush = torch.empty(256 << 20 if self.cuda else 64, dtype=torch.uint8, device=args.device)
        self.begun, self.of_turns = time.monotonic(), {}

    def stamp(self):
        """Returns a point in time: an event on a GPU, else the seconds."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, before, after):
        """Returns the milliseconds between two stamps. On a GPU, waits for the second one."""
        if not self.cuda:
            return (after - before) * 1e3
        after.synchronize()
        return before.elapsed_time(after)

    def once(self, work):
        self.flush.zero_()
        before = self.stamp()
        work()
        return self.between(before, self.stamp())

    def timed(self, make, least=TRIALS, seconds=None):
        """Measures the milliseconds of the function that `make` returns. Its tensors are freed afterwards."""
        work = make()
        for _ in range(3):
            self.once(work)
        seconds = seconds if seconds is not None else self.args.seconds if self.cuda else 0
        start, times = time.monotonic(), []
        while len(times) < least or time.monotonic() - start < seconds:
            times.append(self.once(work))
        return {"peer_ms": statistics.median(times), "peer_min_ms": min(times), "repetitions": len(times)}

    def fastest(self, ways, **amount):
        """Returns the results of the fastest of `ways` (pairs of a label and a `make` function) for a row. A way that this machine does
        not support is listed in `peer_ways`. The op is skipped only if no way works."""
        best, told = None, {}
        for label, make in ways:
            try:
                found = self.timed(make, **amount)
            except Exception as error:  # noqa: BLE001 - a library may raise any exception if it cannot run here
                told[label] = (str(error).splitlines() or [type(error).__name__])[0][:200]
            else:
                told[label] = found["peer_ms"]
                if best is None or found["peer_ms"] < best["peer_ms"]:
                    best = found | {"peer": label}
            if self.cuda:
                torch.cuda.empty_cache()
        row = dict(best or {"skipped": next((why for why in told.values() if isinstance(why, str)), "no way")})
        return row | ({"peer_ways": told} if len(told) > 1 else {})

    def measure(self, name, shape, *ways):
        """Measures an op and prints its line, or keeps it for `turns`. A way is a `make` function, or a pair of a label and one."""
        ways = [way if isinstance(way, tuple) else (self.peer, way) for way in ways]
        if self.args.turns:
            self.of_turns[name, shape] = ways
        elif name.startswith(self.args.only) and time.monotonic() - self.begun <= self.args.budget:
            row = {"name": name, "shape": shape, "dtype": "bf16", "data": "normal"}
            print(json.dumps(row | self.fastest(ways)), flush=True)

    def turns(self):
        """Takes the turns that the lines of stdin ask for (bench/peers/turns.py)."""
        row = work = None
        for line in map(str.strip, sys.stdin):
            if line == "turn" and work:
                print(json.dumps(row | self.turn(work)), flush=True)
            elif line == "next":
                work = None
                gc.collect()
                if self.cuda:
                    torch.cuda.empty_cache()
            elif line.startswith("{"):
                row = json.loads(line)
                ways = self.of_turns.get((row["name"], row["shape"]), [])
                found = self.fastest(ways, seconds=0) if ways else {"skipped": "PyTorch has no such op here"}
                work = dict(ways)[found["peer"]]() if "peer" in found else None
                row |= {"peer": found["peer"]} if work else {}
                print(json.dumps(row | {"ready": work is not None, "skipped": found.get("skipped")}), flush=True)
            else:
                sys.exit(f"gpu_ops.py: found the line {line!r}, expected turn, next or a case")

    def turn(self, work):
        """Runs an op for `--seconds`, one repetition after another without a pause."""
        stamps, times, start = [self.stamp()], [], time.monotonic()
        while len(times) < 2 or time.monotonic() - start < self.args.seconds:
            work()
            stamps.append(self.stamp())
            if len(stamps) > QUEUED:
                times.append(self.between(*stamps[:2]))
                del stamps[0]
        times += [self.between(*pair) for pair in zip(stamps, stamps[1:])]
        return {"median_ms": statistics.median(times), "first_ms": times[:SHOWN], "last_ms": times[-SHOWN:], "repetitions": len(times)}
