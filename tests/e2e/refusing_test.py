"""Bad input: one clear error and its exit code, on every rank."""

import json
import os
import pathlib
import shutil
import struct
import subprocess
import unittest

import case
from case import ROOT, Case, run, within


class Refusing(Case):
    def refused(self, code, *words, overrides=(), **keywords):
        result = self.train("refused", *overrides, check=code, **keywords)
        for word in words:
            self.assertIn(word, result.stderr)

    def test_recipes(self):
        bad = self.home / "bad.yaml"
        bad.write_text("model:\n  path: x\nlora:\n  rank: 4\n  alpha: many\ntrain:\n  deterministic: yes\nlora_r: 3\n")
        text = run("train", bad, check=78).stderr
        for word in (
            "bad.yaml:4:3",
            "lora.r",
            "bad.yaml:5:3",
            "bad.yaml:7:3",
            "true or false",
            "Axolotl",
            "data.train is missing",
            "output.dir is missing",
        ):
            self.assertIn(word, text)

    def test_worlds(self):
        self.refused(78, "number of ranks", overrides=["parallel.tp=2"])
        self.refused(78, "key/value heads", overrides=["parallel.tp=3"], ranks=3)
        self.refused(78, "layers", overrides=["parallel.pp=5"], ranks=5)
        self.refused(78, "multiple", overrides=["train.global_batch_size=9"])
        self.refused(78, "cuda", overrides=["device=cuda"])
        self.refused(78, "where MPI is the transport", overrides=["device=cpu", "parallel.transport=nccl"])

    def test_a_launcher_of_another_mpi(self):
        # Such a launcher's environment is all that its ranks have of it.
        ended = subprocess.run(
            [str(case.DROVER), "train", str(self.recipe)],
            capture_output=True,
            text=True,
            env=dict(case.ENVIRONMENT, PMI_SIZE="2"),
            timeout=within(60),
        )
        self.assertEqual(ended.returncode, 64)
        self.assertIn("2 ranks were started, but each sees itself alone", ended.stderr)

    def test_a_gpu_that_is_not_there(self):
        # The program away from its CUDA backend; next to a file that is none; and, where it was built, next to the
        # backend. A stand-in for the driver is what the build made for cuDNN's support check.
        program, backend = pathlib.Path(case.DROVER), pathlib.Path(case.DROVER).with_name("libdrover_cuda.so")
        driver = program.with_name("tests") / "stand_in_driver"
        alone = self.home / "alone"
        alone.mkdir()
        shutil.copy(program, alone / "drover")

        def refused(word, folder=""):
            done = subprocess.run(
                [alone / "drover", "train", self.recipe, "device=cuda"],
                capture_output=True,
                text=True,
                env=dict(os.environ, LD_LIBRARY_PATH=str(folder)),
            )
            self.assertEqual((done.returncode, done.stderr.count("\n")), (78, 1), done.stderr)
            self.assertIn(word, done.stderr)

        refused("built without CUDA")
        if not backend.exists():
            self.skipTest("this build has no CUDA backend")
        (alone / "libdrover_cuda.so").write_bytes(b"\x7fELF and nothing more")
        refused("cannot be loaded", driver)
        shutil.copy(backend, alone)
        refused("finds no GPU", driver)

    def test_models(self):
        self.refused(66, "no model directory", overrides=[f"model.path={self.home}/nothing"])
        self.refused(66, "hf download meta-llama/Llama-3.1-8B", overrides=["model.path=meta-llama/Llama-3.1-8B"])
        broken = self.home / "truncated"
        shutil.copytree(self.model, broken)
        data = (broken / "model.safetensors").read_bytes()
        (broken / "model.safetensors").write_bytes(data[: len(data) // 2])
        self.refused(65, "model.safetensors", overrides=[f"model.path={broken}"])
        shutil.copytree(self.model, self.home / "biased")
        config = json.loads((self.model / "config.json").read_text())
        (self.home / "biased" / "config.json").write_text(json.dumps(dict(config, attention_bias=True)))
        self.refused(65, "attention_bias", overrides=[f"model.path={self.home}/biased"], ranks=2)
        shutil.copytree(self.model, self.home / "wider")
        (self.home / "wider" / "config.json").write_text(json.dumps(dict(config, intermediate_size=192)))
        self.refused(65, "mlp", overrides=[f"model.path={self.home}/wider"])

    def test_data(self):
        self.refused(66, "absent.jsonl", overrides=["data.train=absent.jsonl"])
        rows = self.home / "rows.jsonl"
        rows.write_text(
            '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
            '{"messages": []}\n'
        )
        self.refused(65, "rows.jsonl:2", overrides=[f"data.train={rows}"], ranks=2)
        rows.write_text('{"messages": [{"role": "user", "content": "q"}]}\n')
        self.refused(65, "no token to train on", overrides=[f"data.train={rows}"])

    def test_adapters_with_nan(self):
        bad = self.home / "nan"
        shutil.copytree(self.plain / "adapter", bad)
        data = bytearray((bad / "adapter_model.safetensors").read_bytes())
        data[-4:] = struct.pack("<f", float("nan"))
        (bad / "adapter_model.safetensors").write_bytes(data)
        result = run("generate", "--model", self.model, "--adapter", bad, "--prompt", "x", check=65)
        self.assertIn("lora_", result.stderr)

    def test_places_that_cannot_be_written(self):
        self.assertIn("/dev/null/x", run("train", self.recipe, "output.dir=/dev/null/x", check=74).stderr)
        self.assertIn(
            "/dev/full",
            run(
                "generate",
                "--model",
                self.model,
                "--prompts",
                self.home / "validation.jsonl",
                "--max-tokens",
                2,
                "--out",
                "/dev/full",
                ranks=2,
                check=74,
            ).stderr,
        )

    def test_a_name_that_is_too_long(self):
        result = run("plan", self.recipe, f"model.path={self.home}/{'9' * 400}", check=74)
        self.assertIn("config.json: File name too long\n", result.stderr)
        self.assertNotIn("filesystem error", result.stderr)

    def test_what_nf4_cannot_be_cut_into(self):
        model = ROOT / "tests" / "golden" / "quantised" / "nf4-nested"
        for words in ((f"model.path={model}",), (f"model.path={model}", "model.weights=nf4")):
            result = run("plan", self.recipe, *words, "parallel.tp=2", "--ranks", 2, check=78)
            for word in ("model.weights", "parallel.tp", "320", "down_proj.weight", "160", "64", "fp8"):
                self.assertIn(word, result.stderr)

    def test_products_in_fp8_of_what_is_not_held_in_it(self):
        for words in ((), ("model.weights=bf16",)):
            result = run("plan", self.recipe, "train.matmul=fp8", *words, check=78)
            for word in ("train.matmul: fp8", "plain numbers", "model.weights: fp8"):
                self.assertIn(word, result.stderr)
        result = run("plan", self.recipe, "train.matmul=float8", check=78)
        self.assertIn("float8 is written fp8", result.stderr)

    def test_a_library_s_words_are_not_passed_on(self):
        model = self.home / "not-an-object"
        shutil.copytree(self.model, model)
        (model / "tokenizer_config.json").write_text('{"chat_template": ["text"]}')
        result = run("generate", "--model", model, "--prompt", "a", check=65)
        self.assertIn("string stands where an object or a list is expected", result.stderr)
        self.assertNotIn("exception", result.stderr)

    def test_a_damaged_checkpoint_that_was_asked_for(self):
        copy = self.home / "step-8"
        shutil.copytree(self.plain / "step-8", copy)
        data = bytearray((copy / "rank-00000.h5").read_bytes())
        data[len(data) // 2] ^= 1
        (copy / "rank-00000.h5").write_bytes(data)
        result = self.train("from-damaged", f"checkpoint.resume={copy}", check=82)
        self.assertIn("SHA-256", result.stderr)

    def test_usage(self):
        run("serve", check=64)
        run("generate", "--model", self.model, check=64)
        run("frobnicate", check=64)
        run("export", self.home, "--adapter", self.home / "x", check=66)
        self.assertIn(
            "checkpoints of step 6, 8",
            run("export", self.plain, "--adapter", self.home / "x", "--step", 99, check=66).stderr,
        )
        said = run("export", self.plain, "--target", "ollama", "--adapter", "x", check=64).stderr
        self.assertIn("allowed are peft, vllm and llamacpp", said)
        self.assertIn("there is no verb trian", run("trian", self.recipe, check=64).stderr)
        self.assertIn("one process", run("inspect", self.model, ranks=2, check=64).stderr)
        generate = ["generate", "--model", self.model]
        prompts = ["--prompts", self.home / "validation.jsonl"]
        for refused in (
            ["--prompt", "x", "--out", "y"],
            [*prompts, "--json"],
            ["--prompt", "x", "--greedy", "--temperature", 1],
            [*prompts, "--prompt", "x"],
            [*prompts, "--resume"],
            ["--prompt", "x", "--max-tokens", 0],
            ["--prompt", "x", "--temperature", 0],
        ):
            run(*generate, *refused, check=64)
        self.assertRegex(
            run(*generate, "--prompt", "x", "--max-tokens", 2**63 - 1, check=0).stderr,
            r"prompts: \d+ tokens in [\d.]+ s",
        )

    def test_tokenizers_of_another_model(self):
        wide = self.home / "more-ids"
        shutil.copytree(self.model, wide)
        tokenizer = json.loads((wide / "tokenizer.json").read_text())
        tokenizer["added_tokens"].append(
            dict(
                id=5000,
                content="harbour",
                single_word=False,
                lstrip=False,
                rstrip=False,
                normalized=False,
                special=False,
            )
        )
        (wide / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.refused(65, "the id 5000", overrides=[f"model.tokenizer={wide}"])
        self.assertIn(
            "the id 5000",
            run(
                "generate", "--model", self.model, f"model.tokenizer={wide}", "--prompt", "the harbour", check=65
            ).stderr,
        )
        self.assertIn(
            "the id 5000",
            run(
                "eval", "--model", self.model, f"model.tokenizer={wide}", "--data", self.home / "train.jsonl", check=65
            ).stderr,
        )

    def test_an_adapter_that_changes_nothing(self):
        for nothing in (["optim.learning_rate=0"], ["optim.warmup_steps=1", "train.epochs=none", "train.max_steps=1"]):
            self.assertIn("the learning rate is 0 in all", self.train("idle", *nothing, check=78).stderr)
        self.train(
            "warming", "optim.warmup_steps=1", "checkpoint.every_steps=1", "checkpoint.keep=9"
        )  # the first step has rate 0
        merged = self.home / "idle-merged"
        self.assertIn(
            "every B", run("export", self.home / "runs" / "warming", "--step", 1, "--merged", merged, check=65).stderr
        )
        self.assertEqual([p.name for p in self.home.iterdir() if "idle-merged" in p.name], [])

    def test_a_loss_that_is_not_finite(self):
        # A head whose logits overflow: the run stops at the first step, says where, and changes nothing.
        huge = self.home / "huge"
        shutil.copytree(self.model, huge)
        data = bytearray((huge / "model.safetensors").read_bytes())
        size = struct.unpack("<Q", data[:8])[0]
        begin, end = json.loads(data[8 : 8 + size])["lm_head.weight"]["data_offsets"]
        data[8 + size + begin : 8 + size + end] = struct.pack("<H", 0x7F7F) * ((end - begin) // 2)
        (huge / "model.safetensors").write_bytes(data)
        result = self.train("infinite", f"model.path={huge}", "data.validation=none", check=81)
        self.assertIn("step 1: the loss is", result.stderr)
        self.assertIn("step 0: the validation loss is", self.train("infinite", f"model.path={huge}", check=81).stderr)
        self.assertIn("the loss is", run("eval", "--model", huge, "--data", self.home / "train.jsonl", check=81).stderr)
        self.assertIn("logits are not finite", run("generate", "--model", huge, "--prompt", "x", check=81).stderr)
        self.assertFalse((self.home / "runs" / "infinite" / "adapter").exists())


if __name__ == "__main__":
    unittest.main(verbosity=1)
