"""Merging: bases of every number type, weights that are nearly singular, adapters from elsewhere, a base that moved."""

import json
import shutil
import struct
import subprocess
import unittest

from case import DROVER, ENVIRONMENT, Case, can_mount, run, safetensors, within

SHORT = ["train.max_steps=3", "data.validation=none", "optim.warmup_steps=0"]


def rewritten(source, target, change):
    """A model directory whose tensors are what `change(name, dtype, values)` gives: a dtype and its bytes."""
    shutil.copytree(source, target)
    data = (source / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    out, body = {}, b""
    for name, tensor in header.items():
        begin, end = (8 + size + offset for offset in tensor["data_offsets"])
        values = struct.unpack(f"<{(end - begin) // 2}H", data[begin:end])
        floats = struct.unpack(f"<{len(values)}f", b"".join(struct.pack("<HH", 0, v) for v in values))
        dtype, packed = change(name, floats)
        out[name] = dict(tensor, dtype=dtype, data_offsets=[len(body), len(body) + len(packed)])
        body += packed
    text = json.dumps(out).encode()
    text += b" " * (-len(text) % 8)
    (target / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
    return target


def halves(name, floats):
    return "F16", struct.pack(f"<{len(floats)}e", *floats)


def bf16(floats):
    return "BF16", b"".join(struct.pack("<f", v)[2:] for v in floats)


def dtypes(directory):
    data = (directory / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    return {name: tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"}


class Merge(Case):
    def answer(self, *arguments):
        return json.loads(
            run("generate", *arguments, "--prompt", "x", "--max-tokens", "8", "--json", check=0).stdout
        )  # fmt: skip

    def merged_as_trained(self, name, base, *overrides):
        self.train(name, *SHORT, f"model.path={base}", *overrides, check=0)
        merged = self.home / f"{name}-merged"
        said = run("export", self.home / "runs" / name, "--merged", merged, check=0).stderr
        self.assertEqual(dtypes(merged), dtypes(base))
        adapter = self.home / "runs" / name / "adapter"
        both = self.answer("--model", base, "--adapter", adapter)
        self.assertEqual(both["ids"], self.answer("--model", merged)["ids"])
        return said

    def test_a_base_in_fp16_or_mixed_keeps_its_types(self):
        self.merged_as_trained("half", rewritten(self.model, self.home / "half", halves))
        mixed = lambda name, floats: (
            ("F32", struct.pack(f"<{len(floats)}f", *floats)) if "q_proj" in name or "norm" in name
            else halves(name, floats) if "mlp" in name else bf16(floats)
        )  # fmt: skip
        self.merged_as_trained("mixed", rewritten(self.model, self.home / "mixed", mixed))

    def test_weights_that_are_zero_are_no_corruption(self):
        empty = lambda name, floats: bf16([0.0] * len(floats) if "o_proj" in name or "down_proj" in name else floats)
        base = rewritten(self.model, self.home / "empty", empty)
        for r in (1, 2):
            self.merged_as_trained(f"empty-{r}", base, f"lora.r={r}", "optim.learning_rate=0.05")

    def test_what_fp16_cannot_hold_is_refused(self):
        base = rewritten(self.model, self.home / "narrow", halves)
        self.train("narrow", *SHORT, f"model.path={base}", check=0)
        adapter = self.home / "narrow-adapter"
        shutil.copytree(self.home / "runs" / "narrow" / "adapter", adapter)
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps(dict(config, lora_alpha=1e9)))
        said = run("export", "--model", base, "--from", adapter, "--merged", self.home / "never", check=65).stderr
        self.assertIn("more than the base's number type can hold", said)
        self.assertFalse((self.home / "never").exists())

    def test_an_adapter_from_elsewhere(self):
        adapter = self.plain / "adapter"
        run("export", self.plain, "--merged", self.home / "of-the-run", check=0)
        out = self.home / "from-elsewhere"
        said = run("export", "--model", self.model, "--from", adapter, "--merged", out, check=0).stderr
        self.assertRegex(said, r"28 linears, ‖ΔW‖ [0-9.]+")
        names = lambda directory: sorted(p.name for p in directory.iterdir())
        self.assertEqual(names(out), names(self.home / "of-the-run"))
        ours, theirs = (safetensors(p / "model.safetensors") for p in (out, self.home / "of-the-run"))
        self.assertEqual(ours, theirs)
        for arguments, words in (
            (["--from", adapter, "--merged", "x"], "--from needs --model DIR"),
            ([self.plain, "--from", adapter, "--merged", "x"], "or --model DIR --from ADAPTER"),
            (["--model", self.model, "--from", adapter, "--merged", "x", "--step", "1"], "--step is of a run"),
        ):
            self.assertIn(words, run("export", *arguments, check=64).stderr)

    def test_adapters_for_other_programs(self):
        patterns = ["lora.rank_pattern={down_proj: 6}", "lora.alpha_pattern={q_proj: 3}", "lora.use_rslora=true"]
        self.train("patterns", *SHORT, *patterns, check=0)
        run_ = self.home / "runs" / "patterns"
        out = self.home / "for-vllm"
        run("export", run_, "--adapter", out, "--target", "vllm", check=0)
        config = json.loads((out / "adapter_config.json").read_text())
        self.assertEqual((config["r"], config["rank_pattern"], config["use_rslora"]), (8, {}, False))
        both = [
            json.loads(run("eval", "--model", self.model, "--adapter", adapter, "--data",
                           self.home / "validation.jsonl", "train.dtype=fp32", "--json", check=0).stdout)
            for adapter in (run_ / "adapter", out)
        ]  # fmt: skip
        self.assertAlmostEqual(both[0]["loss"], both[1]["loss"], delta=1e-6)
        one = self.home / "adapter.gguf"
        run("export", run_, "--adapter", one, "--target", "llamacpp", check=0)
        self.assertEqual(one.read_bytes()[:4], b"GGUF")
        again = self.home / "again.gguf"
        run("export", "--model", self.model, "--from", run_ / "adapter", "--adapter", again, "--target", "llamacpp",
            check=0)  # fmt: skip
        self.assertEqual(one.read_bytes(), again.read_bytes())

    def imported(self, file):
        out = file.with_suffix("")
        run("import", file, out, check=0)
        return out

    def test_one_file_for_llamacpp(self):
        directory = self.home / "as-a-directory"
        run("export", self.plain, "--merged", directory, check=0)
        ours = safetensors(directory / "model.safetensors")
        target = ["--target", "llamacpp"]
        for outtype, dtype in (("bf16", "BF16"), ("f16", "F16"), ("q8_0", "BF16")):
            file = self.home / f"one-{outtype}.gguf"
            said = run("export", self.plain, "--merged", file, *target, "--outtype", outtype, check=0).stderr
            self.assertIn("read back and checked; llama.cpp and what is built on it load it", said)
            theirs = self.imported(file)
            self.assertEqual(set(dtypes(theirs).values()), {dtype, "BF16"})  # vectors are bf16, as they were
            self.assertEqual(ours == safetensors(theirs / "model.safetensors"), outtype == "bf16", outtype)
            text = "it's 12 ferries <|im_end|>"
            for special in ([], ["--special"]):
                ids = [run("tokenize", "--model", m, "--text", text, *special, check=0).stdout
                       for m in (directory, theirs)]  # fmt: skip
                self.assertEqual(*ids)
        bf16 = self.home / "one-bf16.gguf"
        self.assertEqual(self.answer("--model", directory), self.answer("--model", bf16.with_suffix("")))
        (self.home / "again").mkdir()
        again = self.home / "again" / bf16.name
        elsewhere = ["--model", self.model, "--from", self.plain / "adapter"]
        out = run("export", *elsewhere, "--merged", again, *target, "--json", check=0).stdout
        self.assertEqual(json.loads(out)["merged"], str(again))
        self.assertEqual(bf16.read_bytes(), again.read_bytes())

    def test_one_file_is_refused_where_it_cannot_be(self):
        target = ["--target", "llamacpp"]
        there = self.home / "there.gguf"
        there.write_text("something")
        self.assertIn(
            "there.gguf exists already", run("export", self.plain, "--merged", there, *target, check=64).stderr
        )
        self.assertEqual(there.read_text(), "something")
        new = self.home / "new.gguf"
        for arguments, words in (
            ([new], "is a directory; for one GGUF file add --target llamacpp"),
            ([new, "--target", "vllm"], "--merged DIR without --target is a Hugging Face model"),
            ([new, "--target", "peft"], "--target peft is of --adapter"),
            ([new, *target, "--outtype", "q4_0"], "allowed are bf16, f16 and q8_0"),
            ([self.home / "new", "--outtype", "f16"], "--outtype is of a merged model as one GGUF file"),
        ):
            self.assertIn(words, run("export", self.plain, "--merged", *arguments, check=64).stderr)
        said = run("export", self.plain, "--adapter", new, *target, "--outtype", "f16", check=64).stderr
        self.assertIn("--outtype is of a merged model", said)
        said = run("export", self.plain, "--merged", self.plain / "recipe.yaml" / "x.gguf", *target, check=74).stderr
        self.assertIn("recipe.yaml", said)
        self.assertFalse(new.exists())

    @unittest.skipUnless(can_mount(), "mounting a small disk needs root and a mount namespace")
    def test_one_file_needs_its_room(self):
        small = self.home / "small-disk"
        small.mkdir()
        ended = subprocess.run(
            ["unshare", "--mount", "bash", "-c",
             'mount -t tmpfs -o size=100k none "$0" && "$@"; echo $? $(ls -A "$0" | wc -l)', str(small),
             str(DROVER), "export", str(self.plain), "--merged", str(small / "m.gguf"), "--target", "llamacpp"],
            capture_output=True, text=True, env=ENVIRONMENT, timeout=within(60))  # fmt: skip
        self.assertEqual(ended.stdout.split(), ["74", "0"], ended.stderr)
        self.assertRegex(ended.stderr, r"needs \d+ bytes and its disk has \d+ free; nothing was written")

    def test_an_adapter_without_effect_is_refused(self):
        adapter = self.home / "zero"
        shutil.copytree(self.plain / "adapter", adapter)
        file = adapter / "adapter_model.safetensors"
        data = file.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        body = bytearray(data[8 + size :])
        for name, tensor in json.loads(data[8 : 8 + size]).items():
            if "lora_B" in name:
                begin, end = tensor["data_offsets"]
                body[begin:end] = bytes(end - begin)
        file.write_bytes(data[: 8 + size] + bytes(body))
        with_it = ["--model", self.model, "--adapter", adapter]
        for arguments in (
            ["generate", *with_it, "--prompt", "x"],
            ["eval", *with_it, "--data", self.home / "validation.jsonl"],
            ["export", "--model", self.model, "--from", adapter, "--merged", self.home / "nothing"],
        ):
            self.assertIn("this adapter has no effect", run(*arguments, check=65).stderr)

    def test_a_base_that_has_moved(self):
        base = self.home / "here"
        shutil.copytree(self.model, base)
        self.train("moved", *SHORT, f"model.path={base}", check=0)
        base.rename(self.home / "there")
        command = ["export", self.home / "runs" / "moved", "--merged", self.home / "moved-merged"]
        self.assertIn("say where it is now: --model DIR", run(*command, check=66).stderr)
        run(*command, "--model", self.home / "there", check=0)


if __name__ == "__main__":
    unittest.main(verbosity=1)
