"""What an adapter and a merged model carry besides weights: tokenizer, chat template, stop tokens. And prompts that are
rendered already."""

import json
import shutil
import unittest

from case import Case, run

SHORT = ["train.max_steps=2", "data.validation=none", "optim.warmup_steps=0"]
LINES = """{%- for message in messages %}
[{{ message['role'] }}] {{ message['content'] }}<|endoftext|>
{%- endfor %}
{%- if add_generation_prompt %}
[assistant]{{ ' ' }}
{%- endif %}
"""


class Travel(Case):
    def without_template(self):
        base = self.home / "without-template"
        if not base.exists():
            shutil.copytree(self.model, base)
            config = json.loads((base / "tokenizer_config.json").read_text())
            del config["chat_template"]
            (base / "tokenizer_config.json").write_text(json.dumps(config))
        return base

    def ask(self, *arguments, **keywords):
        answer = run("generate", "--prompt", "ferry?", "--max-tokens", "3", "--json", *arguments, check=0, **keywords)
        return json.loads(answer.stdout), answer.stderr

    def test_a_named_template_travels(self):
        base = self.without_template()
        said = self.train("named", *SHORT, f"model.path={base}", "data.template=chatml", check=0).stderr
        self.assertIn("data.template", run("train", self.recipe, *SHORT, f"model.path={base}", check=78).stderr)
        adapter = self.home / "runs" / "named" / "adapter"
        self.assertNotIn("data.template", said)  # the printed command needs no word of it
        ours, said = self.ask("--model", base, "--adapter", adapter)
        with_template, _ = self.ask("--model", self.model, "--adapter", adapter)
        self.assertEqual(ours, with_template)
        self.assertIn(f"those of {adapter}", said)
        run("export", self.home / "runs" / "named", "--merged", self.home / "named-merged", check=0)
        merged, _ = self.ask("--model", self.home / "named-merged")
        self.assertEqual(merged["prompt_ids"], ours["prompt_ids"])
        again, _ = self.ask("--model", base, "--adapter", adapter, f"model.tokenizer={base}")
        self.assertNotEqual(again["prompt_ids"], ours["prompt_ids"])  # what is stated counts

    def test_a_template_of_a_file_travels_with_its_stop(self):
        (self.home / "lines.jinja").write_text(LINES)
        self.train("lines", *SHORT, f"data.template={self.home}/lines.jinja", check=0)
        adapter = self.home / "runs" / "lines" / "adapter"
        self.assertEqual((adapter / "chat_template.jinja").read_text(), LINES)
        self.assertIn(0, json.loads((adapter / "generation_config.json").read_text())["eos_token_id"])
        ours, _ = self.ask("--model", self.model, "--adapter", adapter)
        bytes_of = lambda ids: bytes(i - 3 for i in ids if i > 2).decode(errors="replace")
        printable = {i + 3 for i in range(256)} | {0}
        self.assertTrue(set(ours["prompt_ids"]) <= printable)
        self.assertIn(0, ours["prompt_ids"])
        named, _ = self.ask("--model", self.model, "--adapter", adapter, "data.template=chatml")
        self.assertIn(1, named["prompt_ids"], bytes_of(named["prompt_ids"]))
        evaluated = run(
            "eval", "--model", self.model, "--adapter", adapter, "--data", self.home / "validation.jsonl", check=0
        )
        own = run(
            "eval", "--model", self.model, "--adapter", adapter, "--data", self.home / "validation.jsonl",
            f"data.template={self.home}/lines.jinja", check=0,
        )  # fmt: skip
        self.assertEqual(evaluated.stdout, own.stdout)
        self.assertIn(f"those of {adapter}", evaluated.stderr)
        refused = run("train", self.recipe, "data.template=chatlm", check=78).stderr
        self.assertIn("allowed are auto, llama3.1, llama3, chatml, or a file or directory", refused)

    def test_rows_are_asked_in_their_adapters_words(self):
        (self.home / "lines.jinja").write_text(LINES)
        self.train("by-name", *SHORT, f"data.template={self.home}/lines.jinja", check=0)
        own = self.home / "runs" / "by-name" / "adapter"
        (self.home / "ask.jsonl").write_text('{"prompt": "ferry?", "adapter": "own"}\n{"prompt": "ferry?"}\n')
        run("generate", "--model", self.model, "--adapter", f"own={own}", "--prompts", self.home / "ask.jsonl",
            "--out", self.home / "asked.jsonl", "--max-tokens", "3", check=0)  # fmt: skip
        answers = [json.loads(line) for line in (self.home / "asked.jsonl").read_text().splitlines()]
        alone, _ = self.ask("--model", self.model, "--adapter", own)
        base, _ = self.ask("--model", self.model)
        self.assertEqual([a["messages"][-1]["content"] for a in answers], [alone["text"], base["text"]])

    def test_the_tokenizer_that_was_trained_with_travels(self):
        other = self.home / "other-tokenizer"
        shutil.copytree(self.model, other)
        (other / "model.safetensors").unlink()
        tokenizer = json.loads((other / "tokenizer.json").read_text())
        vocab = tokenizer["model"]["vocab"]
        vocab["a"], vocab["e"] = vocab["e"], vocab["a"]
        (other / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.train("other", *SHORT, f"model.tokenizer={other}", check=0)
        adapter = self.home / "runs" / "other" / "adapter"
        ours, _ = self.ask("--model", self.model, "--adapter", adapter)
        stated, _ = self.ask("--model", self.model, "--adapter", adapter, f"model.tokenizer={other}")
        base, _ = self.ask("--model", self.model)
        self.assertEqual(ours, stated)
        self.assertNotEqual(ours["prompt_ids"], base["prompt_ids"])
        run("export", self.home / "runs" / "other", "--merged", self.home / "other-merged", check=0)
        merged, _ = self.ask("--model", self.home / "other-merged")
        self.assertEqual(merged["prompt_ids"], ours["prompt_ids"])
        (self.home / "two.jsonl").write_text('{"prompt": "x"}\n')
        said = run("generate", "--model", self.model, "--adapter", f"one={adapter}", "--prompts",
                   self.home / "two.jsonl", check=65).stderr  # fmt: skip
        self.assertIn("has another tokenizer than the others", said)

    def test_an_adapter_without_a_template_is_asked_in_the_base_s(self):
        adapter = self.home / "no-template"
        shutil.copytree(self.plain / "adapter", adapter)
        (adapter / "chat_template.jinja").unlink()
        config = json.loads((adapter / "tokenizer_config.json").read_text())
        del config["chat_template"]
        (adapter / "tokenizer_config.json").write_text(json.dumps(config))
        with_it, _ = self.ask("--model", self.model, "--adapter", self.plain / "adapter")
        without, said = self.ask("--model", self.model, "--adapter", adapter)
        self.assertEqual(with_it, without)
        self.assertNotIn("no chat template", said)

    def test_a_prompt_that_is_rendered_already(self):
        rendered = "<|im_start|>user\nferry?<|im_end|>\n<|im_start|>assistant\n"
        chat, _ = self.ask("--model", self.model)
        one = lambda *more: run("generate", "--model", self.model, "--prompt", rendered, "--max-tokens", "3", "--json",
                                *more, check=0)  # fmt: skip
        special = one("--special")
        self.assertEqual(json.loads(special.stdout), chat)
        self.assertNotIn("spell control tokens", special.stderr)
        letters = one("--raw")
        self.assertNotEqual(json.loads(letters.stdout)["prompt_ids"], chat["prompt_ids"])
        self.assertIn("1 of the prompts spell control tokens", letters.stderr)
        self.assertIn("excludes", run("generate", "--model", self.model, "--prompt", "x", "--raw", "--special").stderr)

    def test_plain_text_is_said_and_joined_by_blank_lines(self):
        rows = self.home / "plain.jsonl"
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
        rows.write_text(json.dumps({"messages": messages}) + "\n" + json.dumps({"prompt": "Be brief.\n\nhi"}) + "\n")
        out = self.home / "plain-out.jsonl"
        said = run("generate", "--model", self.without_template(), "--prompts", rows, "--out", out, "--max-tokens", "2",
                   check=0).stderr  # fmt: skip
        self.assertIn("there is no chat template", said)
        first, second = [json.loads(line)["messages"][-1]["content"] for line in out.read_text().splitlines()]
        self.assertEqual(first, second)


if __name__ == "__main__":
    unittest.main(verbosity=1)
