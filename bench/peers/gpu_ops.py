"""Measures the ops of `omr bench ops --device cuda` with PyTorch at the same shapes: the fastest of PyTorch's ways (cuBLASLt
through matmul, each backend of SDPA separately, fused AdamW and so on) and, if installed, FlashAttention 3 and Liger's kernels.
bf16, normally distributed numbers, a cold L2 before each run, CUDA events, the median.

usage: python bench/peers/gpu_ops.py [--device cuda|cpu] [--tiny] [--seconds 0.3] [--only NAME] [--budget S] [--turns]
Prints one JSON line per op, with the `name` and `shape` of omr's row and the fastest way as `peer` and `peer_ms`. `peer_ways`
has the time of each way, or the reason why it was left out. With --turns it measures nothing by itself, but takes the turns that
bench/peers/turns.py asks for: one repetition after another, without a cold L2. Without a CUDA device it prints one line that states
this. With --device cpu --tiny, the same code runs on small shapes, to test it.
"""
import argparse
import importlib
import json
import sys

import torch
import torch.nn.functional as F
from op_cases import Cases
from torch.nn.attention import SDPBackend, sdpa_kernel

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
p.add_argument("--tiny", action="store_true")
p.add_argument("--seconds", type=float, default=0.3)
p.add_argument("--only", default="")
p.add_argument("--budget", type=float, default=600.0, help="seconds after which no further op is begun")
p.add_argument("--turns", action="store_true")
args = p.parse_args()

if args.device == "cuda" and not torch.cuda.is_available():
    print(json.dumps({"name": "peer", "skipped": f"torch {torch.__version__} sees no CUDA device"}))
    sys.exit(0)

PEER = f"torch {torch.__version__}"
torch.manual_seed(1)
if args.tiny:
    T, H, I, HEADS, V, LENGTHS = 48, 64, 128, (4, 2, 16), 300, (24, 48)
    PATCHES, VISION, TARGETS, SEQUENCES, KEYS, PARAMETERS = 128, (2, 2, 16), 20, 3, 256, 3000
else:
    T, H, I, HEADS, V, LENGTHS = 8192, 3584, 18944, (28, 4, 128), 152064, (4096, 16384)
    PATCHES, VISION, TARGETS, SEQUENCES, KEYS, PARAMETERS = 16384, (16, 16, 80), 4096, 256, 1536, 1 << 28
cases = Cases(args, PEER)
measure = cases.measure


def imported(module):
    """Imports a library. Returns None if it is not available."""
    try:
        return importlib.import_module(module)
    except Exception:  # noqa: BLE001 - an installed library may fail to load without a GPU
        return None


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

    # Two ways to add to an f32 weight gradient, as ours does: a bf16 product that is added in a second pass, as autograd does, or a product
    # that accumulates.
    def added():
        x, dy = normal(t, k), normal(t, n)
        dw = torch.zeros(n, k, device=args.device)
        return lambda: dw.add_(torch.matmul(dy.t(), x))

    def accumulated():
        x, dy = normal(t, k), normal(t, n)
        dw = torch.zeros(n, k, device=args.device)
        return lambda: torch.addmm(dw, dy.t(), x, out_dtype=torch.float32)

    wgrad = [(f"{PEER}, bf16 and add", added), (f"{PEER}, f32 addmm", accumulated)]
    return fwd, dgrad, wgrad


q, kv, d = HEADS
for n, k in [((q + 2 * kv) * d, H), (H, q * d), (2 * I, H), (H, I)]:
    fwd, dgrad, wgrad = linear(n, k, T)
    measure("linear fwd", f"[{T}, {k}] x [{n}, {k}]", fwd)
    measure("linear dgrad", f"[{T}, {n}] x [{n}, {k}]", dgrad)
    measure("linear wgrad", f"[{n}, {T}] x [{T}, {k}]", *wgrad)
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


# Each backend is measured separately, because torch does not always choose the fastest one.
SDPA = [backend for name, backend in SDPBackend.__members__.items() if name not in ("ERROR", "OVERRIDEABLE")]
FLASH = imported("flash_attn_interface")


def attention(heads, count, length, causal):
    q, kv, d = heads

    def sdpa(backend, backward):
        rows = [normal(count, h, length, d, grad=backward) for h in (q, kv, kv)]

        def forward():
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(*rows, is_causal=causal, enable_gqa=q != kv)

        if not backward:
            return forward
        out = forward()
        dout = torch.randn_like(out)
        return lambda: torch.autograd.grad(out, rows, dout, retain_graph=True)

    def flash(backward):
        rows = [normal(count, length, h, d, grad=backward) for h in (q, kv, kv)]

        def forward():
            out = FLASH.flash_attn_func(*rows, causal=causal)
            return out[0] if isinstance(out, tuple) else out

        if not backward:
            return forward
        out = forward()
        dout = torch.randn_like(out)
        return lambda: torch.autograd.grad(out, rows, dout, retain_graph=True)

    shape = f"{count} x {length}, {q}:{kv} x {d}{', causal' if causal else ''}"
    for what, backward in [("fwd", False), ("bwd", True)]:
        ways = [(f"{PEER}, {b.name}", lambda b=b, w=backward: sdpa(b, w)) for b in SDPA]
        ways += [("FlashAttention 3", lambda w=backward: flash(w))] if FLASH else []
        measure(f"attention {what}", shape, *ways)


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


ROWS = [PATCHES, VISION[0] * VISION[2]]


def layer_norm(backward):
    def make():
        x, dy = normal(*ROWS, grad=backward), normal(*ROWS)
        gamma, beta = normal(ROWS[1], grad=backward), normal(ROWS[1], grad=backward)
        if not backward:
            return lambda: F.layer_norm(x, (ROWS[1],), gamma, beta, 1e-6)
        y = F.layer_norm(x, (ROWS[1],), gamma, beta, 1e-6)
        return lambda: torch.autograd.grad(y, (x, gamma, beta), dy, retain_graph=True)

    return make


def gelu(approximate):
    def make():
        x, dy = normal(ROWS[0] // 4, 4 * ROWS[1], grad=True), normal(ROWS[0] // 4, 4 * ROWS[1])
        y = F.gelu(x, approximate=approximate)
        return lambda: torch.autograd.grad(y, x, dy, retain_graph=True)

    return make


def pos_embed(backward):
    """Four taps of a table of 48 x 48 for each row, as transformers computes them."""

    def make():
        side = 48 * 48
        table, x, dy = normal(side, ROWS[1], scale=0.02, grad=backward), normal(*ROWS), normal(*ROWS)
        taps = (torch.arange(4 * ROWS[0], device=args.device) * 37 % side).view(-1, 4)
        weights = normal(ROWS[0], 4, 1, scale=0.5)
        forward = lambda: x + (F.embedding(taps, table) * weights).sum(1)  # noqa: E731
        if not backward:
            return forward
        y = forward()
        return lambda: torch.autograd.grad(y, table, dy, retain_graph=True)

    return make


measure("gelu bwd", f"[{ROWS[0] // 4}, {4 * ROWS[1]}]", gelu("none"))
measure("gelu tanh bwd", f"[{ROWS[0] // 4}, {4 * ROWS[1]}]", gelu("tanh"))
measure("layer_norm fwd", f"{ROWS}", layer_norm(False))
measure("layer_norm bwd", f"{ROWS}", layer_norm(True))
measure("pos_embed fwd", f"{ROWS}", pos_embed(False))
measure("pos_embed bwd", f"{ROWS}", pos_embed(True))


LIGER = imported("liger_kernel.transformers.functional")


def cross_entropy(backward, fused=None):
    """torch stores the logits. `fused` processes them in chunks and computes the gradients in its forward pass."""

    def make():
        x, w = normal(TARGETS, H, grad=backward), normal(V, H, scale=0.02, grad=backward)
        ids = torch.arange(TARGETS, device=args.device) * 7919 % V

        def loss():
            if fused:
                found = fused(x, w, ids, reduction="sum")
                return found[0] if isinstance(found, tuple) else found
            return F.cross_entropy(torch.matmul(x, w.t()).float(), ids, reduction="sum")

        return (lambda: torch.autograd.grad(loss(), (x, w))) if backward else loss

    return make


def losses(backward):
    ways = [(PEER, cross_entropy(backward))]
    if LIGER:
        ways.append(("Liger", cross_entropy(backward, LIGER.liger_fused_linear_cross_entropy)))
    return ways


measure("linear_logprob fwd", f"[{TARGETS}, {H}] x [{V}, {H}]", *losses(False))
measure("linear_logprob bwd", f"[{TARGETS}, {H}] x [{V}, {H}]", *losses(True))


def adamw():
    """fp32 weights, because torch's fused AdamW does not support split master weights. It therefore moves a different
    number of bytes."""
    w = torch.nn.Parameter(normal(PARAMETERS, scale=0.02, dtype=torch.float32))
    w.grad = normal(PARAMETERS, scale=1e-3, dtype=torch.float32)
    return torch.optim.AdamW([w], lr=1e-5, fused=True).step


def grad_norm():
    g = normal(PARAMETERS, scale=1e-3, dtype=torch.float32)
    return lambda: torch.linalg.vector_norm(g)


measure("adamw step", f"{PARAMETERS} parameters", adamw)
measure("grad_norm fwd", f"{PARAMETERS} parameters", grad_norm)


def decode_attention(backend):
    """Keys and values are contiguous, because torch has no paged cache."""
    a = normal(SEQUENCES, q, 1, d)
    b, c = normal(SEQUENCES, kv, KEYS, d), normal(SEQUENCES, kv, KEYS, d)

    def work():
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(a, b, c, enable_gqa=q != kv)

    return work


def decode_flash():
    a = normal(SEQUENCES, 1, q, d)
    b, c = normal(SEQUENCES, KEYS, kv, d), normal(SEQUENCES, KEYS, kv, d)
    return lambda: FLASH.flash_attn_with_kvcache(a, b, c)


def sample():
    x, w = normal(SEQUENCES, H), normal(V, H, scale=0.02)

    def work():
        logits = torch.matmul(x, w.t()).float()
        return torch.multinomial(torch.softmax(logits, dim=1), 1)

    return work


decoding = [(f"{PEER}, {b.name}", lambda b=b: decode_attention(b)) for b in SDPA]
decoding += [("FlashAttention 3", decode_flash)] if FLASH else []
measure("paged_attention fwd", f"{SEQUENCES} x 1 of {KEYS} keys", *decoding)
measure("sample fwd", f"[{SEQUENCES}, {H}] x [{V}, {H}]", sample)


def copied():
    a = normal(PARAMETERS, dtype=torch.float32)
    b = torch.empty_like(a)
    return lambda: b.copy_(a)


measure("copy", f"{4 * PARAMETERS} bytes", copied)
if args.turns:
    cases.turns()
