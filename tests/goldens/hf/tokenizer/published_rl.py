"""Writes published_rl.json: what OpenMMReasoner's fork of verl makes of RL rows, in tokens of transformers.

usage: python published_rl.py verl/utils/dataset/rl_dataset.py     (of OpenMMReasoner, commit 67441eb8)
Recorded with transformers 4.57.1. The rule for the system turn is executed from that file.
"""
import ast
import copy
import gzip
import json
import re
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
PAD = "<|image_pad|>"

nodes = list(ast.walk(ast.parse(Path(sys.argv[1]).read_text())))
prompt = next(n for n in nodes if isinstance(n, ast.Assign) and n.targets[0].id == "SYSTEM_PROMPT")
build = next(n for n in nodes if isinstance(n, ast.FunctionDef) and n.name == "_build_messages")
names = {"re": re}
exec(compile(ast.Module([prompt, build], []), sys.argv[1], "exec"), names)
keys = SimpleNamespace(prompt_key="prompt", image_key="images", video_key="videos")

with tempfile.NamedTemporaryFile(suffix=".json") as file:
    file.write(gzip.decompress((HERE / "tokenizer.json.gz").read_bytes()))
    file.flush()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file.name)
tokenizer.chat_template = (HERE / "chat_template.jinja").read_text()

user = lambda text: {"role": "user", "content": text}
system = {"role": "system", "content": "Answer in \\boxed{}."}
answered = [user("What is 2 + 3?"), {"role": "assistant", "content": "5."}, user("And 4 + 4?")]
rows = {
    "text, no system turn": {"prompt": [user("What is 2 + 3?")]},
    "image, no system turn": {"prompt": [user("<image>\nHow many dots are there?")], "images": ["56x56.png"]},
    "two images, no system turn": {"prompt": [user("Is <image> like <image>?")], "images": ["56x56.png", "56x56.png"]},
    "several turns, no system turn": {"prompt": answered},
    "text, with a system turn": {"prompt": [system, user("What is 2 + 3?")]},
    "image, with a system turn": {"prompt": [system, user("<image>How many?")], "images": ["56x56.png"]},
}
cases = []
for name, row in rows.items():
    messages = names["_build_messages"](keys, copy.deepcopy(row))
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    # An image of 56 x 56 pixels has 4 tokens.
    ids = tokenizer(text.replace(PAD, 4 * PAD), add_special_tokens=False)["input_ids"]
    cases.append({"name": name, "row": row, "ids": ids})
(HERE / "published_rl.json").write_text(json.dumps({"cases": cases}) + "\n")
