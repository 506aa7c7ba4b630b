#!/usr/bin/env python3
"""Makes rollouts of other programs, clean ones and ones with a planted fault, checks each with `omr score --logprobs`, and writes
the differences from which the limits in src/train/eval/verdict.rs were set.

usage: bench/peers/rollouts.py make WORK --digits DIR [--smollm2 DIR] [--only NAME]   writes WORK/clean and WORK/faults
       bench/peers/rollouts.py check WORK [--omr PROGRAM] [--out FILE]               prints the verdict on each file
       bench/peers/rollouts.py images BASE OUT                                       writes the rollouts of tests/app/cli/rollouts.rs
  --digits DIR   a model of the recipe for digits, such as runs/digits/rl/model
  --smollm2 DIR  a folder that tools/smollm2 has made with --dtype bf16
  --out FILE     differences of all files, as tests/train/verdict.rs reads them (packed in tests/goldens/verdicts.tgz)
  BASE           what `omr init --like configs/digits.yaml --rows tests/goldens/rollouts/texts.jsonl --out BASE` writes
Each file is named PROGRAM-MODEL-DTYPE-TOKENS. Programs: TRL's GRPOTrainer (trl), and transformers with rows in padded batches
(hf, eager for its attention without fused kernels). Files of vLLM are made by rollouts_vllm.py, which needs an environment of its own.
Needs the packages torch, transformers, trl, datasets, pillow and numpy. Everything runs on the CPU.
"""
import argparse
import copy
import json
import pathlib
import subprocess
import sys
import zlib

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "docs"))

QUESTIONS = ["What is the sum of the two digits?", "Add the two digits.", "Which digit is larger?", "Describe the image.",
             "Count from one to ten.", "Name three animals.", "What is 12 times 7?", "Tell a short story about a fox."]


def image_of(seed, cells):
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    return Image.fromarray(np.kron(random.integers(0, 256, (*cells, 3)), np.ones((14, 14, 1))).astype(np.uint8))


class Of:
    """A model with its processor, and rows: questions, images and sampled responses."""

    def __init__(self, folder, name):
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

        self.folder, self.name, self.torch = folder, name, torch
        self.vision = hasattr(AutoConfig.from_pretrained(folder), "vision_config")
        self.kind = AutoModelForImageTextToText if self.vision else AutoModelForCausalLM
        self.processor = AutoProcessor.from_pretrained(folder) if self.vision else AutoTokenizer.from_pretrained(folder)
        self.tokenizer = self.processor.tokenizer if self.vision else self.processor
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.config = AutoConfig.from_pretrained(folder)

    def load(self, dtype="float32", **more):
        return self.kind.from_pretrained(self.folder, dtype=getattr(self.torch, dtype), **more).eval()

    def conversation(self, row):
        content = [{"type": "image", "image": image} for image in row["images"]] + [{"type": "text", "text": row["question"]}]
        return [{"role": "user", "content": content if self.vision else row["question"]}]

    def inputs(self, row, images=None):
        """Returns the model's inputs for the prompt of a row, and after it the row's response."""
        torch = self.torch
        given = self.processor.apply_chat_template([self.conversation(row if images is None else {**row, "images": images})],
                                                   add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
        given = dict(given)
        row["prompt_ids"] = given["input_ids"][0].tolist()
        more = torch.tensor([row.get("completion_ids", [])], dtype=torch.long)
        given["input_ids"] = torch.cat([given["input_ids"], more], 1)
        for key, value in (("attention_mask", 1), ("mm_token_type_ids", 0)):
            if key in given:
                given[key] = torch.cat([given[key], torch.full_like(more, value)], 1)
        return given

    def sample(self, count, tokens, seed, images=1, cells=(4, 6)):
        """Returns rows with responses of at most `tokens` tokens."""
        torch = self.torch
        torch.manual_seed(seed)
        model = self.load()
        special = [getattr(self.config, key) for key in ("image_token_id", "video_token_id") if hasattr(self.config, key)]
        special += [getattr(self.config, key) for key in ("vision_start_token_id", "vision_end_token_id") if hasattr(self.config, key)]
        rows = []
        for i in range(count):
            sides = [(cells[0] + 2 * (k % 2), cells[1] + 2 * (i % 3)) for k in range(images if self.vision else 0)]
            row = {"question": QUESTIONS[(i + seed) % len(QUESTIONS)],
                   "images": [image_of(seed * 1000 + i * 10 + k, side) for k, side in enumerate(sides)]}
            with torch.no_grad():
                out = model.generate(**self.inputs(row), do_sample=True, top_k=0, max_new_tokens=tokens, min_new_tokens=min(tokens, 20),
                                     suppress_tokens=special or None, pad_token_id=self.tokenizer.pad_token_id)
            row["completion_ids"] = out[0, len(row["prompt_ids"]):].tolist()
            rows.append(row)
        return rows

    def logprobs(self, model, rows, batch=1, side="left", autocast=False, temperature=1.0, fault=None):
        """Returns the log-probs of the responses, computed in padded batches. `fault` changes the inputs of row i."""
        torch, found = self.torch, []
        for start in range(0, len(rows), batch):
            some = []
            for i, row in enumerate(rows[start:start + batch]):
                given = self.inputs(row)
                prompt = len(row["prompt_ids"])
                some.append((fault(start + i, row, given, prompt) if fault else None) or (given, prompt))
            longest = max(given["input_ids"].shape[1] for given, _ in some)

            def pad(given, key):
                value = given[key]
                missing = longest - value.shape[1]
                return torch.nn.functional.pad(value, (missing, 0) if side == "left" else (0, missing),
                                               value=self.tokenizer.pad_token_id if key == "input_ids" else 0)

            joined = {}
            for key in some[0][0]:
                if key in ("input_ids", "attention_mask", "mm_token_type_ids"):
                    joined[key] = torch.cat([pad(given, key) for given, _ in some])
                elif len(some) == 1 or key != "position_ids":
                    joined[key] = torch.cat([given[key] for given, _ in some])
            if "pixel_values" in joined:
                joined["pixel_values"] = joined["pixel_values"].to(model.dtype)
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                logits = model(**joined).logits.float() / temperature
            for i, (given, prompt) in enumerate(some):
                length = given["input_ids"].shape[1]
                first = longest - length if side == "left" else 0
                own = logits[i, first + prompt - 1:first + length - 1].log_softmax(-1)
                found.append(own.gather(1, given["input_ids"][0, prompt:, None])[:, 0].tolist())
        return found

    def lines(self, rows, found, model, name="old_per_token_logps"):
        from dump_rollouts import messages

        for row, logprobs in zip(rows, found):
            self.inputs(row)
            conversation = [{"role": "user", "content": "<image>" * len(row["images"]) + row["question"]}]
            yield {"messages": messages(conversation, row["images"]), "prompt_ids": row["prompt_ids"],
                   "completion_ids": row["completion_ids"], name: logprobs}


def write(work, folder, name, of, lines):
    path = work / folder / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (work / folder / f"{name}.model").write_text(str(of.folder))
    print(path, flush=True)


def tiny(work, digits, name):
    """Writes a model with random weights and the tokenizer of the digits model."""
    import torch
    from transformers import AutoProcessor, AutoModelForImageTextToText, AutoConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration

    folder = work / "models" / name
    if folder.exists():
        return folder
    torch.manual_seed(zlib.crc32(name.encode()))
    config = AutoConfig.from_pretrained(digits)
    text, vision = config.text_config, config.vision_config
    if name == "tiny":
        text.hidden_size, text.num_attention_heads, text.num_key_value_heads, text.num_hidden_layers = 128, 4, 2, 6
        text.intermediate_size, vision.out_hidden_size, vision.depth = 320, 128, 3
        text.layer_types = ["full_attention"] * 6
        text.initializer_range = config.initializer_range = vision.initializer_range = 0.08
        vision.fullatt_block_indexes = [0, 1, 2]
        model = AutoModelForImageTextToText.from_config(config)
    else:
        ids = {key: getattr(config, key) for key in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")}
        config = Qwen3VLConfig(
            text_config=dict(hidden_size=96, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=4, intermediate_size=256,
                             head_dim=32, vocab_size=512, max_position_embeddings=8192, initializer_range=0.08, bos_token_id=371, eos_token_id=373,
                             rope_scaling={"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True}),
            vision_config=dict(hidden_size=64, depth=3, num_heads=4, intermediate_size=128, out_hidden_size=96, patch_size=16, spatial_merge_size=2,
                               temporal_patch_size=2, num_position_embeddings=256, deepstack_visual_indexes=[0, 1], initializer_range=0.08),
            tie_word_embeddings=True, **ids)
        model = Qwen3VLForConditionalGeneration(config)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.dim() > 1:
                value.normal_(0.0, 0.08)
            elif "bias" not in key:
                value.add_(torch.randn_like(value) * 0.1)
    model.save_pretrained(folder)
    processor = AutoProcessor.from_pretrained(digits)
    processor.image_processor.patch_size = vision.patch_size if name == "tiny" else 16
    processor.save_pretrained(folder)
    # transformers 5 takes torchvision although this key of the digits model names Pillow, which omr takes then.
    settings = json.loads((folder / "processor_config.json").read_text())
    settings["image_processor"].pop("use_fast", None)
    (folder / "processor_config.json").write_text(json.dumps(settings, indent=2))
    return folder


def trl(work, of, name, count, tokens, seed, bf16, dtype="float32", folder="clean", side="left"):
    """Rollouts of TRL's trainer, as docs/dump_rollouts.py writes them. It needs a processor that pads on the left: padded on the
    right, prompts with images that are shorter than the longest of their batch get other positions."""
    from datasets import Dataset
    from dump_rollouts import dumping
    from trl import GRPOConfig, GRPOTrainer

    of.torch.manual_seed(seed)
    rows = [{"prompt": [{"role": "user", "content": QUESTIONS[(i + seed) % len(QUESTIONS)]}],
             **({"image": image_of(seed * 1000 + i, (4, 6 + 2 * (i % 3)))} if of.vision else {})} for i in range(max(count // 4, 1))]
    path = work / folder / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    of.tokenizer.padding_side = side
    config = GRPOConfig(
        output_dir=str(work / "trainer"), per_device_train_batch_size=count, num_generations=4, num_iterations=2, max_steps=1,
        max_completion_length=tokens, use_cpu=True, bf16=bf16, report_to=[], learning_rate=0.0, save_strategy="no", disable_tqdm=True,
        gradient_checkpointing=False)
    dumping(GRPOTrainer, path)(model=of.load(dtype), processing_class=of.processor, args=config, train_dataset=Dataset.from_list(rows),
                               reward_funcs=lambda completions, **_: [float(len(str(text))) for text in completions]).train()
    (work / folder / f"{name}.model").write_text(str(of.folder))
    print(path, flush=True)


def without_image(which):
    """Row i of `which` is computed without its images: the placeholders stay, with positions one by one."""
    def fault(i, row, given, prompt):
        if i in which:
            import torch
            length = given["input_ids"].shape[1]
            return {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"],
                    "position_ids": torch.arange(length).expand(3, 1, -1)}, prompt
    return fault


def fewer_images(of, which, keep):
    """Row i of `which` is computed with the images `keep` only, with a prompt of its own."""
    def fault(i, row, given, prompt):
        if i in which:
            other = {**row}
            given = of.inputs(other, [row["images"][k] for k in keep])
            return given, len(other["prompt_ids"])
    return fault


def same_image(of, which):
    """Row i of `which` is computed with its first image in place of the others, which keep their grids."""
    def fault(i, row, given, prompt):
        if i in which:
            first = [image.size for image in row["images"]]
            return of.inputs({**row}, [row["images"][0].resize(size) for size in first]), prompt
    return fault


def positions(of, which, image, change):
    """Row i of `which` has other positions for the tokens of one image."""
    def fault(i, row, given, prompt):
        if i in which:
            import torch
            of.exact = getattr(of, "exact", None) or of.load()
            model = of.exact
            ids = given["input_ids"]
            more = {"mm_token_type_ids": given["mm_token_type_ids"]} if "mm_token_type_ids" in given else {}
            place, _ = model.model.get_rope_index(ids, image_grid_thw=given["image_grid_thw"], attention_mask=given["attention_mask"], **more)
            place = place.clone()
            is_image = (ids[0] == of.config.image_token_id).nonzero()[:, 0]
            merge = of.config.vision_config.spatial_merge_size ** 2
            sizes = [int(g.prod()) // merge for g in given["image_grid_thw"]]
            begin = int(is_image[sum(sizes[:image])])
            change(torch, place, begin, sizes[image])
            return {**{k: v for k, v in given.items() if k != "mm_token_type_ids"}, **more, "position_ids": place}, prompt
    return fault


def one_by_one(torch, place, begin, size):
    """The tokens of the image count one by one, and the text after it continues from there."""
    run = torch.arange(size) + int(place[0, 0, begin - 1]) + 1
    shift = int(run[-1]) + 1 - int(place[0, 0, begin + size])
    place[:, 0, begin:begin + size] = run
    place[:, 0, begin + size:] += shift


def in_place(torch, place, begin, size):
    """The tokens of the image count one by one, and the text after it keeps its positions."""
    place[:, 0, begin:begin + size] = torch.arange(size) + int(place[0, 0, begin - 1]) + 1


def swapped(torch, place, begin, size):
    """Height and width are exchanged."""
    place[[1, 2], 0, begin:begin + size] = place[[2, 1], 0, begin:begin + size]


def stepped(of, model, rows, rate):
    """Returns the model after one step of AdamW on the first rows."""
    torch = of.torch
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    for i, row in enumerate(rows[:4]):
        given = of.inputs(row)
        logits = model(**given).logits[0].float()
        start = len(row["prompt_ids"])
        own = logits[start - 1:-1].log_softmax(-1).gather(1, given["input_ids"][0, start:, None])
        (own.mean() * (1 if i % 2 else -1)).backward()
    optimizer.step()
    return model.eval()


def adapted(of, model, seed, size):
    """Returns the model with the product of two random matrices of rank 8 added to each query and value projection."""
    torch = of.torch
    model = copy.deepcopy(model)
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith(("q_proj.weight", "v_proj.weight")):
                low = torch.randn(value.shape[0], 8) @ torch.randn(8, value.shape[1])
                value.add_((low * size * value.float().std() / low.std()).to(value.dtype))
    return model


def make(args):
    work, only = args.work, args.only or ""
    models = {"digits": args.digits, "tiny": tiny(work, args.digits, "tiny"), "tiny3": tiny(work, args.digits, "tiny3"), "smol": args.smollm2}
    ofs = {name: Of(folder, name) for name, folder in models.items() if folder}
    wanted = lambda name: only in name
    for name, of in ofs.items():
        if args.model not in (None, name):
            continue
        small = name != "smol"
        # TRL: rows x tokens from 20 to 4,000.
        for seed, (count, tokens) in enumerate([(4, 6), (8, 40), (16, 250)] if small else [(4, 8), (8, 64)]):
            for kind, bf16, dtype in (("float32", False, "float32"), ("autocast", True, "float32"), ("bf16", False, "bfloat16")):
                label = f"trl-{name}-{kind}-{count * tokens}"
                if wanted(label) and not (name == "tiny3" and kind == "bf16"):
                    trl(work, of, label, count, tokens, seed + 10, bf16, dtype)
        if of.vision and wanted(f"trl-{name}-right"):
            trl(work, of, f"trl-{name}-right", 8, 40, 11, False, folder="faults", side="right")
        if not wanted(f"hf-{name}"):
            continue
        rows = of.sample(16, 80 if small else 40, 3)
        for kind, how, load in (
                ("float32-left", dict(batch=16), {}), ("bf16-left", dict(batch=16), dict(dtype="bfloat16")),
                ("bf16-right", dict(batch=4, side="right"), dict(dtype="bfloat16")), ("bf16-one", {}, dict(dtype="bfloat16")),
                ("autocast-left", dict(batch=8, autocast=True), {}), ("bf16-eager", dict(batch=5), dict(dtype="bfloat16", attn_implementation="eager")),
                ("float16-left", dict(batch=16), dict(dtype="float16")), ("float32-eager", dict(batch=3), dict(attn_implementation="eager"))):
            model = of.load(**load)
            write(work, "clean", f"hf-{name}-{kind}", of, of.lines(rows, of.logprobs(model, rows, **how), model))
        write(work, "clean", f"hf-{name}-bf16-few", of, of.lines(rows[:2], of.logprobs(of.load("bfloat16"), rows[:2], batch=2), None))
    for name, of in ofs.items():
        if not wanted(f"fault-{name}") or args.model not in (None, name):
            continue
        rows = of.sample(16, 80 if name != "smol" else 40, 5, images=2)
        exact, half = of.load(), of.load("bfloat16")
        for kind, model in (("float32", exact), ("bf16", half)):
            def plant(what, model=model, **how):
                write(work, "faults", f"{what}-{name}-{kind}", of, of.lines(rows, of.logprobs(model, rows, **how), model))
            for degrees in (0.95, 1.07, 0.6):
                plant(f"temperature{degrees}", temperature=degrees)
            for rate in (1e-6, 1e-5, 1e-4):
                plant(f"step{rate}", stepped(of, model if kind == "float32" else exact, rows, rate).to(model.dtype))
            for size in (0.05, 0.3):
                plant(f"adapter{size}", adapted(of, model, 1, size))
            if of.vision:
                plant("images_missing_1of16", fault=without_image([5]))
                plant("images_missing_all", fault=without_image(range(16)))
                plant("prompt_without_images_1of16", fault=fewer_images(of, [5], []))
                plant("second_image_missing_all", fault=fewer_images(of, range(16), [0]))
                plant("second_image_missing_1of16", fault=fewer_images(of, [9], [0]))
                plant("first_image_missing_3of16", fault=fewer_images(of, [2, 3, 11], [1]))
                plant("same_image_1of16", fault=same_image(of, [4]))
                plant("positions_one_by_one_1of16", fault=positions(of, [7], 1, one_by_one))
                plant("positions_in_place_all", fault=positions(of, range(16), 0, in_place))
                plant("positions_swapped_1of16", fault=positions(of, [7], 0, swapped))
                plant("positions_one_by_one_all", fault=positions(of, range(16), 1, one_by_one))


def images(base, out):
    """Rollouts with two images in each row, and log-probs of the same tokens with one fault in the third row."""
    of = Of(base, "base")
    rows = of.sample(4, 10, 1, images=2)
    model = of.load()
    write(out, "", "images", of, of.lines(rows, of.logprobs(model, rows), model))
    (out / "images.model").unlink()
    faults = {
        "images missing": without_image([2]), "images missing: no tokens": fewer_images(of, [2], []),
        "image 2 of 2 missing": fewer_images(of, [2], [0]), "image 1 of 2 missing": fewer_images(of, [2], [1]),
        "one-dimensional positions of image 2 of 2": positions(of, [2], 1, one_by_one),
        "one-dimensional positions of image 1 of 2": positions(of, [2], 0, in_place),
        "wrong positions of image 1 of 2": positions(of, [2], 0, swapped),
    }
    found = {name: of.logprobs(model, rows, fault=fault)[2] for name, fault in faults.items()}
    (out / "images_faults.json").write_text(json.dumps(found) + "\n")


def check(args):
    """Checks each file and writes the differences. A file is clean, or its name begins with its fault."""
    rows = []
    for file in sorted(args.work.glob("clean/*.jsonl")) + sorted(args.work.glob("faults/*.jsonl")):
        model, found = file.with_suffix(".model").read_text(), {}
        for dtype in ("f32", "bf16"):
            out = file.with_suffix(f".{dtype}")
            command = [args.omr, "score", "--logprobs", file, "--model", model, f"dtype={dtype}", "--overwrite", "--out", out]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode not in (0, 1):
                sys.exit(done.stderr)
            found[dtype] = [json.loads(line) for line in out.read_text().splitlines()]
            if dtype == "f32":
                said = [line for line in done.stderr.splitlines() if "log-probs" in line and "agree" in line]
                print(f"{file.parent.name:6} {file.stem:44} {done.returncode} {' '.join(said)}", flush=True)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        short = lambda values, digits=3: [float(f"{value:.{digits}g}") for value in values]
        differences = []
        for line, exact, half in zip(lines, found["f32"], found["bf16"]):
            recorded = next(line[name] for name in ("old_per_token_logps", "sampling_per_token_logps") if name in line)
            differences.append([line["completion_ids"], short(exact["logprobs"], 5), short(a - b for a, b in zip(recorded, exact["logprobs"])),
                                short(a - b for a, b in zip(half["logprobs"], exact["logprobs"]))])
        rows.append({"name": file.stem, "clean": file.parent.name == "clean", "rows": differences})
    if args.out:
        args.out.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["make", "check", "images"])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("into", type=pathlib.Path, nargs="?")
    parser.add_argument("--digits", type=pathlib.Path)
    parser.add_argument("--smollm2", type=pathlib.Path)
    parser.add_argument("--model", choices=["digits", "tiny", "tiny3", "smol"])
    parser.add_argument("--only")
    parser.add_argument("--omr", default=str(ROOT / "target/release/omr"))
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    make(args) if args.mode == "make" else images(args.work, args.into) if args.mode == "images" else check(args)


if __name__ == "__main__":
    main()
