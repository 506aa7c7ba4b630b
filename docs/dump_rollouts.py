"""Writes the rollouts of verl or TRL as JSON lines that `omr score --logprobs FILE --model DIR` compares with omr's log-probs.

verl: call `verl_batch(batch, "rollouts.jsonl")` where the trainer has the log-probs of a batch (a DataProto with `raw_prompt`,
`multi_modal_data` and `rollout_log_probs` or `old_log_probs`), for example in `RayPPOTrainer.fit` after `compute_log_prob`.

TRL: train with `DumpingGRPOTrainer`, made by `dumping(GRPOTrainer, "rollouts.jsonl")`. The log-probs are those of the sampler
(vLLM), otherwise those of the trainer before the first update, which TRL computes with `num_iterations` above 1.
"""

import base64
import io
import json


def data_url(image):
    """Returns an image (PIL, or a dict with bytes, as the data sets have them) as a data: URL."""
    if isinstance(image, dict):
        return "data:image/png;base64," + base64.b64encode(image["bytes"]).decode()
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def messages(prompt, images):
    """Returns a conversation in the form of OpenAI's API, with the images inside."""
    left = iter(images)

    def part(of):
        return {"type": "image_url", "image_url": {"url": data_url(next(left))}} if of["type"] == "image" else of

    def message(of):
        content = of["content"]
        if isinstance(content, str):
            # verl marks the place of an image in the text.
            pieces = content.split("<image>")
            content = [{"type": "text", "text": pieces[0]}]
            for piece in pieces[1:]:
                content += [{"type": "image"}, {"type": "text", "text": piece}]
        return {"role": of["role"], "content": [part(of) for of in content if of.get("text") != ""]}

    return [message(of) for of in prompt]


def write(path, rows):
    with open(path, "a") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def kept(values, mask):
    """Returns the values whose mask is set, as a list."""
    return values[mask.bool()].tolist()


def verl_batch(batch, path):
    """Appends the rollouts of a DataProto of verl."""
    tensors, others = batch.batch, batch.non_tensor_batch
    name = next(name for name in ("rollout_log_probs", "old_log_probs") if name in tensors)
    prompt_len = tensors["prompts"].shape[1]
    rows = []
    for i in range(len(batch)):
        mask = tensors["attention_mask"][i]
        media = others["multi_modal_data"][i] if "multi_modal_data" in others else {}
        row = {
            "messages": messages(others["raw_prompt"][i], (media or {}).get("image") or (media or {}).get("images") or []),
            "prompts": kept(tensors["prompts"][i], mask[:prompt_len]),
            "responses": kept(tensors["responses"][i], mask[prompt_len:]),
            name: kept(tensors[name][i].float(), mask[prompt_len:]),
        }
        inputs = others["multi_modal_inputs"][i] if "multi_modal_inputs" in others else {}
        if inputs and "image_grid_thw" in inputs:
            row["image_grid_thw"] = inputs["image_grid_thw"].tolist()
        rows.append(row)
    write(path, rows)


def dumping(trainer, path):
    """Returns a class that trains like TRL's `trainer` and appends its rollouts to a file."""

    class Dumping(trainer):
        def _generate_and_score_completions(self, inputs):
            # TRL prepares the images in place, so the conversations are written first.
            asked = []
            for row in inputs:
                images = row.get("images") or ([row["image"]] if row.get("image") is not None else [])
                prompt = row["prompt"] if isinstance(row["prompt"], list) else [{"role": "user", "content": row["prompt"]}]
                marked = any("<image>" in str(of["content"]) or isinstance(of["content"], list) for of in prompt)
                if images and not marked:
                    first = next(of for of in prompt if of["role"] == "user")
                    prompt = [{**of, "content": "<image>" * len(images) + of["content"]} if of is first else of for of in prompt]
                asked.append(messages(prompt, images))
            out = super()._generate_and_score_completions(inputs)
            names = ("sampling_per_token_logps", "old_per_token_logps")
            name = next((name for name in names if out.get(name) is not None), None)
            if name is not None:
                grids = iter(out["image_grid_thw"].tolist() if "image_grid_thw" in out else [])
                rows = []
                for i, conversation in enumerate(asked):
                    mask = out["completion_mask"][i]
                    row = {
                        "messages": conversation,
                        "prompt_ids": kept(out["prompt_ids"][i], out["prompt_mask"][i]),
                        "completion_ids": kept(out["completion_ids"][i], mask),
                        name: kept(out[name][i].float(), mask),
                    }
                    if "image_grid_thw" in out:
                        row["image_grid_thw"] = [next(grids) for _ in range(out["num_images"][i])]
                    rows.append(row)
                write(path, rows)
            return out

    return Dumping
