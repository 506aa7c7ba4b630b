"""Model shapes of the benchmarks as Hugging Face configs, batches of rows for them, and the timing."""
import argparse
import contextlib
import json
import statistics
import sys
import time

import torch
import transformers
from gpu import measure as on_gpu
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

SHAPES = {
    # hidden, layers, intermediate, heads, kv heads, vision hidden, vision depth, vision intermediate, vocabulary
    "digits": (96, 3, 256, 3, 1, 64, 2, 128, 512),
    "22m": (384, 8, 1536, 6, 2, 192, 4, 768, 4096),
    # The size of a model that people serve on a CPU; only bench/peers/serving uses it.
    "150m": (768, 14, 3072, 12, 4, 192, 4, 768, 32_768),
    # Qwen2.5-VL-7B, and a slice of it with four layers and eight vision blocks.
    "7b": (3584, 28, 18944, 28, 4, 1280, 32, 3420, 152_064),
    "7b-slice": (3584, 4, 18944, 28, 4, 1280, 8, 3420, 152_064),
}
# Amount of work per job, as in bench/src/jobs.rs: rows, tokens per row, tokens per prompt, samples per prompt, new
# tokens per sample.
AMOUNTS = {"cpu": (32, 64, 24, 8, 24), "cuda": (16, 1024, 512, 16, 128), "tiny": (2, 16, 12, 2, 4)}


def build(shape, dtype=torch.float32):
    """Builds a randomly initialised model of the named shape, with sdpa attention as users run it."""
    released = shape.startswith("7b")
    hidden, layers, inter, heads, kv, vis, depth, vis_inter, vocab = SHAPES[shape]
    head_dim = hidden // heads
    section = [head_dim // 8, head_dim * 3 // 16, head_dim * 3 // 16]
    text = dict(
        hidden_size=hidden, num_hidden_layers=layers, intermediate_size=inter, num_attention_heads=heads,
        num_key_value_heads=kv, vocab_size=vocab, rms_norm_eps=1e-6, max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "type": "mrope", "mrope_section": section, "rope_theta": 1e6},
        tie_word_embeddings=not released,
    )
    whole_frames = [block for block in range(depth) if not released or block % 8 == 7]
    vision = dict(
        depth=depth, hidden_size=vis, intermediate_size=vis_inter, num_heads=16 if released else 4, out_hidden_size=hidden,
        fullatt_block_indexes=whole_frames, patch_size=14, spatial_merge_size=2, temporal_patch_size=2,
        window_size=112, in_channels=3, tokens_per_second=2,
    )
    ids = dict(image_token_id=vocab - 2, video_token_id=vocab - 1, vision_start_token_id=vocab - 3, vision_end_token_id=vocab - 4)
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=not released, **ids)
    torch.manual_seed(0)
    return Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=dtype)


def rows(shape, batch, length):
    """Makes `batch` rows of `length` tokens, each with one 56x28 image (2 visual tokens) near its start."""
    vocab = SHAPES[shape][-1]
    ids = torch.randint(0, vocab - 8, (batch, length))
    ids[:, 4] = vocab - 3
    ids[:, 5:7] = vocab - 2
    ids[:, 7] = vocab - 4
    kinds = torch.zeros(batch, length, dtype=torch.long)
    kinds[:, 5:7] = 1
    grid = torch.tensor([[1, 2, 4]] * batch)
    pixels = torch.rand(batch * 8, 1176)
    return dict(
        input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, image_grid_thw=grid,
        mm_token_type_ids=kinds,
    )


def start(usage, **numbers):
    """Parses the command line, sets the number of threads, and returns the arguments and the amount of work. `numbers` are further options
    with their defaults."""
    parser = argparse.ArgumentParser(usage=usage)
    parser.add_argument("--shape", default="digits", choices=SHAPES)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--tiny", action="store_true", help="as on a GPU, in small: the emulator's amounts")
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--lora-rank", type=int, help="train adapters of all linear layers of the language model with PEFT")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3)
    for name, default in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.utils.logging.set_verbosity_error()
    if args.device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({"name": "peer", "skipped": f"torch {torch.__version__} sees no CUDA device"}))
        raise SystemExit
    return args, AMOUNTS["tiny" if args.tiny else args.device]


def ways(args):
    """Returns the ways in which users run a model of this type: (name, model, context to work in)."""
    if args.dtype == "f32":
        return [("f32", build(args.shape), contextlib.nullcontext())]
    return [
        ("bf16 weights", build(args.shape).bfloat16(), contextlib.nullcontext()),
        ("autocast", build(args.shape), torch.autocast("cpu", torch.bfloat16)),
    ]


def measure(name, args, amount, tokens, prepare, warm_up, tries):
    """Measures the work returned by `prepare(model)` for `args.seconds`, at least five times, in each way, and prints
    the results of the fastest way. On a GPU it uses bf16 weights and the first of `tries` (label, prepare) that fits
    into memory."""
    used = [sys.modules.get("trl"), sys.modules["peft"] if args.lora_rank else None, transformers, torch]
    peer = ", ".join(f"{module.__name__} {module.__version__}" for module in used if module)
    if args.device == "cuda" or args.tiny:
        row = {"name": name, "shape": f"{args.shape}, {amount}", "dtype": "bf16", "data": "normal", "tokens": tokens}
        on_gpu(row, f"{peer}, bf16 weights", [(label, lambda of=of: placed(args, of)) for label, of in tries], args.seconds)
        return
    found = []
    for way, model, context in ways(args):
        work = prepare(model)
        with context:
            found.append({"way": way, "parameters": sum(p.numel() for p in model.parameters()), **timed(args, work, warm_up)})
    best = min(found, key=lambda figures: figures["median_ms"])
    print(json.dumps({
        "peer": peer, "name": name, "shape": args.shape, "dtype": args.dtype, "threads": args.threads, "tokens": tokens, **best,
        "ways": {figures["way"]: figures["median_ms"] for figures in found},
    }))


def placed(args, prepare):
    """Builds the model on the device that uses it. Drawing the weights of the 7B model on the host would take minutes."""
    with torch.device(args.device):
        model = build(args.shape, torch.bfloat16)
    return model, prepare(model)


def timed(args, work, warm_up):
    for _ in range(warm_up):
        work()
    times = []
    begun, cpu = time.perf_counter(), time.process_time()
    while len(times) < 5 or time.perf_counter() - begun < args.seconds:
        at = time.perf_counter()
        work()
        times.append((time.perf_counter() - at) * 1e3)
    cpu = (time.process_time() - cpu) * 1e3 / len(times)
    return {"median_ms": statistics.median(times), "min_ms": min(times), "max_ms": max(times), "cpu_ms": cpu, "repetitions": len(times)}
