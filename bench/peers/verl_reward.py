"""Runs verl's own reward loop with docs/verl_reward.py, and compares it with `omr score` on the same rows.

usage: verl_reward.py [--rows N] [--omr target/release/omr]

The rows are the pairs of tests/goldens/verify with reasoning before their answers. Both reward loops of verl are run: that of
the trainer (workers.reward_manager), and the one that scores many rollouts concurrently as they arrive
(experimental.reward_loop). Exit status 1 if a reward or its additional fields differ from the output of `omr score`.

verl 0.9.1 is not in requirements.txt, because it needs other versions. In addition to those, the loops need
    pip install --no-deps verl==0.9.1 tensordict==0.10.0 ray omegaconf antlr4-python3-runtime==4.9.3 hydra-core codetiming
and the packages that `import verl` then reports as missing.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile

import numpy
import torch
from omegaconf import OmegaConf
from verl import DataProto, __version__
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager as Loop
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.workers.reward_manager.naive import NaiveRewardManager as Manager

from score import make, read

KEPT = ("score", "acc_score", "format_reward_score", "predict_str")


class Bytes:
    """A tokenizer whose tokens are bytes, so that the scored text is exactly the given text."""

    def decode(self, ids, skip_special_tokens=True):
        return bytes(ids.tolist()).decode()


def batch(rows):
    """Makes the batch that a trainer would have: prompts and responses padded to one length."""
    texts = [row["response"].encode() for row in rows]
    width = max(map(len, texts))
    responses = torch.tensor([list(text.ljust(width, b"\0")) for text in texts])
    mask = torch.tensor([[1] * (1 + len(text)) + [0] * (width - len(text)) for text in texts])
    columns = {
        "data_source": ["verify"] * len(rows),
        "reward_model": [{"ground_truth": row["ground_truth"], "style": "rule"} for row in rows],
        "extra_info": [{"index": i, "question": row.get("question")} for i, row in enumerate(rows)],
    }
    tensors = {"prompts": torch.zeros(len(rows), 1, dtype=torch.long), "responses": responses, "attention_mask": mask}
    return DataProto.from_dict(tensors, non_tensors={k: numpy.array(v, dtype=object) for k, v in columns.items()})


def of_rollouts(compute_score, rows):
    """Runs the loop that scores rollouts as they arrive: all of them concurrently, one thread each."""
    async def scored():
        loop = Loop(OmegaConf.create(), Bytes(), compute_score)
        data = batch(rows)
        return await asyncio.gather(*(loop.run_single(data[i:i + 1]) for i in range(len(rows))))

    return [(one["reward_score"], one["reward_extra_info"]) for one in asyncio.get_event_loop().run_until_complete(scored())]


def of_trainer(compute_score, rows):
    """Runs the loop of the trainer's own process, which scores rollouts one after the other."""
    out = Manager(Bytes(), num_examine=0, compute_score=compute_score)(batch(rows), return_dict=True)
    kept = out["reward_extra_info"]
    return [(kept["score"][i], {k: kept[k][i] for k in kept}) for i in range(len(rows))], out["reward_tensor"].sum(-1)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, default=200)
    arguments.add_argument("--omr", default="target/release/omr")
    options = arguments.parse_args()
    command = [options.omr, "--quiet", "score", "--jsonl"]
    os.environ["OMR"] = " ".join(command)
    with tempfile.TemporaryDirectory() as work:
        make(work, options.rows)
        rows = read(f"{work}/responses.jsonl")
        with open(f"{work}/responses.jsonl") as lines:
            said = subprocess.run(command, stdin=lines, stdout=subprocess.PIPE, check=True).stdout
    want = [{key: row[key] for key in KEPT} for row in map(json.loads, said.splitlines())]
    config = {"reward": {"custom_reward_function": {"path": "docs/verl_reward.py", "name": "compute_score"}}}
    compute_score = get_custom_reward_fn(OmegaConf.create(config))
    (trainer, tensor), rollouts = of_trainer(compute_score, rows), of_rollouts(compute_score, rows)
    wrong = 0
    for name, got in (("workers.reward_manager", trainer), ("experimental.reward_loop", rollouts)):
        equal = sum(reward == w["score"] and kept == w for (reward, kept), w in zip(got, want, strict=True))
        wrong += equal < len(want)
        print(f"verl {__version__} {name}: {equal} of {len(want)} rows as omr score, {sum(w['acc_score'] for w in want):.0f} right")
    placed = torch.equal(tensor, torch.tensor([w["score"] for w in want]))
    print(f"the trainer's tensor holds {'them' if placed else 'OTHER VALUES'}")
    return wrong > 0 or not placed


if __name__ == "__main__":
    sys.exit(main())
