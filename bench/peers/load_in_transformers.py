"""Loads a model saved by omr with transformers: no key may be missing or unexpected, and the greedy tokens must be the same.

usage: python bench/peers/questions.py HELDOUT.parquet QUESTIONS.jsonl
       omr generate --model MODEL_DIR --jsonl QUESTIONS.jsonl --out ANSWERS.jsonl temperature=0 dtype=f32
       python bench/peers/load_in_transformers.py MODEL_DIR ANSWERS.jsonl HELDOUT.parquet
Both sides start from the image bytes and the messages. Template, tokenizer and image processor are those of transformers.
"""
import io
import json
import sys
import warnings

import pyarrow.parquet as pq
import torch
import transformers
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

warnings.filterwarnings("ignore")
transformers.utils.logging.disable_progress_bar()
model_dir, answers, heldout = sys.argv[1:4]
model, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(model_dir, output_loading_info=True, dtype=torch.float32)
problems = {k: sorted(map(str, v)) for k, v in info.items() if v}
print(f"transformers {transformers.__version__}, torch {torch.__version__}")
print("missing, unexpected or mismatched keys:", problems or "none")
tokenizer = AutoTokenizer.from_pretrained(model_dir)
processor = AutoImageProcessor.from_pretrained(model_dir)
merged = processor.merge_size**2
rows = {row["id"]: row for row in pq.read_table(heldout).to_pylist()}


def ask(row, max_new_tokens):
    """Returns the token ids of the greedy answer."""
    messages = []
    for message in row["prompt"]:
        parts = []
        for i, piece in enumerate(message["content"].split("<image>")):
            parts += [{"type": "image"}] if i else []
            parts += [{"type": "text", "text": piece}] if piece else []
        messages.append({"role": message["role"], "content": parts})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    images = [Image.open(io.BytesIO(image["bytes"])).convert("RGB") for image in row["images"]]
    pixels = processor(images=images, return_tensors="pt")
    for grid in pixels["image_grid_thw"]:
        text = text.replace("<|image_pad|>", "<|place|>" * int(grid.prod() // merged), 1)
    text = text.replace("<|place|>", "<|image_pad|>")
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    kinds = (ids["input_ids"] == model.config.image_token_id).long()
    with torch.no_grad():
        out = model.generate(**ids, **pixels, mm_token_type_ids=kinds, do_sample=False, max_new_tokens=max_new_tokens)
    return out[0, ids["input_ids"].shape[1] :].tolist()


stops = model.generation_config.eos_token_id
stops = stops if isinstance(stops, list) else [stops]
same = total = tokens = 0
for line in open(answers):
    answer = json.loads(line)
    ours = answer["token_ids"]
    # A stop token ends the answer. Each side may or may not include it in its list, so it is removed from both.
    finished = answer["finish_reason"] == "stop"
    theirs = ask(rows[answer["id"]], len(ours) + finished)
    ends = [ids[:-1] if finished and ids and ids[-1] in stops else ids for ids in (ours, theirs)]
    total += 1
    tokens += len(ends[0])
    same += ends[0] == ends[1]
    if ends[0] != ends[1]:
        print("differs:", answer["id"], "omr", ours, "transformers", theirs)
print(f"{same} of {total} answers have the same greedy tokens ({tokens} tokens)")
sys.exit(0 if same == total and total >= 20 and not problems else 1)
