"""Measures jobs of the peers' programs on a GPU, which may not fit into its memory."""
import gc
import json
import statistics
import time

import torch


def measure(row, peer, tries, seconds):
    """Prints one JSON line: `row` with the time of the first of `tries` that fits into memory. `tries` are pairs of a
    label and a function that returns the model and the work to measure. `peer_ways` lists those that do not fit."""
    ways = {}
    for label, prepare in tries:
        try:
            model, work = prepare()
            found = {"parameters": sum(p.numel() for p in model.parameters())} | timed(work, seconds)
        except torch.OutOfMemoryError as error:
            ways[label] = str(error).splitlines()[0][:200]
        else:
            row |= {"peer": f"{peer}, {label}"} | found
            break
        # The frames of the failed attempt keep its memory alive until here.
        model = work = None
        gc.collect()
        torch.cuda.empty_cache()
    else:
        row["skipped"] = "; ".join(f"{label}: {why}" for label, why in ways.items())
    print(json.dumps(row | ({"peer_ways": ways} if ways else {})))


def timed(work, seconds):
    """Measures the milliseconds of a repetition, from the call on the host until the GPU has finished."""
    def once():
        begun = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return (time.perf_counter() - begun) * 1e3

    for _ in range(2):
        once()
    begun, times = time.perf_counter(), []
    while len(times) < 5 or time.perf_counter() - begun < seconds:
        times.append(once())
    return {"peer_ms": statistics.median(times), "peer_min_ms": min(times), "repetitions": len(times)}
