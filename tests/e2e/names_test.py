"""Paths and names as people write them: ~, variables, blanks and signs of YAML's, models in the local hub cache, a
directory written in two ways, and the length that is not given."""

import os
import unittest

from case import Case, losses, run

SHORT = ["train.max_steps=2", "data.validation=none", "checkpoint.every_steps=2"]


class Names(Case):
    def here(self, *overrides, **keywords):
        """Trains in the test's folder, which is also HOME."""
        return run("train", self.recipe, *SHORT, *overrides, check=0, cwd=self.home, HOME=str(self.home), **keywords)

    def test_a_path_of_the_command_line_is_that_text(self):
        for name in ("run #3", "- x", "[v2] a", "it's"):
            self.here(f"output.dir={name}")
            self.assertEqual(len(losses(self.home / name)), 2)
        (self.home / "rows #1.jsonl").write_bytes((self.home / "train.jsonl").read_bytes())
        self.here("output.dir=rows", "data.train=rows #1.jsonl")

    def test_home_and_variables_stand_at_the_start(self):
        self.here("output.dir=~/tilde/a")
        self.here("output.dir=$DROVER_TEST_PLACE/b", DROVER_TEST_PLACE=str(self.home / "variable"))
        for folder in ("tilde/a", "variable/b"):
            self.assertTrue((self.home / folder / "adapter").is_dir())
        self.assertFalse((self.home / "~").exists())
        self.assertFalse((self.home / "$DROVER_TEST_PLACE").exists())
        said = run("train", self.recipe, "output.dir=$DROVER_TEST_NONE/b", check=78).stderr
        self.assertIn("output.dir: $DROVER_TEST_NONE is not set", said)

    def test_a_hubs_name_is_found_in_the_local_cache(self):
        model = self.home / "hub" / "hub" / "models--someone--tiny"
        (model / "snapshots").mkdir(parents=True)
        (model / "refs").mkdir()
        os.symlink(self.model, model / "snapshots" / "0123abc")
        (model / "refs" / "main").write_text("0123abc")
        cache = {"HF_HOME": str(self.home / "hub")}
        said = self.here("output.dir=cached", "model.path=someone/tiny", **cache).stderr
        self.assertIn(f"model.path someone/tiny is {model}/snapshots/0123abc in the local hub cache", said)
        answer = run("generate", "--model", "someone/tiny", "--prompt", "x", "--max-tokens", "2", check=0, **cache)
        self.assertIn("someone/tiny is ", answer.stderr)
        words = ["--prompt", "x", "--max-tokens", "2", "model.tokenizer=someone/tiny"]
        answer = run("generate", "--model", self.model, *words, check=0, **cache)
        self.assertIn("model.tokenizer someone/tiny is ", answer.stderr)
        missing = run("train", self.recipe, "model.path=someone/other", check=66, **cache).stderr
        for word in (f"cache {self.home}/hub/hub", "hf download someone/other", "nothing is fetched"):
            self.assertIn(word, missing)

    def test_a_relative_path_says_from_where(self):
        said = run("train", self.recipe, "model.path=absent/in/three", check=66, cwd=self.home).stderr
        self.assertIn(f"no model directory absent/in/three (from {self.home})", said)

    def test_one_directory_written_in_two_ways_is_the_same_run(self):
        command = ["output.dir=continued", "checkpoint.every_steps=2"]
        self.here(*command, "lora.init_from=runs/plain/adapter")
        said = self.here(*command, f"lora.init_from={self.home}/runs/plain/adapter", "train.max_steps=4").stderr
        self.assertIn("resuming after step 2", said)

    def test_the_length_that_is_not_given_fits_the_model(self):
        recipe = self.home / "short.yaml"
        recipe.write_text(self.recipe.read_text().replace("  max_length: 128\n", ""))
        said = run("train", recipe, *SHORT, f"output.dir={self.home}/fitted", check=0).stderr
        self.assertIn("data.max_length is 1024, the model's positions", said)
        self.assertIn("max_length: 1024  # the model's positions", (self.home / "fitted" / "recipe.yaml").read_text())
        refused = run("train", recipe, "data.max_length=2048", check=78).stderr
        self.assertIn("data.max_length 2048 is more than the model's max_position_embeddings 1024", refused)


if __name__ == "__main__":
    unittest.main(verbosity=1)
