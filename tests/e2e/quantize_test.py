"""Quantising: what is written is what loading with model.weights computes with, what inspect says of it, and what is
refused."""

import json
import shutil
import signal
import subprocess
import unittest

from case import DROVER, ENVIRONMENT, ROOT, Case, can_mount, contents, no_file_over, run, safetensors, within

GOLDEN = ROOT / "tests" / "golden" / "quantised"
SHARDS = ["--max-shard-bytes", "20000"]
KINDS = {f"{kind}_proj" for kind in "q k v o gate up down".split()}


class Quantize(Case):
    def losses_per_token(self, model, name, weights):
        out = self.home / f"{name}.jsonl"
        run("eval", "--model", model, "--data", self.home / "validation.jsonl", "--per-token", out, "train.dtype=fp32",
            f"model.weights={weights}", check=0)  # fmt: skip
        return out.read_text()

    def test_fp8_computes_what_loading_as_fp8_does(self):
        out = self.home / "fp8"
        ended = run("quantize", self.model, out, "--to", "fp8", "--json", check=0)
        self.assertRegex(ended.stderr, r"quantising 28 linears of .* to fp8")
        self.assertIn("read back and checked", ended.stderr)
        report = json.loads(ended.stdout)
        self.assertEqual((report["format"], report["linears"], set(report["relative_errors"])), ("fp8", 28, KINDS))
        self.assertLess(report["bytes_after"], 0.7 * report["bytes_before"])
        self.assertEqual(report["bytes_after"], (out / "model.safetensors").stat().st_size)
        for error in report["relative_errors"].values():
            self.assertTrue(0.01 < error["mean"] <= error["largest"] < 0.04, error)
        names = lambda directory: sorted(p.name for p in directory.iterdir())
        self.assertEqual(names(out), names(self.model))
        for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            self.assertEqual((out / name).read_bytes(), (self.model / name).read_bytes())
        as_made = self.losses_per_token(self.model, "made", "fp8")
        self.assertEqual(self.losses_per_token(out, "stored", "as_is"), as_made)
        self.assertNotEqual(self.losses_per_token(self.model, "dense", "as_is"), as_made)

    def test_any_number_of_processes_and_threads_writes_the_same(self):
        for source, to in ((self.model, "fp8"), (GOLDEN / "blocks", "nf4")):
            whole = self.home / f"whole-{to}"
            said = run("quantize", source, whole, "--to", to, *SHARDS, "--json", check=0).stdout
            self.assertGreater(len(list(whole.glob("model-*.safetensors"))), 5)
            for ranks, threads in ((2, 2), (3, 1), (0, 3)):
                out = self.home / f"by-{to}-{ranks}"
                again = run("quantize", source, out, "--to", to, *SHARDS, "--json", ranks=ranks, check=0,
                            OMP_NUM_THREADS=str(threads)).stdout  # fmt: skip
                self.assertEqual(contents(out), contents(whole))
                self.assertEqual(json.loads(again) | {"directory": ""}, json.loads(said) | {"directory": ""})
                self.assertFalse((self.home / f".{out.name}.quantising").exists())

    def test_what_was_written_before_an_interruption_is_kept(self):
        few = ["--max-shard-bytes", "60000"]  # of five files the fourth is the largest
        whole = self.home / "not-interrupted"
        run("quantize", self.model, whole, "--to", "fp8", *few, check=0)
        shards = sorted(whole.glob("model-*.safetensors"))
        sizes = [path.stat().st_size for path in shards]
        limit = max(sizes) - 1
        first_too_large = next(i for i, size in enumerate(sizes) if size > limit)
        self.assertGreater(first_too_large, 1)
        for name, killed, ranks, code in (("full", False, 2, 74), ("killed", True, 0, -signal.SIGXFSZ)):
            out, staging = self.home / name, self.home / f".{name}.quantising"
            command = [str(DROVER), "quantize", str(self.model), str(out), "--to", "fp8", *few]
            ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=within(60),
                                   preexec_fn=no_file_over(limit, killed))  # fmt: skip
            self.assertEqual(ended.returncode, code, ended.stderr)
            self.assertFalse(out.exists())
            self.assertEqual(len(list((staging / "journal").glob("*.json"))), first_too_large)
            damaged = bytearray((staging / "files" / shards[0].name).read_bytes())
            damaged[-1] ^= 1
            (staging / "files" / shards[0].name).write_bytes(damaged)
            said = run(*command[1:], ranks=ranks, check=0).stderr
            self.assertIn(f"{first_too_large - 1} of {len(shards)} files are kept from a quantisation", said)
            self.assertEqual(contents(out), contents(whole))
            self.assertFalse(staging.exists())

    def test_config_json_says_what_transformers_asks_for(self):
        for source, to, method, whole in (
            (self.model, "fp8", "fp8", {"weight_block_size": [128, 128], "activation_scheme": "dynamic"}),
            (GOLDEN / "blocks", "nf4", "bitsandbytes", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
                                                        "bnb_4bit_use_double_quant": True}),
        ):  # fmt: skip
            out = self.home / f"config-{to}"
            run("quantize", source, out, "--to", to, check=0)
            before, after = (json.loads((d / "config.json").read_text()) for d in (source, out))
            stated = after.pop("quantization_config")
            before.pop("quantization_config", None)
            self.assertEqual(before, after)
            self.assertEqual(stated["quant_method"], method)
            self.assertEqual(stated, stated | whole)
            kept = stated["modules_to_not_convert" if to == "fp8" else "llm_int8_skip_modules"]
            self.assertEqual(kept, ["lm_head"])

    def test_what_is_quantised_already(self):
        for source, to, words in (
            ("nf4-nested", "fp8", "is quantised already (bitsandbytes; its linears: 7 nf4)"),
            ("fbgemm", "nf4", "is quantised already (fbgemm_fp8; its linears: 4 BF16, 3 fp8)"),
        ):
            out = self.home / f"from-{source}"
            self.assertIn(words, run("quantize", GOLDEN / source, out, "--to", to, check=0).stderr)
            self.assertTrue((out / "model.safetensors").exists())
        for source, to in (("nf4-plain", "nf4"), ("modelopt", "fp8")):
            said = run("quantize", GOLDEN / source, self.home / "never", "--to", to, check=64).stderr
            self.assertIn(f"is in {to} already", said)
        self.assertFalse((self.home / "never").exists())

    def test_inspect_names_formats(self):
        out = self.home / "inspected"
        run("quantize", GOLDEN / "blocks", out, "--to", "nf4", check=0)
        said = run("inspect", out, check=0).stdout
        self.assertIn("quantisation, method: bitsandbytes\n", said)
        self.assertIn("quantisation, linears: nf4 7\n", said)
        self.assertRegex(said, r"quantisation, bytes: BF16 25728, nf4 \d+\n")
        self.assertRegex(said, r"\n  model\.layers\.0\.mlp\.up_proj\.weight +nf4 +\[320,192\] +[0-9a-f]{16}\n")
        for part in ("absmax", "quant_map", "quant_state", "U8"):
            self.assertNotIn(part, said)
        report = json.loads(run("inspect", out, "--json", check=0).stdout)
        self.assertEqual(report["quantisation"]["linears"], {"nf4": 7})
        tensors = {tensor["name"]: tensor for tensor in report["files"][0]["tensors"]}
        self.assertEqual(set(tensors), set(safetensors(out / "model.safetensors")))
        up = "model.layers.0.mlp.up_proj.weight"
        self.assertEqual(tensors[f"{up}.absmax"]["part_of"], up)
        self.assertEqual((tensors[up]["format"], tensors[up]["weight_shape"]), ("nf4", [320, 192]))
        plain = json.loads(run("inspect", self.model, "--json", check=0).stdout)
        self.assertNotIn("quantisation", plain)
        unknown = self.home / "unknown"
        shutil.copytree(self.model, unknown)
        config = json.loads((unknown / "config.json").read_text())
        (unknown / "config.json").write_text(json.dumps(dict(config, quantization_config={"quant_method": "awq"})))
        self.assertRegex(run("inspect", unknown, check=0).stdout, r"quantisation, not_read: .*awq")

    def test_what_is_refused(self):
        there = self.home / "there"
        there.mkdir()
        (there / "notes.txt").write_text("mine")
        new = self.home / "new"
        for arguments, status, words in (
            ([self.model, new], 64, "quantize needs --to fp8 or --to nf4"),
            ([self.model, new, "--to", "int4"], 64, "--to int4 is unknown; allowed are fp8 and nf4"),
            ([self.model, new, "--to", "fp8", "--max-shard-bytes", "0"], 64, "--max-shard-bytes 0 must be above 0"),
            ([self.home / "nowhere", new, "--to", "fp8"], 66, "no model directory"),
            ([self.model, there, "--to", "fp8"], 64, "already holds notes.txt"),
            ([self.model, self.model, "--to", "fp8"], 64, "already holds "),
            ([self.model, new, "--to", "nf4"], 64,
             "model.layers.0.self_attn.o_proj.weight has 96 columns, and NF4 needs whole blocks of 64"),
        ):  # fmt: skip
            self.assertIn(words, run("quantize", *arguments, check=status).stderr)
        self.assertEqual([p.name for p in there.iterdir()], ["notes.txt"])
        self.assertFalse([p for p in self.home.iterdir() if "new" in p.name])

    @unittest.skipUnless(can_mount(), "mounting a small disk needs root and a mount namespace")
    def test_it_needs_its_room(self):
        small = self.home / "small-disk"
        small.mkdir()
        ended = subprocess.run(
            ["unshare", "--mount", "bash", "-c",
             'mount -t tmpfs -o size=100k none "$0" && "$@"; echo $? $(ls -A "$0" | wc -l)', str(small),
             str(DROVER), "quantize", str(self.model), str(small / "m"), "--to", "fp8"],
            capture_output=True, text=True, env=ENVIRONMENT, timeout=within(60))  # fmt: skip
        self.assertEqual(ended.stdout.split(), ["74", "0"], ended.stderr)
        self.assertRegex(ended.stderr, r"needs \d+ bytes and its disk has \d+ free; nothing was written")


if __name__ == "__main__":
    unittest.main(verbosity=1)
