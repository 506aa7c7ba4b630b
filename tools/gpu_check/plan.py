"""Assigns the steps to calls. The order follows risk, and the minutes are those of a lent machine."""

# Parts in the order in which they run without a call, and their minutes. Time that a part does not use goes to the next.
PARTS = {"calibration": 1.0, "first": 1.2, "kernels": 1.8, "jobs": 1.8, "correctness": 1.5, "ceilings": 0.3, "slice": 2.0, "recipe": 2.0,
         "sanitizer": 1.0, "profiles": 1.0, "faults": 0.3}
# Parts of each call. A part of two calls continues with the steps that have not passed.
CALLS = {
    1: ["calibration", "first", "kernels", "jobs"],
    2: ["correctness", "jobs", "ceilings", "profiles", "faults"],
    3: ["slice", "recipe", "sanitizer"],
}
# Minutes of a call by its own clock. Two calls fit into 15 minutes of a lent machine.
CALL_MINUTES = 6.5
assert all(sum(PARTS[part] for part in call) < CALL_MINUTES for call in CALLS.values())
# Test modules that run at the same time. Each process allocates 8 GiB of the GPU, and most of its time is the CPU's.
TOGETHER = 6

# Tests of the emulator itself and of host code only. A GPU adds nothing to them.
NOT_ON_GPU = {"kernels::emu", "kernels::driver", "kernels::cache", "kernels::tma"}
# Tests that calibrate the arithmetic. All other results rely on them. The tests behind the verdicts come first.
CALIBRATION = ["kernels::calibrate_wgmma", "kernels::calibrate_sums", "kernels::calibrate", "golden::isa_sums", "kernels::digests",
               "kernels::calibrate_exp2", "kernels::calibrate_tma", "kernels::math", "golden::isa", "golden::isa_wgmma", "golden::isa_tma"]
# Modules that are the most likely to fail, or that cover the most code.
FIRST = ["kernels::gemm_sm90a", "kernels::gemm_bwd_sm90a", "kernels::attention_sm90a", "kernels::attention_bwd_sm90a",
         "kernels::attention", "kernels::paged_attention", "kernels::engine", "kernels::gemm_codes", "kernels::dequantize", "kernels::layer_norm",
         "kernels::pos_embed", "kernels::gelu", "kernels::policy_loss"]
# The other modules, riskiest first. A module that is not listed here runs after these.
THEN = ["kernels::gemm", "kernels::gemm_bwd", "kernels::attention_bwd", "kernels::sample", "kernels::linear_logprob",
        "kernels::linear_logprob_bwd", "kernels::lora", "kernels::model", "kernels::model_bwd", "kernels::train", "kernels::lora_train",
        "kernels::plan", "kernels::readback"]
# Kernels that fault or do not end. Last, in case the GPU cannot be used afterwards.
FAULTS = ["kernels::faults"]
QUICK = ["kernels::rows", "kernels::swiglu"]
# Models, the engine and the sampler. They also run with the other kernel variant of linear layers.
MODELS = ["kernels::model", "kernels::engine", "kernels::digits"]
# Tests that take a minute on the emulator, which ignores them.
SLOW_ON_EMULATOR = ["kernels::engine::qwen3_vl", "kernels::engine::text_models"]
# Tests of ranks that one GPU can run: one rank with NVIDIA's NCCL if it is installed. The emulator uses the stand-in
# library.
RANKS = ["ranks::one_card"]
# Modules that are small enough to run with every memory access checked, and the test whose kernel shows whether the
# checker works on this machine.
SANITIZED = ["kernels::rows", "kernels::rms_norm", "kernels::rope", "kernels::swiglu", "kernels::dequantize", "kernels::gemm_codes", "kernels::layer_norm",
             "kernels::pos_embed"]
SANITIZER_PROBE = "kernels::calibrate::bf16_rounds_to_nearest_even"
# Time limits in seconds of a module and of a job, to end a hang.
MODULE_SECONDS = 60
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


def decode(batch, keys):
    return ["decode", "--model-shape", "7b", "--batch-size", str(batch), "--input-len", str(keys)]


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
    **{name: CONFIGS[name] for name in LONG_JOBS},
}
# The jobs that also run on the emulator, and the overrides that make their configs small.
EMULATED = ["sft.yaml, rows of 4096", "rl.yaml", "decode 7b, 1 of 1536", "sft.yaml, rows of 4096, LoRA", "decode 7b, 1 of 1536, LoRA",
            "sft.yaml, rows of 4096, LoRA, int8", "decode 7b, 1 of 1536, int8"]
SMALL = ["model=tests/goldens/hf/model_a", "micro_batch_tokens=96", "--row-tokens", "32", "--image-tokens", "6"]
SMALLER = {"sft.yaml": ["packing_length=32", "gradient_accumulation_steps=1"],
           "rl.yaml": ["max_prompt_length=32", "max_response_length=16", "train_batch_size=2", "ppo_mini_batch_size=2", "rollout.n=2"]}
# Jobs that are also measured with transformers, by bench/peers/JOB.py. Generation of the 7B model takes longer than `JOB_SECONDS` there.
BESIDE = ("train-step", "generate")


def emulated(arguments):
    """Returns the same arguments with sizes for the emulator, for a model of half a million parameters."""
    config = arguments[0].rpartition("/")[2]
    if config in SMALLER:
        return [arguments[0], *(word for word in arguments if word.startswith(("lora.", "quantization."))), *SMALLER[config], *SMALL]
    small = {"--model-shape": "digits", "--batch-size": "2", "--input-len": "16"}
    return [small.get(before, word) for before, word in zip(["", *arguments], arguments)]


def by_risk(modules):
    """Returns all modules except those of CALIBRATION and FAULTS, the most likely to fail first."""
    order = {name: i for i, name in enumerate(FIRST + THEN)}
    rest = [name for name in modules if name not in NOT_ON_GPU and name not in CALIBRATION + FAULTS]
    return sorted(rest, key=lambda name: order.get(name, len(order)))
