"""Runs verl's own reward loop with pkg://omr_verify. Its workers score in threads other than the main one.

usage: verl_loop.py [FILE]
  FILE receives a call as JSON, for calls.json.
"""
import asyncio
import json
import sys
import threading

import numpy
import omr_verify
import torch
from omegaconf import OmegaConf
from verl import DataProto, __version__
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
from verl.trainer.ppo.reward import get_custom_reward_fn

ROWS = [("<think>2 + 3 = 5</think><answer>5</answer>", "5"), ("It is \\boxed{6}.", "5"), ("\\boxed{\\frac{1}{2}}", "0.5")]
SETTINGS = {"path": "pkg://omr_verify", "name": "compute_score", "reward_kwargs": {"format_weight": 0.2}}
CALLS = []


class Bytes:
    """A tokenizer whose tokens are bytes."""

    def decode(self, ids, skip_special_tokens=True):
        return bytes(ids.tolist()).decode()


def row(response, label):
    tokens = torch.tensor([list(response.encode())])
    columns = {"data_source": "math", "reward_model": {"ground_truth": label}, "extra_info": {"question": "What is 2+3?"}}
    tensors = {"prompts": torch.zeros(1, 1, dtype=torch.long), "responses": tokens, "attention_mask": torch.ones(1, 1 + tokens.shape[1], dtype=torch.long)}
    return DataProto.from_dict(tensors, non_tensors={key: numpy.array([value], dtype=object) for key, value in columns.items()})


def recorded(function):
    def compute_score(**arguments):
        assert threading.current_thread() is not threading.main_thread()
        CALLS.append(arguments)
        return function(**arguments)
    return compute_score


async def main():
    function = get_custom_reward_fn(OmegaConf.create({"reward": {"custom_reward_function": SETTINGS}}))
    loop = NaiveRewardManager(OmegaConf.create(), Bytes(), recorded(function))
    found = await asyncio.gather(*(loop.run_single(row(*one)) for one in ROWS))
    for (response, label), one in zip(ROWS, found):
        scored = omr_verify.score(response, label, "What is 2+3?", format_weight=0.2)
        assert (one["reward_score"], one["reward_extra_info"]) == (scored["score"], scored), (one, scored)
    print(f"verl {__version__}: rewards {[one['reward_score'] for one in found]}")


asyncio.run(main())
if sys.argv[1:]:
    with open(sys.argv[1], "w") as file:
        json.dump({"version": __version__, "call": CALLS[0]}, file, indent=1)
