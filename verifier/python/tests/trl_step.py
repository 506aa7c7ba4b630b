"""Runs one step of TRL's GRPOTrainer on the CPU with omr_verify.trl_reward, for prompts that are conversations and for texts.

usage: trl_step.py [FILE]
  The model is random and has few tokens. FILE receives the calls as JSON, for calls.json.
"""
import json
import sys
import tempfile

import omr_verify
import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

TEMPLATE = "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' ' }}{% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
WORDS = ["<pad>", "<eos>", "user", "assistant", "What", "is", "2+3?", *(f"\\boxed{{{n}}}" for n in range(4, 7)), "<unk>"]
CALLS = []


def trl_reward(**arguments):
    rewards = omr_verify.trl_reward(**arguments)
    kept = {}
    for name, value in arguments.items():
        try:
            kept[name] = json.loads(json.dumps(value))
        except TypeError:
            pass  # trainer_state and the two functions that log
    CALLS.append({"names": sorted(arguments), "arguments": kept, "rewards": rewards})
    return rewards


def step(prompt, directory):
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, bos_token_id=1, eos_token_id=1, pad_token_id=0))
    config = trl.GRPOConfig(
        output_dir=directory, use_cpu=True, bf16=False, max_steps=1, per_device_train_batch_size=8, num_generations=8,
        max_completion_length=2, report_to=[], save_strategy="no", logging_steps=1, disable_tqdm=True)
    rows = Dataset.from_list([{"prompt": prompt, "solution": "5"}])
    trainer = trl.GRPOTrainer(model, trl_reward, args=config, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    logged = {key: value for entry in trainer.state.log_history for key, value in entry.items()}
    mean = sum(CALLS[-1]["rewards"]) / len(CALLS[-1]["rewards"])
    assert abs(float(logged["rewards/trl_reward/mean"]) - mean) < 1e-3, (logged, CALLS[-1])


with tempfile.TemporaryDirectory() as directory:
    step([{"role": "user", "content": "What is 2+3?"}], directory)
    step("What is 2+3?", directory)
if sys.argv[1:]:
    with open(sys.argv[1], "w") as file:
        json.dump({"version": trl.__version__, "calls": CALLS}, file, indent=1)
print(f"trl {trl.__version__}: rewards {[call['rewards'] for call in CALLS]}")
