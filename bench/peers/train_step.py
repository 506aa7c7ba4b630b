"""PyTorch's time for one f32 training step: forward, backward, clip, AdamW on 2,048 tokens (32 rows of 64).

usage: python bench/peers/train_step.py [--shape digits|22m] [--threads 2] [--seconds 3]
Prints one JSON line with the keys of `omr bench train-step --json`. Three steps warm up, at least five are measured.
"""
from models import build, measure, rows, start

import torch

args = start(__doc__)
model = build(args.shape)
batch = rows(args.shape, 32, 64)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


def step():
    optimizer.zero_grad(set_to_none=True)
    model(**batch, labels=batch["input_ids"]).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


measure("train-step", args, model, 2048, step, warm_up=3)
