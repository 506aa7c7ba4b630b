"""A model saved by omr, loaded by transformers: no missing or unexpected key, the same greedy tokens.

usage: python bench/peers/load_in_transformers.py MODEL_DIR ANSWERS.jsonl HELDOUT.parquet
ANSWERS.jsonl comes from `omr generate --model MODEL_DIR --jsonl QUESTIONS --out ANSWERS.jsonl temperature=0`
(see bench/peers/README.md); each line holds id and token_ids.
"""
import io
import json
import sys

import pyarrow.parquet as pq
import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor

model_dir, answers, heldout = sys.argv[1:4]
model, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(model_dir, output_loading_info=True, dtype=torch.float32)
problems = {k: sorted(v) for k, v in info.items() if v}
print("missing, unexpected or mismatched keys:", problems or "none")
tokenizer = AutoTokenizer.from_pretrained(model_dir)
config = json.load(open(f"{model_dir}/preprocessor_config.json"))
processor = Qwen2VLImageProcessor(min_pixels=config["min_pixels"], max_pixels=config["max_pixels"])
rows = {r["extra_info"].get("id") or str(r["extra_info"]["index"]): r for r in pq.read_table(heldout).to_pylist()}
template = open(f"{model_dir}/chat_template.jinja").read()
same = total = 0
for line in open(answers):
    answer = json.loads(line)
    row = rows[str(answer["id"])]
    messages = []
    for m in row["prompt"]:
        parts = []
        for i, piece in enumerate(m["content"].split("<image>")):
            if i:
                parts.append({"type": "image"})
            if piece:
                parts.append({"type": "text", "text": piece})
        messages.append({"role": m["role"], "content": parts})
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)
    images = [Image.open(io.BytesIO(i["bytes"])).convert("RGB") for i in row["images"]]
    pixels = processor(images=images, return_tensors="pt")
    for thw in pixels["image_grid_thw"]:
        text = text.replace("<|image_pad|>", "<|pad|>" * int(thw.prod() // 4), 1)
    text = text.replace("<|pad|>", "<|image_pad|>")
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    kinds = (ids["input_ids"] == model.config.image_token_id).long()
    with torch.no_grad():
        out = model.generate(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], mm_token_type_ids=kinds,
                             pixel_values=pixels["pixel_values"], image_grid_thw=pixels["image_grid_thw"],
                             do_sample=False, max_new_tokens=len(answer["token_ids"]))
    theirs = out[0, ids["input_ids"].shape[1]:].tolist()
    total += 1
    same += theirs == answer["token_ids"]
    if theirs != answer["token_ids"]:
        print("differs:", answer["id"], theirs, answer["token_ids"])
print(f"{same} of {total} answers have the same greedy tokens")
sys.exit(0 if same == total and not problems and total else 1)
