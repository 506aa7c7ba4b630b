#!/usr/bin/env python3
"""Measures an SFT step of SmolLM2 by omr and by torch with transformers: 4 sequences of about 1,024 tokens, AdamW, in f32 and bf16.

usage: tools/smollm2 MODEL
       bench/peers/smollm2/sft_step.py MODEL [--threads 2] [--steps 5] [--rounds 2] [--omr PROGRAM] [--out DIR]
  --steps N  steps of a run; the first one is left out, because it writes to new memory
  --out DIR  folder for sft_step.json (default: bench/results/<date>-smollm2)
Both sides keep weights and moments in f32; in bf16 torch computes by autocast. The systems take turns. torch is measured twice: with
the malloc of the system, and with a malloc that keeps its pages. Needs the packages torch and transformers.
"""
import argparse
import datetime
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
ROWS, LENGTH = 4, 1024
# glibc then returns no memory to the system and maps no large block on its own.
KEEPS = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=17179869184:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456"}


def inside(args):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    for _ in range(args.steps):
        at = time.perf_counter()
        for _ in range(2):
            ids = torch.randint(100, 40000, (ROWS // 2, LENGTH))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.inside == "bf16"):
                loss = model(input_ids=ids, labels=ids).loss / 2
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(json.dumps([ROWS * LENGTH, time.perf_counter() - at]), flush=True)


def torch_steps(args, dtype, environment):
    command = [sys.executable, __file__, args.model, "--threads", args.threads, "--steps", args.steps, "--inside", dtype]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def omr_steps(args, dtype, folder):
    rng, words = random.Random(0), "the of and a to in is you that it he was for on are as with his they at".split()
    lines = [{"messages": [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": " ".join(rng.choices(words, k=LENGTH - 48))}]}
             for _ in range(ROWS * args.steps)]
    rows, out = folder / "rows.jsonl", folder / f"run-{time.time()}"
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [args.omr, "--threads", args.threads, "--quiet", "--device", "cpu", "sft", ROOT / "configs/smollm2/sft.yaml", "--out", out, f"model={args.model}",
               f"datasets=['{rows}']", f"packing_length={LENGTH}", "micro_batch_tokens=2048", f"train_batch_size={ROWS}", f"max_steps={args.steps}", f"dtype={dtype}"]
    subprocess.run([str(word) for word in command], check=True, cwd=ROOT)
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(step["num_tokens"] > 0.95 * ROWS * LENGTH for step in steps), [step["num_tokens"] for step in steps]
    return [[step["num_tokens"], step["timing_s/step"]] for step in steps]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--omr", type=pathlib.Path, default=ROOT / "target/release/omr")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / f"bench/results/{datetime.date.today()}-smollm2")
    parser.add_argument("--inside", choices=["f32", "bf16"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.model, args.omr = args.model.resolve(), args.omr.resolve()
    if args.inside:
        return inside(args)
    import torch
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for dtype in ["f32", "bf16"]:
                for name, steps in [("omr", lambda dtype: omr_steps(args, dtype, pathlib.Path(folder))),
                                    ("torch", lambda dtype: torch_steps(args, dtype, {})),
                                    ("torch, malloc keeps pages", lambda dtype: torch_steps(args, dtype, KEEPS))]:
                    rates.setdefault(f"{dtype} {name}", []).append([tokens / seconds for tokens, seconds in steps(dtype)])
                    print(dtype, name, [f"{rate:.0f}" for rate in rates[f"{dtype} {name}"][-1]], flush=True)
    rows = [{"dtype": name.split(" ")[0], "system": name.split(" ", 1)[1], "tokens_per_s": statistics.median(rate for run in runs for rate in run[1:]),
             "rounds": runs} for name, runs in rates.items()]
    args.out.mkdir(parents=True, exist_ok=True)
    cpu = next(line.split(": ")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    found = {"cpu": cpu, "threads": args.threads, "torch": torch.__version__, "load": os.getloadavg()[1], "rows": rows}
    (args.out / "sft_step.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
