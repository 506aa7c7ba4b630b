"""PyTorch's time for the ops of `omr bench ops --device cuda`, at the same shapes: cuBLASLt through matmul, SDPA, fused
AdamW and so on. bf16, normal numbers, a cold L2 before each run, CUDA events, the median.

usage: python bench/peers/gpu_ops.py [--device cuda|cpu] [--tiny] [--seconds 0.3] [--only NAME] [--budget S]
Prints one JSON line an op, with the `name` and `shape` of omr's row. Without a CUDA device one line says so (or, with
--device cpu --tiny, the same code runs on small shapes, to check it).
"""
import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
p.add_argument("--tiny", action="store_true")
p.add_argument("--seconds", type=float, default=0.3)
p.add_argument("--only", default="")
p.add_argument("--budget", type=float, default=600.0, help="seconds after which no further op is begun")
args = p.parse_args()

if args.device == "cuda" and not torch.cuda.is_available():
    print(json.dumps({"name": "peer", "skipped": f"torch {torch.__version__} sees no CUDA device"}))
    sys.exit(0)

CUDA = args.device == "cuda"
PEER = f"torch {torch.__version__}"
torch.manual_seed(1)
if args.tiny:
    T, H, I, HEADS, V, LENGTHS = 48, 64, 128, (4, 2, 16), 300, (24, 48)
    PATCHES, VISION, TARGETS, SEQUENCES, KEYS, PARAMETERS = 128, (2, 2, 16), 20, 3, 256, 3000
else:
    T, H, I, HEADS, V, LENGTHS = 8192, 3584, 18944, (28, 4, 128), 152064, (4096, 16384)
    PATCHES, VISION, TARGETS, SEQUENCES, KEYS, PARAMETERS = 16384, (16, 16, 80), 4096, 256, 1536, 1 << 28
flush = torch.empty(256 << 20 if CUDA else 64, dtype=torch.uint8, device=args.device)
begun = time.monotonic()


def clock():
    query = ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return None


def once(work):
    flush.zero_()
    if not CUDA:
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) * 1e3
    before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    before.record()
    work()
    after.record()
    after.synchronize()
    return before.elapsed_time(after)


def measure(name, shape, make):
    """`make` gives what is measured; what it needs is freed with it."""
    if not name.startswith(args.only) or time.monotonic() - begun > args.budget:
        return
    row = {"name": name, "shape": shape, "dtype": "bf16", "peer": PEER, "data": "normal"}
    try:
        work = make()
        for _ in range(3):
            once(work)
        smi = clock() if CUDA else None
        start, times = time.monotonic(), []
        while len(times) < 5 or time.monotonic() - start < (args.seconds if CUDA else 0):
            times.append(once(work))
        row |= {"peer_ms": statistics.median(times), "peer_min_ms": min(times), "repetitions": len(times)}
        if smi:
            said = smi.communicate()[0].strip()
            row["peer_clock_mhz"] = int(said) if said.isdigit() else None
    except (RuntimeError, NotImplementedError) as error:
        row["skipped"] = str(error).splitlines()[0]
    print(json.dumps(row), flush=True)
    work = None
    if CUDA:
        torch.cuda.empty_cache()


def normal(*dims, scale=1.0, dtype=torch.bfloat16, grad=False):
    x = torch.empty(*dims, dtype=dtype, device=args.device).normal_(0, scale)
    return x.requires_grad_(grad)


def linear(n, k, t):
    def fwd():
        x, w = normal(t, k), normal(n, k, scale=0.02)
        return lambda: torch.matmul(x, w.t())

    def dgrad():
        dy, w = normal(t, n), normal(n, k, scale=0.02)
        return lambda: torch.matmul(dy, w)

    # cuBLASLt adds to the present f32 gradient in a second pass, as a training step of it does.
    def wgrad():
        x, dy = normal(t, k), normal(t, n)
        dw = torch.zeros(n, k, device=args.device)
        return lambda: dw.add_(torch.matmul(dy.t(), x))

    return fwd, dgrad, wgrad


q, kv, d = HEADS
for n, k in [((q + 2 * kv) * d, H), (H, q * d), (2 * I, H), (H, I)]:
    fwd, dgrad, wgrad = linear(n, k, T)
    measure("linear fwd", f"[{T}, {k}] x [{n}, {k}]", fwd)
    measure("linear dgrad", f"[{T}, {n}] x [{n}, {k}]", dgrad)
    measure("linear wgrad", f"[{n}, {T}] x [{T}, {k}]", wgrad)
measure("linear fwd", f"[{SEQUENCES}, {H}] x [{2 * I}, {H}]", linear(2 * I, H, SEQUENCES)[0])


def swiglu_linear():
    x, w = normal(T, H), normal(2 * I, H, scale=0.02)

    def work():
        gate, up = torch.matmul(x, w.t()).chunk(2, dim=1)
        return F.silu(gate) * up

    return work


def swiglu_bwd():
    gate_up, dy = normal(T, 2 * I, grad=True), normal(T, I)
    gate, up = gate_up.chunk(2, dim=1)
    y = F.silu(gate) * up
    return lambda: torch.autograd.grad(y, gate_up, dy, retain_graph=True)


measure("swiglu linear fwd", f"[{T}, {H}] x [{2 * I}, {H}]", swiglu_linear)
measure("swiglu bwd", f"[{T}, {I}]", swiglu_bwd)


def attention(heads, count, length, causal):
    q, kv, d = heads

    def tensors(grad):
        rows = [normal(count, h, length, d, grad=grad) for h in (q, kv, kv)]
        return rows, dict(is_causal=causal, enable_gqa=q != kv)

    def fwd():
        (a, b, c), how = tensors(False)
        return lambda: F.scaled_dot_product_attention(a, b, c, **how)

    def bwd():
        rows, how = tensors(True)
        out = F.scaled_dot_product_attention(*rows, **how)
        dout = torch.randn_like(out)
        return lambda: torch.autograd.grad(out, rows, dout, retain_graph=True)

    shape = f"{count} x {length}, {q}:{kv} x {d}{', causal' if causal else ''}"
    measure("attention fwd", shape, fwd)
    measure("attention bwd", shape, bwd)


for length in LENGTHS:
    attention(HEADS, LENGTHS[1] // length, length, True)
attention(VISION, PATCHES // 64, 64, False)


def rms_norm(backward):
    def make():
        x, gamma, dy = normal(T, H, grad=backward), normal(H, grad=backward), normal(T, H)
        if not backward:
            return lambda: F.rms_norm(x, (H,), gamma, 1e-6)
        y = F.rms_norm(x, (H,), gamma, 1e-6)
        return lambda: torch.autograd.grad(y, (x, gamma), dy, retain_graph=True)

    return make


measure("rms_norm fwd", f"[{T}, {H}]", rms_norm(False))
measure("rms_norm bwd", f"[{T}, {H}]", rms_norm(True))


def rope():
    x = normal(T, q + kv, d)
    cos, sin = normal(T, 1, d, dtype=torch.float32), normal(T, 1, d, dtype=torch.float32)

    def work():
        a, b = x.chunk(2, dim=-1)
        return (x * cos + torch.cat([-b, a], dim=-1) * sin).to(torch.bfloat16)

    return work


measure("rope fwd", f"[{T}, {(q + 2 * kv) * d}]", rope)


def embedding(backward):
    def make():
        w, ids = normal(V, H, grad=backward), torch.arange(T, device=args.device) * 7919 % V
        if not backward:
            return lambda: F.embedding(ids, w)
        y, dy = F.embedding(ids, w), normal(T, H)
        return lambda: torch.autograd.grad(y, w, dy, retain_graph=True)

    return make


measure("embedding fwd", f"[{T}, {H}]", embedding(False))
measure("embedding bwd", f"[{T}, {H}]", embedding(True))


def cross_entropy(backward):
    """The peer keeps the logits: there is no chunked one in torch itself."""

    def make():
        x, w = normal(TARGETS, H, grad=backward), normal(V, H, scale=0.02, grad=backward)
        ids = torch.arange(TARGETS, device=args.device) * 7919 % V

        def loss():
            return F.cross_entropy(torch.matmul(x, w.t()).float(), ids, reduction="sum")

        return (lambda: torch.autograd.grad(loss(), (x, w))) if backward else loss

    return make


measure("linear_logprob fwd", f"[{TARGETS}, {H}] x [{V}, {H}]", cross_entropy(False))
measure("linear_logprob bwd", f"[{TARGETS}, {H}] x [{V}, {H}]", cross_entropy(True))


def adamw():
    """fp32 weights: torch's fused AdamW has no split master, and so moves other bytes."""
    w = torch.nn.Parameter(normal(PARAMETERS, scale=0.02, dtype=torch.float32))
    w.grad = normal(PARAMETERS, scale=1e-3, dtype=torch.float32)
    return torch.optim.AdamW([w], lr=1e-5, fused=True).step


def grad_norm():
    g = normal(PARAMETERS, scale=1e-3, dtype=torch.float32)
    return lambda: torch.linalg.vector_norm(g)


measure("adamw step", f"{PARAMETERS} parameters", adamw)
measure("grad_norm fwd", f"{PARAMETERS} parameters", grad_norm)


def decode_attention():
    """Keys and values one after another: torch has no pages."""
    a = normal(SEQUENCES, q, 1, d)
    b, c = normal(SEQUENCES, kv, KEYS, d), normal(SEQUENCES, kv, KEYS, d)
    return lambda: F.scaled_dot_product_attention(a, b, c, enable_gqa=q != kv)


def sample():
    x, w = normal(SEQUENCES, H), normal(V, H, scale=0.02)

    def work():
        logits = torch.matmul(x, w.t()).float()
        return torch.multinomial(torch.softmax(logits, dim=1), 1)

    return work


measure("paged_attention fwd", f"{SEQUENCES} x 1 of {KEYS} keys", decode_attention)
measure("sample fwd", f"[{SEQUENCES}, {H}] x [{V}, {H}]", sample)
