"""Records what TRL 1.16.0 computes from groups of 8 responses of which 0, 1, 7 or 8 have no score: runs the lines of TRL's
own GRPOTrainer that make advantages of rewards, and the loss of advantages, on small float64 tensors. Run it with Python
where trl 1.16.0 and torch are installed: record_trl.py > trl_missing_scores.json"""

import inspect
import json
import random
import textwrap
from types import SimpleNamespace

import torch
import trl
from trl import GRPOTrainer
from trl.trainer.utils import nanstd

assert trl.__version__ == "1.16.0", trl.__version__


def lines(function, first, last):
    """Returns the lines of a method of TRL from the one that contains `first` to the one that contains `last`."""
    source = inspect.getsource(function).splitlines()
    start = next(i for i, line in enumerate(source) if first in line)
    end = next(i for i, line in enumerate(source) if i > start and last in line)
    return compile(textwrap.dedent("\n".join(source[start:end])), "trl", "exec")


ADVANTAGES = lines(GRPOTrainer._generate_and_score_completions, "unscorable_mask = ", "# Slice to keep only")
LOSS = lines(GRPOTrainer._compute_loss, 'advantages = inputs["advantages"]', "# Entropy bonus:")


def advantages(rewards, scale_rewards):
    scored = [float("nan") if reward is None else reward for reward in rewards]
    trainer = SimpleNamespace(multi_objective_aggregation="sum_then_normalize", scale_rewards=scale_rewards,
                              reward_weights=torch.ones(1, dtype=torch.float64))
    names = {"torch": torch, "nanstd": nanstd, "self": trainer, "device": "cpu", "num_generations": len(rewards),
             "rewards_per_func": torch.tensor(scored, dtype=torch.float64).unsqueeze(1)}
    exec(ADVANTAGES, names)
    return names["advantages"]


def loss(inputs, given, loss_type, width):
    rows = {name: torch.tensor(inputs[name], dtype=torch.float64) for name in ("log_prob", "old_log_prob", "ref_log_prob")}
    log_prob = rows["log_prob"].requires_grad_()
    args = SimpleNamespace(delta=None, use_bias_correction_kl=False)
    trainer = SimpleNamespace(off_policy_mask_threshold=None, importance_sampling_level="token", beta=0.1, args=args,
                              loss_type=loss_type, epsilon_low=0.2, epsilon_high=0.2, use_vllm=False,
                              model=SimpleNamespace(training=False), max_completion_length=width)
    names = {"torch": torch, "self": trainer, "per_token_logps": log_prob, "entropy_mask": None,
             "mask": torch.tensor(inputs["response_mask"], dtype=torch.float64),
             "inputs": {"advantages": given, "old_per_token_logps": rows["old_log_prob"],
                        "ref_per_token_logps": rows["ref_log_prob"]}}
    exec(LOSS, names)
    names["loss"].backward()
    return {"total_loss": names["loss"].item(), "grad_log_prob": log_prob.grad.tolist()}


def case(missing, width=6):
    draw = random.Random(missing)
    without = draw.sample(range(8), missing)
    rewards = [None if i in without else round(draw.uniform(-1, 1), 2) for i in range(8)]
    lengths = [draw.randint(1, width) for _ in rewards]
    row = lambda low, high: [[round(draw.uniform(low, high), 3) for _ in range(width)] for _ in rewards]  # noqa: E731
    log_prob, change, gap = row(-3, -0.1), row(-0.3, 0.3), row(-0.5, 0.5)
    add = lambda a, b: [[round(x + y, 3) for x, y in zip(*pair)] for pair in zip(a, b)]  # noqa: E731
    inputs = {"rewards": rewards, "response_mask": [[int(t < n) for t in range(width)] for n in lengths],
              "log_prob": log_prob, "old_log_prob": add(log_prob, change), "ref_log_prob": add(log_prob, gap)}
    centred = advantages(rewards, "none")
    losses = {kind: loss(inputs, centred, kind, width) for kind in ("grpo", "bnpo", "dr_grpo")}
    outputs = {"advantages": centred.tolist(), "normalized": advantages(rewards, "group").tolist(), "losses": losses}
    return {"id": f"trl/{missing}_of_8_without_a_score", "kind": "missing_scores", "inputs": inputs, "outputs": outputs}


cases = [case(missing) for missing in (0, 1, 7, 8)]
print(json.dumps({"schema_version": 1, "dtype": "float64", "generator": "trl 1.16.0", "cases": cases}))
