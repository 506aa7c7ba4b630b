"""Records rollouts as TRL's and verl's own code writes them, with a small random model on the CPU, and the log-probs that
transformers computes with a fault of each kind. Run it with Python where trl 1.16.0, verl 0.9.1 and transformers 5.23.0 are
installed: record.py BASE OUT, where BASE is what `omr init --like configs/digits.yaml --rows texts.jsonl --out BASE` writes."""

import json
import pathlib
import sys

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from tensordict import TensorDict
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration
from trl import GRPOConfig, GRPOTrainer
from verl import DataProto

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "docs"))
from dump_rollouts import dumping, verl_batch  # noqa: E402

base, out = sys.argv[1], pathlib.Path(sys.argv[2])
random = np.random.default_rng(1)
images = [Image.fromarray(np.kron(random.integers(0, 256, (4, 6, 3)), np.ones((14, 14, 1))).astype(np.uint8)) for _ in range(4)]
question = "What is the sum of the two digits?"
data = Dataset.from_list([{"prompt": [{"role": "user", "content": question}], "image": image} for image in images])
kept = {}


class Trainer(GRPOTrainer):
    def _generate_and_score_completions(self, inputs):
        kept["inputs"] = [dict(row) for row in inputs]
        kept["outputs"] = super()._generate_and_score_completions(inputs)
        return kept["outputs"]


torch.manual_seed(0)
config = GRPOConfig(
    output_dir=str(out / "trainer"), per_device_train_batch_size=4, num_generations=2, num_iterations=2, max_steps=1,
    max_completion_length=12, use_cpu=True, bf16=False, report_to=[], learning_rate=0.0, save_strategy="no")
model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
(out / "trl.jsonl").unlink(missing_ok=True)
dumping(Trainer, out / "trl.jsonl")(
    model=model, processing_class=AutoProcessor.from_pretrained(base), args=config, train_dataset=data,
    reward_funcs=lambda completions, **_: [float(len(str(text))) for text in completions]).train()

# The same rollouts as a DataProto of verl.
rolled = kept["outputs"]
count = len(rolled["prompt_ids"])
attention = torch.cat([rolled["prompt_mask"], rolled["completion_mask"]], dim=1)
tensors = {"prompts": rolled["prompt_ids"], "responses": rolled["completion_ids"], "attention_mask": attention,
           "rollout_log_probs": rolled["old_per_token_logps"]}
others = {"raw_prompt": [[{"role": "user", "content": "<image>" + question}]] * count,
          "multi_modal_data": [{"image": [row["image"]]} for row in kept["inputs"]],
          "multi_modal_inputs": [{"image_grid_thw": grid[None]} for grid in rolled["image_grid_thw"]]}
others = {name: np.fromiter(values, dtype=object, count=count) for name, values in others.items()}
batch = DataProto(batch=TensorDict(tensors, batch_size=count), non_tensor_batch=others)
batch.save_to_disk(out / "batch.pkl")
(out / "verl.jsonl").unlink(missing_ok=True)
verl_batch(DataProto.load_from_disk(out / "batch.pkl"), out / "verl.jsonl")

# Log-probs of the same tokens with a fault.
rows = [json.loads(line) for line in (out / "trl.jsonl").read_text().splitlines()]
faults = {"images missing": [], "one-dimensional positions": [], "another temperature": []}
for i, row in enumerate(rows):
    ids = torch.tensor([row["prompt_ids"] + row["completion_ids"]])
    grid = rolled["image_grid_thw"][i : i + 1]
    patches = [int(g.prod()) for g in rolled["image_grid_thw"]]
    pixels = rolled["pixel_values"][sum(patches[:i]) : sum(patches[: i + 1])]
    seen = {"pixel_values": pixels, "image_grid_thw": grid}
    line = torch.arange(ids.shape[1]).expand(3, 1, -1)
    # The type of each token decides the positions: 1 is an image.
    types = (ids == model.config.image_token_id).long()
    ways = {"images missing": ({"position_ids": line}, 1.0), "one-dimensional positions": ({**seen, "position_ids": line}, 1.0),
            "another temperature": ({**seen, "mm_token_type_ids": types}, 0.7)}
    for name, (given, temperature) in ways.items():
        with torch.no_grad():
            logits = model(input_ids=ids, **given).logits[0].float() / temperature
        start = len(row["prompt_ids"])
        logprobs = logits[start - 1 : -1].log_softmax(-1).gather(1, ids[0, start:, None])[:, 0]
        faults[name].append(logprobs.tolist())
(out / "faults.json").write_text(json.dumps(faults) + "\n")
