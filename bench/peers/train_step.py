"""Measures one training step of PyTorch: forward, backward, clip, fused AdamW on 2,048 tokens (32 rows of 64); on a GPU on 16
rows of 1,024.

usage: python bench/peers/train_step.py [--shape digits|22m|7b|7b-slice] [--device cpu|cuda] [--tiny] [--dtype f32|bf16]
       [--lora-rank N] [--recomputed-layers N] [--threads 2] [--seconds 3]
Prints one JSON line with the keys of `omr bench train-step --json`. After three warm-up steps at least five are measured. In
bf16 the faster of bf16 weights and autocast counts. On a GPU it uses bf16 weights, the fused loss of Liger if it is installed, and
gradient checkpointing of N layers (omr's row says of how many), or of all if that does not fit into memory; the line has the `name` and `shape` of omr's row and its time as `peer_ms`. --tiny runs
the same code on the CPU with little work. --lora-rank trains adapters with PEFT, as `omr bench train-step --lora-rank` does.
"""
from models import measure, rows, start

import torch

args, (count, length, *_) = start(__doc__, recomputed_layers=0)
LIGER = None
if args.device == "cuda":
    try:
        from liger_kernel.transformers import apply_liger_kernel_to_qwen2_5_vl as liger
    except ImportError:
        pass
    else:
        liger(rope=False, rms_norm=False, swiglu=False, cross_entropy=False, fused_linear_cross_entropy=True)
        LIGER = "Liger's loss"
if args.lora_rank:
    from peft import LoraConfig, get_peft_model
batch = {name: values.to(args.device) for name, values in rows(args.shape, count, length).items()}


def prepare(model):
    if args.lora_rank:
        layers = r".*language_model\..*(q|k|v|o|gate|up|down)_proj"
        model = get_peft_model(model, LoraConfig(r=args.lora_rank, lora_alpha=32, target_modules=layers))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        model(**batch, labels=batch["input_ids"]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def checkpointed(model, layers=None):
    """Recomputes the first `layers` layers of the language model, or all of them and the vision tower."""
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if layers is not None:
        of_text = model.model.language_model.layers
        for layer in [*of_text[layers:], *model.model.visual.blocks]:
            layer.gradient_checkpointing = False
    return prepare(model)


def tried(label, way):
    return ", ".join(filter(None, [LIGER, label])), way


some = args.recomputed_layers
tries = [tried(f"{some} layers recomputed" if some else "all kept", lambda model: checkpointed(model, some) if some else prepare(model))]
tries += [tried("gradient checkpointing", checkpointed)]
measure("train-step", args, f"{count} rows x {length}", count * length, prepare, warm_up=3, tries=tries)
