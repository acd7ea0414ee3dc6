"""The lowest validation loss: kept (checkpoint.keep_best), waited for (eval.stop_after), and the same after a stop; and
a learning rate that ends above zero (optim.min_lr_ratio)."""

import json
import unittest

from case import Case, losses, run, validations

RATES = (0.03, 0.04, 0.028, 0.05, 0.035, 0.07, 0.02, 0.06, 0.08, 0.025)
OVERFITTING = [
    "optim.schedule=constant",
    "eval.every_steps=1",
    "checkpoint.every_steps=0",
    "checkpoint.keep=1",
    "train.max_steps=8",
]


class Best(Case):
    overfitting = None

    def setUp(self):
        super().setUp()
        if Best.overfitting is None:
            Best.overfitting = self.too_fast()

    def too_fast(self):
        """A rate so high that the validation loss is lowest, and clearly, in the middle of eight steps. At such rates a
        run's last bits decide where it ends, and those differ between CPUs."""
        for rate in RATES:
            options, name = [f"optim.learning_rate={rate}", *OVERFITTING], f"rate-{rate}"
            self.train(name, *options, check=0)
            (lowest, step), (next_loss, _), *_ = sorted((v, s) for s, v in validations(self.home / "runs" / name) if s)
            if 1 < step < 5 and next_loss - lowest > 0.002:
                return options
        self.fail(f"at none of the rates {RATES} the validation loss is lowest in the middle")

    def best_of(self, name):
        """Step and loss of the lowest validation, of those after a step."""
        return min(((loss, step) for step, loss in validations(self.home / "runs" / name) if step > 0))[::-1]

    def checkpoints(self, name):
        return sorted(int(p.name[5:]) for p in (self.home / "runs" / name).glob("step-*"))

    def test_the_best_is_kept_and_exported(self):
        said = self.train("best", *self.overfitting, "checkpoint.keep_best=true", check=0).stderr
        step, loss = self.best_of("best")
        self.assertTrue(1 < step < 8, (step, validations(self.home / "runs" / "best")))
        self.assertEqual(self.checkpoints("best"), [step, 8])
        self.assertIn(f"the lowest validation loss is {loss:.4f}, after step {step}", said)
        self.assertIn(f"--step {step}", said)
        self.train("until-there", *self.overfitting, f"train.max_steps={step}", check=0)
        self.assertEqual(self.adapter("best"), self.adapter("until-there"))
        last = self.home / "last"
        run("export", self.home / "runs" / "best", "--adapter", last, check=0)
        self.assertNotEqual((last / "adapter_model.safetensors").read_bytes(), self.file_of("best"))
        self.train("best", *self.overfitting, "checkpoint.keep_best=true", check=0)  # once more: nothing is to be done
        self.assertEqual(self.adapter("best"), self.adapter("until-there"))

    def file_of(self, name):
        return (self.home / "runs" / name / "adapter" / "adapter_model.safetensors").read_bytes()

    def test_a_run_ends_where_nothing_improves_any_more(self):
        waiting = [*self.overfitting, "checkpoint.keep_best=true", "eval.stop_after=3"]
        for name, ranks in (("waits", 0), ("waits-2", 2)):
            said = self.train(name, *waiting, ranks=ranks, check=0).stderr
            step, loss = self.best_of(name)
            self.assertEqual(max(losses(self.home / "runs" / name)), step + 3)
            self.assertIn(f"3 validations have not improved on {loss:.4f} after step {step}", said)
            self.assertEqual(self.checkpoints(name), [step, step + 3])
        run_files = [self.home / "runs" / "waits" / name for name in ("plan.json", "reached.json")]
        kept = [file.read_bytes() for file in run_files]
        again = self.train("waits", *waiting, ranks=2, check=0).stderr  # on other ranks, and no step is left
        self.assertEqual([file.read_bytes() for file in run_files], kept)
        self.assertEqual(max(losses(self.home / "runs" / "waits")), self.best_of("waits")[0] + 3)
        self.assertIn("3 validations have not improved", again)
        written = [file.stat().st_mtime_ns for file in run_files]
        self.train("waits", *waiting[:-1], "eval.stop_after=4", check=0)
        self.assertEqual(max(losses(self.home / "runs" / "waits")), self.best_of("waits")[0] + 4)
        for file, before in zip(run_files, written):
            self.assertGreater(file.stat().st_mtime_ns, before, file)

    def test_resumed_is_uninterrupted(self):
        # The run that is cut into pieces of two steps by train.max_steps decides as the one that runs through.
        waiting = [*self.overfitting, "checkpoint.keep_best=true", "eval.stop_after=3"]
        self.train("through", *waiting, check=0)
        for steps in range(2, 9, 2):
            self.train("pieces", *waiting, f"train.max_steps={steps}", check=0)
        through, pieces = (json.loads((self.manifest(name)).read_text()) for name in ("through", "pieces"))
        self.assertEqual(through["best_validation"], pieces["best_validation"])
        self.assertEqual(losses(self.home / "runs" / "through"), losses(self.home / "runs" / "pieces"))
        self.assertEqual(self.adapter("through"), self.adapter("pieces"))

    def manifest(self, name):
        return self.home / "runs" / name / f"step-{self.checkpoints(name)[-1]}" / "manifest.json"

    def test_a_best_that_was_not_kept_is_said(self):
        self.train("late", *self.overfitting, "train.max_steps=6", check=0)
        step, _ = self.best_of("late")
        self.assertLess(step, 6)
        said = self.train("late", *self.overfitting, "train.max_steps=7", "checkpoint.keep_best=true", check=0).stderr
        self.assertIn(f"the best validation so far, after step {step}, was not kept", said)
        # Whoever waited for the old best waits anew.
        waiting = [*self.overfitting, "train.max_steps=6", "eval.stop_after=3"]
        self.train("late-again", *waiting, check=0)
        more = [*waiting, "train.max_steps=7", "checkpoint.keep_best=true"]
        self.train("late-again", *more, check=0)
        self.assertEqual(max(losses(self.home / "runs" / "late-again")), 7)

    def test_what_they_need(self):
        for key, needs in (
            ("checkpoint.keep_best=true", "data.validation"),
            ("eval.stop_after=2", "data.validation and eval.every_steps"),
        ):
            said = self.train("needs", key, "data.validation=none", check=78).stderr
            self.assertIn(f"{key.split('=')[0]} needs {needs}", said)

    def test_the_rate_ends_at_its_floor(self):
        self.train("floor", "optim.min_lr_ratio=0.25", "optim.warmup_steps=0", check=0)
        rows = [json.loads(line) for line in (self.home / "runs" / "floor" / "metrics.jsonl").read_text().splitlines()]
        rates = [row["learning_rate"] for row in rows if "learning_rate" in row]
        self.assertEqual(rates[0], 5e-3)
        self.assertTrue(5e-3 * 0.25 < rates[-1] < 5e-3 * 0.3, rates)
        self.assertIn("optim.min_lr_ratio", self.train("floor", "optim.warmup_steps=0", check=78).stderr)


if __name__ == "__main__":
    unittest.main(verbosity=1)
