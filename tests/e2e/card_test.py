"""What stands next to an adapter: what it computes, in figures that can be computed again, and its page."""

import json
import re
import shutil
import subprocess
import unittest

from case import Case, run, safetensors, widened

SHORT = ["train.max_steps=3", "optim.warmup_steps=0"]
PARTS = ["reloaded", "served", "merged"]


def comparison(directory):
    return json.loads((directory / "comparison.json").read_text())


def page(directory):
    """The front matter's plain fields, and the text."""
    text = (directory / "README.md").read_text()
    _, front, rest = text.split("---\n", 2)
    return dict(re.findall(r'^(\w+): "?(.*?)"?$', front, re.M)), rest


class Cards(Case):
    def loss(self, model, *arguments):
        """As drover eval computes it: the mean over the trained tokens of all validation, and of every token."""
        out = self.home / "logprobs.jsonl"
        words = ["--data", self.home / "validation.jsonl", "--json", "--per-token", out]
        said = run("eval", "--model", model, *arguments, *words, "train.dtype=fp32", check=0).stdout
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        return json.loads(said), sum(sum(row["logprobs"]) for row in rows), sum(len(row["logprobs"]) for row in rows)

    def test_the_figures_can_be_computed_again(self):
        for name, settings in (("answers", []), ("all", ["data.train_on=all"])):
            self.train(name, *SHORT, *settings, check=0)
            directory = self.home / "runs" / name
            ours = comparison(directory / "adapter")
            score, total, count = self.loss(self.model, "--adapter", directory / "adapter", *settings)
            self.assertEqual((ours["rows"], ours["step"], ours["dtype"]), ("validation", 3, "fp32"))
            self.assertEqual(ours["tokens"], score["tokens"])
            if settings:
                self.assertEqual(ours["tokens"], count)
                self.assertAlmostEqual(ours["trained_logprob"], total / count, delta=1e-5)
            self.assertAlmostEqual(ours["trained_logprob"], -score["loss"], delta=1e-5)
            self.assertEqual(ours["reloaded"], {"logprob": ours["trained_logprob"], "distance": 0, "largest": 0})
            self.assertLess(ours["served"]["distance"], 1e-5)
            self.assertEqual(list(ours["why"]), ["merged"])

    def test_export_compares_merged_weights_too(self):
        self.train("whole", *SHORT, "data.train_on=all", check=0)
        directory, out, merged = self.home / "runs" / "whole", self.home / "exported", self.home / "merged"
        said = run("export", directory, "--adapter", out, check=0).stderr
        self.assertIn("read back off by 0.0e+00; as answers are generated off by", said)
        ours, of_run = comparison(out), comparison(directory / "adapter")
        self.assertAlmostEqual(ours["checkpoint_logprob"], of_run["trained_logprob"], delta=1e-5)
        self.assertNotIn("why", ours)
        run("export", directory, "--merged", merged, check=0)
        score, total, count = self.loss(merged, "data.train_on=all")
        self.assertEqual(ours["tokens"], count)
        self.assertAlmostEqual(ours["merged"]["logprob"], total / count, delta=1e-5)
        self.assertGreater(ours["merged"]["distance"], ours["served"]["distance"])
        first = {path.name: path.read_bytes() for path in out.iterdir()}
        run("export", directory, "--adapter", out, check=0)  # in its place, the same bytes
        self.assertEqual(first, {path.name: path.read_bytes() for path in out.iterdir()})
        run("export", directory, "--adapter", out, "--target", "vllm", check=0)  # another adapter, without its page
        self.assertFalse((out / "README.md").exists() or (out / "comparison.json").exists())

    def test_a_base_in_fp32_merges_within_the_contract(self):
        base = self.home / "wide"
        widened(self.model, base)
        self.train("wide-run", *SHORT, f"model.path={base}", check=0)
        run("export", self.home / "runs" / "wide-run", "--adapter", self.home / "wide-adapter", check=0)
        ours = comparison(self.home / "wide-adapter")
        for part in PARTS:
            self.assertLess(ours[part]["distance"], 1e-5, part)

    def test_every_mesh_and_number_type_compares(self):
        for mesh in ({"tp": 2}, {"pp": 2}, {"dp": 2}):
            name = "on-" + "-".join(f"{k}{v}" for k, v in mesh.items())
            self.train(name, *SHORT, *[f"parallel.{k}={v}" for k, v in mesh.items()], ranks=2, check=0)
            ours = comparison(self.home / "runs" / name / "adapter")
            self.assertEqual(ours["reloaded"]["distance"], 0, name)
            self.assertLess(ours["served"]["distance"], 1e-5, name)
        for dtype, rounded in (("fp32", True), ("bf16", False)):  # in bf16 the engine rounds the adapter itself
            settings = [f"train.dtype={dtype}", "output.adapter_dtype=bf16", "data.validation=none"]
            settings += ["memory.activation_checkpointing=full"]
            self.train(f"rounded-{dtype}", *SHORT, *settings, check=0)
            ours = comparison(self.home / "runs" / f"rounded-{dtype}" / "adapter")
            self.assertEqual((ours["rows"], ours["dtype"], ours["adapter_dtype"]), ("training", dtype, "bf16"))
            self.assertEqual(ours["reloaded"]["distance"] > 0, rounded)
            self.assertLess(ours["reloaded"]["distance"], 0.05)
            self.assertTrue("served" in ours or "MiB more" in ours["why"]["served"])

    def test_what_cannot_be_compared_is_said(self):
        self.train("lost", *SHORT, check=0)
        directory, out = self.home / "runs" / "lost", self.home / "not-compared"
        shutil.rmtree(directory / "data")
        said = run("export", directory, "--adapter", out, check=0).stderr
        ours = comparison(out)
        self.assertEqual(sorted(ours["why"]), sorted(PARTS))
        for why in ours["why"].values():
            self.assertIn("train.h5", why)
        self.assertIn('comparison.json has no "served": there is no', said)
        self.assertIn("Not compared", page(out)[1])

    def test_the_page_names_what_it_is_of(self):
        front, text = page(self.plain / "adapter")
        self.assertEqual((front["base_model"], front["library_name"]), (self.model.name, "peft"))
        self.assertNotIn("license", front)
        self.assertNotIn("Built with", text)
        for word in ("`train.jsonl`", "`validation.jsonl`", "steps done | 8", "r 4, alpha 32", "vllm serve"):
            self.assertIn(word, text)
        self.assertNotIn(str(self.home), text)
        self.assertLess(len((self.plain / "adapter" / "README.md").read_bytes()), 6000)
        published = self.home / "published.yaml"
        published.write_text(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
        run("train", published, "output.dir=runs/published", *SHORT, cwd=self.home, check=0)
        self.assertFalse(list((self.plain / "step-8" / "adapter").glob("*.md")))

    def test_built_with_llama_where_the_base_says_so(self):
        base = self.home / "licensed"
        shutil.copytree(self.model, base)
        (base / "LICENSE").write_text("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\n")
        self.train("llama", *SHORT, f"model.path={base}", check=0)
        front, text = page(self.home / "runs" / "llama" / "adapter")
        self.assertEqual(front["license"], "llama3.1")
        self.assertIn("**Built with Llama**", text)

    def test_another_base_than_the_trained_one_is_said(self):
        said = self.train("coded", *SHORT, "model.weights=fp8", check=0).stderr
        self.assertIn("--greedy model.weights=fp8", said)  # the command to try it
        directory = self.home / "runs" / "coded"
        adapter = directory / "adapter"
        fp8 = "fp8 in blocks of 128 × 128"
        self.assertEqual(comparison(adapter)["base_weights"], fp8)

        def asked(*settings):
            words = ["--model", self.model, "--adapter", adapter, "--prompt", "a", "--max-tokens", "1", "--greedy"]
            return run("generate", *words, *settings, check=0).stderr

        sample = json.loads((adapter / "logprobs.json").read_text())["documents"]
        self.assertLess((adapter / "logprobs.json").stat().st_size, 65536)
        logprobs = [value for document in sample for value in document["logprobs"]]
        mean = sum(logprobs) / len(logprobs)
        self.assertAlmostEqual(comparison(adapter)["trained_logprob"], mean, delta=1e-4)
        other = (
            rf"was trained over a base of {fp8}, and this one is of plain numbers: its answers may differ; over "
            rf"{len(logprobs)} tokens that are kept with it ln p is (-[0-9.]+) in the mean, where it was {mean:.3f}; "
            r"off by ([0-9.e-]+) as"
        )
        self.assertRegex(asked(), other)
        words = ["eval", "--model", self.model, "--adapter", adapter, "--data", self.home / "validation.jsonl"]
        found = re.search(other, run(*words, ranks=2, check=0).stderr)
        self.assertLess(abs(float(found[1]) - mean), 0.2)
        self.assertGreater(float(found[2]), 1e-4)
        bare = self.home / "no-sample"
        shutil.copytree(adapter, bare)
        (bare / "logprobs.json").unlink()
        words = ["generate", "--model", self.model, "--adapter", bare, "--prompt", "a", "--max-tokens", "1"]
        self.assertIn("no sample of log-probabilities is kept with it", run(*words, check=0).stderr)
        (bare / "logprobs.json").write_text('{"documents": [{"ids": [1], "trained": [1], "logprobs": [0]}]}')
        self.assertIn("by how much was not measured: ", run(*words, check=0).stderr)
        self.assertNotIn("was trained over", asked("model.weights=fp8"))
        said = run("export", directory, "--merged", self.home / "merged-coded", check=0).stderr
        self.assertIn("it is merged into what these codes mean", said)
        (adapter / "comparison.json").write_text("{")
        self.assertIn("what the adapter was trained over is not known", asked())

    def test_somebodys_own_page_stays(self):
        self.train("own", *SHORT, check=0)
        adapter = self.home / "runs" / "own" / "adapter"
        before = safetensors(adapter / "adapter_model.safetensors")
        (adapter / "README.md").write_text("my words\n")
        said = self.train("own", "train.max_steps=3", "optim.warmup_steps=0", check=0).stderr
        self.assertIn("README.md of the adapter is somebody's own", said)
        self.assertEqual((adapter / "README.md").read_text(), "my words\n")
        self.assertEqual(before, safetensors(adapter / "adapter_model.safetensors"))
        self.assertTrue((adapter / "comparison.json").exists())


if __name__ == "__main__":
    unittest.main(verbosity=1)
