"""Adapters of more than the blocks' linears: lm_head is trained; factors of the embedding and modules_to_save, as PEFT
saves them, are evaluated, used, merged and exported, and refused by name where they would be trained."""

import json
import shutil
import struct
import unittest

from case import Case, losses, run, safetensors

SHORT = ["train.max_steps=6", "data.validation=none", "optim.warmup_steps=0", "train.dtype=fp32"]
WITH_HEAD = ["lora.target_modules=[q_proj, lm_head]"]
V, D = "vocab_size", "hidden_size"


def write_tensors(path, tensors):
    """{name: (shape, fp32 bytes)} as a safetensors file."""
    header, body = {}, b""
    for name, (shape, data) in sorted(tensors.items()):
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def wide(data):
    """bf16 as fp32."""
    return b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))


def drawn(count, size):
    return struct.pack(f"<{count}f", *(size * ((i * 37) % 19 - 9) for i in range(count)))


class Head(Case):
    def size(self, name):
        return json.loads((self.model / "config.json").read_text())[name]

    def losses_of(self, name, *overrides, ranks=0):
        self.train(name, *SHORT, *overrides, ranks=ranks, check=0)
        return losses(self.home / "runs" / name)

    def evaluated(self, *arguments):
        said = run("eval", *arguments, "--data", self.home / "validation.jsonl", "--json", "train.dtype=fp32", check=0)
        return json.loads(said.stdout)["loss"]

    def answer(self, *arguments, ranks=0):
        said = run("generate", *arguments, "--prompt", "x", "--max-tokens", "8", "--json", ranks=ranks, check=0)
        return json.loads(said.stdout)["ids"]

    def text(self, *arguments):
        return json.loads(
            run("generate", *arguments, "--prompt", "x", "--max-tokens", "8", "--json", check=0).stdout
        )["text"]  # fmt: skip

    def test_lm_head_is_trained_on_every_mesh(self):
        one = self.losses_of("head", *WITH_HEAD)
        names = self.adapter("head")
        shape = {"lora_A": self.size(D), "lora_B": self.size(V)}
        for factor, elements in shape.items():
            data = names[f"base_model.model.lm_head.{factor}.weight"]
            self.assertEqual(len(data), 4 * 4 * elements)
            self.assertNotEqual(data.strip(b"\0"), b"")
        for mesh in (["parallel.tp=2"], ["parallel.pp=2"], ["parallel.dp=2"]):
            many = self.losses_of(f"head-{mesh[0][9:11]}", *WITH_HEAD, *mesh, ranks=2)
            for step, loss in one.items():
                self.assertLess(abs(many[step] - loss), 1e-5 * loss, (mesh, step))
        alone = self.losses_of("head-alone", "lora.target_modules=[lm_head]", "parallel.pp=2", ranks=2)
        self.assertEqual(sorted(self.adapter("head-alone")),
                         [f"base_model.model.lm_head.{factor}.weight" for factor in ("lora_A", "lora_B")])  # fmt: skip
        self.assertEqual(alone[1], one[1])
        self.assertNotEqual(alone[6], one[6])

    def test_lm_head_is_resumed_merged_and_used(self):
        self.losses_of("whole", *WITH_HEAD)
        half = [option.replace("max_steps=6", "max_steps=3") for option in SHORT]
        self.train("resumed", *half, *WITH_HEAD, "optim.schedule=constant", check=0)
        self.train("again", *SHORT, *WITH_HEAD, "optim.schedule=constant", check=0)
        self.train("resumed", *SHORT, *WITH_HEAD, "optim.schedule=constant", check=0)
        self.assertEqual(self.adapter("resumed"), self.adapter("again"))

        base, adapter = ["--model", self.model], ["--adapter", self.home / "runs" / "whole" / "adapter"]
        merged = self.home / "whole-merged"
        run("export", self.home / "runs" / "whole", "--merged", merged, check=0)
        self.assertIn("lm_head.weight", safetensors(merged / "model.safetensors"))
        trained = self.evaluated(*base, *adapter)
        self.assertAlmostEqual(self.evaluated("--model", merged), trained, delta=2e-3)
        self.assertGreater(abs(self.evaluated(*base) - trained), 0.02)
        self.assertEqual(self.answer("--model", merged), self.answer(*base, *adapter))
        file, imported = self.home / "whole.gguf", self.home / "whole-imported"
        run("export", self.home / "runs" / "whole", "--merged", file, "--target", "llamacpp", check=0)
        run("import", file, imported, check=0)
        weights = [safetensors(path / "model.safetensors") for path in (imported, merged)]
        self.assertEqual(weights[0]["lm_head.weight"], weights[1]["lm_head.weight"])
        self.assertEqual(self.answer(*base, *adapter, ranks=2), self.answer(*base, *adapter))

        # Several adapters at once: each row gets its own head.
        prompts = self.home / "prompts.jsonl"
        rows = [{"prompt": "x"}, {"prompt": "x", "adapter": "a"}, {"prompt": "x", "adapter": "b"}]
        prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
        out = self.home / "answers.jsonl"
        several = ["--adapter", f"a={adapter[1]}", "--adapter", f"b={self.plain / 'adapter'}"]
        run("generate", *base, *several, "--prompts", prompts, "--out", out, "--max-tokens", "8", check=0)
        texts = [json.loads(line)["messages"][-1]["content"] for line in out.read_text().splitlines()]
        plain = ["--adapter", self.plain / "adapter"]
        self.assertEqual(texts, [self.text(*base), self.text(*base, *adapter), self.text(*base, *plain)])

    def test_what_others_say_of_lm_head(self):
        said = self.train("said", *SHORT, *WITH_HEAD, check=0).stderr
        self.assertIn("vLLM, llama.cpp and TensorRT-LLM take no lm_head in an adapter", said)
        for target in ("vllm", "llamacpp"):
            command = ["export", self.home / "runs" / "said", "--adapter", self.home / target, "--target", target]
            self.assertIn("export --merged makes a whole model", run(*command, check=65).stderr)
            self.assertFalse((self.home / target).exists())

    def saved(self, name, head_size=0.01):
        """The plain run's adapter with factors of the embedding and a head of its own, as PEFT saves them."""
        adapter = self.home / name
        if adapter.exists():
            return adapter
        shutil.copytree(self.plain / "adapter", adapter)
        vocabulary, hidden = self.size(V), self.size(D)
        file = adapter / "adapter_model.safetensors"
        data = file.read_bytes()
        header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
        tensors = {n: (header[n]["shape"], values) for n, values in safetensors(file).items()}
        embedding = wide(safetensors(self.model / "model.safetensors")["model.embed_tokens.weight"])
        prefix = "base_model.model.model.embed_tokens."
        tensors[prefix + "lora_embedding_A"] = ([4, vocabulary], drawn(4 * vocabulary, 0.01))
        tensors[prefix + "lora_embedding_B"] = ([hidden, 4], drawn(hidden * 4, 0.01))
        tensors[prefix + "base_layer.weight"] = ([vocabulary, hidden], embedding)
        tensors["base_model.model.lm_head.weight"] = ([vocabulary, hidden], drawn(vocabulary * hidden, head_size))
        write_tensors(file, tensors)
        config = json.loads((adapter / "adapter_config.json").read_text())
        config["target_modules"] = config["target_modules"] + ["embed_tokens"]
        (adapter / "adapter_config.json").write_text(json.dumps(dict(config, modules_to_save=["lm_head"])))
        return adapter

    def test_the_embedding_and_saved_modules_are_used_and_merged(self):
        adapter, base = self.saved("saved"), ["--model", self.model]
        said = run("eval", *base, "--adapter", adapter, "--data", self.home / "validation.jsonl", check=0).stderr
        self.assertIn("in place of the base's: lm_head.weight, model.embed_tokens.weight", said)
        together = self.evaluated(*base, "--adapter", adapter)
        self.assertGreater(abs(together - self.evaluated(*base, "--adapter", self.plain / "adapter")), 0.1)
        merged, again = self.home / "saved-merged", self.home / "saved-again"
        run("export", *base, "--from", adapter, "--merged", merged, check=0)
        config = json.loads((merged / "config.json").read_text())
        self.assertEqual(config, dict(json.loads((self.model / "config.json").read_text()), tie_word_embeddings=False))
        self.assertAlmostEqual(self.evaluated("--model", merged), together, delta=2e-3)
        self.assertEqual(self.answer("--model", merged), self.answer(*base, "--adapter", adapter))
        self.assertEqual(self.answer(*base, "--adapter", adapter, ranks=2),
                         self.answer(*base, "--adapter", adapter))  # fmt: skip
        run("export", *base, "--from", adapter, "--adapter", again, check=0)
        ours, theirs = (safetensors(path / "adapter_model.safetensors") for path in (again, adapter))
        self.assertEqual(ours, theirs)
        self.assertEqual(self.evaluated(*base, "--adapter", again), together)

    def test_their_training_is_refused_by_name(self):
        self.assertIn("model.embed_tokens is not trained",
                      self.train("never", "lora.target_modules=[q_proj, embed_tokens]", check=78).stderr)  # fmt: skip
        said = self.train("never", f"lora.init_from={self.saved('saved')}", check=78).stderr
        self.assertIn("model.embed_tokens is not trained", said)
        self.assertIn("export --model DIR --from ADAPTER --merged OUT", said)
        several = ["--adapter", f"a={self.saved('saved')}", "--adapter", f"b={self.plain / 'adapter'}"]
        prompts = self.home / "one.jsonl"
        prompts.write_text(json.dumps({"prompt": "x", "adapter": "a"}) + "\n")
        said = run("generate", "--model", self.model, *several, "--prompts", prompts, check=65).stderr
        self.assertIn("cannot share the base", said)

    def test_training_goes_on_from_a_head_that_peft_saved(self):
        self.train("first", *SHORT, *WITH_HEAD, check=0)
        adapter = self.home / "as-peft"
        shutil.copytree(self.home / "runs" / "first" / "adapter", adapter)
        file = adapter / "adapter_model.safetensors"
        data = file.read_bytes()
        header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
        tensors = {n: (header[n]["shape"], values) for n, values in safetensors(file).items()}
        weights = safetensors(self.model / "model.safetensors")
        base = wide(weights.get("lm_head.weight", weights["model.embed_tokens.weight"]))
        name, shape = "base_model.model.lm_head.base_layer.weight", [self.size(V), self.size(D)]
        write_tensors(file, tensors | {name: (shape, base)})
        self.train("from-peft", *SHORT, f"lora.init_from={adapter}", check=0)
        self.train("from-ours", *SHORT, f"lora.init_from={self.home / 'runs' / 'first' / 'adapter'}", check=0)
        self.assertEqual(self.adapter("from-peft"), self.adapter("from-ours"))
        write_tensors(file, tensors | {name: (shape, base[4:] + base[:4])})
        said = self.train("from-others", *SHORT, f"lora.init_from={adapter}", check=65).stderr
        self.assertIn("lm_head.weight are others than the model's", said)


if __name__ == "__main__":
    unittest.main(verbosity=1)
