"""Writes one model with random weights for every program that bench/peers/serving measures: a model directory in the Hugging
Face layout, and a GGUF file of its language model for llama.cpp.

usage: python bench/peers/serving_models.py OUT --shape 22m|150m --dtype f32|bf16
"""
import argparse
import json
import pathlib
import shutil
import sysconfig

import numpy
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from models import SHAPES, build
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Special tokens at the end of the vocabulary, in the order of models.build: the last four belong to images.
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_end|>", "<|vision_start|>", "<|image_pad|>", "<|video_pad|>"]


def tokenizer(vocab):
    """Trains a byte-level BPE tokenizer on the files of Python's library. Ids without a merge get tokens of their own."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(SPECIAL), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    files = sorted(str(path) for path in pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py"))
    made.train(files, trainer)
    missing = vocab - len(SPECIAL) - made.get_vocab_size()
    assert missing == 0, f"{missing} merges are missing for {vocab} ids"
    made.add_special_tokens(SPECIAL)
    return made


def write_tokenizer(folder, made):
    made.save(str(folder / "tokenizer.json"))
    added = {str(made.token_to_id(token)): {"content": token, "special": True, "lstrip": False, "rstrip": False,
                                            "normalized": False, "single_word": False} for token in SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "added_tokens_decoder": added, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": 4096}))
    shutil.copy(ROOT / "tests/goldens/hf/tokenizer/chat_template.jinja", folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14,
        "temporal_patch_size": 2, "merge_size": 2, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711]}))


def write_gguf(path, model, made, dtype):
    """Writes the language model. For text, the positions of Qwen2.5-VL are those of Qwen2, whose code in llama.cpp is faster."""
    text = model.config.text_config
    out = GGUFWriter(path, "qwen2")
    out.add_context_length(text.max_position_embeddings)
    out.add_embedding_length(text.hidden_size)
    out.add_block_count(text.num_hidden_layers)
    out.add_feed_forward_length(text.intermediate_size)
    out.add_head_count(text.num_attention_heads)
    out.add_head_count_kv(text.num_key_value_heads)
    out.add_layer_norm_rms_eps(text.rms_norm_eps)
    out.add_rope_freq_base(1e6)
    described = json.loads(made.to_str())["model"]
    tokens = sorted(made.get_vocab().items(), key=lambda item: item[1])
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("qwen2")
    out.add_token_list([token for token, _ in tokens])
    out.add_token_types([TokenType.CONTROL if token in SPECIAL else TokenType.NORMAL for token, _ in tokens])
    out.add_token_merges([" ".join(merge) for merge in described["merges"]])
    out.add_eos_token_id(made.token_to_id("<|im_end|>"))
    names = {"embed_tokens": "token_embd", "norm": "output_norm", "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q",
             "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    for name, value in model.model.language_model.state_dict().items():
        block, (stem, kind) = "", name.rsplit(".", 1)
        if stem.startswith("layers."):
            _, layer, stem = stem.split(".", 2)
            block = f"blk.{layer}."
        target = f"{block}{names[stem]}.{kind}"
        if dtype == torch.bfloat16 and value.dim() == 2:
            bits = value.contiguous().view(torch.int16).numpy().view(numpy.uint8)
            out.add_tensor(target, bits, raw_dtype=GGMLQuantizationType.BF16)
        else:
            out.add_tensor(target, value.float().numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--shape", choices=["22m", "150m"], required=True)
    parser.add_argument("--dtype", choices=["f32", "bf16"], required=True)
    args = parser.parse_args()
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    args.out.mkdir(parents=True)
    made = tokenizer(SHAPES[args.shape][-1])
    model = build(args.shape, dtype)
    model.save_pretrained(args.out)
    write_tokenizer(args.out, made)
    write_gguf(args.out / "model.gguf", model, made, dtype)
    print(json.dumps({"parameters": sum(p.numel() for p in model.model.language_model.parameters())}))


if __name__ == "__main__":
    main()
