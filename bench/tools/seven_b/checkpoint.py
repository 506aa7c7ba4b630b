"""Writes a model directory with the shapes, tensor names, tokenizer and settings of Qwen2.5-VL-7B and random weights."""
import concurrent.futures
import gzip
import json
import pathlib
import shutil

import numpy

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
TOKENIZER = ROOT / "tests/goldens/hf/tokenizer"
SHARDS = 5
# Numbers that a thread makes at once.
CHUNK = 1 << 22


def tensors(config):
    """Returns the hub's names of all tensors with their shapes, in the order of the released files."""
    d, f, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv = d // config["num_attention_heads"] * config["num_key_value_heads"]
    out = {"model.embed_tokens.weight": [vocab, d]}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        for name, rows in [("q", d), ("k", kv), ("v", kv)]:
            out |= {f"{layer}self_attn.{name}_proj.weight": [rows, d], f"{layer}self_attn.{name}_proj.bias": [rows]}
        out[f"{layer}self_attn.o_proj.weight"] = [d, d]
        out |= {f"{layer}mlp.{name}_proj.weight": [f, d] for name in ["gate", "up"]}
        out[f"{layer}mlp.down_proj.weight"] = [d, f]
        out |= {f"{layer}{name}_layernorm.weight": [d] for name in ["input", "post_attention"]}
    out["model.norm.weight"] = [d]
    if not config["tie_word_embeddings"]:
        out["lm_head.weight"] = [vocab, d]
    vision = config["vision_config"]
    v, g, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    out["visual.patch_embed.proj.weight"] = [v, 3, vision["temporal_patch_size"], patch, patch]
    for i in range(vision["depth"]):
        block = f"visual.blocks.{i}."
        for name, rows, columns in [("attn.qkv", 3 * v, v), ("attn.proj", v, v), ("mlp.gate_proj", g, v), ("mlp.up_proj", g, v), ("mlp.down_proj", v, g)]:
            out |= {f"{block}{name}.weight": [rows, columns], f"{block}{name}.bias": [rows]}
        out |= {f"{block}norm{n}.weight": [v] for n in [1, 2]}
    merged = v * vision["spatial_merge_size"] ** 2
    out["visual.merger.ln_q.weight"] = [v]
    for n, rows in [(0, merged), (2, d)]:
        out |= {f"visual.merger.mlp.{n}.weight": [rows, merged], f"visual.merger.mlp.{n}.bias": [rows]}
    return out


def values(name, count, seed):
    """Returns `count` random numbers as bf16: matrices N(0, 0.02), biases of q, k and v N(0, 0.5), norms 1 +- 0.1."""
    x = numpy.random.Generator(numpy.random.SFC64(seed)).standard_normal(count, dtype=numpy.float32)
    if "norm" in name or "ln_q" in name:
        x = 1 + 0.1 * x
    else:
        x *= 0.5 if name.endswith("_proj.bias") and "self_attn" in name else 0.02
    bits = x.view(numpy.uint32)
    bits += 0x7FFF + ((bits >> 16) & 1)
    return (bits >> 16).astype(numpy.uint16).tobytes()


def write(folder, config):
    """Writes the model directory. Equal configs give equal files."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "generation_config.json").write_text("{}\n")
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor", "min_pixels": 3136,
        "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}) + "\n")
    with gzip.open(TOKENIZER / "tokenizer.json.gz") as packed, open(folder / "tokenizer.json", "wb") as out:
        shutil.copyfileobj(packed, out)
    shutil.copy(TOKENIZER / "tokenizer_config.npm_qwen2_5.json", folder / "tokenizer_config.json")
    shutil.copy(TOKENIZER / "chat_template.jinja", folder)
    shapes = tensors(config)
    sizes = {name: int(numpy.prod(shape)) for name, shape in shapes.items()}
    total = 2 * sum(sizes.values())
    shards, done = [[] for _ in range(SHARDS)], 0
    for name in shapes:
        shards[min(done * SHARDS // total, SHARDS - 1)].append(name)
        done += 2 * sizes[name]
    number, names = {name: i for i, name in enumerate(shapes)}, {}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for i, shard in enumerate(shards):
            file, header, end = f"model-{i + 1:05}-of-{SHARDS:05}.safetensors", {"__metadata__": {"format": "pt"}}, 0
            for name in shard:
                header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [end, end + 2 * sizes[name]]}
                end, names[name] = end + 2 * sizes[name], file
            head = json.dumps(header).encode()
            head += b" " * (-len(head) % 8)
            with open(folder / file, "wb") as out:
                out.write(len(head).to_bytes(8, "little") + head)
                for name in shard:
                    parts = range(0, sizes[name], CHUNK)
                    make = lambda at, name=name: values(name, min(CHUNK, sizes[name] - at), [number[name], at])
                    # A few chunks are made ahead of the file.
                    for first in range(0, len(parts), 8):
                        for made in pool.map(make, parts[first:first + 8]):
                            out.write(made)
    index = {"metadata": {"total_size": total}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def released():
    return json.loads((ROOT / "configs/openmmreasoner-7b/model/config.json").read_text())


def cut():
    """One layer of the decoder and eight blocks of the tower at their true widths, with tied embeddings."""
    config = released() | {"num_hidden_layers": 1, "tie_word_embeddings": True}
    config["vision_config"] |= {"depth": 8, "fullatt_block_indexes": [7]}
    return config


if __name__ == "__main__":
    import sys
    {"full": lambda at: write(at, released()), "cut": lambda at: write(at, cut())}[sys.argv[1]](pathlib.Path(sys.argv[2]))
