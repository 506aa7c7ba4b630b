"""What each step of plan.py runs."""
import json
import re
import shlex
import shutil
import sys

from . import base, plan
from .base import CEILINGS, PEERS, ROOT
from .profiles import profiles


def ceilings(check, part, step):
    """Runs the programs of bench/peers/ceilings, or only the one that measures the link to the host."""
    where = check.bin
    if (where is None or not (where / "card").exists()) and not all(check.record.green(f"ceilings {name}") for name in ("card", "sums", "host")):
        where = check.scratch if base.compile_ceilings(check.scratch, install=where is None) else None
    dry = [] if check.on_gpu else ["--dry-run"]
    programs = {name: [where / name, *dry] if where else None for name in ("card", "sums", "host")}
    programs["sustained"] = [check.python, CEILINGS / "sustained.py", *dry]
    for name, command in programs.items() if step == "ceilings" else [("host", programs["host"])]:
        with check.step(part, f"ceilings {name}") as made:
            if made is None:
                continue
            if command is None or name == "sustained" and not check.has("torch"):
                made |= {"status": "skipped", "notes": [f"{check.python} has no torch" if name == "sustained" else "no nvcc"]}
                continue
            status, output = check.run(command, 90)
            made["rows"] = base.json_lines(output)
            made["notes"] = [f"{row['name']}, {row['shape']}: {row['gb_s']} GB/s" for row in made["rows"] if "gb_s" in row]
            made["notes"].insert(0, f"{len(made['rows'])} results")
            if status != 0:
                made |= {"status": "cut", "notes": ["failed, see the log", *made["notes"]]}


def tested(check, part, name):
    # The emulator reads this file if OMR_EMU_EXP2 names it.
    dumped = {"OMR_EXP2_DUMP": str(check.out / "exp2.gz")} if check.on_gpu else {}
    check.tested(part, plan.TESTED[name][:None if check.on_gpu else 2], **dumped)


def correctness(check, part, _):
    for body in [None, "mma.sync"] if check.has_wgmma() else [None]:
        name = f"sampler beside trainer, 7b-slice{f' by {body}' if body else ''}"
        benched(check, part, name, *plan.PARITY, body=body, box=plan.JOB_SECONDS)
    modules = plan.by_risk(check.tests.modules()) if check.on_gpu else plan.QUICK
    if not modules:
        check.record.put("kernel tests", part, "red", ["no tests were found"])
    check.tested(part, [*plan.RANKS, *(plan.SLOW_ON_EMULATOR if check.on_gpu else []), *modules])
    if check.on_gpu and check.has_wgmma():
        check.tested(part, plan.MODELS, "wgmma: ", OMR_BODY="wgmma")
    check.tested(part, plan.SANITIZED if check.on_gpu else plan.QUICK[:1], "another seed: ", OMR_TEST_SEED="21")


def benched(check, part, name, *arguments, body=None, box=None):
    """Runs `omr bench` as a step, with small shapes on the emulator, and stores the rows that were measured within the time."""
    arguments = arguments if check.on_gpu else plan.emulated(arguments)
    environment = {"OMR_BODY": body} if body else {}
    with check.step(part, name) as made:
        if made is None:
            return
        file = check.scratch / "bench.json"
        file.unlink(missing_ok=True)
        status, output = check.run([check.omr, "--device", check.args.device, "bench", *arguments, "--json", file], box, **environment)
        rows = json.loads(file.read_text())["rows"] if file.exists() else []
        made["rows"] = [row | ({"body": body} if body else {}) for row in rows]
        made["notes"] = [f"{sum('ours_ms' in row for row in rows)} measured"]
        made["notes"] += [f"skipped: {row['name']} {row['shape']}: {row['skipped']}" for row in rows if "skipped" in row]
        if status != 0:
            made |= {"status": "red" if status else "cut", "notes": [base.why(status, output), *made["notes"]]}
        if name.removeprefix("bench ") in plan.NOT_YET and "error: invalid value" in output:
            made["status"] = "skipped"


def kernels(check, part, _):
    benched(check, part, "bench ops", "ops" if check.on_gpu else "swiglu")
    # The other kernel variant of linear layers, measured in the same run.
    if check.on_gpu and check.has_wgmma():
        benched(check, part, "bench linear by mma.sync", "linear", body="mma.sync")
    small = [] if check.on_gpu else ["--device", "cpu", "--tiny", "--only", "swiglu"]
    beside(check, part, "peers", "gpu_ops.py", lambda: ["--budget", f"{max(1.0, check.left() - 15):.0f}", *small])


def beside(check, part, name, program, arguments, needs="torch", box=None):
    """Runs a program of bench/peers as a step. Its output lines are later matched with rows of the same name and shape."""
    with check.step(part, name) as made:
        if made is None:
            return
        if not check.has(needs):
            made |= {"status": "skipped", "notes": [f"{check.python} has no {needs}"]}
            return
        status, output = check.run([check.python, ROOT / "bench/peers" / program, *arguments()], box)
        made["peers"] = base.json_lines(output)
        made["notes"] = [f"{sum('peer_ms' in peer for peer in made['peers'])} measured"]
        made["notes"] += [f"skipped: {peer['name']}: {peer['skipped']}" for peer in made["peers"] if "skipped" in peer]
        if status != 0:
            made |= {"status": "cut", "notes": [base.why(status, output), *made["notes"]]}
        elif not any("peer_ms" in peer for peer in made["peers"]):
            made["status"] = "skipped"


def peer_job(check, part, name):
    """Measures a job with transformers (`peer JOB SHAPE`), a training step with as many recomputed layers as ours had."""
    _, job, shape = name.split()
    more = ["--device", "cuda", "--shape", shape] if check.on_gpu else ["--tiny"]
    ours = " ".join(row["shape"] for row in check.record.rows() if row["name"] == job == "train-step" and row["shape"].startswith(f"{shape},"))
    more += [word for found in re.findall(r"(\d+) of \d+ layers recomputed", ours)[-1:] for word in ("--recomputed-layers", found)]
    beside(check, part, name, f"{job.replace('-', '_')}.py", lambda: ["--seconds", "2", *more], "transformers", plan.JOB_SECONDS)


def slice_(check, part, _):
    for name, arguments in plan.SLICE.items():
        benched(check, part, f"bench {name}", *arguments, box=plan.JOB_SECONDS)
        peer_job(check, part, f"peer {name}")


def jobs(check, part, _):
    for name in plan.JOBS:
        job(check, part, name, plan.LONG_JOBS.get(name, plan.JOB_SECONDS))


def job(check, part, name, box=None):
    if check.on_gpu or name in plan.EMULATED:
        benched(check, part, f"bench {name}", *plan.JOBS[name], box=box)
    elif f"bench {name}" not in check.record.steps:
        check.record.put(f"bench {name}", part, "skipped", ["only on a GPU"])


def recipe(check, part, name):
    with check.step(part, name) as made:
        if made is None:
            return
        config = plan.RECIPES[name]
        if not check.on_gpu or config is None:
            made |= {"status": "skipped", "notes": ["takes hours on the emulator" if config else "does not exist yet"]}
            return
        out = check.scratch / name
        status, output = check.run([check.omr, "--quiet", "--device", "cuda", "recipe", ROOT / config, "dtype=bf16", "--out", out])
        if status != 0:
            made |= {"status": "red" if status else "cut", "notes": [base.why(status, output)]}
            return
        made["rows"] = [{"name": "recipe", "shape": config, "summary": json.loads((out / "summary.json").read_text())}]
        made["notes"] = [f"{config} ran; its summary is in results.json"]


def turns(check, part, name, planned=None):
    """Runs programs of plan.TURNS in turns, and PyTorch beside a single one. On the emulator the first op is enough."""
    with check.step(part, name) as made:
        if made is None:
            return
        cases, sides, seconds = planned or plan.TURNS[name]
        cases = cases if check.on_gpu else [cases[0].split(" [")[0]]
        command = [sys.executable, PEERS / "turns.py", "--omr", check.omr, "--device", check.args.device, "--seconds", seconds, *cases,
                   "--limit", check.left() / 2, "--smi", check.smi.file]
        command += [word for label, more in sides.items() for word in ("--side", f"{label}={shlex.join(more)}")]
        command += ["--python", check.python] if len(sides) == 1 and check.has("torch") else []
        status, output = check.run(command)
        made["turns"] = base.json_lines(output)
        made["notes"] = [f"{sum('burst_ms' in row for row in made['turns'])} measured"]
        made["notes"] += [f"skipped: {row['side']}: {row['name']} {row['shape']}: {row['skipped']}" for row in made["turns"] if "skipped" in row]
        if status != 0:
            made |= {"status": "red" if status else "cut", "notes": [base.why(status, output), *made["notes"]]}


def candidates(check, part, name):
    """Measures the kernels that may replace one of ours. `omr bench --candidate list` prints CASE=KERNEL for each."""
    status, output = check.run([check.omr, "--device", check.args.device, "bench", "--candidate", "list"], 10)
    cases = {}
    for line in output.splitlines() if status == 0 else []:
        case, _, kernel = line.rpartition("=")
        cases.setdefault(case, {"as it is": []})[kernel] = ["--candidate", line]
    for case, sides in cases.items():
        turns(check, part, f"{name} for {case}", ([case], sides, plan.CANDIDATE_SECONDS))
    if not cases:
        check.record.put(name, part, "skipped", ["this build has no candidate kernels"])


def ranks(check, part, name):
    with check.step(part, name) as made:
        if made is None:
            return
        library = {"OMR_NCCL_LIBRARY": check.has("nccl")} if check.has("nccl") and check.on_gpu else {}
        folder = check.scratch if (check.scratch / "recipe/rl/config.yaml").exists() else check.scratch / "ranks"
        command = [sys.executable, ROOT / "tools/ranks", "--one-gpu", "cuda" if check.on_gpu else "cpu", "--dir", folder]
        status, output = check.run(command, OMR=str(check.omr), NCCL_DEBUG="WARN", NCCL_DEBUG_FILE="/dev/stderr", **library)
        made["notes"] = [line for line in output.splitlines() if re.match(r"\w+ \d ranks by |SIGKILL", line)]
        made["notes"] += [] if library else ["without NCCL"]
        if status != 0:
            made |= {"status": "red" if status else "cut", "notes": [base.why(status, output), *made["notes"]]}


def sanitizer(check, part, _):
    """Runs memcheck, racecheck and synccheck, but only if a kernel that is known to be correct passes first, because
    some machines do not allow these tools."""
    probe = [check.tests.of(plan.SANITIZER_PROBE), plan.SANITIZER_PROBE, "--exact", "--test-threads=1"]
    why = None
    if not check.on_gpu:
        why = "the emulator has its own checks"
    elif not shutil.which("compute-sanitizer"):
        why = "compute-sanitizer is absent"
    else:
        status, output = check.run(["compute-sanitizer", "--tool=memcheck", "--error-exitcode=9", *probe], 60)
        why = refusal(status, output)
    if why:
        check.record.put("compute-sanitizer", part, "skipped", [why])
        check.say(f"   compute-sanitizer: skipped; {why}")
        return
    for tool in ["memcheck", "racecheck", "synccheck"]:
        check.tested(part, plan.SANITIZED, f"{tool}: ", ["compute-sanitizer", f"--tool={tool}", "--error-exitcode=9"])


def refusal(status, output):
    """Explains why compute-sanitizer cannot be used here. On a correct kernel it must succeed and report no error."""
    if status == 0 and "ERROR SUMMARY: 0 errors" in output:
        return None
    told = [line.strip("= ").strip() for line in output.splitlines() if line.startswith("=========")]
    told = [line for line in told if line and not line.startswith("COMPUTE-SANITIZER")]
    last = told[0] if told else (output.strip().splitlines() or [f"exit status {status}"])[-1]
    return f"compute-sanitizer does not work on this machine: {'it hangs' if status is None else last}"


STEPS = {**dict.fromkeys(plan.JOBS, job), **dict.fromkeys(plan.TESTED, tested), **dict.fromkeys(plan.TURNS, turns),
         **dict.fromkeys(plan.RECIPES, recipe), "candidates": candidates, "ranks on one GPU": ranks, "peer train-step 7b": peer_job,
         "ceilings host": ceilings, "kernels": kernels, "jobs": jobs, "correctness": correctness, "ceilings": ceilings, "slice": slice_,
         "sanitizer": sanitizer, "profiles": profiles}
