"""Measures Hugging Face generate: 32 prompts x 8 samples x 24 new tokens, temperature 1; on a GPU 16 prompts of 512 x 16 x 128.

usage: python bench/peers/generate.py [--shape digits|22m|7b|7b-slice] [--device cpu|cuda] [--tiny] [--dtype f32|bf16]
       [--threads 2] [--seconds 3]
Prints one JSON line with the keys of `omr bench generate --json`. EOS is disabled, so that every sample has all its tokens. In
bf16 the faster of bf16 weights and autocast counts. On a GPU it uses bf16 weights and as many prompts at once as fit into
memory; the line has the `name` and `shape` of omr's row and its time as `peer_ms`. --tiny runs the same code on the CPU with
little work.
"""
from models import measure, rows, start

import torch

args, (count, _, length, samples, new) = start(__doc__)
batch = {name: values.to(args.device) for name, values in rows(args.shape, count, length).items()}


def prepare(model, prompts=count):
    model.eval()

    def answer():
        for begin in range(0, count, prompts):
            # Selects the part of each tensor that belongs to these prompts: their rows, or the patches of their images.
            part = {name: values[begin * (n := len(values) // count):(begin + prompts) * n] for name, values in batch.items()}
            with torch.no_grad():
                out = model.generate(
                    **part, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=samples,
                    max_new_tokens=new, min_new_tokens=new, eos_token_id=None, pad_token_id=0,
                )
            assert out.shape == (prompts * samples, length + new), out.shape

    return answer


at_once = dict.fromkeys([count, max(1, count // 4), 1])
tries = [(f"{prompts} prompts at once", lambda model, prompts=prompts: prepare(model, prompts)) for prompts in at_once]
measure("generate", args, f"{count} x {samples} x {new}", count * samples * new, prepare, warm_up=1, tries=tries)
