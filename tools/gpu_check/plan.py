"""Assigns the steps to calls, with a limit in seconds for each. The order follows risk and value."""

# Test modules that run at the same time. Each process allocates 8 GiB of the GPU, and most of its time is the CPU's.
TOGETHER = 6

# Tests of the emulator itself and of host code only. A GPU adds nothing to them.
NOT_ON_GPU = {"kernels::emu", "kernels::driver", "kernels::cache", "kernels::tma"}
# Tests that calibrate the arithmetic. All other results rely on them. The tests behind the verdicts come first.
CALIBRATION = ["kernels::calibrate_wgmma", "kernels::calibrate_sums", "kernels::calibrate", "golden::isa_sums", "kernels::digests",
               "kernels::calibrate_exp2", "kernels::calibrate_tma", "kernels::math", "golden::isa", "golden::isa_wgmma", "golden::isa_tma"]
# Modules whose kernels are new or were compiled again since the newest record of a GPU (ptx/MANIFEST at its commit), and those that failed
# there. `calibrate_exp2` measures ex2.approx of negative numbers, from which the bits of attention are predicted.
CHANGED = ["kernels::layer_norm", "kernels::dequantize", "kernels::calibrate_exp2", "kernels::calibrate_tma", "kernels::train", "kernels::digests",
           "kernels::gemm_codes", "kernels::pos_embed", "kernels::gelu", "kernels::gemm", "kernels::sample", "kernels::linear_logprob",
           "kernels::policy_loss", "kernels::stamp"]
# Modules that are likely to fail, or that cover much code, riskiest first. A module that is not listed here runs after these.
FIRST = [*CHANGED, "kernels::gemm_sm90a", "kernels::gemm_bwd_sm90a", "kernels::attention_sm90a", "kernels::attention_bwd_sm90a",
         "kernels::attention", "kernels::paged_attention", "kernels::engine", "kernels::gemm_bwd", "kernels::attention_bwd",
         "kernels::linear_logprob_bwd", "kernels::lora", "kernels::model", "kernels::model_bwd", "kernels::lora_train", "kernels::plan",
         "kernels::readback"]
# Kernels that fault or do not end. Last, in case the GPU cannot be used afterwards.
FAULTS = ["kernels::faults"]
QUICK = ["kernels::rows", "kernels::swiglu"]
# Models, the engine and the sampler. They also run with the other kernel variant of linear layers.
MODELS = ["kernels::model", "kernels::engine"]
# Tests that take a minute on the emulator, which ignores them.
SLOW_ON_EMULATOR = ["kernels::engine::qwen3_vl", "kernels::engine::text_models"]
# Modules whose tests are all slow on the emulator, which ignores them.
IGNORED = ["kernels::lanes", "kernels::lengths", "kernels::slice"]
# Steps that run test modules.
TESTED = {"calibration": CALIBRATION, "changed modules": CHANGED, "ignored elsewhere": IGNORED, "faults": FAULTS}
# Tests of ranks that one GPU can run: one rank with NVIDIA's NCCL if it is installed. The emulator uses the stand-in
# library.
RANKS = ["ranks::one_card"]
# Modules that are small enough to run with every memory access checked, and the test whose kernel shows whether the
# checker works on this machine.
SANITIZED = ["kernels::rows", "kernels::rms_norm", "kernels::rope", "kernels::swiglu", "kernels::dequantize", "kernels::gemm_codes", "kernels::layer_norm",
             "kernels::pos_embed"]
SANITIZER_PROBE = "kernels::calibrate::bf16_rounds_to_nearest_even"
# Time limits in seconds of a module and of a job, to end a hang.
MODULE_SECONDS, IGNORED_SECONDS = 60, 45
JOB_SECONDS = 45
# Jobs that take longer. They come last.
LONG_JOBS = {"sft.yaml": 90}
# Time limit in seconds of each check that the GPU still answers.
CANARY_SECONDS = 30

# Compares sampler and trainer log-probs at the widths of the 7B model with both kernel variants. A single different bit
# is an error.
PARITY = ["parity", "--model-shape", "7b-slice"]
# Arguments of `omr bench`, one step each, so that a job that is cut short does not lose the others: first the jobs of
# four layers, with each kernel variant and with transformers, then the jobs of the 7B model in order of value.
SLICE = {f"{job} 7b-slice": [job, "--model-shape", "7b-slice"] for job in ("train-step", "generate")}
RECIPE = "configs/openmmreasoner-7b"
CONFIGS = {
    "sft.yaml, rows of 4096": [f"{RECIPE}/sft.yaml", "optim=adamw_8bit", "packing_length=16384", "micro_batch_tokens=16384", "--row-tokens", "4096",
                               "--image-tokens", "1024"],
    "sft.yaml": [f"{RECIPE}/sft.yaml", "optim=adamw_8bit"],
    "rl.yaml": [f"{RECIPE}/rl.yaml", "optim=adamw_8bit"],
}


def decode(batch, keys, shape="7b"):
    return ["decode", "--model-shape", shape, "--batch-size", str(batch), "--input-len", str(keys)]


# Jobs that fit a GPU of less than `LARGE` MiB, in order of value. They come first.
LARGE = 100_000
FITS = {
    **{f"decode 7b, {batch} of 1536": decode(batch, 1536) for batch in (1, 64, 16)},
    "generate 7b": ["generate", "--model-shape", "7b"],
    "sft.yaml, rows of 4096, LoRA": [*CONFIGS["sft.yaml, rows of 4096"], "lora.rank=16"],
    **{f"decode 7b, {batch} of 1536, LoRA": [*decode(batch, 1536), "--lora-rank", "16"] for batch in (1, 16, 64)},
    **{f"decode 7b, {batch} of 1536, {base}": [*decode(batch, 1536), "--quantization", base] for batch in (1, 64) for base in ("int8", "nf4")},
    **{f"sft.yaml, rows of 4096, LoRA, {base}": [*CONFIGS["sft.yaml, rows of 4096"], "lora.rank=16", f"quantization.base={base}"]
       for base in ("int8", "nf4")},
}
JOBS = {
    **FITS,
    **{f"decode 7b, {batch} of {keys}": decode(batch, keys) for batch, keys in [(256, 1536), (1, 28672), (16, 28672)]},
    "train-step 7b": ["train-step", "--model-shape", "7b"], **{name: arguments for name, arguments in CONFIGS.items() if name not in LONG_JOBS},
    "sft.yaml, rows of 4096, offload": [*CONFIGS["sft.yaml, rows of 4096"], "optimizer_offload=true"],
    **{f"{name}, LoRA": [*arguments, "lora.rank=16"] for name, arguments in CONFIGS.items()},
    "generate 7b, mixed lengths": ["generate", "--model-shape", "7b", "--mixed-lengths", "--new-tokens", "512"],
    "rl-step 7b": ["rl-step", "--model-shape", "7b"],
    **{f"decode Qwen3-VL-8B, {batch} of 1536": decode(batch, 1536, "qwen3-vl-8b") for batch in (1, 64)},
    **{name: CONFIGS[name] for name in LONG_JOBS},
}
# Jobs that `omr bench` may not know yet.
NOT_YET = [name for name in JOBS if "Qwen3-VL" in name]
# The jobs that also run on the emulator, and the overrides that make their configs small.
EMULATED = ["sft.yaml, rows of 4096", "rl.yaml", "decode 7b, 1 of 1536", "sft.yaml, rows of 4096, LoRA", "decode 7b, 1 of 1536, LoRA",
            "sft.yaml, rows of 4096, LoRA, int8", "decode 7b, 1 of 1536, int8", "generate 7b, mixed lengths"]
SMALL = ["model=tests/goldens/hf/model_a", "micro_batch_tokens=96", "--row-tokens", "32", "--image-tokens", "6"]
SMALLER = {"sft.yaml": ["packing_length=32", "gradient_accumulation_steps=1"],
           "rl.yaml": ["max_prompt_length=32", "max_response_length=16", "train_batch_size=2", "ppo_mini_batch_size=2", "rollout.n=2"]}


def emulated(arguments):
    """Returns the same arguments with sizes for the emulator, for a model of half a million parameters."""
    config = arguments[0].rpartition("/")[2]
    if config in SMALLER:
        return [arguments[0], *(word for word in arguments if word.startswith(("lora.", "quantization.", "optimizer_offload="))), *SMALLER[config], *SMALL]
    small = {"--model-shape": "digits", "--batch-size": "2", "--input-len": "16", "--new-tokens": "8"}
    return [small.get(before, word) for before, word in zip(["", *arguments], arguments)]


def by_risk(modules):
    """Returns all modules except those of CALIBRATION and FAULTS, the most likely to fail first."""
    order = {name: i for i, name in enumerate(FIRST)}
    rest = [name for name in modules if name not in NOT_ON_GPU and name not in CALIBRATION + FAULTS]
    return sorted(rest, key=lambda name: order.get(name, len(order)))


# Ops that run in turns with their peer: the products of an MLP, with the weight gradient, and a copy. Then all that cuBLASLt and cuDNN have.
PRODUCTS = ["linear fwd [8192, 3584] x [37888", "linear dgrad [8192, 37888]", "linear wgrad [37888", "linear fwd [8192, 18944]", "copy"]
WITH_PEER = ["linear fwd", "linear dgrad", "linear wgrad", "swiglu linear fwd", "attention"]
# Steps that run in turns: their cases, programs (a label and more arguments; PyTorch beside a single one) and seconds of a turn. A product of
# zeros needs less power than one of normal numbers: equal times would show that power is no limit.
TURNS = {"products in turns": (PRODUCTS, {"omr": []}, 1.2), "peers in turns": (WITH_PEER, {"omr": []}, 0.4),
         "zeros beside normal numbers": (PRODUCTS[:1], {data: ["--data", data] for data in ("normal", "zeros")}, 1.2)}
CANDIDATE_SECONDS = 0.3
# Recipes of `omr recipe`. None does not exist yet.
RECIPES = {"recipe": "configs/digits.yaml", "recipe of RL in use": None}

# Steps of the parts of each call, in order, and the limit of each in seconds. Time that a step does not use goes to the next one of its
# part. The last part of call 1 is the first to be left out if time is short.
CALLS = {
    1: {
        "new": {"changed modules": 15, "recipe": 30, "ignored elsewhere": IGNORED_SECONDS},
        "stamps": {"products in turns": 40},
        "quantized": {f"decode 7b, {batch} of 1536, {base}": 10 for base in ("int8", "nf4") for batch in (1, 64)},
        "candidates": {"candidates": 70},
        "passes": {"sft.yaml, rows of 4096": 15, "sft.yaml, rows of 4096, offload": 35, "rl.yaml": 35, "sft.yaml": 45},
        "nccl": {"ranks on one GPU": 60},
        "rollouts": {"generate 7b, mixed lengths": 30, "decode 7b, 256 of 1536": 15},
        "rest": {"rl-step 7b": 15, "ceilings host": 15, "zeros beside normal numbers": 15},
    },
    2: {
        "peers": {"peers in turns": 60, "train-step 7b": 18, "peer train-step 7b": 40},
        "adapters": {"sft.yaml, rows of 4096, LoRA": 10, "decode 7b, 1 of 1536, LoRA": 4, "decode 7b, 64 of 1536, LoRA": 8},
        "Qwen3-VL": {"decode Qwen3-VL-8B, 1 of 1536": 4, "decode Qwen3-VL-8B, 64 of 1536": 6},
        "use": {"recipe of RL in use": 10},
    },
}
# Seconds of a call by its own clock, and the part of them in which it starts and writes its summary.
CALL_SECONDS = {1: 540, 2: 180}
START_AND_END = 20


def seconds(parts):
    return sum(sum(steps.values()) for steps in parts.values())


assert all(seconds(parts) + START_AND_END <= CALL_SECONDS[call] for call, parts in CALLS.items())
# Parts that no call runs, in the order in which they run without a call.
ALONE = {part: {part: limit} for part, limit in {
    "calibration": 60, "kernels": 108, "jobs": 108, "correctness": 162, "ceilings": 18, "slice": 120, "sanitizer": 60,
    "profiles": 60, "faults": 18}.items()}
PARTS = CALLS[1] | CALLS[2] | ALONE
