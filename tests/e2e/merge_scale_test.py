"""Merging by many processes, after an interruption, in the base's format, and what the report says of it."""

import json
import os
import shutil
import signal
import subprocess
import time
import unittest

from case import DROVER, ENVIRONMENT, ROOT, Case, can_mount, contents, no_file_over, run, safetensors, widened, within

SHORT = ["train.max_steps=3", "data.validation=none", "optim.warmup_steps=0"]
SHARDS = ["--max-shard-bytes", "40000"]
FP8 = "fp8 in blocks of 128 × 128"


class MergeScale(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.whole = cls.home / "whole"
        cls.said = run("export", cls.plain, "--merged", cls.whole, *SHARDS, check=0)
        cls.shards = sorted(cls.whole.glob("model-*.safetensors"))
        sizes = [path.stat().st_size for path in cls.shards]
        cls.limit = max(sizes) - 1  # some files are written before the first that is too large
        cls.first_too_large = next(i for i, size in enumerate(sizes) if size > cls.limit)

    def staging(self, name):
        return self.home / f".{name}.merging"

    def merge_limited(self, name, killed):
        command = [str(DROVER), "export", str(self.plain), "--merged", str(self.home / name), *SHARDS]
        return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=within(60),
                              preexec_fn=no_file_over(self.limit, killed))  # fmt: skip

    def test_any_number_of_processes_writes_the_same(self):
        self.assertGreater(len(self.shards), 5)
        for ranks in (2, 3):
            out = self.home / f"by-{ranks}"
            said = run("export", self.plain, "--merged", out, *SHARDS, ranks=ranks, check=0)
            self.assertEqual(contents(out), contents(self.whole))
            self.assertEqual(said.stdout, self.said.stdout)
            self.assertFalse(self.staging(out.name).exists())
        one = self.home / "one-file"
        run("export", self.plain, "--merged", one, check=0)
        together = {}
        for shard in self.shards:
            together |= safetensors(shard)
        self.assertEqual(safetensors(one / "model.safetensors"), together)

    def finished(self, name):
        return len(list((self.staging(name) / "journal").glob("*.json")))

    def test_what_was_written_before_an_interruption_is_kept(self):
        self.assertGreater(self.first_too_large, 0)
        for name, killed, ranks, code in (("full", False, 2, 74), ("killed", True, 0, -signal.SIGXFSZ)):
            out = self.home / name
            ended = self.merge_limited(name, killed)
            self.assertEqual(ended.returncode, code, ended.stderr)
            self.assertFalse(out.exists())
            if not killed:
                self.assertIn("the same command continues there", ended.stderr)
            self.assertEqual(self.finished(name), self.first_too_large)
            path = self.staging(name) / "files" / self.shards[0].name
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)
            said = run("export", self.plain, "--merged", out, *SHARDS, ranks=ranks, check=0).stderr
            kept = f"{self.first_too_large - 1} of {len(self.shards)} files are kept"
            self.assertEqual(kept in said, self.first_too_large > 1, said)
            self.assertEqual(contents(out), contents(self.whole))
            self.assertFalse(self.staging(name).exists())

    def test_a_killed_rank_leaves_nothing_half_done(self):
        base, out = self.home / "waits", self.home / "lost"
        shutil.copytree(self.model, base)
        os.mkfifo(base / "chat_template.jinja")  # the last that is read: rank 0 waits for somebody who writes it
        words = ["export", str(self.plain), "--model", str(base), "--merged", str(out), *SHARDS]
        process = subprocess.Popen([str(ROOT / "launch" / "run"), "-n", "2", str(DROVER), *words],
                                   stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)  # fmt: skip
        until = time.monotonic() + within(60)
        while time.monotonic() < until and process.poll() is None:
            if self.staging("lost").exists() and self.finished("lost") == len(self.shards):
                break
            time.sleep(0.05)
        found = subprocess.run(
            ["pgrep", "-f", f"^{DROVER} export.*{out}"], capture_output=True, text=True
        ).stdout.split()
        self.assertEqual(len(found), 2)
        os.kill(int(found[-1]), signal.SIGKILL)
        said = process.communicate(timeout=within(60))[1]
        self.assertEqual(process.returncode, 83, said)
        self.assertFalse(out.exists())
        (base / "chat_template.jinja").unlink()
        said = run(*words, check=0).stderr
        self.assertIn(f"{len(self.shards)} of {len(self.shards)} files are kept", said)
        ours, theirs = contents(out), contents(self.whole)
        weights = [name for name in theirs if name.endswith(".safetensors")]
        self.assertEqual([ours[name] for name in weights], [theirs[name] for name in weights])

    def test_what_is_left_of_another_merge_is_removed(self):
        self.assertEqual(self.merge_limited("other", False).returncode, 74)
        said = run("export", self.plain, "--merged", self.home / "other", *SHARDS, "--step", "6", check=0).stderr
        self.assertIn("what was left of another merge", said)
        self.assertNotIn("are kept", said)
        self.assertNotEqual(contents(self.home / "other"), contents(self.whole))

    @unittest.skipUnless(can_mount(), "mounting a small disk needs root and a mount namespace")
    def test_a_disk_without_the_room(self):
        small = self.home / "small-disk"
        small.mkdir()
        ended = subprocess.run(
            ["unshare", "--mount", "bash", "-c",
             'mount -t tmpfs -o size=100k none "$0" && "$@"; echo $? $(ls -A "$0" | wc -l)', str(small),
             str(DROVER), "export", str(self.plain), "--merged", str(small / "m")],
            capture_output=True, text=True, env=ENVIRONMENT, timeout=within(60))  # fmt: skip
        self.assertEqual(ended.stdout.split(), ["74", "0"], ended.stderr)
        self.assertRegex(ended.stderr, r"needs \d+ bytes and its disk has \d+ free; nothing was written")

    def test_the_report(self):
        report = json.loads((self.whole / "merge_report.json").read_text())
        kinds = {f"{kind}_proj" for kind in "q k v o gate up down".split()}
        self.assertEqual(set(report["kinds"]), kinds)
        self.assertEqual((report["tensors"]["updated"], report["all"]["tensors"]), (28, 28))
        self.assertEqual(report["tensors"]["all"], 28 + len(report["tensors"]["untouched"]))
        self.assertIn("model.embed_tokens.weight", report["tensors"]["untouched"])
        for part in [report["all"], *report["kinds"].values()]:
            self.assertTrue(0 < part["lost_share"] < 1 and 0 < part["update"] < 1 and part["rounding"] > 0, part)
            self.assertAlmostEqual(part["lost_share"], part["lost"] / part["moved"])
        for name in ("elements", "moved", "lost"):
            self.assertEqual(report["all"][name], sum(kind[name] for kind in report["kinds"].values()))
        self.assertTrue(0 < report["logits"]["difference"] < report["logits"]["effect"])
        self.assertRegex(self.said.stdout, r"q_proj +4 ")
        again = self.home / "as-json"
        said = run("export", self.plain, "--merged", again, *SHARDS, "--json", check=0).stdout
        self.assertEqual(json.loads(said)["report"], report)

    def loss(self, *arguments):
        words = ["--data", self.home / "validation.jsonl", "train.dtype=fp32", "--json"]
        return json.loads(run("eval", *arguments, *words, check=0).stdout)["loss"]

    def test_made_weights_are_what_is_merged_into(self):
        base = self.home / "wide"
        widened(self.model, base)
        self.train("made", *SHORT, f"model.path={base}", "model.weights=fp8", "optim.learning_rate=0.02", check=0)
        directory = self.home / "runs" / "made"
        said = run("export", directory, "--merged", self.home / "made", check=0).stderr
        self.assertIn("the adapter was trained over fp8 made of the base's numbers", said)
        report = json.loads((self.home / "made" / "merge_report.json").read_text())
        self.assertIn("fp8 of the base's files", report["weights"])
        adapter = directory / "adapter"
        trained = self.loss("--model", base, "--adapter", adapter, "model.weights=fp8")
        self.assertAlmostEqual(self.loss("--model", self.home / "made"), trained, delta=1e-5 * trained)
        elsewhere = ["export", "--model", base, "--from", adapter, "--merged"]
        run(*elsewhere, self.home / "made-again", "--weights", "fp8", check=0)
        run(*elsewhere, self.home / "plain-again", check=0)
        self.assertEqual(contents(self.home / "made-again")["model.safetensors"],
                         contents(self.home / "made")["model.safetensors"])  # fmt: skip
        self.assertGreater(abs(self.loss("--model", self.home / "plain-again") - trained), 1e-4)
        comparison = self.home / "made-compared"
        run("export", directory, "--adapter", comparison, check=0)
        merged = json.loads((comparison / "comparison.json").read_text())["merged"]
        self.assertLess(merged["distance"], 1e-5)

    def test_a_quantised_base_keeps_its_format(self):
        base = self.home / "coded"
        run("quantize", self.model, base, "--to", "fp8", check=0)
        self.train("over-fp8", *SHORT, f"model.path={base}", "lora.target_modules=[q_proj, down_proj]",
                   "optim.learning_rate=0.02", check=0)  # fmt: skip
        directory = self.home / "runs" / "over-fp8"
        out = self.home / "kept"
        run("export", directory, "--merged", out, "--keep-format", *SHARDS, ranks=2, check=0)
        alone = self.home / "kept-alone"
        run("export", directory, "--merged", alone, "--keep-format", check=0)
        self.assertEqual((out / "config.json").read_bytes(), (base / "config.json").read_bytes())
        before, after = (safetensors(path / "model.safetensors") for path in (base, alone))
        shards = {}
        for shard in out.glob("*.safetensors"):
            shards |= safetensors(shard)
        self.assertEqual(shards, after)
        changed = {name for name in before if before[name] != after[name]}
        self.assertEqual(set(before), set(after))
        self.assertTrue(changed)
        self.assertFalse([name for name in changed if "q_proj" not in name and "down_proj" not in name])
        self.assertEqual(json.loads(run("inspect", out, "--json", check=0).stdout)["quantisation"]["linears"],
                         {"fp8": 28})  # fmt: skip
        report = json.loads((out / "merge_report.json").read_text())
        self.assertEqual(set(report["kinds"]), {"q_proj", "down_proj"})
        plain = self.home / "not-kept"
        run("export", directory, "--merged", plain, check=0)
        self.assertLess(json.loads((plain / "merge_report.json").read_text())["all"]["rounding"],
                        report["all"]["rounding"])  # fmt: skip
        self.assertNotIn("quantization_config", (plain / "config.json").read_text())
        trained = self.loss("--model", base, "--adapter", directory / "adapter")
        self.assertAlmostEqual(self.loss("--model", out), trained, delta=0.02 * trained)

    def test_what_is_refused(self):
        new = self.home / "new"
        target = ["--target", "llamacpp"]
        for arguments, words in (
            (["--merged", new, "--keep-format"], "hold plain numbers, whose types a merged model keeps anyway"),
            (["--adapter", new, "--keep-format"], "--keep-format is of a merged model's directory"),
            (["--merged", new, *target, "--max-shard-bytes", "5"], "--max-shard-bytes is of a merged model's"),
            (["--merged", new, "--max-shard-bytes", "0"], "--max-shard-bytes 0 must be above 0"),
            (["--merged", new, "--weights", "nf4"], "--weights is of an adapter from elsewhere"),
            (["--merged", new, "--weights", "int4"], "allowed are as_is, bf16, fp8 and nf4"),
        ):
            self.assertIn(words, run("export", self.plain, *arguments, check=64).stderr)
        for arguments in (["--adapter", new], ["--merged", new, *target]):
            said = run("export", self.plain, *arguments, ranks=2, check=64).stderr
            self.assertIn("--merged DIR alone is done by several processes", said)
        self.assertFalse(new.exists() or self.staging("new").exists())


if __name__ == "__main__":
    unittest.main(verbosity=1)
