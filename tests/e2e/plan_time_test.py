"""drover plan's time, with rates that the test writes: what it prints, what a run keeps of it, and what is said where
the run is far from its plan."""

import json
import pathlib
import re
import tempfile
import unittest

from case import Case, run


def calibration(machine, seconds):
    """Every op takes so many seconds a byte or FLOP."""
    ops = [
        [op, dtype, "bf16", False, 64, 64, 64 if op in ("linear", "linear_dx", "gemm") else 0, 64, 1000, 1000, seconds]
        for op in ("linear", "linear_dx", "gemm", "attention", "attention_backward", "copy", "rms_norm", "adamw")
        for dtype in ("bf16", "f32")
    ]
    return {
        "format": 1,
        "device": machine,
        "ranks": 1,
        "threads": 1,
        "version": "drover",
        "date": "2026-11-30",
        "seconds": 1,
        "outside_per_call": 0,
        "read": 1e9,
        "ops": ops,
        "messages": [],
    }


class PlanTime(Case):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=self.home))
        self.cache = {"XDG_CACHE_HOME": str(self.folder / "cache")}

    def plan(self, *arguments, check=0):
        return run("plan", self.recipe, *arguments, check=check, **self.cache)

    def test_uncalibrated_plans_say_so(self):
        plan = json.loads(self.plan("--json").stdout)
        self.assertFalse(plan["time"]["calibrated"])
        self.assertIn("not calibrated", plan["time"]["rates"])
        self.assertIn("drover doctor --calibrate", plan["time"]["rates"])
        self.assertGreater(plan["time"]["step_seconds"], 0)
        text = self.plan().stdout
        for words in ("time, at rough rates", "tokens/s", "an epoch:", "until the first step:"):
            self.assertIn(words, text)

    def test_a_calibration_sets_the_time(self):
        files = [self.folder / "slow.json", self.folder / "fast.json"]
        for file, seconds in zip(files, (1e-3, 1e-5)):
            file.write_text(json.dumps(calibration("some CPU", seconds)))
        slow, fast = (json.loads(self.plan("--json", "--calibration", file).stdout)["time"] for file in files)
        self.assertTrue(slow["calibrated"])
        self.assertIn("some CPU", slow["rates"])
        self.assertGreater(slow["ops"]["linear"], 90 * fast["ops"]["linear"])

    def test_a_run_is_the_sum_of_its_parts(self):
        (self.folder / "prompts.jsonl").write_text('{"prompt": "Which depot?"}\n{"prompt": "harbour?"}\n')
        overrides = [f"eval.prompts={self.folder}/prompts.jsonl", "eval.every_steps=4", "train.max_steps=8"]
        old = calibration("some CPU", 1e-5)
        (self.folder / "old.json").write_text(json.dumps(old))
        (self.folder / "new.json").write_text(json.dumps(old | {"write": 1e6}))
        plan = json.loads(self.plan("--json", "--calibration", self.folder / "new.json", *overrides).stdout)
        time, disk = plan["time"], plan["disk"]
        self.assertEqual(time["left_out"], [])
        self.assertEqual(disk["checkpoints_written"], 4)
        self.assertAlmostEqual(time["checkpoint_seconds"], 4 * disk["checkpoint_bytes"] / 1e6)
        self.assertGreater(time["export_seconds"], disk["adapter_bytes"] / 1e6)
        parts = sum(time[f"{part}_seconds"] for part in ("validation", "answer", "checkpoint", "export", "first_step"))
        self.assertAlmostEqual(time["run_seconds"], 8 * time["step_seconds"] + parts)
        text = self.plan("--calibration", self.folder / "new.json", *overrides).stdout
        for words in ("3 validations:", "answers to eval.prompts, 3 times", "4 checkpoints:", "writing the adapter"):
            self.assertIn(words, text)
        without = self.plan("--calibration", self.folder / "old.json", *overrides).stdout
        self.assertIn(
            "without checkpoints, and writing the adapter: how fast the disk writes was not measured", without
        )
        self.assertNotIn("4 checkpoints:", without)
        self.assertIn("    checking that the adapter computes what was trained:", without)
        self.assertIn("the hardware table has no rate for writing", self.plan("--gpu", "h100", *overrides).stdout)
        absent = self.plan("data.train=/nowhere.jsonl", *overrides).stdout
        self.assertIn("without validations, answers to eval.prompts, the comparison of the export: the data", absent)

    def test_replicas_share_what_the_export_is_compared_over(self):
        (self.folder / "slow.json").write_text(json.dumps(calibration("some CPU", 1e-5)))
        one, four = (
            json.loads(self.plan("--json", "--calibration", self.folder / "slow.json", "--ranks", ranks).stdout)["time"]
            for ranks in (1, 4)
        )
        self.assertGreater(one["export_seconds"], 3 * four["export_seconds"])
        self.assertGreater(one["step_seconds"], 3 * four["step_seconds"])

    def test_a_calibration_that_is_none_is_refused(self):
        broken = self.folder / "broken.json"
        broken.write_text("{}")
        answer = self.plan("--calibration", broken, check=65)
        self.assertIn("drover doctor --calibrate", answer.stderr)
        self.assertIn("no.json", self.plan("--calibration", self.folder / "no.json", check=66).stderr)

    def test_options_that_do_not_go_together_are_refused(self):
        for words, why in (
            (["--hardware", "x.yaml"], "name one of them (--gpu)"),
            (["--gpu", "h100", "--calibration", "x.json"], "leave one out"),
            (["--price", "x.yaml"], "name the GPU (--gpu h100)"),
            (["--gpus", 8, "--gpu", "h100", "--all"], "leave --ranks, --all"),
        ):
            with self.subTest(why):
                self.assertIn(why, run("plan", self.recipe, "device=cpu", *words, check=64, **self.cache).stderr)
        self.assertIn("excludes", run("doctor", "--calibrate", "--recipe", self.recipe, check=64).stderr)
        unwritable = run("doctor", "--calibrate", "--out", "/proc/no/c.json", check=74, **self.cache)
        self.assertIn("/proc/no", unwritable.stderr)

    def test_a_run_keeps_its_plan_and_says_where_it_is_far_from_it(self):
        rates = json.loads(self.plan("--json").stdout)["time"]["rates"]
        machine, file = re.search(r"measures (.*) into (.*)\)$", rates).groups()
        pathlib.Path(file).parent.mkdir(parents=True)
        pathlib.Path(file).write_text(json.dumps(calibration(machine, 1e-2)))
        done = run("train", self.recipe, "train.max_steps=8", f"output.dir={self.folder}/run", check=0, **self.cache)
        self.assertRegex(done.stderr, r"the run computes \d+ tokens/s, and \d+ were planned \(\+\d+ %\)")
        self.assertRegex(done.stderr, r"speed: \d+ tokens/s planned, \d+ tokens/s reached")
        plan = json.loads((self.folder / "run/plan.json").read_text())
        self.assertTrue(plan["time"]["calibrated"])
        self.assertGreater(plan["ranks"][0]["process_bytes"], plan["ranks"][0]["total_bytes"])
        steps = [json.loads(line) for line in (self.folder / "run/metrics.jsonl").read_text().splitlines()]
        for step in steps:
            if "loss" in step:
                self.assertEqual(step["planned_step_seconds"], plan["time"]["step_seconds"])

    def test_a_broken_cache_does_not_stop_a_run(self):
        rates = json.loads(self.plan("--json").stdout)["time"]["rates"]
        file = pathlib.Path(re.search(r"into (.*)\)$", rates).group(1))
        file.parent.mkdir(parents=True)
        file.write_text("{")
        done = run("train", self.recipe, "train.max_steps=2", f"output.dir={self.folder}/run", check=0, **self.cache)
        self.assertIn("the time is planned without a calibration", done.stderr)
        self.assertFalse(json.loads((self.folder / "run/plan.json").read_text())["time"]["calibrated"])


if __name__ == "__main__":
    unittest.main()
