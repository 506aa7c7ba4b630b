"""What is asked in which call: the order is that of risk, the minutes are those of a lent machine."""

# Parts of each call and their minutes: 9 at most, and what one leaves the next has.
CALLS = {
    1: {"ceilings": 1.0, "calibration": 2.0, "first": 5.5},
    2: {"kernels": 6.0, "slice": 2.5},
    3: {"correctness": 4.5, "jobs": 4.0},
    4: {"recipe": 4.0, "sanitizer": 2.5, "profiles": 2.0},
}
PARTS = {part: minutes for call in CALLS.values() for part, minutes in call.items()}
# Minutes of a call by its own clock; what its parts leave is for starting and writing.
CALL_MINUTES = 9.0
assert all(sum(call.values()) < CALL_MINUTES for call in CALLS.values())

# Of the emulator itself, and of the host alone: nothing a card could answer.
NOT_OF_A_CARD = {"kernels::emu", "kernels::driver", "kernels::cache", "kernels::tma"}
# What everything else is believed after, the three verdicts' tests first.
CALIBRATION = ["kernels::calibrate_wgmma", "kernels::calibrate_sums", "kernels::calibrate", "kernels::calibrate_tma",
               "kernels::math", "golden::isa", "golden::isa_wgmma", "golden::isa_tma"]
# What is most likely to be wrong, or holds most together.
FIRST = ["kernels::gemm_sm90a", "kernels::gemm_bwd_sm90a", "kernels::attention_sm90a", "kernels::attention_bwd_sm90a",
         "kernels::attention", "kernels::paged_attention", "kernels::engine"]
# The others, riskiest first; a module that is not named here comes after these.
THEN = ["kernels::gemm", "kernels::gemm_bwd", "kernels::attention_bwd", "kernels::sample", "kernels::linear_logprob",
        "kernels::linear_logprob_bwd", "kernels::model", "kernels::model_bwd", "kernels::train", "kernels::attention_window",
        "kernels::attention_window_bwd", "kernels::plan", "kernels::readback"]
QUICK = ["kernels::rows", "kernels::swiglu"]
# Models, the engine and the sampler: run by the other body of linear layers too.
MODELS = ["kernels::model", "kernels::engine", "kernels::digits"]
# Ranks, as far as one card goes: one by NVIDIA's NCCL, where that is; on the emulator by the library that stands in for it.
RANKS = ["ranks::one_card"]
# Small enough to be run with every access checked, and the test whose kernel says whether the checker works here.
SANITIZED = ["kernels::rows", "kernels::rms_norm", "kernels::rope", "kernels::swiglu"]
SANITIZER_PROBE = "kernels::calibrate::bf16_rounds_to_nearest_even"
# Seconds a module may take, and a job; a hang is none.
MODULE_SECONDS = 120
JOB_SECONDS = 100

# Sampler beside trainer at the widths of the 7B, by both bodies: a bit that differs is red.
PARITY = ["parity", "--model-shape", "7b-slice"]
# What `omr bench` is asked, a step each so that what is cut loses the rest alone: first jobs of four layers, by each body
# and by transformers, then jobs of the 7B in order of worth.
SLICE = {f"{job} 7b-slice": [job, "--model-shape", "7b-slice"] for job in ("train-step", "generate")}
RECIPE = "configs/openmmreasoner-7b"
DECODED = [(1, 1536), (16, 1536), (64, 1536), (256, 1536), (1, 28672), (16, 28672)]
JOBS = {
    "sft.yaml, rows of 4096": [f"{RECIPE}/sft.yaml", "packing_length=16384", "micro_batch_tokens=16384", "--row-tokens", "4096",
                               "--image-tokens", "1024"],
    "sft.yaml": [f"{RECIPE}/sft.yaml"],
    "rl.yaml": [f"{RECIPE}/rl.yaml"],
    **{f"decode 7b, {batch} of {keys}": ["decode", "--model-shape", "7b", "--batch-size", str(batch), "--input-len", str(keys)]
       for batch, keys in DECODED},
    **{f"{job} 7b": [job, "--model-shape", "7b"] for job in ("train-step", "generate")},
}
# Of these the emulator's, and what makes its configs small.
EMULATED = ["sft.yaml, rows of 4096", "rl.yaml", "decode 7b, 1 of 1536"]
SMALL = ["model=tests/goldens/hf/model_a", "micro_batch_tokens=96", "--row-tokens", "32", "--image-tokens", "6"]
SMALLER = {"sft.yaml": ["packing_length=32", "gradient_accumulation_steps=1"],
           "rl.yaml": ["max_prompt_length=32", "max_response_length=16", "train_batch_size=2", "ppo_mini_batch_size=2", "rollout.n=2"]}
# The same beside transformers, by bench/peers/JOB.py.
BESIDE = ("train-step", "generate")


def emulated(arguments):
    """The same for the emulator, with a model of half a million parameters."""
    config = arguments[0].rpartition("/")[2]
    if config in SMALLER:
        return [arguments[0], *SMALLER[config], *SMALL]
    small = {"--model-shape": "digits", "--batch-size": "2", "--input-len": "16"}
    return [small.get(before, word) for before, word in zip(["", *arguments], arguments)]


def by_risk(modules):
    """All modules but those of CALIBRATION, what is most likely to be wrong first."""
    order = {name: i for i, name in enumerate(FIRST + THEN)}
    rest = [name for name in modules if name not in NOT_OF_A_CARD and name not in CALIBRATION]
    return sorted(rest, key=lambda name: order.get(name, len(order)))
