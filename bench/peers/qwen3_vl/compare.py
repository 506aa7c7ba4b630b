#!/usr/bin/env python3
"""Compares omr with transformers on Qwen3-VL with random weights: a saved model, and a model in the shapes of Qwen3-VL-2B.

usage: bench/peers/qwen3_vl/compare.py [--omr PROGRAM] [--threads N] [--parts saved,shapes] [--out DIR] [--help]
  --omr PROGRAM  the program (default target/release/omr)
  --threads N    compute threads of both sides (default 2)
  --parts LIST   saved: omr trains a tiny model for one step in f32 and saves it, transformers loads it and saves it again, and omr
                 loads that. shapes: omr makes a checkpoint in the shapes of Qwen3-VL-2B in bf16, and both sides answer a
                 question about an image (default both)
  --out DIR      folder for qwen3_vl.json and README.md (default bench/results/<date>-<cpu>-<commit>-qwen3-vl)
Needs the packages torch, transformers, safetensors and pillow, 5 GB of disk, 8 GB of memory and about 5 minutes on two idle cores.
"""
import argparse
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
sys.path.insert(0, str(HERE.parent))

import torch  # noqa: E402
import transformers  # noqa: E402
from PIL import Image  # noqa: E402
from results import write  # noqa: E402
from safetensors import safe_open  # noqa: E402
from transformers import AutoImageProcessor, AutoTokenizer, Qwen3VLForConditionalGeneration  # noqa: E402

TOKENS = 8
ASK = "What do you see?"
# goldens/qwen3_vl: bf16 logits of tiny models differ from f32 by up to 0.2.
BF16 = 0.2
NAMES = ("model.language_model.", "model.visual.", "lm_head.weight")
TINY = ["base.hidden_size=48", "base.intermediate_size=64", "base.num_hidden_layers=2", "base.tie_word_embeddings=false",
        "base.mrope_section=[2,3,3]", "base.vision={hidden_size: 32, depth: 2, num_heads: 2, intermediate_size: 48}"]
SHAPES = ["base.vocab_size=151936", "base.hidden_size=2048", "base.intermediate_size=6144", "base.num_hidden_layers=28",
          "base.num_attention_heads=16", "base.num_key_value_heads=8", "base.mrope_section=[24,20,20]", "base.rope_theta=5e6",
          "base.initializer_range=0.02", "dtype=bf16",
          "base.vision={hidden_size: 1024, depth: 24, num_heads: 16, intermediate_size: 4096, num_position_embeddings: 2304, "
          "deepstack_visual_indexes: [5, 11, 17]}"]


class Omr:
    """The program with the settings of both sides."""

    def __init__(self, program, threads):
        self.command = [str(program), "--device", "cpu", "--threads", str(threads)]

    def run(self, *arguments):
        """Runs a command. Returns its messages, its seconds, its seconds of processor time and its peak memory in bytes."""
        begun = time.monotonic()
        with tempfile.TemporaryFile("w+") as messages:
            child = subprocess.Popen([*self.command, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=messages, cwd=ROOT)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            messages.seek(0)
            told = messages.read()
        if child.returncode:
            sys.exit(f"omr {' '.join(map(str, arguments))}: {told}")
        cpu = used.ru_utime + used.ru_stime
        return {"told": told, "seconds": time.monotonic() - begun, "cpu_seconds": cpu, "peak": used.ru_maxrss * 1024}

    def init(self, rows, out, shape):
        return self.run("init", "--like", "configs/digits.yaml", "--rows", rows, "--out", out, "base.family=qwen3_vl", *shape)

    def logprobs(self, model, answers, out, *settings):
        self.run("score", "--logprobs", answers, "--model", model, "--out", out, *settings)
        return lines(out)[0]["logprobs"]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def put(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def draw(path):
    """Writes an image of 320 x 256 pixels, which is 80 tokens."""
    image = Image.new("RGB", (320, 256))
    image.putdata([(x * 7 % 256, y * 5 % 256, (x + y) % 256) for y in range(256) for x in range(320)])
    image.save(path)
    return str(path)


def rows(work):
    """Writes rows with an image, for a tokenizer and for training."""
    image = draw(work / "image.png")
    turns = lambda i: [{"role": "user", "content": f"<image>{ASK}"}, {"role": "assistant", "content": f"It is number {i}."}]
    return put(work / "rows.jsonl", [{"messages": turns(i), "images": [image]} for i in range(4)]), image


def inputs(model_dir, model, image):
    """Returns the inputs of transformers for the question."""
    tokenizer, processor = AutoTokenizer.from_pretrained(model_dir), AutoImageProcessor.from_pretrained(model_dir)
    content = [{"type": "image"}, {"type": "text", "text": ASK}]
    text = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
    pixels = processor(images=[Image.open(image).convert("RGB")], return_tensors="pt")
    pad = "<|image_pad|>"
    text = text.replace(pad, pad * int(pixels["image_grid_thw"].prod() // processor.merge_size**2))
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    return {**pixels, "input_ids": ids, "mm_token_type_ids": (ids == model.config.image_token_id).long()}


def tensors(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


def saved(omr, work):
    """Trains a tiny model for one step, and loads and saves it with transformers: every tensor must have the bits of the file."""
    data, image = rows(work)
    omr.init(data, work / "tiny", [*TINY, "dtype=f32"])
    config = work / "sft.yaml"
    config.write_text(f"model: {work}/tiny\ndatasets: [{data}]\nmax_steps: 1\ntrain_batch_size: 4\npacking_length: 512\nwarmup_steps: 0\nlearning_rate: 1e-3\ndtype: f32\n")
    omr.run("sft", config, "--out", work / "sft")
    ours, back = work / "sft/model", work / "back"
    model, info = Qwen3VLForConditionalGeneration.from_pretrained(ours, output_loading_info=True, dtype=torch.float32)
    model.save_pretrained(back)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "chat_template.jinja"):
        if (ours / name).exists():
            shutil.copy(ours / name, back / name)
    answer = put(work / "a.jsonl", [{"id": 0, "prompt": f"<image>{ASK}", "images": [image], "response": "It is number 1."}])
    scores = [omr.logprobs(folder, answer, work / f"{folder.name}.jsonl", "dtype=f32") for folder in (ours, back)]
    file, state, again, start = tensors(ours), model.state_dict(), tensors(back), tensors(work / "tiny")
    return {
        "tensors": len(file),
        "released_names": sum(name.startswith(NAMES) for name in file),
        "same_bits": sum(same_bits(tensor, state[name]) for name, tensor in file.items()),
        "same_bits_back": sum(same_bits(tensor, again[name]) for name, tensor in file.items()) if file.keys() == again.keys() else 0,
        "same_logprobs_back": scores[0] == scores[1],
        "changed_by_training": sum(not same_bits(tensor, start[name]) for name, tensor in file.items()),
        "problems": {key: sorted(map(str, value)) for key, value in info.items() if value},
    }


def peer(model_dir, image, answers):
    """Prints what transformers answers in bf16, and the log-probs of omr's answer. Runs as a process of its own, for its peak
    memory."""
    begun = time.monotonic()
    model = Qwen3VLForConditionalGeneration.from_pretrained(model_dir, dtype=torch.bfloat16).eval()
    given, ours = inputs(model_dir, model, image), lines(Path(answers))[0]["token_ids"]
    length = given["input_ids"].shape[1]
    with torch.no_grad():
        made = model.generate(**given, do_sample=False, max_new_tokens=TOKENS, min_new_tokens=TOKENS)
        seconds, cpu = time.monotonic() - begun, time.process_time()
        both = torch.cat([given["input_ids"], torch.tensor([ours])], 1)
        kinds = torch.cat([given["mm_token_type_ids"], torch.zeros(1, len(ours), dtype=torch.long)], 1)
        logits = model(**{**given, "input_ids": both, "mm_token_type_ids": kinds}).logits[0, length - 1 : -1].double()
    logprobs = torch.log_softmax(logits, -1).gather(1, torch.tensor(ours)[:, None])[:, 0]
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    print(json.dumps({
        "parameters": sum(p.numel() for p in model.parameters()), "prompt": length, "token_ids": made[0, length:].tolist(),
        "logprobs": logprobs.tolist(), "below_largest": (logits.max(-1).values - logits.gather(1, torch.tensor(ours)[:, None])[:, 0]).tolist(),
        "seconds": seconds, "cpu_seconds": cpu, "peak": peak,
    }))


def shapes(omr, work, threads):
    """Makes a checkpoint in the shapes of Qwen3-VL-2B, and compares answers to a question about an image."""
    data, image = rows(work)
    made = omr.init(data, work / "2b", SHAPES)
    question = put(work / "q.jsonl", [{"id": 0, "prompt": f"<image>{ASK}", "images": [image]}])
    settings = ["dtype=bf16", "all_ids=true"]
    ours = omr.run("generate", "--model", work / "2b", "--jsonl", question, "--out", work / "a.jsonl", *settings,
                   "temperature=0", f"max_tokens={TOKENS}", "ignore_eos=true")
    answer = lines(work / "a.jsonl")[0]["token_ids"]
    logprobs = omr.logprobs(work / "2b", work / "a.jsonl", work / "l.jsonl", *settings)
    command = [sys.executable, __file__, "--threads", str(threads), "--peer", work / "2b", image, work / "a.jsonl"]
    theirs = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)
    planned = re.search(r"memory (\S+ \S+) \((.*)\)", ours.pop("told"))
    off = [abs(a - b) for a, b in zip(logprobs, theirs["logprobs"])]
    equal = next((i for i, pair in enumerate(zip(answer, theirs["token_ids"])) if pair[0] != pair[1]), TOKENS)
    return {
        "checkpoint_bytes": (work / "2b/model.safetensors").stat().st_size, "init_seconds": made["seconds"],
        "omr": {**ours, "token_ids": answer, "logprobs": logprobs, "planned": planned[1], "planned_parts": planned[2]},
        "peer": theirs, "equal_tokens": equal, "difference_max": max(off), "difference_mean": sum(off) / len(off),
    }


def describe(record):
    page = [f"# Qwen3-VL with random weights beside transformers {record['transformers']}, commit {record['commit']}", "",
            f"`{record['command']}` on {record['cpu']}, torch {record['torch']}, load {record['load']:.1f} at the end.", ""]
    if s := record.get("saved"):
        page += [
            f"- One step of `omr sft` of a tiny model, loaded by `Qwen3VLForConditionalGeneration`: {s['same_bits']} of {s['tensors']} tensors "
            f"have the saved bits, and {s['released_names']} have the released names. Training changed {s['changed_by_training']}.",
            f"- Saved again by transformers: {s['same_bits_back']} tensors have the same names and bits, and omr computes "
            f"{'the same' if s['same_logprobs_back'] else 'OTHER'} log-probs from them.",
        ]
    if s := record.get("shapes"):
        ours, theirs, gib = s["omr"], s["peer"], 1 << 30
        page += [
            f"- A checkpoint in the shapes of Qwen3-VL-2B ({theirs['parameters'] / 1e9:.3f} B parameters, {s['checkpoint_bytes'] / gib:.2f} GiB), a "
            f"prompt of {theirs['prompt']} tokens with an image, bf16: {s['equal_tokens']} of {TOKENS} greedy tokens are equal before the first "
            f"difference. The log-probs of omr's tokens differ by at most {s['difference_max']:.3f}, mean {s['difference_mean']:.3f}; each of these "
            f"tokens is at most {max(theirs['below_largest']):.3f} below transformers' largest logit.",
            "", "| | seconds to load and answer | of processor time | peak memory, GiB |", "| --- | --- | --- | --- |",
            f"| omr | {ours['seconds']:.1f} | {ours['cpu_seconds']:.1f} | {ours['peak'] / gib:.2f} (counted before: {ours['planned']}) |",
            f"| transformers | {theirs['seconds']:.1f} | {theirs['cpu_seconds']:.1f} | {theirs['peak'] / gib:.2f} |",
        ]
    return page


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--omr", type=Path, default=ROOT / "target/release/omr")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", default="saved,shapes")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peer", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.utils.logging.disable_progress_bar()
    if args.peer:
        return peer(*args.peer)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    named = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = named[0].split(": ")[1] if named else platform.machine()
    slug = re.sub("[^a-z0-9]+", "-", cpu.lower()).strip("-")
    out = args.out or ROOT / f"bench/results/{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}-{slug}-{commit}-qwen3-vl"
    omr, asked = Omr(args.omr.resolve(), args.threads), args.parts.split(",")
    record = {"kind": "qwen3_vl", "command": f"bench/peers/qwen3_vl/compare.py --threads {args.threads}", "transformers": transformers.__version__,
              "torch": torch.__version__, "commit": commit, "cpu": cpu, "threads": args.threads}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary:
        work = Path(temporary)
        for name, part in {"saved": lambda: saved(omr, work), "shapes": lambda: shapes(omr, work, args.threads)}.items():
            if name in asked:
                record[name] = part()
                print(name, json.dumps(record[name])[:600], file=sys.stderr, flush=True)
    record["load"] = os.getloadavg()[0]
    page = describe(record)
    write(out, "qwen3_vl.json", record, page)
    print("\n".join(page))
    s, big = record.get("saved"), record.get("shapes")
    counts = ("released_names", "same_bits", "same_bits_back")
    kept = not s or all(s[name] == s["tensors"] for name in counts) and s["same_logprobs_back"] and not s["problems"]
    close = not big or big["difference_max"] <= BF16 and max(big["peer"]["below_largest"]) <= BF16
    return 0 if kept and close else 1


if __name__ == "__main__":
    sys.exit(main())
