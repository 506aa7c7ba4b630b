"""Tests of tools/gpu-check and tools/figures on invented results. `tools/check` runs them."""
import contextlib
import importlib.machinery
import importlib.util
import pathlib
import tempfile
import types
import unittest
import unittest.mock

from . import profiles, verdicts
from .base import ROOT
from .record import Record

IDENTITY = {"device": "cuda", "gpu": "h200", "commit": "abc1234", "build": "b", "date": "2030-01-02"}
GPU = {"gpu": "NVIDIA H200", "peak_flops": 989e12, "peak_bytes": 4.8e12}
OPS = [GPU | {"name": "linear fwd", "shape": "[8192, 3584] x [37888, 3584]", "ours_ms": 3.0, "flops": 2.2e12, "bytes": 1e9, "clock_mhz": 1700,
        "predicted_ms": 2.7, "bound": "tensor"},
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


def figures(folder):
    """Loads tools/figures with other results than those of this checkout."""
    loader = importlib.machinery.SourceFileLoader("figures", str(ROOT / "tools/figures"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("figures", loader))
    loader.exec_module(module)
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


# Pages of ncu in its own output format: warnings first, units below the header, commas in numbers, a text of two lines.
RAW = '''==WARNING== made up
"ID","Process ID","Kernel Name","gpu__time_duration.sum","sm__throughput.avg.pct_of_peak_sustained_elapsed","launch__registers_per_thread",\
"smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio",\
"smsp__average_warps_issue_stalled_wait_per_issue_active.ratio",\
"smsp__average_warps_issue_stalled_selected_per_issue_active.ratio"
"","","","ns","%","register/thread","inst","inst","inst"
"0","12","linear_wide","1,000,000","71.5","168","0.25","1.5","1"
"1","12","linear_wide","3,000,000","80","168","2.25","1.5","1"
"2","12","linear_edge","2,000","5","40","n/a","","1"
'''
DETAILS = '''"ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value","Rule Name","Rule Type","Rule Description",\
"Estimated Speedup Type","Estimated Speedup"
"1","linear_wide","GPU Speed Of Light Throughput","Duration","ns","3,000,000","","","","",""
"1","linear_wide","WarpStateStats","","","","CPIStall","OPT","On average, each warp waits,
for a scoreboard.","global","12.5"
"0","linear_wide","Occupancy","","","","Other launch","OPT","is not the longest","",""
'''


class Profiles(unittest.TestCase):
    def test_the_longest_launch_of_each_kernel_has_its_reasons(self):
        wide, edge = profiles.reasons(RAW, DETAILS)
        self.assertEqual(wide, {"kernel": "linear_wide", "us": 3000.0, "sm_percent": 80.0, "registers": 168.0,
                                "stalls": {"long_scoreboard": 2.25, "wait": 1.5},
                                "rules": ["CPIStall: On average, each warp waits, for a scoreboard. (estimated speedup 12.5 %)"]})
        self.assertEqual(edge, {"kernel": "linear_edge", "us": 2.0, "sm_percent": 5.0, "registers": 40.0, "stalls": {}, "rules": []})
        self.assertEqual(profiles.reasons("==ERROR== no permission", ""), [])

    def test_what_is_slowest_is_profiled_and_a_refusal_is_a_line(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            record = made(folder)
            case = "linear fwd [8192, 3584] x [37888, 3584]"
            self.assertEqual(profiles.slowest(record), [case])
            self.assertEqual(profiles.slowest(Record(folder, IDENTITY, [])), profiles.ELSE)

            def profiled(refused):
                def run(command, box=None, **environment):
                    words = [str(word) for word in command]
                    if refused:
                        return 1, "==ERROR== ERR_NVGPUCTRPERM\nbye"
                    if "--out" in words:
                        pathlib.Path(words[words.index("--out") + 1]).write_text("report")
                    return 0, {"raw": RAW, "details": DETAILS}.get(words[words.index("--page") + 1]) if "--page" in words else ""

                step = {"status": "green", "notes": []}
                check = types.SimpleNamespace(step=lambda *_: contextlib.nullcontext(step), on_gpu=True, scratch=folder / str(refused),
                                              out=folder, record=record, omr="omr", run=run)
                check.scratch.mkdir()
                (folder / "profiles.tar.zst").write_text("")
                with unittest.mock.patch.object(profiles.shutil, "which", return_value="ncu"):
                    profiles.profiles(check, "profiles")
                return step

            found = profiled(False)
            self.assertEqual((found["status"], found["notes"]), ("green", ["1 profiles read"]))
            self.assertEqual([reason["case"] for reason in found["reasons"]], [case, case])
            record.put("profiles", "profiles", **found)
            self.assertIn("linear_wide: 3000 us, 80 % of the SMs, 168 registers; stalls per instruction: long_scoreboard 2.25, wait 1.5",
                          (folder / "summary.md").read_text())
            found = profiled(True)
            self.assertEqual(found["status"], "cut")
            self.assertEqual(found["notes"], ["0 profiles read", f"{case}: no profile: ==ERROR== ERR_NVGPUCTRPERM"])


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
            self.assertIn("| linear fwd | [8192, 3584] x [37888, 3584] | 3.000 | torch | 2.400 | 0.80 | 733.3 TFLOP/s |"
                          " 2.700 (tensor) | 0.90 | 1700 |", page)
            self.assertIn("| rms_norm fwd | [8192, 3584] | 0.050 |  |  |  | 2400 GB/s |  |  |  |", page)
            self.assertIn("| train-step | 7b, 16 rows x 1024 | 2000.0 | 8,192 | 40.4 % |", page)
            self.assertNotIn("sample fwd", page)
            self.assertIn("1 of them beside the fastest peer, at 0.80 to 0.80 times its speed", found.gpu_in_short()[0])


if __name__ == "__main__":
    unittest.main()
