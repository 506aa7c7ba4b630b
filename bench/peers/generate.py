"""Hugging Face generate: 32 prompts x 8 samples x 24 new tokens, temperature 1, f32, on the digits shape.

usage: python bench/peers/generate.py [--shape digits] [--threads 2]
Prints one JSON line: median seconds and tokens a second. EOS is off so that every sample has 24 tokens.
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
a = p.parse_args()
torch.set_num_threads(a.threads)
model = build(a.shape).eval()
batch = rows(a.shape, 32, 24)
times = []
with torch.no_grad():
    for i in range(6):
        start = time.perf_counter()
        out = model.generate(**batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=8,
                             max_new_tokens=24, min_new_tokens=24, eos_token_id=None, pad_token_id=0)
        if i >= 1:
            times.append(time.perf_counter() - start)
assert out.shape == (256, 48), out.shape
seconds = statistics.median(times)
print(json.dumps({"peer": f"transformers generate, torch {torch.__version__}", "shape": a.shape, "threads": a.threads,
                  "seconds": seconds, "tokens_per_sec": 256 * 24 / seconds}))
