"""Tests of tools/gpu-check, tools/profile and bench/tools/figures on invented results. `tools/check` runs them."""
import contextlib
import datetime
import importlib.machinery
import importlib.util
import io
import os
import pathlib
import sys
import tarfile
import tempfile
import threading
import time
import types
import unittest
import unittest.mock
import warnings

from . import base, check, dry, parts, plan, profiles, rehearse, tables, verdicts
from .base import ROOT
from .record import Record

IDENTITY = {"device": "cuda", "gpu": "h200", "commit": "abc1234", "build": "b", "date": "2030-01-02"}
GPU = {"gpu": "NVIDIA H200", "peak_flops": 989e12, "peak_bytes": 4.8e12}
OPS = [GPU | {"name": "linear fwd", "shape": "[8192, 3584] x [37888, 3584]", "ours_ms": 3.0, "flops": 2.2e12, "bytes": 1e9, "clock_mhz": 1700,
        "clock": "measured", "first_ms": [2.8, 2.6], "last_ms": [3.1, 3.3, 3.2], "predicted_ms": 2.7, "bound": "tensor"},
       GPU | {"name": "rms_norm fwd", "shape": "[8192, 3584]", "ours_ms": 0.05, "flops": 1e8, "bytes": 1.2e8},
       {"name": "sample fwd", "shape": "[256, 3584]", "skipped": "takes too much"}]
STEP = GPU | {"name": "train-step", "shape": "7b, 16 rows x 1024", "ours_ms": 2000.0, "flops": 8e14, "bytes": 1e11, "tokens": 16384,
        "tokens_per_sec": 8192.0}
PEERS = [{"name": "linear fwd", "shape": OPS[0]["shape"], "peer": "torch", "peer_ms": 2.4}]


def made(folder):
    record = Record(pathlib.Path(folder), IDENTITY, ["GPU: made up"])
    record.put("bench ops", "kernels", "green", [], OPS)
    record.put("bench train-step 7b", "jobs", "green", [], [STEP])
    record.put("peers", "kernels", "green", [], peers=PEERS)
    return record


def loaded(name, folder="tools"):
    """Loads FOLDER/NAME as a module."""
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / folder / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


def figures(folder):
    """Loads bench/tools/figures with other results than those of this checkout."""
    module = loaded("figures", "bench/tools")
    module.RESULTS, module.ROOT = folder, folder
    return module


class Records(unittest.TestCase):
    def test_a_summary_has_peers_predictions_and_the_largest_gaps_first(self):
        with tempfile.TemporaryDirectory() as folder:
            record = made(folder)
            # A pass that stores fewer activations. The shape of the peer's row does not contain this detail.
            less = STEP | {"shape": f"{STEP['shape']}, 9 of 28 layers recomputed"}
            record.put("bench train-step 7b", "jobs", "green", [], [less])
            record.put("peers train-step 7b", "jobs", "green", [], peers=[STEP | {"peer": "transformers", "peer_ms": 3000.0}])
            summary = (pathlib.Path(folder) / "summary.md").read_text()
            self.assertIn("9 of 28 layers recomputed | 2000.0 | 8,192 | 40.4 % | transformers | 3000.000 | 1.50 |", summary)
            self.assertEqual(summary.splitlines()[-2:], ["- 1.25 linear fwd [8192, 3584] x [37888, 3584]",
                                                         "- 0.67 train-step 7b, 16 rows x 1024, 9 of 28 layers recomputed"])


PRINTED = """
  mma, published sums: Aligned(16, 25) gives 4000 of 4000
  mma, published sums: Aligned(8, 24) gives 31 of 4000
  digest linear 9x136x72, mma.sync: equal
  digest linear 9x136x72, wgmma: differs
  digest attention 131 + 3, hd128, wgmma: 12 of 121270 words differ
a line of another test: equal
"""


class Verdicts(unittest.TestCase):
    def test_predicted_results_are_counted_and_named(self):
        lines = verdicts.kept(PRINTED)
        self.assertEqual(len(lines), 5)
        found = verdicts.verdicts(lines)
        self.assertEqual(found[2], "a k16 step is summed: mma as Aligned(16, 25), 4000 of 4000 sums")
        self.assertEqual(found[3], "results have the predicted bits: 1 of 3; other bits: linear 9x136x72, wgmma,"
                                   " attention 131 + 3, hd128, wgmma (12 of 121270 words differ)")
        self.assertEqual(verdicts.verdicts(lines[2:3])[3], "results have the predicted bits: yes, 1 of 1")
        self.assertEqual(verdicts.verdicts([])[3], "results have the predicted bits: not known")


class Profiles(unittest.TestCase):
    def test_what_is_slowest_is_profiled_and_a_refusal_is_a_line(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            record = made(folder)
            case = "linear fwd [8192, 3584] x [37888, 3584]"
            self.assertEqual(profiles.slowest(record), [case])
            self.assertEqual(profiles.slowest(Record(folder, IDENTITY, [])), profiles.ELSE)

            def profiled(refused):
                def run(command, box=None, **environment):
                    if refused:
                        return 1, "==ERROR== ERR_NVGPUCTRPERM\nbye"
                    words = [str(word) for word in command]
                    if "--out" in words:
                        pathlib.Path(words[words.index("--out") + 1] + ".txt").write_text("findings")
                    return 0, ""

                step = {"status": "green", "notes": []}
                call = types.SimpleNamespace(step=lambda *_: contextlib.nullcontext(step), on_gpu=True, scratch=folder / str(refused),
                                             out=folder, record=record, omr="omr", run=run)
                call.scratch.mkdir()
                with unittest.mock.patch.object(profiles.shutil, "which", return_value="ncu"):
                    profiles.profiles(call, "profiles", "profiles")
                return step

            self.assertEqual(profiled(False), {"status": "green", "notes": ["1 profiles in profiles.txt"]})
            self.assertEqual((folder / "profiles.txt").read_text(), f"{case}\nfindings")
            self.assertEqual(profiled(True), {"status": "cut", "notes": ["0 profiles in profiles.txt",
                                                                         f"{case}: no profile: ==ERROR== ERR_NVGPUCTRPERM"]})


class Calls(unittest.TestCase):
    def on_a_gpu(self, folder, answers):
        """Returns a call on a GPU whose commands give `answers`."""
        made = check.Check.__new__(check.Check)
        made.on_gpu, made.log, made.environment, made.tests = True, io.StringIO(), {}, base.Tests(["omr-tests"])
        made.tests.names = {"omr-tests": []}
        made.deadline = made.end = float("inf")
        made.gone = made.no_wgmma = None
        made.smi = check.Log("none")
        made.answered = -float("inf")
        made.lock = threading.RLock()
        made.record = Record(pathlib.Path(folder), IDENTITY, [])
        answers = iter(answers)
        self.enterContext(unittest.mock.patch.object(base, "run", lambda *_, **__: next(answers)))
        self.enterContext(contextlib.redirect_stdout(io.StringIO()))
        return made

    def test_a_refused_variant_is_switched_off_for_the_rest_of_the_call(self):
        with tempfile.TemporaryDirectory() as folder:
            call = self.on_a_gpu(folder, [(1, f"error: a kernel does not end. {check.REFUSED}\n"), (0, "")])
            call.run(["omr"])
            self.assertEqual((call.environment, call.has_wgmma()), ({"OMR_BODY": "mma.sync"}, False))
        self.assertTrue(any(check.REFUSED in file.read_text() for file in (ROOT / "src").rglob("*.rs")))

    def test_a_call_stops_if_the_gpu_is_gone_after_a_timeout(self):
        for smi, test, gone in [(0, 0, False), (None, 0, True), (0, 1, True)]:
            with tempfile.TemporaryDirectory() as folder:
                call = self.on_a_gpu(folder, [(None, ""), (smi, ""), (test, "")])
                call.run(["omr-tests", "kernels::gemm_sm90a::"], 1)
                with call.step("kernels", "bench ops") as step:
                    self.assertEqual((step is None, call.gone is not None), (gone, gone))
                self.assertEqual(call.record.steps["bench ops"]["status"], "cut" if gone else "green")

    def test_a_process_that_survives_its_end_does_not_keep_the_call(self):
        begun = time.monotonic()
        with unittest.mock.patch.object(base, "KILL_SECONDS", 0.5), warnings.catch_warnings(action="ignore"):
            self.assertEqual(base.run(["bash", "-c", "echo begun; setsid sleep 9 & wait"], 0.5), (None, "begun\n"))
        self.assertLess(time.monotonic() - begun, 5)

    def test_binaries_are_unpacked_once_for_each_machine(self):
        with tempfile.TemporaryDirectory() as folder, unittest.mock.patch.object(tempfile, "tempdir", folder):
            archive, file = pathlib.Path(folder) / "binaries.tar.xz", pathlib.Path(folder) / "omr"
            for text in ("one", "two"):
                file.write_text(text)
                with tarfile.open(archive, "w:xz") as packed:
                    packed.add(file, "omr")
                first = check.unpacked(archive)
                with unittest.mock.patch.object(tarfile, "open", side_effect=AssertionError("unpacked again")):
                    self.assertEqual(check.unpacked(archive), first)
                self.assertEqual((first / "omr").read_text(), text)

    def test_jobs_that_fit_80_gb_come_first(self):
        self.assertEqual(list(plan.JOBS)[:len(plan.FITS)], list(plan.FITS))

    def test_each_kind_of_gpu_runs_the_modules_once_and_each_gpu_its_jobs(self):
        found = dry.work(["kernels::rows", "kernels::gemm_sm90a"], list(dry.COLUMNS), {}, base.Tests(["tests"]), "omr", {"decode": ["decode"]})
        runs = [(name, where) for name, where, *_ in found]
        self.assertEqual([where for name, where in runs if name == "kernels::gemm_sm90a"], ["as on a GPU", "as h200"])
        self.assertEqual([where for name, where in runs if name == "kernels::rows"],
                         ["as on a GPU", "as h200", "as a100", "as a40", "as 4090", "as 5090"])
        self.assertEqual([where for name, where in runs if name == "decode"], [f"as {column}" for column in dry.COLUMNS])
        row = "decode skipped: takes 90.6 GiB of 79.6 GiB\n"
        self.assertEqual(dry.judged_job(0, row, False), (None, True))
        self.assertEqual(dry.judged_job(2, "error: memory: found a run that needs at least 90 GiB\n", False), (None, True))
        self.assertEqual(dry.judged_job(0, row, True), ("skipped: takes 90.6 GiB of 79.6 GiB", False))
        self.assertEqual(dry.judged_job(0, "x skipped: launch of k refused: y\n" + row, False)[0], "launch of k refused: y")


# An omr whose job of int8 with one sequence hangs. Two ranks by NCCL fail if FAKE_REFUSES is set, and differ if FAKE_DIFFERS is set. Of two
# ranks with many steps, rank 0 fails when rank 1 closes the pipe.
OMR = """#!/bin/bash
case "$WORLD_SIZE $*" in
  *' recipe '*) exit ;;
  *' bench '*' 1 '*int8*) exec sleep 60 ;;
  *' bench '*) echo 'error: no such job'; exit 2 ;;
  2*backend=nccl*) [ -z "$FAKE_REFUSES" ] || { echo 'error: Duplicate GPU' >&2; exit 1; } ;;
esac
until [ "$1" = --out ]; do shift; done
mkdir -p "$2/model" && cd "$2" && echo "weights $FAKE_DIFFERS${FAKE_DIFFERS:+$WORLD_SIZE}" >model/w
[[ "$*" != *max_steps=1000000* ]] || { mkfifo pipe 2>/dev/null; [ "$RANK" = 0 ] || exec sleep 60 >pipe; exec <pipe; }
echo '{"loss": 1}' >metrics.jsonl
if [ -e pipe ]; then cat; echo 'error: rank 1 (a) is lost' >&2; exit 1; fi
"""


class Days(unittest.TestCase):
    def call(self, only, minutes=1.0, **variables):
        """Runs parts of call 1 with programs that are scripts. Returns its steps, and what it printed."""
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        python, tests = "#!/bin/sh\n[ -z ${2##*libnccl*} ] && echo libnccl.so.2\n", "#!/bin/sh\necho '0 passed; 0 failed; 3 ignored'\n"
        for name, text in {"omr": OMR, "nvidia-smi": rehearse.SMI, "omr-runtime-tests": tests, "python": python}.items():
            rehearse.script(folder / name, text)
        variables |= {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": str(folder / "python")}
        args = types.SimpleNamespace(call=1, only=only, minutes=minutes, device="cuda", bin=folder, out=folder / "out")
        with unittest.mock.patch.dict(os.environ, variables), contextlib.redirect_stdout(io.StringIO()) as out:
            made = check.Check(args)
            made.all()
        return made.record.steps, out.getvalue()

    def test_the_limits_of_each_call_fit_into_its_time(self):
        self.assertEqual({part: sum(steps.values()) for part, steps in plan.CALLS[1].items()}, {
            "new": 90, "stamps": 40, "quantized": 40, "candidates": 70, "passes": 130, "nccl": 60, "rollouts": 45, "rest": 45})
        for call, seconds in {1: 540, 2: 180}.items():
            self.assertLessEqual(plan.seconds(plan.CALLS[call]) + plan.START_AND_END, seconds)
            self.assertEqual({name for steps in plan.CALLS[call].values() for name in steps} - parts.STEPS.keys(), set())

    def test_a_hanging_and_a_failing_step_cost_their_own_time_and_no_result(self):
        steps, said = self.call("quantized,candidates", 0.15)
        self.assertEqual([(step["status"], step["notes"][0]) for step in steps.values()], [
            ("cut", "no time left"), *[("red", "error: no such job")] * 3, ("skipped", "this build has no candidate kernels")])
        self.assertRegex(said, r"\| quantized \| bench decode 7b, 1 of 1536, int8 \| 10 \| .* \| cut short \| 1410 \| 699 \| power \| 61 \|")

    def test_ignored_tests_alone_are_no_success(self):
        step = self.call("new", 0.02)[0]["kernels::slice"]
        self.assertEqual((step["status"], step["notes"]), ("skipped", ["all 3 tests are ignored"]))

    def test_two_ranks_on_one_gpu_must_have_the_bits_of_one(self):
        found = [self.call("nccl", **variables)[0]["ranks on one GPU"] for variables in ({}, {"FAKE_REFUSES": "1"}, {"FAKE_DIFFERS": "1"})]
        self.assertEqual([step["status"] for step in found], ["green", "green", "red"], found)
        alike, refused, differs = (step["notes"] for step in found)
        self.assertRegex(alike[3], "^gspo 2 ranks by nccl: the bits of the run without ranks, ")
        self.assertRegex(alike[4], r"^SIGKILL, nccl: .* s; error: rank 1 \(a\) is lost$")
        self.assertRegex(refused[2], "^sft 2 ranks by nccl: error: Duplicate GPU; error: Duplicate GPU, ")
        self.assertRegex(refused[3], "^sft 2 ranks by tcp: the bits of the run without ranks, ")
        self.assertEqual(differs, ["tools/ranks: sft 1 ranks by nccl differ from the run without ranks"])


# An omr with two cases, and a Python with PyTorch, which has no such op as the second one. Its milliseconds are its last argument.
PROGRAM = """#!/usr/bin/env python3
import json, sys
def say(**row): print(json.dumps(row), flush=True)
def case(name, skipped=None): say(ready=not skipped, name=name, shape="s", skipped=skipped)
peer, ms = "bench" not in sys.argv, 4.0 if "bench" not in sys.argv else float(sys.argv[-1])
names = iter(["one", "two"])
if not peer: case(next(names))
for line in map(str.strip, sys.stdin):
    if line == "turn" and ms == 3: sys.exit(3)
    elif line == "turn": print("turn", ms, file=sys.stderr); say(first_ms=[ms], last_ms=[2 * ms], repetitions=1)
    elif line == "next" and not peer and (name := next(names, None)): case(name)
    elif line == "next" and not peer: break
    elif line.startswith("{"): case(json.loads(line)["name"], None if '"one"' in line else "no such op")
"""


class Turns(unittest.TestCase):
    def turns(self, *sides, peer=False):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "program.py"
            rehearse.script(file, PROGRAM)
            options = ["--omr", file, *(["--python", file] if peer else []), *(f"--side={ms}={ms}" for ms in sides), "one"]
            output = base.run([sys.executable, ROOT / "bench/peers/turns.py", *options], 60)[1]
        return base.json_lines(output), [float(line.split()[1]) for line in output.splitlines() if line.startswith("turn ")]

    def test_programs_take_turns_and_one_without_the_op_or_an_answer_is_left_out(self):
        found, order = self.turns(1, 2, peer=True)
        self.assertEqual(order, [1, 2, 4, 4, 2, 1, 1, 2, 2, 1])
        self.assertEqual([row.get("skipped") for row in found], [None] * 5 + ["no such op"])
        self.assertEqual(tables.turn_table([{"turns": found}])[4], "| one | s | PyTorch | 4.000 | 8.000 | 0.25 |")
        found, order = self.turns(1, 3)
        self.assertEqual((order, [row.get("skipped") for row in found]), ([1] * 4, [None, "exit status 3"] * 2))
        silent = loaded("../bench/peers/turns.py").Program("A", ["sleep", "60"])
        self.assertEqual((silent.answer(0.1), silent.lost, silent.child.wait()), (None, "no answer in 0 s", -9))
        silent.child.stdin.close()

    def test_the_log_of_nvidia_smi_is_joined_by_time(self):
        with tempfile.TemporaryDirectory() as folder:
            log = check.Log(pathlib.Path(folder) / "smi.csv")
            log.file.write_text("2030/01/02 03:04:05.100, 1980, 400.00, 0x0000000000000001, 50\n"
                                "2030/01/02 03:04:05.200, 1340, 699.50, 0x0000000000000004, 61\n[N/A]\n"
                                "2030/01/02 03:04:05.300, 1320, 700.50, 0x0000000000000024, 62\n2030/01/02 03:0")
            began = datetime.datetime(2030, 1, 2, 3, 4, 5).timestamp()
            self.assertEqual(log.during((began + 0.15, began + 0.35)), {"mhz": 1330, "watts": 700, "celsius": 62, "throttled_by": ["power", "heat"]})
            self.assertEqual(log.during((began - 9, began)), {})

    def test_the_peer_of_a_weight_gradient_adds_in_old_records_too(self):
        row = {"name": "linear wgrad", "peer": "torch, f32 product", "peer_ms": 0.36,
               "peer_ways": {"torch, f32 product": 0.36, "torch, bf16 and add": 0.42, "torch, f32 addmm": 0.40}}
        self.assertEqual([tables.fair(row)[key] for key in ("peer", "peer_ms")], ["torch, f32 addmm", 0.40])


class Profile(unittest.TestCase):
    def printed(self, *words, memory=81_559):
        """Returns the command lines that tools/profile prints for an invented GPU."""
        module = loaded("profile")
        module.memory = lambda: memory
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(module.main([*words, "--dry-run"] if "--" not in words else ["--dry-run", *words]), 0)
        return out.getvalue().splitlines()

    def test_options_of_the_job_are_passed_on_and_only_its_measured_part_is_recorded(self):
        run, summary = self.printed("nsys", "decode", "--batch-size", "64")
        self.assertTrue(run.endswith("target/release/omr --device cuda bench decode --batch-size 64"), run)
        self.assertIn(" --cuda-graph-trace=node --capture-range=cudaProfilerApi ", run)
        self.assertIn("--report=cuda_gpu_kern_sum,nvtx_gpu_proj_sum", summary)
        self.assertIn("--capture-range=", self.printed("nsys", "--", "omr", "--device", "cuda", "bench", "decode")[0])
        self.assertNotIn("--capture-range=", self.printed("nsys", "--", "omr", "sft", "sft.yaml")[0])
        self.assertTrue(self.printed("ncu", "--", "omr", "bench", "ops", "--out", "x")[0].endswith("omr bench ops --out x"))

    def test_a_job_fits_the_gpu_and_ncu_records_the_kernels_of_interest(self):
        self.assertTrue(self.printed("nsys", "train-step")[0].endswith("train-step --model-shape 7b-slice"))
        self.assertTrue(self.printed("nsys", "train-step", memory=143_771)[0].endswith("train-step"))
        self.assertIn("--kernel-name=regex:^(linear|", self.printed("ncu", "decode")[0])
        self.assertNotIn("--kernel-name", self.printed("ncu", "linear fwd [8192")[0])
        run = self.printed("ncu", "train-step", "--kernel", "dkv", "--range", "backward", "--skip", "5", "--count", "2")[0]
        self.assertIn(" --kernel-name=regex:dkv --nvtx-include=backward/ --launch-skip=5 --launch-count=2 ", run)
        self.assertIn("--import-source=yes", run)

    def test_a_text_summary_is_written_beside_each_report(self):
        fake = """#!/bin/sh
for word; do case $word in --output=*) echo > "${word#--output=}.1.nsys-rep" ;; *.nsys-rep) echo "kernels of ${word##*/}" ;; esac; done
"""
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "nsys").write_text(fake)
            (folder / "nsys").chmod(0o755)
            (folder / "of-1.1.nsys-rep").write_text("an older report")
            os.utime(folder / "of-1.1.nsys-rep", (1, 1))
            with unittest.mock.patch.dict(os.environ, PATH=f"{folder}:{os.environ['PATH']}"), contextlib.redirect_stdout(io.StringIO()):
                self.assertEqual(loaded("profile").main(["nsys", "rope", "--out", str(folder / "of")]), 0)
            self.assertEqual((folder / "of.txt").read_text(), "kernels of of.1.nsys-rep\n")


class Figures(unittest.TestCase):
    def test_without_a_card_its_speeds_are_unknown(self):
        with tempfile.TemporaryDirectory() as folder:
            found = figures(pathlib.Path(folder))
            self.assertEqual(found.gpu_results(), ["No kernel of omr has run on a GPU: its speeds are unknown."])
            self.assertIn("no kernel has run on a GPU, speeds are unknown", found.gpu_in_short()[0])

    def test_a_record_of_a_card_is_a_table_and_no_peer_of_the_cpu(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "one").mkdir()
            made(folder / "one")
            found = figures(folder)
            self.assertEqual(found.peers(), [])
            page = "\n".join(found.gpu_results())
            self.assertIn("| linear fwd | [8192, 3584] x [37888, 3584] | 3.000 | 2.600 | 3.200 | 733.3 TFLOP/s | torch | 2.400 | 0.80 |"
                          " 2.700 (tensor) | 0.90 | 1700 |", page)
            self.assertIn("| rms_norm fwd | [8192, 3584] | 0.050 |  |  | 2400 GB/s |  |  |  |  |  |  |", page)
            self.assertIn("| train-step | 7b, 16 rows x 1024 | 2000.0 | 8,192 | 40.4 % |", page)
            self.assertNotIn("sample fwd", page)
            found.README_OPS = [("linear fwd", "[8192, 3584] x [37888, 3584]", "a product"), ("rope fwd", "no such shape", "rope")]
            self.assertEqual(found.gpu_in_short()[-1], "| a product | 3.00 | 2.40 (cuBLAS) | 0.80 |")


if __name__ == "__main__":
    unittest.main()
