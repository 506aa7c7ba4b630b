"""The two model shapes of the benchmarks, as Hugging Face configs, a batch of rows for them, and the clock."""
import argparse
import contextlib
import json
import statistics
import time

import torch
import transformers
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

SHAPES = {
    # hidden, layers, intermediate, heads, kv heads, vision hidden, vision depth, vision intermediate, vocabulary
    "digits": (96, 3, 256, 3, 1, 64, 2, 128, 512),
    "22m": (384, 8, 1536, 6, 2, 192, 4, 768, 4096),
}


def build(shape):
    """A randomly initialised model of the named shape, f32, sdpa attention as users run it."""
    hidden, layers, inter, heads, kv, vis, depth, vis_inter, vocab = SHAPES[shape]
    head_dim = hidden // heads
    section = [head_dim // 8, head_dim * 3 // 16, head_dim * 3 // 16]
    text = dict(
        hidden_size=hidden, num_hidden_layers=layers, intermediate_size=inter, num_attention_heads=heads,
        num_key_value_heads=kv, vocab_size=vocab, rms_norm_eps=1e-6, max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "type": "mrope", "mrope_section": section, "rope_theta": 1e6},
        tie_word_embeddings=True,
    )
    vision = dict(
        depth=depth, hidden_size=vis, intermediate_size=vis_inter, num_heads=4, out_hidden_size=hidden,
        fullatt_block_indexes=list(range(depth)), patch_size=14, spatial_merge_size=2, temporal_patch_size=2,
        window_size=112, in_channels=3, tokens_per_second=2,
    )
    ids = dict(image_token_id=vocab - 2, video_token_id=vocab - 1, vision_start_token_id=vocab - 3, vision_end_token_id=vocab - 4)
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    torch.manual_seed(0)
    return Qwen2_5_VLForConditionalGeneration._from_config(config)


def rows(shape, batch, length):
    """`batch` rows of `length` tokens, each with one 56x28 picture (2 visual tokens) near its start."""
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


def start(usage):
    """The command line's arguments; sets the threads."""
    parser = argparse.ArgumentParser(usage=usage)
    parser.add_argument("--shape", default="digits", choices=SHAPES)
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.utils.logging.set_verbosity_error()
    return args


def ways(args):
    """How users run a model of this type: (name, model, a context to work in)."""
    if args.dtype == "f32":
        return [("f32", build(args.shape), contextlib.nullcontext())]
    return [
        ("bf16 weights", build(args.shape).bfloat16(), contextlib.nullcontext()),
        ("autocast", build(args.shape), torch.autocast("cpu", torch.bfloat16)),
    ]


def measure(name, args, tokens, prepare, warm_up):
    """Runs the work that `prepare(model)` gives for `args.seconds`, at least five times, each way, and prints the figures of
    the fastest."""
    found = []
    for way, model, context in ways(args):
        work = prepare(model)
        with context:
            found.append({"way": way, "parameters": sum(p.numel() for p in model.parameters()), **timed(args, work, warm_up)})
    best = min(found, key=lambda figures: figures["median_ms"])
    print(json.dumps({
        "peer": f"transformers {transformers.__version__}, torch {torch.__version__}", "name": name, "shape": args.shape,
        "dtype": args.dtype, "threads": args.threads, "tokens": tokens, **best,
        "ways": {figures["way"]: figures["median_ms"] for figures in found},
    }))


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
