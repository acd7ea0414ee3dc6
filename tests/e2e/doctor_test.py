"""drover doctor under a launcher: a line a rank, the axes of a mesh with their speed, what differs, and the rank that
never answers."""

import json
import os
import shutil
import subprocess
import time
import unittest

from case import DROVER, ENVIRONMENT, MPIRUN, ROOT, Case, run, within


class Doctor(Case):
    def test_every_rank_and_every_axis(self):
        recipe = self.home / "mesh.yaml"
        recipe.write_text(self.recipe.read_text() + "parallel:\n  tp: 2\n  pp: 2\n")
        result = run("doctor", "--recipe", recipe, ranks=4, check=0)
        for rank in range(4):
            self.assertRegex(
                result.stdout,
                rf"(?m)^rank {rank}: node \S+, GPU none, NUMA node \d+, driver \S+, build [0-9a-f]{{12}}, 1 threads$",
            )
        self.assertIn("mesh: tp 2 · pp 2 · dp 1, rank = (dp·2 + pp)·2 + tp", result.stdout)
        self.assertRegex(result.stdout, r": ranks 0, 1, 2 and 3, from tp 0 pp 0 dp 0 to tp 1 pp 1 dp 0")
        for axis in ("tp", "pp"):
            self.assertRegex(
                result.stdout, rf"(?m)^{axis}: 2 ranks within a node: all-reduce \d+\.\d\d GB/s, send \d+\.\d\d GB/s"
            )
        self.assertTrue(result.stdout.endswith("ready: 4 ranks\n"), result.stdout)

        report = json.loads(run("doctor", "--json", ranks=2, check=0).stdout)  # without a recipe: one axis of all
        self.assertTrue(report["ready"])
        self.assertEqual([r["gpu"] for r in report["ranks"]], ["none", "none"])
        self.assertEqual([(a["axis"], a["size"], a["spans_nodes"]) for a in report["axes"]], [("dp", 2, False)])
        self.assertGreater(report["axes"][0]["all_reduce_gb_per_second"], 0)

    def test_instructions_are_asked_for_by_name(self):
        self.assertIn("CPU       AVX2 (", run("doctor", check=0, DROVER_ISA="avx2").stdout)
        result = run("doctor", check=64, DROVER_ISA="sse")
        self.assertIn("DROVER_ISA=sse: allowed are avx2, avx512, avx512_bf16 and amx", result.stderr)

    def test_a_mesh_that_does_not_fit_is_a_recipe_error(self):
        recipe = self.home / "three.yaml"
        recipe.write_text(self.recipe.read_text() + "parallel:\n  tp: 2\n")
        self.assertIn("the number of ranks, which is 3", run("doctor", "--recipe", recipe, ranks=3, check=78).stderr)

    def of_two_programs(self, others, timeout=60):
        """Two ranks of the program, and one of the folder `others` that holds another."""
        # A small wrapper of the same name: mpirun starts two kinds of ranks, doctor by doctor.
        command = [str(MPIRUN), "-n", "2", str(DROVER), "doctor", ":", "-n", "1", str(others / "drover"), "doctor"]
        begin = time.monotonic()
        result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=within(timeout))
        return result, time.monotonic() - begin

    def test_what_differs_is_named(self):
        others = self.home / "other"
        others.mkdir()
        shutil.copy2(DROVER, others / "drover")
        with (others / "drover").open("ab") as program:
            program.write(b"another build")
        module = DROVER.parent / "libdrover_cuda.so"
        if module.exists():
            os.symlink(module, others / module.name)
        result, _ = self.of_two_programs(others)
        self.assertEqual(result.returncode, 66, result.stdout + result.stderr)
        self.assertRegex(result.stdout, r"NOT READY: rank 2 differs in build: \"[0-9a-f]{12}\", the others have")

    def test_a_rank_that_never_answers_is_named_within_a_minute(self):
        others = self.home / "stuck"
        others.mkdir()
        shutil.copy2(DROVER, others / "drover")
        os.mkfifo(others / "libdrover_cuda.so")  # whoever reads it waits for ever
        result, seconds = self.of_two_programs(others, timeout=90)
        self.assertEqual(result.returncode, 80, result.stdout + result.stderr)
        self.assertIn("rank 2 does NOT ANSWER", result.stdout)
        self.assertRegex(result.stdout, r"rank 0 answers: \S+\nrank 1 answers")
        self.assertIn("rank 2 did not answer within 20 s", result.stderr)
        self.assertLess(seconds, 60)


if __name__ == "__main__":
    unittest.main()
