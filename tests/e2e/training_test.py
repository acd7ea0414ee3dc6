"""Runs: their files, curves, meshes, and continuing."""

import json
import os
import shutil
import subprocess
import unittest

from case import DROVER, ENVIRONMENT, ROOT, Case, losses, run, validations


class Training(Case):
    def test_loss_falls_and_every_file_is_there(self):
        curve = losses(self.plain)
        self.assertEqual(sorted(curve), list(range(1, 9)))
        self.assertLess(curve[8], curve[1])
        for name in (
            "recipe.yaml",
            "metrics.jsonl",
            "adapter/adapter_config.json",
            "step-8/manifest.json",
            "step-6/manifest.json",
            "data/train.h5",
        ):
            self.assertTrue((self.plain / name).exists(), name)
        self.assertFalse((self.plain / "step-4").exists())  # checkpoint.keep: 2
        self.assertFalse((self.plain / "lock").exists())

    def test_two_runs_are_identical(self):
        self.train("again", check=0)
        self.assert_same_run("again")

    def test_meshes_give_the_same_curve(self):
        for mesh in ({"tp": 2}, {"pp": 2}, {"dp": 2}):
            name = "mesh-" + "-".join(f"{k}{v}" for k, v in mesh.items())
            self.train(name, *[f"parallel.{k}={v}" for k, v in mesh.items()], ranks=2, check=0)
            self.assert_close_run(name)

    def test_the_printed_command_can_be_pasted(self):
        result = self.train("it's a run", "train.max_steps=2", "data.template=chatml", check=0)
        command = next(line for line in result.stderr.splitlines() if "try it:" in line).split("try it:")[1]
        self.assertIn("'\\''", command)
        asked = subprocess.run(
            ["sh", "-c", f"{command} --max-tokens 2"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
        )
        self.assertEqual(asked.returncode, 0, asked.stderr)

    def test_raising_max_steps_goes_on(self):
        self.train("longer", "optim.schedule=constant", "train.max_steps=4", check=0)
        result = self.train("longer", "optim.schedule=constant", "train.max_steps=6", check=0)
        self.assertIn("resuming after step 4", result.stderr)
        self.train("long", "optim.schedule=constant", "train.max_steps=6", check=0)
        self.assertEqual(losses(self.home / "runs" / "long"), losses(self.home / "runs" / "longer"))
        self.assertEqual(self.adapter("long"), self.adapter("longer"))

    def test_resuming_on_another_mesh_goes_on_with_the_curve(self):
        settings = ["optim.schedule=constant", "checkpoint.every_steps=4"]
        self.train("steady", *settings, check=0)
        meshes = ([], ["parallel.tp=2"], ["parallel.pp=2"], ["parallel.dp=2"])
        for first, second in zip(meshes, meshes[1:] + meshes[:1]):
            name = "-".join(["moved", *(m.split(".")[1].replace("=", "") for m in first + second)])
            self.train(name, *settings, *first, "train.max_steps=4", ranks=2 if first else 0, check=0)
            result = self.train(name, *settings, *second, ranks=2 if second else 0, check=0)
            self.assertIn("resuming after step 4", result.stderr)
            steady, moved = losses(self.home / "runs" / "steady"), losses(self.home / "runs" / name)
            self.assertEqual(sorted(moved), sorted(steady))
            for step, loss in steady.items():
                self.assertLess(abs(moved[step] - loss), 1e-5 * loss, (name, step))

    def test_what_may_not_change_is_listed(self):
        self.train("changed", check=0)
        record = (self.home / "runs" / "changed" / "recipe.yaml").read_text()
        result = self.train("changed", "lora.r=8", "train.seed=1", check=78)
        for word in ("lora.r", "train.seed", "checkpoint.resume: never", "new output.dir"):
            self.assertIn(word, result.stderr)
        self.assertEqual(
            (self.home / "runs" / "changed" / "recipe.yaml").read_text(), record
        )  # a refused run is not the run
        self.assertIn("has done 8 steps", self.train("changed", "train.max_steps=4", check=78).stderr)

    def test_every_setting_that_shapes_the_curve_is_kept(self):
        self.train("kept", check=0)
        changes = [
            "optim.learning_rate=1e-3",
            "optim.betas=[0.9,0.95]",
            "optim.eps=1e-6",
            "optim.weight_decay=0.1",
            "optim.max_grad_norm=0.5",
            "optim.lora_plus_ratio=4",
            "optim.warmup_steps=2",
            "optim.schedule=linear",
            "train.global_batch_size=4",
            "train.dtype=bf16",
            "data.shuffle=false",
            "data.packing=true",
            "data.max_length=64",
            "data.train_on=all",
            "lora.alpha=8",
            "lora.dropout=0.1",
            f"data.train={self.home}/validation.jsonl",
        ]
        for change in changes:
            with self.subTest(change):
                self.assertIn(
                    "was made by another run", self.train("kept", change, "train.max_steps=9", check=78).stderr
                )
        self.assert_same_run("kept")
        for change in ["train.micro_batch_size=4", "log.every_steps=2", "eval.every_steps=3", "checkpoint.keep=5"]:
            with self.subTest(change):
                self.train("may-change", "train.max_steps=4", "optim.schedule=constant", check=0)
                self.train("may-change", "optim.schedule=constant", change, check=0)
                self.train("may-stay", "optim.schedule=constant", check=0)
                stay, other = losses(self.home / "runs" / "may-stay"), losses(self.home / "runs" / "may-change")
                self.assertEqual(sorted(stay), sorted(other))
                for step, loss in stay.items():
                    self.assertLess(abs(other[step] - loss), 1e-5 * loss)
                shutil.rmtree(self.home / "runs" / "may-change")

    def test_resuming_in_bf16_with_dropout_on_a_mesh_gives_the_same_bits(self):
        settings = ["optim.schedule=constant", "train.dtype=bf16", "lora.dropout=0.1", "parallel.tp=2", "parallel.pp=2"]
        self.train("bits", *settings, ranks=4, check=0)
        self.train("bits-halves", *settings, "train.max_steps=4", ranks=4, check=0)
        self.assertIn("schedule of the stages", self.train("bits-halves", *settings, ranks=4, check=0).stderr)
        self.assertEqual(losses(self.home / "runs" / "bits"), losses(self.home / "runs" / "bits-halves"))
        self.assertEqual(self.adapter("bits"), self.adapter("bits-halves"))

    def test_a_moment_that_is_lost_would_be_noticed(self):
        # Resuming from parameters alone (an adapter) is not resuming: the curve is another one.
        self.train("moments", "optim.schedule=constant", check=0)
        self.train("first-half", "optim.schedule=constant", "train.max_steps=4", check=0)
        self.train(
            "no-moments",
            "optim.schedule=constant",
            f"lora.init_from={self.home}/runs/first-half/adapter",
            "train.max_steps=4",
            "train.seed=42",
            check=0,
        )
        self.assertNotEqual(self.adapter("moments"), self.adapter("no-moments"))

    def test_a_run_in_use_is_refused(self):
        directory = self.home / "runs" / "locked"
        command = [
            str(DROVER),
            "train",
            str(self.recipe),
            f"output.dir={directory}",
            "train.max_steps=100000",
            "checkpoint.every_steps=0",
        ]
        first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        for line in first.stderr:
            if line.startswith("step 2/"):
                break
        self.assertIn(f"in use by process {first.pid} on", self.train("locked", check=78).stderr)
        first.kill()
        first.communicate()
        self.train("locked", check=0)  # the dead run's lock holds nobody up
        for text, code, word in (
            ("", 0, "done"),
            (json.dumps({"host": os.uname().nodename, "pid": 1}), 0, "done"),
            (json.dumps({"host": "elsewhere", "pid": 1}), 78, "elsewhere"),
            (json.dumps({"host": 5, "pid": "x"}), 78, "no lock"),
            ("[", 78, "no lock"),
        ):
            (directory / "lock").write_text(text)
            self.assertIn(word, self.train("locked", check=code).stderr, text)

    def test_starting_over_sets_the_earlier_run_aside(self):
        fresh, directory = self.home / "runs" / "three", self.home / "runs" / "over"
        self.train("three", "train.max_steps=3", check=0)
        self.train("over", check=0)
        (directory / "step-99999999999999999999").mkdir()  # no step of ours
        result = self.train("over", "train.max_steps=3", "checkpoint.resume=never", check=0)
        self.assertIn("set-aside", result.stderr)
        self.assertEqual(losses(directory), losses(fresh))
        self.assertEqual(validations(directory), validations(fresh))
        self.assertEqual(self.adapter("over"), self.adapter("three"))
        self.assertEqual(sorted(p.name for p in directory.glob("step-*") if len(p.name) < 10), ["step-2", "step-3"])
        self.assertTrue((directory / "set-aside" / "step-8" / "manifest.json").exists())
        self.train(
            "over", "train.max_steps=3", f"checkpoint.resume={directory}/step-2", check=0
        )  # back to an earlier step of this run
        self.assertEqual(losses(directory), losses(fresh))
        self.assertEqual(self.adapter("over"), self.adapter("three"))
        self.train(
            "branch", "train.max_steps=3", f"checkpoint.resume={directory}/step-2", check=0
        )  # a run that begins with another's checkpoint
        self.assertEqual(self.adapter("branch"), self.adapter("three"))

    def test_each_step_stands_once(self):
        self.train("often", "eval.every_steps=2", check=0)
        expected = validations(self.home / "runs" / "often")
        self.assertEqual([step for step, loss in expected], [0, 2, 4, 6, 8])
        result = self.train("often", "eval.every_steps=2", check=0)  # again: nothing is left to do
        self.assertEqual(validations(self.home / "runs" / "often"), expected)
        self.assertNotIn(" 0 MiB reached", result.stderr)
        self.train("halves", "eval.every_steps=2", "train.max_steps=4", "optim.schedule=constant", check=0)
        self.train("halves", "eval.every_steps=2", "optim.schedule=constant", check=0)
        self.assertEqual([step for step, loss in validations(self.home / "runs" / "halves")], [0, 2, 4, 6, 8])

    def test_a_run_can_be_used_from_anywhere(self):
        (self.home / "near.yaml").write_text(self.recipe.read_text().replace(f"{self.home}/", ""))
        for arguments in (
            ["train", "near.yaml", "output.dir=runs/near"],
            ["export", "runs/near", "--merged", "near-merged"],
        ):
            subprocess.run([str(DROVER), *arguments], cwd=self.home, check=True, capture_output=True, env=ENVIRONMENT)
        run("export", self.home / "runs" / "near", "--merged", self.home / "far-merged", check=0)
        again = run("train", self.home / "runs" / "near" / "recipe.yaml", check=0)
        self.assertIn("resuming after step 8", again.stderr)

    def test_planned_is_reached(self):
        for line in self.train("planned", check=0).stderr.splitlines():
            if line.startswith("arenas of rank 0:"):
                planned, reached = int(line.split()[4]), int(line.split()[7])
                self.assertLess(abs(planned - reached), 0.01 * planned)
                return
        self.fail("no line about the arenas")


if __name__ == "__main__":
    unittest.main(verbosity=1)
