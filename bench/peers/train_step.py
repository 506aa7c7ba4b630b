"""PyTorch's time for one training step: forward, backward, clip, AdamW on 2,048 tokens (32 rows of 64).

usage: python bench/peers/train_step.py [--shape digits|22m] [--dtype f32|bf16] [--threads 2] [--seconds 3]
Prints one JSON line with the keys of `omr bench train-step --json`. Three steps warm up, at least five are measured. In bf16
the faster of bf16 weights and autocast counts.
"""
from models import measure, rows, start

import torch

args = start(__doc__)
batch = rows(args.shape, 32, 64)


def prepare(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        model(**batch, labels=batch["input_ids"]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


measure("train-step", args, 2048, prepare, warm_up=3)
