#!/usr/bin/env python3
"""Trains SmolLM2 with GSPO by TRL's GRPOTrainer and by omr: the same model, questions in the same order, reward command, updates and
settings. Both models are measured by `omr eval`.

usage: tools/smollm2 WORK/base && tools/reasoning-gym rows configs/smollm2/sets.json --out WORK/data
       bench/peers/smollm2/beside_trl.py WORK [--task chain_sum] [--updates 30] [--seed 1] [--threads 1] [--dtype f32] [--omr PROGRAM]
                                        [--out DIR]
  --updates N  updates of both sides, each of 16 questions x 8 answers of at most 64 tokens
  --threads N  compute threads of both sides, which run one after the other
  --dtype TYPE f32 or bf16: in bf16 TRL computes by autocast, and omr with f32 masters
  --out DIR    folder for trl.json (default: bench/results/<date>-smollm2)
TRL generates by transformers, without vLLM, and gets a malloc that keeps its pages. Memory is the largest resident size of each process.
Needs the packages torch, transformers, trl and datasets. A TRL step takes one to four minutes on one core.
"""
import argparse
import datetime
import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "bench/peers"))
sys.dont_write_bytecode = True

from serving import origin  # noqa: E402
from sft_step import KEEPS  # noqa: E402


def inside(args):
    """Trains with TRL and saves the model and a line for each update."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(args.threads)
    rows = [json.loads(line) for line in (args.trained / "rows.jsonl").read_text().splitlines()]
    scorer = subprocess.Popen([ROOT / "tools/reasoning-gym", "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def reward(completions, answer, extra_info, **_):
        scores = []
        for i, (completion, label, extra) in enumerate(zip(completions, answer, extra_info)):
            row = {"id": i, "response": completion[0]["content"], "ground_truth": label, "extra_info": json.loads(extra)}
            scorer.stdin.write(json.dumps(row) + "\n")
            scorer.stdin.flush()
            scores.append(json.loads(scorer.stdout.readline())["score"])
        return scores

    data = Dataset.from_list([{"prompt": [{"role": "user", "content": row["problem"]}], "answer": row["answer"],
                               "extra_info": json.dumps(row["extra_info"])} for row in rows])
    tokenizer = AutoTokenizer.from_pretrained(args.work / "base", padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(args.work / "base", dtype=torch.float32)
    config = GRPOConfig(
        output_dir=str(args.trained), per_device_train_batch_size=32, gradient_accumulation_steps=4, num_generations=8,
        max_completion_length=64, temperature=1.0, learning_rate=2e-5, warmup_steps=2, lr_scheduler_type="constant_with_warmup",
        max_steps=args.updates, beta=0.0, epsilon=3e-4, epsilon_high=4e-4, importance_sampling_level="sequence", loss_type="grpo",
        scale_rewards="group", use_cpu=True, bf16=args.dtype == "bf16", shuffle_dataset=False, logging_steps=1, save_strategy="no",
        report_to=[], weight_decay=0.0, gradient_checkpointing=False, max_grad_norm=1.0, seed=args.seed, disable_tqdm=True)
    steps, begun = open(args.trained / "steps.jsonl", "w"), [time.time()]

    class Log(TrainerCallback):
        def on_log(self, _args, state, _control, logs=None, **_):
            if "reward" in (logs or {}):
                now = time.time()
                line = {"step": state.global_step, "reward": logs["reward"], "length": logs["completions/mean_length"], "seconds": now - begun[0]}
                print(json.dumps(line), file=steps, flush=True)
                begun[0] = now

    trainer = GRPOTrainer(model=model, reward_funcs=reward, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[Log()])
    begun[0] = time.time()
    trainer.train()
    model.save_pretrained(args.trained)
    tokenizer.save_pretrained(args.trained)
    scorer.stdin.close()
    scorer.wait()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    (args.trained / "memory.json").write_text(json.dumps(memory))


def measured(args, omr, model):
    """Returns the accuracies of a model on the held-out questions."""
    out, task = args.trained / f"eval-{model.parent.name}-{model.name}", args.work / "data" / args.task / f"{args.task}.yaml"
    run = [*omr, "eval", "--config", ROOT / "configs/smollm2/eval.yaml", "--model", model, "--task-file", task, "--out", out,
           f"seed={args.seed}", f"dtype={args.dtype}"]
    subprocess.run([str(word) for word in run], check=True, cwd=ROOT)
    found = json.loads((out / "summary.json").read_text())["tasks"][args.task]
    return {"greedy": found["metrics"]["acc_score"], "t1": found["metrics"]["acc_score_t1"], "n": found["n"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--task", default="chain_sum")
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--omr", type=pathlib.Path, default=ROOT / "target/release/omr")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / f"bench/results/{datetime.date.today()}-smollm2")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.work = args.work.resolve()
    args.trained = args.work / f"trl-{args.task}-{args.updates}-{args.seed}-{args.dtype}"
    args.trained.mkdir(exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.inside:
        return inside(args)
    omr = [args.omr.resolve(), "--threads", args.threads, "--quiet"]
    # Neither side shuffles these rows. The first rows of the file have smaller numbers than the others.
    rows = (args.work / "data" / args.task / "train.jsonl").read_text().splitlines(keepends=True)
    random.Random(args.seed).shuffle(rows)
    (args.trained / "rows.jsonl").write_text("".join(rows))
    ours = args.trained / "omr"
    train = [*omr, "rl", ROOT / "configs/smollm2/rl.yaml", "--out", ours, "--fresh", f"model={args.work / 'base'}",
             f"train_files=['{args.trained / 'rows.jsonl'}']", "shuffle=false", f"total_training_steps={args.updates}",
             f"seed={args.seed}", f"dtype={args.dtype}", "reward.workers=1"]
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])  # noqa: E731
    begun, load = time.time(), [os.getloadavg()[0]]
    subprocess.run([str(word) for word in train], check=True, cwd=ROOT)
    middle, cpu, memory = time.time(), used(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    load.append(os.getloadavg()[0])
    subprocess.run([sys.executable, __file__, *sys.argv[1:], "--inside"], check=True,
                   env={**os.environ, **KEEPS, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"})
    ended, cpu_theirs = time.time(), used() - cpu
    read = lambda path: [json.loads(line) for line in path.read_text().splitlines()]  # noqa: E731
    mine, theirs = read(ours / "metrics.jsonl"), read(args.trained / "steps.jsonl")
    import torch
    import trl
    line = lambda step: {"reward": step["critic/score/mean"], "length": step["response_length/mean"], "seconds": step["timing_s/step"],  # noqa: E731
                         "responses_computed": step["training/num_responses_computed"]}
    found = {
        "task": args.task, "updates": args.updates, "seed": args.seed, "threads": args.threads, "dtype": args.dtype, "trl": trl.__version__,
        "torch": torch.__version__, **origin(), "load_before_each": load,
        "systems": {
            "omr": {**measured(args, omr, ours / "model"), "seconds": middle - begun, "cpu_seconds": cpu,
                    "memory_gib": memory, "steps": [line(step) for step in mine]},
            "TRL": {**measured(args, omr, args.trained), "seconds": ended - middle, "cpu_seconds": cpu_theirs,
                    "memory_gib": json.loads((args.trained / "memory.json").read_text()), "steps": theirs},
        },
    }
    (args.out / "trl.json").write_text(json.dumps(found, indent=1) + "\n")
    for name, system in found["systems"].items():
        print(f"{name}: greedy {100 * system['greedy']:.1f} %, temperature 1 {100 * system['t1']:.1f} %, {system['seconds']:.0f} s"
              f" ({system['cpu_seconds']:.0f} s of CPU), {system['memory_gib']:.1f} GiB")


if __name__ == "__main__":
    main()
