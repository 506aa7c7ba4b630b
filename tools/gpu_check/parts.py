"""Steps of each part. plan.py defines which call runs which part."""
import json
import shutil

from . import base, plan
from .base import CEILINGS, ROOT
from .profiles import profiles


def json_lines(output):
    """Returns the JSON lines printed by a peer or a ceiling program."""
    found = []
    for line in output.splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                # The program was stopped while it wrote its last line.
                pass
    return found


def ceilings(check, part):
    where = check.bin
    compiled = where is not None and (where / "card").exists()
    if not compiled and not all(check.record.green(f"ceilings {name}") for name in ("card", "sums")):
        where = check.scratch if base.compile_ceilings(check.scratch, install=where is None) else None
    dry = [] if check.on_gpu else ["--dry-run"]
    programs = {name: [where / name, *dry] if where else None for name in ("card", "sums")}
    programs["sustained"] = [check.python, CEILINGS / "sustained.py", *dry]
    for name, command in programs.items():
        with check.step(part, f"ceilings {name}") as made:
            if made is None:
                continue
            if command is None or name == "sustained" and not check.has("torch"):
                made |= {"status": "skipped", "notes": [f"{check.python} has no torch" if name == "sustained" else "no nvcc"]}
                continue
            status, output = check.run(command, 90)
            made["rows"] = json_lines(output)
            made["notes"] = [f"{len(made['rows'])} results"]
            if status != 0:
                made |= {"status": "cut", "notes": ["failed, see the log"]}


def calibration(check, part):
    # The emulator reads this file if OMR_EMU_EXP2 names it.
    dumped = {"OMR_EXP2_DUMP": str(check.out / "exp2.gz")} if check.on_gpu else {}
    check.tested(part, plan.CALIBRATION[:3] if check.args.quick else plan.CALIBRATION, **dumped)


def first(check, part):
    both = check.has_wgmma()
    benched(check, part, "sampler beside trainer, 7b-slice", *plan.PARITY, wrong="red", box=plan.JOB_SECONDS)
    if both:
        benched(check, part, "sampler beside trainer, 7b-slice by mma.sync", *plan.PARITY, body="mma.sync", wrong="red", box=plan.JOB_SECONDS)
    check.tested(part, plan.QUICK if check.args.quick else plan.FIRST)


def correctness(check, part):
    if check.args.quick:
        check.tested(part, plan.QUICK[:1], "another seed: ", OMR_TEST_SEED="21")
        check.tested(part, plan.RANKS)
        return
    modules = plan.by_risk(base.modules(check.tests))
    if not modules:
        check.record.put("kernel tests", part, "red", ["no tests were found"])
    check.tested(part, plan.RANKS)
    if check.on_gpu:
        check.tested(part, plan.SLOW_ON_EMULATOR)
    check.tested(part, [name for name in modules if name not in plan.FIRST])
    if check.has_wgmma():
        check.tested(part, plan.MODELS, "wgmma: ", OMR_BODY="wgmma")
    check.tested(part, plan.SANITIZED, "another seed: ", OMR_TEST_SEED="21")


def benched(check, part, name, *arguments, body=None, box=None, wrong="cut"):
    """Runs `omr bench` as a step, with small shapes on the emulator, and stores the rows that were measured within the
    time. `wrong` is the status of the step if the program fails."""
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
            made |= {"status": "cut" if status is None else wrong, "notes": [base.why(status, output), *made["notes"]]}


def kernels(check, part):
    quick = check.args.quick
    benched(check, part, "bench ops", "swiglu" if quick else "ops")
    # The other kernel variant of linear layers, measured in the same run.
    if not quick and check.has_wgmma():
        benched(check, part, "bench linear by mma.sync", "linear", body="mma.sync")
    small = [] if check.on_gpu else ["--device", "cpu", "--tiny"]
    only = ["--only", "swiglu"] if quick else []
    beside(check, part, "peers", "gpu_ops.py", lambda: ["--budget", f"{max(1.0, check.left() - 15):.0f}", *small, *only])


def beside(check, part, name, program, arguments, needs="torch", box=None):
    """Runs a program of bench/peers as a step. Its output lines are later matched with rows of the same name and shape."""
    with check.step(part, name) as made:
        if made is None:
            return
        if not check.has(needs):
            made |= {"status": "skipped", "notes": [f"{check.python} has no {needs}"]}
            return
        status, output = check.run([check.python, ROOT / "bench/peers" / program, *arguments()], box)
        made["peers"] = json_lines(output)
        made["notes"] = [f"{sum('peer_ms' in peer for peer in made['peers'])} measured"]
        made["notes"] += [f"skipped: {peer['name']}: {peer['skipped']}" for peer in made["peers"] if "skipped" in peer]
        if status != 0:
            made |= {"status": "cut", "notes": [base.why(status, output), *made["notes"]]}
        elif not any("peer_ms" in peer for peer in made["peers"]):
            made["status"] = "skipped"


def peer_job(check, part, job, shape):
    """Measures a job with transformers. Without a GPU it uses the small sizes of the emulator."""
    of = ["--device", "cuda", "--shape", shape] if check.on_gpu else ["--tiny"]
    program = f"{job.replace('-', '_')}.py"
    beside(check, part, f"peer {job} {shape}", program, lambda: ["--seconds", "2", *of], "transformers", plan.JOB_SECONDS)


def slice_(check, part):
    for name, arguments in plan.SLICE.items():
        benched(check, part, f"bench {name}", *arguments, box=plan.JOB_SECONDS)
        if check.on_gpu and check.has_wgmma():
            benched(check, part, f"bench {name} by mma.sync", *arguments, body="mma.sync", box=plan.JOB_SECONDS)
    for job in plan.BESIDE:
        peer_job(check, part, job, "7b-slice")


def jobs(check, part):
    for name in plan.JOBS:
        if (check.on_gpu and not check.args.quick) or name in plan.EMULATED:
            benched(check, part, f"bench {name}", *plan.JOBS[name], box=plan.LONG_JOBS.get(name, plan.JOB_SECONDS))
            if name == "train-step 7b":
                peer_job(check, part, "train-step", "7b")
        else:
            check.record.put(f"bench {name}", part, "skipped", ["--quick" if check.on_gpu else "only on a GPU"])


def recipe(check, part):
    with check.step(part, "recipe") as made:
        if made is None:
            return
        if not check.on_gpu:
            made |= {"status": "skipped", "notes": ["the whole recipe would take hours on the emulator"]}
            return
        out = check.scratch / "digits"
        status, output = check.run([check.omr, "--quiet", "--device", "cuda", "recipe", ROOT / "configs/digits.yaml", "dtype=bf16", "--out", out])
        if status != 0:
            made |= {"status": "cut", "notes": [base.why(status, output)]}
            return
        made["rows"] = [{"name": "recipe", "shape": "digits", "summary": json.loads((out / "summary.json").read_text())}]
        made["notes"] = ["the digits recipe ran; its summary is in results.json"]


def sanitizer(check, part):
    """Runs memcheck, racecheck and synccheck, but only if a kernel that is known to be correct passes first, because
    some machines do not allow these tools."""
    probe = [check.tests, plan.SANITIZER_PROBE, "--exact", "--test-threads=1"]
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


def faults(check, part):
    check.tested(part, plan.FAULTS)


def refusal(status, output):
    """Explains why compute-sanitizer cannot be used here. On a correct kernel it must succeed and report no error."""
    if status == 0 and "ERROR SUMMARY: 0 errors" in output:
        return None
    told = [line.strip("= ").strip() for line in output.splitlines() if line.startswith("=========")]
    told = [line for line in told if line and not line.startswith("COMPUTE-SANITIZER")]
    last = told[0] if told else (output.strip().splitlines() or [f"exit status {status}"])[-1]
    return f"compute-sanitizer does not work on this machine: {'it hangs' if status is None else last}"


PARTS = {"ceilings": ceilings, "calibration": calibration, "first": first, "kernels": kernels, "slice": slice_,
         "correctness": correctness, "jobs": jobs, "recipe": recipe, "sanitizer": sanitizer, "profiles": profiles, "faults": faults}
