"""drover chat: a conversation in the terminal, with adapters."""

import json
import subprocess
import unittest

from case import DROVER, ENVIRONMENT, Case, run, within


class Chat(Case):
    def chat(self, *lines, options=(), check=0, last="\n"):
        command = [str(DROVER), "chat", "--model", str(self.model), "--max-tokens", "12", "train.dtype=fp32"]
        said = subprocess.run(
            [*command, *map(str, options)],
            input=("\n".join(lines) + last).encode(),
            capture_output=True,
            env=ENVIRONMENT,
            timeout=within(60),
        )
        self.assertEqual(said.returncode, check, said.stderr)
        return said.stdout.decode()

    def answer(self, messages, *options):
        prompts, out = self.home / "asked.jsonl", self.home / "answered.jsonl"
        prompts.write_text(json.dumps({"messages": messages}) + "\n")
        command = ["generate", "--model", self.model, "--prompts", prompts, "--out", out, "--greedy"]
        run(*command, "--max-tokens", 12, *options, "train.dtype=fp32", check=0)
        return json.loads(out.read_text())["messages"][-1]["content"]

    def test_answers_are_those_of_generate(self):
        asked = {"role": "user", "content": "harbour?"}
        first = self.answer([asked])
        self.assertEqual(self.chat("harbour?", options=["--greedy"]), first + "\n")
        self.assertEqual(self.chat("", "harbour?", last=""), first + "\n")  # greedy where nothing is said
        second = self.answer([asked, {"role": "assistant", "content": first}, {"role": "user", "content": "x"}])
        self.assertEqual(self.chat("harbour?", "x"), f"{first}\n{second}\n")
        self.assertEqual(self.chat("x", "/reset", "harbour?"), f"{self.answer([asked | {'content': 'x'}])}\n{first}\n")
        system = [{"role": "system", "content": "A port"}, asked]
        self.assertEqual(self.chat("/system A port", "harbour?"), self.answer(system) + "\n")
        self.assertEqual(self.chat("harbour?", options=["--system", "A port"]), self.answer(system) + "\n")

    def test_adapters(self):
        adapter = self.plain / "adapter"
        options = ["--adapter", f"port={adapter}", "--repetition-penalty", "1.5"]
        penalty = ["--repetition-penalty", "1.5"]
        asked = [{"role": "user", "content": "harbour?"}]
        base, adapted = self.answer(asked, *penalty), self.answer(asked, *penalty, "--adapter", adapter)
        self.assertNotEqual(base, adapted)
        said = self.chat(
            "harbour?",
            "/reset",
            "/base",
            "harbour?",
            "/reset",
            "/adapter port",
            "harbour?",
            "/adapter other",
            options=options,
        )
        expected = [adapted, "the base model answers", base, "port answers", adapted]
        self.assertEqual(said, "\n".join(expected) + "\nthere is no adapter other; those of --adapter are: port\n")

    def test_a_saved_conversation_is_a_row_of_training_data(self):
        file = self.home / "saved.jsonl"
        said = self.chat(
            "/save",
            f"/save {file}",
            "harbour?",
            f"/save {file}",
            "x",
            f"/save {file}",
            f"/save {self.home}/nowhere/x",
            "/exit",
            "never",
        )
        self.assertEqual(said.splitlines()[:2], ["/save needs a file", "there is nothing to save yet"])
        self.assertEqual(said.count(f"appended to {file}"), 2)
        first, second = (json.loads(line)["messages"] for line in file.read_text().splitlines())
        self.assertEqual([m["role"] for m in second], ["user", "assistant"] * 2)
        self.assertEqual(second[:2], first)
        self.assertIn(f"{self.home}/nowhere", said.splitlines()[-1])
        recipe = [f"data.train={file}", "train.max_steps=1", "train.global_batch_size=2", "optim.warmup_steps=0"]
        run("train", self.recipe, f"output.dir={self.home}/runs/saved", *recipe, check=0)

    def test_what_it_does_not_know(self):
        said = self.chat("/nonsense", "/help")
        self.assertEqual(said.splitlines()[0], "there is no /nonsense")
        self.assertEqual(said.count("/adapter NAME"), 2)
        self.assertIn("1024", self.chat("x" * 2000))  # too long for the model: said, and not the end
        for code, options in (
            (64, ["--adapter", "no-name"]),
            (66, ["--adapter", f"a={self.home}/nowhere"]),
            (78, ["train.epochs=2"]),
            (64, ["--temperature", "-1"]),
        ):
            self.chat("x", options=options, check=code)


if __name__ == "__main__":
    unittest.main(verbosity=1)
