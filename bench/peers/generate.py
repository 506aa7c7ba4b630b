"""Hugging Face generate: 32 prompts x 8 samples x 24 new tokens, temperature 1.

usage: python bench/peers/generate.py [--shape digits|22m] [--dtype f32|bf16] [--threads 2] [--seconds 3]
Prints one JSON line with the keys of `omr bench generate --json`. EOS is off so that every sample has 24 tokens. In bf16 the
faster of bf16 weights and autocast counts.
"""
from models import measure, rows, start

import torch

args = start(__doc__)
batch = rows(args.shape, 32, 24)


def prepare(model):
    model.eval()

    def answer():
        with torch.no_grad():
            out = model.generate(
                **batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=8,
                max_new_tokens=24, min_new_tokens=24, eos_token_id=None, pad_token_id=0,
            )
        assert out.shape == (256, 48), out.shape

    return answer


measure("generate", args, 256 * 24, prepare, warm_up=1)
