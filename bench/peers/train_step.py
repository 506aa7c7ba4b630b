"""PyTorch's time for one f32 training step: forward, backward, clip, AdamW on 2,048 tokens (32 rows of 64).

usage: python bench/peers/train_step.py [--shape digits|22m] [--threads 2] [--steps 12]
Prints one JSON line: median milliseconds a step.
"""
import argparse
import json
import statistics
import time

import torch
from models import build, rows

p = argparse.ArgumentParser()
p.add_argument("--shape", default="digits")
p.add_argument("--threads", type=int, default=2)
p.add_argument("--steps", type=int, default=12)
a = p.parse_args()
torch.set_num_threads(a.threads)
model = build(a.shape)
batch = rows(a.shape, 32, 64)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
times = []
for i in range(a.steps + 3):
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    model(**batch, labels=batch["input_ids"]).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if i >= 3:
        times.append((time.perf_counter() - start) * 1e3)
print(json.dumps({"peer": f"torch {torch.__version__}", "shape": a.shape, "threads": a.threads, "tokens": 2048,
                  "parameters": sum(q.numel() for q in model.parameters()), "ms": statistics.median(times),
                  "min_ms": min(times), "max_ms": max(times)}))
