"""Measures the sustained speed of a GPU: bf16 matrix products and attention for several seconds, with the clock. Uses random
data and, for comparison, zeros, with which a GPU is faster than with any real data.

usage: python bench/peers/ceilings/sustained.py [--seconds 4] [--dry-run]
Prints one JSON line per result. Without a CUDA device it prints one line that states this. --dry-run computes small shapes on
the CPU.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--seconds", type=float, default=4.0)
p.add_argument("--dry-run", action="store_true")
args = p.parse_args()
if not args.dry_run and not torch.cuda.is_available():
    print(json.dumps({"name": "sustained", "skipped": f"torch {torch.__version__} sees no CUDA device"}))
    sys.exit(0)
DEVICE = "cpu" if args.dry_run else "cuda"
N, LENGTH = (64, 32) if args.dry_run else (8192, 16384)


def clocks():
    """Starts nvidia-smi, which prints the clock four times per second until it is stopped."""
    query = ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits", "--id=0", "--loop-ms=250"]
    try:
        return subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return None


def keep_on(name, shape, data, flops, work):
    row = {"name": name, "shape": shape, "dtype": "bf16", "data": data, "flops": flops, "peer": f"torch {torch.__version__}"}
    work()
    if args.dry_run:
        print(json.dumps(row | {"skipped": "dry run"}), flush=True)
        return
    torch.cuda.synchronize()
    smi, begun, times = clocks(), time.monotonic(), []
    while time.monotonic() - begun < args.seconds:
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        for _ in range(10):
            work()
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after) / 10)
    if smi:
        smi.terminate()
        said = [int(line) for line in smi.communicate(timeout=10)[0].split() if line.isdigit()]
        row |= {"clock_mhz": statistics.median(said) if said else None, "clock_mhz_least": min(said, default=None)}
    half = len(times) // 2
    row |= {"peer_ms": statistics.median(times), "peer_ms_second_half": statistics.median(times[half:])}
    print(json.dumps(row), flush=True)


for data in ("normal", "zeros"):
    a, b = [torch.empty(N, N, dtype=torch.bfloat16, device=DEVICE) for _ in range(2)]
    for x in (a, b):
        x.normal_() if data == "normal" else x.zero_()
    keep_on("matmul, sustained", f"[{N}, {N}] x [{N}, {N}]", data, 2.0 * N**3, lambda: torch.matmul(a, b.t()))
q = torch.randn(1, 28, LENGTH, 128, dtype=torch.bfloat16, device=DEVICE)
k, v = [torch.randn(1, 4, LENGTH, 128, dtype=torch.bfloat16, device=DEVICE) for _ in range(2)]
pairs = LENGTH * (LENGTH + 1) // 2
keep_on("attention, sustained", f"1 x {LENGTH}, 28:4 x 128, causal", "normal", 4.0 * pairs * 28 * 128,
        lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
