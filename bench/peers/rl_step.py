"""Measures one update of TRL's GRPO trainer with GSPO's ratio on recorded rollouts: forward, loss, backward, clip, fused AdamW. The
rollouts are one prompt of 500 tokens with 8 responses of 256 (digits: 32 prompts of 24 tokens with 8 responses of 24).

usage: python bench/peers/rl_step.py [--shape digits|22m] [--device cpu] [--dtype f32|bf16] [--threads 2] [--seconds 3]
Prints one JSON line with the keys of `omr bench rl-step --json`. After one warm-up update at least five are measured. In bf16 the
faster of bf16 weights and autocast counts.
"""
import tempfile

from models import measure, rows, start

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

RESPONSES = 8
args, _ = start(__doc__)
prompts, prompt_len, response_len = (32, 24, 24) if args.shape == "digits" else (1, 500, 256)
count = prompts * RESPONSES


def rollouts():
    """Returns the inputs of a loss as the trainer makes them after generation."""
    batch = rows(args.shape, prompts, prompt_len)
    each = {name: values.repeat_interleave(RESPONSES, dim=0) for name, values in batch.items() if name != "pixel_values"}
    pixels = batch["pixel_values"].view(prompts, -1, 1176).repeat_interleave(RESPONSES, dim=0).view(-1, 1176)
    response = torch.randint(0, 400, (count, response_len))
    return dict(
        prompt_ids=each["input_ids"], prompt_mask=each["attention_mask"], completion_ids=response,
        completion_mask=torch.ones_like(response), advantages=torch.tensor([1.0, -1.0]).repeat(count // 2),
        pixel_values=pixels, image_grid_thw=each["image_grid_thw"], num_images=[1] * count,
        mm_token_type_ids=torch.cat([each["mm_token_type_ids"], torch.zeros_like(response)], dim=1),
    )


class Recorded(GRPOTrainer):
    """The trainer with recorded rollouts in place of generation."""

    inputs = rollouts()

    def _prepare_inputs(self, _):
        return self.inputs


def prepare(model):
    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")), pad_token="a", eos_token="b")
    config = GRPOConfig(
        tempfile.mkdtemp(), use_cpu=True, bf16=False, per_device_train_batch_size=count, num_generations=RESPONSES,
        max_completion_length=response_len, importance_sampling_level="sequence", loss_type="grpo", beta=0.0, epsilon=3e-4,
        epsilon_high=4e-4, gradient_checkpointing=False, report_to=[],
    )
    trainer = Recorded(
        model, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=config, processing_class=words,
        train_dataset=Dataset.from_dict({"prompt": ["a"] * count}),
    )
    model.train()
    trainer.current_gradient_accumulation_steps = 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        trainer.training_step(model, {}, None)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


amount = f"{prompts} x {prompt_len} + {RESPONSES} x {response_len}"
tokens = count * (prompt_len + response_len)
measure("rl-step", args, amount, tokens, prepare, warm_up=1, tries=[("all kept", prepare)])
