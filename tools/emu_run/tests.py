"""Tests of tools/emu-run: the example of docs/dev/design/foreign_kernels.md, a wrong result, and the errors for wrong descriptions.
`tools/check` runs them."""
import json
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
KERNEL = ROOT / "kernels/gemm.cu"
EXAMPLE = ROOT / "tools/emu_run/linear.json"


def ran(*arguments):
    done = subprocess.run([str(ROOT / "tools/emu-run"), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


class EmuRun(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def changed(self, change):
        """Writes the example after `change`, and returns its path."""
        description = json.loads(EXAMPLE.read_text())
        change(description)
        path = self.folder / "changed.json"
        path.write_text(json.dumps(description))
        return path

    def test_the_example_is_right_and_a_wrong_result_is_seen(self):
        self.assertIn(EXAMPLE.read_text().strip(), (ROOT / "docs/dev/design/foreign_kernels.md").read_text())
        few = ["--schedules", "3", "--keep", self.folder / "objects"]
        status, output = ran(KERNEL, EXAMPLE, *few, "--sums", "chain,hopper,ampere")
        self.assertEqual((status, output.splitlines()[-1]), (0, "9 of 9 runs right"), output)
        self.assertEqual(len({line.split()[-1] for line in output.splitlines()[:-1]}), 3, f"one digest for each way to sum: {output}")
        wrong = self.changed(lambda d: d["expect"]["y"].update(value="sum"))
        status, output = ran(KERNEL, wrong, *few)
        self.assertEqual((status, output.splitlines()[-1]), (1, "0 of 6 runs right"), output)
        # A launch that the driver would refuse, and a buffer that is too short.
        status, output = ran(KERNEL, self.changed(lambda d: d["launch"].update(block=256)), *few)
        self.assertEqual(status, 1)
        self.assertIn("256 threads a CTA, its launch bound is 128", output)
        status, output = ran(KERNEL, self.changed(lambda d: d["buffers"]["y"].update(shape=["T - 1", "N"])), *few)
        self.assertEqual(status, 1)
        self.assertIn("access outside any buffer", output)

    def test_each_mistake_of_a_description_has_one_error(self):
        changes = [
            (lambda d: d.pop("launch"), "the description has no 'launch', expected kernel, buffers, args, launch"),
            (lambda d: d.update(grid=1), "the description has the unknown key 'grid'"),
            (lambda d: d["buffers"]["x"].update(type="f16"), "buffer x has the type 'f16', expected i32, i64"),
            (lambda d: d["args"].append("z"), "args names the buffer 'z', the buffers are x, w, bias, y"),
            (lambda d: d["expect"].update(z={"value": 0}), "expect names the buffer 'z'"),
            (lambda d: d["expect"]["y"].update(index=["t"]), "buffer y has 2 dimensions, its index 1 names"),
        ]
        for change, words in changes:
            status, output = ran(KERNEL, self.changed(change))
            self.assertEqual(status, 2, output)
            self.assertIn(words, output)
            self.assertEqual(len(output.splitlines()), 1, output)
        for arguments, words in [(["none.cu"], "none.cu: expected a CUDA source file"), ([KERNEL, EXAMPLE, "--sums", "fp64"], "--sums fp64"),
                                 ([KERNEL, EXAMPLE, "--set", "Z=1"], "--set Z: the sizes are T, N, K, LD")]:
            status, output = ran(*arguments)
            self.assertEqual(status, 2, output)
            self.assertIn(words, output)


if __name__ == "__main__":
    unittest.main()
