"""Adapters of drover serve: chosen by name, loaded, replaced and taken away while it runs."""

import json
import os
import shutil
import unittest

from case import run
from serving import ServingCase, joined, text_of

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
VARIED = {"temperature": 0, "repetition_penalty": 1.5}  # greedy, and yet not one letter again and again
QUESTIONS = ["harbour?", "lorry customs?", "depot parcel ferry crane?"]


class Adapters(ServingCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.root = cls.home / "adapters"
        run("export", cls.plain, "--adapter", cls.root / "late", check=0)
        run("export", cls.plain, "--adapter", cls.root / "early", "--step", 6, check=0)
        other = ["output.dir=" + str(cls.home / "runs" / "other"), "lora.r=8", "optim.learning_rate=2.0e-2"]
        run("train", cls.recipe, *other, check=0)
        run("export", cls.home / "runs" / "other", "--adapter", cls.root / "other", check=0)
        shutil.copytree(cls.root / "late", cls.root / "zero")
        weights = cls.root / "zero" / "adapter_model.safetensors"
        data = weights.read_bytes()
        header = 8 + int.from_bytes(data[:8], "little")
        weights.write_bytes(data[:header] + bytes(len(data) - header))

    def answers(self, server, name):
        return [text_of(server.chat(q, model=name, max_tokens=30, **VARIED)) for q in QUESTIONS]

    def expected(self, name=None):
        adapter = ["--adapter", self.root / name] if name else []
        return self.generated(QUESTIONS, 30, "--repetition-penalty", 1.5, *adapter)

    def serve_changing(self, *arguments, **keywords):
        return self.serve("--allow-adapter-changes", "--adapter-root", self.root, *arguments, **keywords)

    def load(self, server, name, path, **more):
        return server.request("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path), **more})

    def assert_loaded(self, *arguments, **more):
        reply = self.load(*arguments, **more)
        self.assertEqual((reply.status, reply.text[:7]), (200, "Success"), reply.text)

    def test_answers_are_those_of_generate(self):
        named = ["--adapter", f"a={self.root}/late", "--adapter", f"b={self.root}/other"]
        with self.serve(*named, "--name", "base") as server:
            self.assertEqual([m["id"] for m in server.get("/v1/models").json["data"]], ["base", "a", "b"])
            texts = {name: self.answers(server, name) for name in ("base", "a", "b")}
            self.assertEqual(texts, {"base": self.expected(), "a": self.expected("late"), "b": self.expected("other")})
            self.assertEqual(len({str(t) for t in texts.values()}), 3)
            prints = {name: server.chat("x", model=name, max_tokens=1)["system_fingerprint"] for name in texts}
            self.assertEqual(len(set(prints.values())), 3)
            self.refused(server, 404, TEXT, {"model": "c", "prompt": "x"}, "model", "model_not_found")

    def test_a_template_of_its_own(self):
        own = self.root / "own"
        shutil.copytree(self.root / "late", own)
        (own / "chat_template.jinja").unlink()
        file = own / "tokenizer_config.json"
        settings = json.loads(file.read_text())
        template = settings.get("chat_template") or json.loads((self.model / file.name).read_text())["chat_template"]
        changed = template.replace("+ '<|im_end|>'", "+ ' ;<|im_end|>'")
        self.assertNotEqual(changed, template)
        file.write_text(json.dumps(settings | {"chat_template": changed}, indent=3))
        words = json.loads((own / "tokenizer.json").read_text())
        (own / "tokenizer.json").write_text(json.dumps(words, indent=1))
        dialog = [{"role": "user", "content": "ab"}]
        with self.serve_changing("--adapter", f"own={own}") as server:
            texts = {}
            for name in ("model", "own"):
                ids = server.ask("/tokenize", model=name, messages=dialog)["tokens"]
                texts[name] = server.ask("/detokenize", tokens=ids)["prompt"]
                asked = server.complete(ids, model=name, max_tokens=20, **VARIED)
                self.assertEqual(text_of(server.chat(dialog, model=name, max_tokens=20, **VARIED)), text_of(asked))
            self.assertIn("ab<|im_end|>", texts["model"])
            self.assertIn("ab ;<|im_end|>", texts["own"])
            vocabulary = words["model"]["vocab"]
            vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
            (own / "tokenizer.json").write_text(json.dumps(words))
            body = {"lora_name": "x", "lora_path": "own"}
            self.assertIn("another tokenizer", self.refused(server, 400, "/v1/load_lora_adapter", body, "lora_path"))
        shutil.rmtree(own)

    def test_loaded_and_taken_away_at_run_time(self):
        with self.serve_changing("--adapter", f"port={self.root}/early") as server:
            early, late = self.expected("early"), self.expected("late")
            self.assertNotEqual(early, late)
            self.assertEqual(self.answers(server, "port"), early)
            self.assert_loaded(server, "more", "late")
            self.assertEqual(self.answers(server, "more"), late)
            ids = {m["id"]: m["parent"] for m in server.get("/v1/models").json["data"]}
            self.assertEqual(ids, {"model": None, "port": "model", "more": "model"})
            self.refused(server, 400, "/v1/load_lora_adapter", {"lora_name": "more", "lora_path": "other"}, "lora_name")
            self.assertEqual(self.answers(server, "more"), late)
            # Another adapter under the same name: no key or value of the one before answers.
            self.assert_loaded(server, "more", "other", load_inplace=True)
            self.assertEqual(self.answers(server, "more"), self.expected("other"))
            self.assert_loaded(server, "more", "late", load_inplace=True)
            self.assertEqual(self.answers(server, "more"), late)
            self.assertEqual(server.request("POST", "/v1/unload_lora_adapter", {"lora_name": "more"}).status, 200)
            self.refused(
                server,
                404,
                CHAT,
                {"model": "more", "messages": [{"role": "user", "content": "x"}]},
                "model",
                "model_not_found",
            )
            reply = server.request("POST", "/v1/unload_lora_adapter", {"lora_name": "more"})
            self.assertEqual(reply.status, 404)
            for _ in range(5):  # slots are given back
                self.assert_loaded(server, "again", "other")
                self.assertEqual(server.request("POST", "/v1/unload_lora_adapter", {"lora_name": "again"}).status, 200)
            self.assertEqual(self.answers(server, "port"), early)
            self.assertEqual(self.answers(server, "model"), self.expected())

    def test_replaced_while_requests_run(self):
        model = self.with_positions(4096)
        ask = {"prompt": "crane", "model": "port", "max_tokens": 2500, "ignore_eos": True, "logprobs": 0, **VARIED}
        with self.serve_changing("--adapter", f"port={self.root}/late", "--kv-memory", "64MiB", model=model) as server:
            before = server.ask(TEXT, **ask)["choices"][0]
            running = server.stream(TEXT, **ask)
            chunks = iter(running)
            begun = [next(chunks) for _ in range(5)]
            info = server.get("/metrics").text
            self.assertIn('running_lora_adapters="port"', info)
            self.assert_loaded(server, "port", "other", load_inplace=True)
            after = server.ask(TEXT, **ask | {"max_tokens": 40})["choices"][0]
            self.assertEqual(server.metric("vllm:num_requests_running"), 1)
            self.assertEqual(joined([*begun, *chunks]), (before["text"], before["logprobs"], "length"))
            self.assertNotEqual(after["text"], before["text"][: len(after["text"])])
            self.assertEqual(server.ask(TEXT, **ask | {"max_tokens": 40})["choices"][0]["text"], after["text"])
            # The same of one that is taken away.
            chunks = iter(server.stream(TEXT, **ask))
            begun = [next(chunks) for _ in range(5)]
            self.assertEqual(server.request("POST", "/v1/unload_lora_adapter", {"lora_name": "port"}).status, 200)
            self.refused(server, 404, TEXT, ask, "model", "model_not_found")
            self.assert_loaded(server, "late", "late")
            text, _, reason = joined([*begun, *chunks])
            self.assertEqual((text[: len(after["text"])], reason), (after["text"], "length"))

    def test_only_below_the_root(self):
        outside = self.home / "outside"
        shutil.copytree(self.root / "late", outside)
        link, inner = self.root / "link", self.root / "inner"
        os.symlink(outside, link)
        os.symlink(self.root / "late", inner)
        with self.serve_changing() as server:
            said = set()
            for path in (
                "../outside",
                outside,
                "late/../../outside",
                link,
                "link",
                "/",
                ".",
                "",
                "nothing",
                "late\0",
                f"{self.root}-not",
                "late/adapter_config.json",
            ):
                body = {"lora_name": "x", "lora_path": str(path)}
                said.add(self.refused(server, 400, "/v1/load_lora_adapter", body, "lora_path"))
            self.assertFalse([s for s in said if str(self.home) in s])
            for name in ("", "a/b", "../x", "model", "a b", "x" * 65):
                body = {"lora_name": name, "lora_path": "late"}
                self.refused(server, 400, "/v1/load_lora_adapter", body, "lora_name")
            self.assertEqual(len(server.get("/v1/models").json["data"]), 1)
            self.assert_loaded(server, "inner", "inner")  # a link that stays below it
            self.assert_loaded(server, "absolute", self.root / "late")
        os.unlink(link)
        os.unlink(inner)

    def test_what_is_no_adapter_of_this_model(self):
        broken = self.root / "broken"
        shutil.copytree(self.root / "late", broken)
        config = json.loads((broken / "adapter_config.json").read_text())
        (broken / "adapter_config.json").write_text(json.dumps(config | {"r": 128}))
        with self.serve_changing("--max-adapter-rank", 4) as server:
            for path, words in (("zero", "no effect"), ("broken", "rank"), ("other", "rank")):
                message = self.refused(
                    server, 400, "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": path}, "lora_path"
                )
                self.assertRegex(message, words)
            (broken / "adapter_model.safetensors").write_bytes(b"\0" * 100)
            self.refused(server, 400, "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "broken"}, "lora_path")
            self.assertEqual(server.get("/health").status, 200)
            self.assertEqual(len(server.get("/v1/models").json["data"]), 1)
        shutil.rmtree(broken)


if __name__ == "__main__":
    unittest.main(verbosity=1)
