# Answers the questions greedily with transformers, compares the token ids with those of omr and prints the outcome as JSON.
# It is a pass if at least one answer begins with the same token: later tokens can differ, because rounding differs.
import json
import sys

import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

folder, dtype = sys.argv[1:]
place = "cuda" if dtype == "bfloat16" and torch.cuda.is_available() else "cpu"
processor = AutoProcessor.from_pretrained(folder)
model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype)).to(place).eval()
rows = []
for line in map(json.loads, open("answers.jsonl")):
    images = [Image.open(path) for path in line.get("images", [])]
    content = [{"type": "image"} for _ in images] + [{"type": "text", "text": line["prompt"]}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=[text], images=images or None, return_tensors="pt").to(place)
    with torch.no_grad():
        ids = model.generate(**inputs, do_sample=False, repetition_penalty=1.0, max_new_tokens=32)
    rows.append({"token_ids": line["token_ids"], "transformers": ids[0, inputs["input_ids"].shape[1]:].tolist()})
pairs = [(row["token_ids"], row["transformers"]) for row in rows]
result = f"{sum(ours == theirs for ours, theirs in pairs)} of {len(pairs)} answers have the token ids of transformers"
for number, (ours, theirs) in enumerate(pairs, 1):
    if ours != theirs:
        same = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        result += f"; first difference: question {number}, token {same + 1}: {ours[same:same + 1]} and {theirs[same:same + 1]}"
        break
verdict = "passed" if any(ours[:1] == theirs[:1] for ours, theirs in pairs) else "failed"
print(json.dumps({"verdict": verdict, "result": result, "rows": rows}))
