#!/usr/bin/env python3
"""Tokenizers of other kinds behind the verbs, ids that a model lacks, and everything that ends an answer, one by one.
Usage: tokenizers_test.py DROVER [unittest arguments]"""

import json
import shutil
import unittest

from case import Case, run

MARK = "\u2581"


def marked_tokenizer():
    """Llama 2's kind for 259 ids: three control tokens and 256 bytes, of which the last four are words instead."""
    control = ["<unk>", "<s>", "</s>"]
    vocab = {token: i for i, token in enumerate(control + [f"<0x{byte:02X}>" for byte in range(252)])}
    vocab |= {MARK: 255, "a": 256, MARK + "a": 257, "b": 258}
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    tokens = {name: {"id": name, "ids": [i], "tokens": [name]} for i, name in enumerate(control)}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
    back = {"type": "Replace", "pattern": {"String": MARK}, "content": " "}
    first = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": name, "special": True} for i, name in enumerate(control)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, replace]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single + [{"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "special_tokens": tokens,
        },
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, first]},
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": [f"{MARK} a"],
        },
    }


class Tokenizers(Case):
    def model_with(self, name, **files):
        """A copy of the made-up model, with these JSON files instead of its own; None: without."""
        model = self.home / name
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(self.model, model)
        for file, content in files.items():
            (model / f"{file}.json").unlink(missing_ok=True)
            if content is not None:
                (model / f"{file}.json").write_text(json.dumps(content))
        return model

    def read(self, name):
        return json.loads((self.model / f"{name}.json").read_text())

    def answer(self, model, *options, prompt="a", check=0):
        asked = ["generate", "--model", model, "--prompt", prompt, "--greedy", "--max-tokens", 24, "--json"]
        result = run(*asked, *options, check=check)
        return json.loads(result.stdout) if check == 0 else result

    def test_llama_2_s_kind(self):
        settings = {"add_bos_token": False, "tokenizer_class": "LlamaTokenizer"}
        model = self.model_with("marked", tokenizer=marked_tokenizer(), tokenizer_config=settings)
        text = ["tokenize", "--model", model, "--text", "a b</s>"]
        plain = [257, 255, 258, *(byte + 3 for byte in b"</s>")]
        self.assertEqual(json.loads(run(*text, check=0).stdout)["ids"], plain)
        self.assertEqual(json.loads(run(*text, "--special", check=0).stdout)["ids"], [257, 255, 258, 2])

        asked = run(
            "generate", "--model", model, "--prompt", "a b", "--raw", "--greedy", "--max-tokens", 4, "--json", check=0
        )
        self.assertEqual(json.loads(asked.stdout)["prompt_ids"], [1, 257, 255, 258, 2])
        self.assertIn("prompts end in </s>", asked.stderr)
        self.assertIn("add_bos_token: false does not count", asked.stderr)
        self.assertIn("for tokenizer_class LlamaTokenizer transformers 5 writes other ids", asked.stderr)
        settings = {"add_bos_token": True, "add_eos_token": True, "tokenizer_class": "PreTrainedTokenizerFast"}
        (model / "tokenizer_config.json").write_text(json.dumps(settings))
        self.assertNotIn("warning", run(*text, check=0).stderr)

        rows, scores = self.home / "texts.jsonl", self.home / "scores.jsonl"
        rows.write_text(json.dumps({"text": "b a\n"}) + "\n")
        run("eval", "--model", model, "--data", rows, "--per-token", scores, check=0)
        self.assertEqual(json.loads(scores.read_text())["ids"], [1, 255, 258, 257, 13, 2])

        shown = run("prepare", self.recipe, f"model.path={model}", f"data.train={rows}", "data.validation=", check=0)
        self.assertIn("⟨<s>⟩[[ b a\n⟨</s>⟩]]", shown.stdout)

    def test_an_id_that_the_model_lacks(self):
        tokenizer = self.read("tokenizer")
        tokenizer["added_tokens"].append({"id": 300, "content": "Where", "special": False})
        model = self.model_with("larger", tokenizer=tokenizer)
        said = self.answer(model, prompt="Where?", check=65).stderr
        self.assertIn("gives the id 300, and the model has embeddings for 259 ids", said)
        other = ["generate", "--model", model, "--prompt", "Here?", "--greedy", "--max-tokens", 2]
        run(*other, check=0)  # where it cannot occur it is no harm
        rows = self.home / "where.jsonl"
        rows.write_text(json.dumps({"text": "Where is it?"}) + "\n")
        said = run("eval", "--model", model, "--data", rows, check=65).stderr
        self.assertIn("gives the id 300", said)

    def test_each_end_of_an_answer_by_itself(self):
        free = self.answer(self.model)
        ids = free["ids"]
        at = next(i for i in range(1, len(ids)) if ids[i] not in ids[:i] and ids[i] > 2)
        end = ids[at]

        def check_end(answer):
            self.assertEqual(answer["ids"], ids[:at])
            self.assertEqual(answer["finish_reason"], "stop")
            self.assertEqual(answer["prompt_ids"], free["prompt_ids"])

        config = self.read("config")
        check_end(
            self.answer(self.model_with("config", config=config | {"eos_token_id": [2, end]}, generation_config=None))
        )
        check_end(self.answer(self.model_with("generation", generation_config={"eos_token_id": [2, end]})))
        check_end(self.answer(self.model_with("one", generation_config={"eos_token_id": end})))

        # The template's end of turn: the same token, now a control token that the template writes behind an answer.
        tokenizer, settings = self.read("tokenizer"), self.read("tokenizer_config")
        name = next(token for token, id in tokenizer["model"]["vocab"].items() if id == end)
        tokenizer["added_tokens"].append({"id": end, "content": name, "special": True})
        prompt = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{{ m['content'] }}"
        turn = (
            "{% if m['role'] == 'assistant' %}{{ '"
            + name.replace("\\", "\\\\").replace("'", "\\'")
            + "' }}{% else %}{{ '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
        )
        ask = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
        model = self.model_with(
            "template", tokenizer=tokenizer, tokenizer_config=settings | {"chat_template": prompt + turn + ask}
        )
        check_end(self.answer(model))

        stopped = self.answer(self.model, "--stop", "never in it", "--stop", free["text"][1:4])
        self.assertEqual(stopped["text"], free["text"][: free["text"].index(free["text"][1:4])])
        self.assertEqual(stopped["finish_reason"], "stop")


if __name__ == "__main__":
    unittest.main()
