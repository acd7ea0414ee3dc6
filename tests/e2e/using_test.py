"""What comes out of a run, and the other verbs."""

import json
import math
import os
import subprocess
import unittest

from case import DROVER, ENVIRONMENT, ROOT, Case, run, safetensors, terminal, validations, widened, within


class Using(Case):
    def test_prompts_are_answered_while_training(self):
        prompts = self.home / "validation.jsonl"
        answers = {}
        for name, mesh in (
            ("one", []),
            ("tp", ["parallel.tp=2"]),
            ("dp", ["parallel.dp=2"]),
            ("pp", ["parallel.pp=2"]),
        ):
            self.train(
                f"prompts-{name}",
                f"eval.prompts={prompts}",
                "eval.every_steps=4",
                *mesh,
                ranks=2 if mesh else 0,
                check=0,
            )
            folder = self.home / "runs" / f"prompts-{name}"
            answers[name] = {step: (folder / f"answers-step-{step}.jsonl").read_text() for step in (0, 4, 8)}
            self.assertEqual(answers[name], answers["one"])
        self.assertNotEqual(answers["one"][0], answers["one"][8])
        out = self.home / "asked-after.jsonl"
        run(
            "generate",
            "--model",
            self.model,
            "--adapter",
            self.home / "runs" / "prompts-one" / "adapter",
            "--prompts",
            prompts,
            "--greedy",
            "--max-tokens",
            128,
            "--out",
            out,
            "train.dtype=fp32",
            check=0,
        )
        self.assertEqual(out.read_text(), answers["one"][8])

    def test_a_terminal_gets_one_line_that_is_rewritten(self):
        ours, theirs = terminal()
        process = subprocess.Popen(
            [str(DROVER), "train", str(self.recipe), f"output.dir={self.home}/runs/terminal"],
            stderr=theirs,
            env=ENVIRONMENT,
        )
        os.close(theirs)
        output = b""
        try:
            while part := os.read(ours, 65536):
                output += part
        except OSError:  # Linux's end of a terminal
            pass
        os.close(ours)
        self.assertEqual(process.wait(timeout=within(60)), 0)
        text = output.decode()
        self.assertEqual(text.count("\r\033[Kstep "), 8)
        for part in ("step 8/8", "loss ", "lr ", "tok/s", "GiB", "ETA "):
            self.assertIn(part, text[text.index("step 8/8") :].splitlines()[0])

    def test_a_profile_accounts_for_the_time(self):
        text = self.train("profiled", "log.profile=true", check=0).stderr
        lines = text[text.index("what rank 0's time was spent on") :].splitlines()[2:]
        table = {}
        for line in lines:
            if " % " not in line + " ":
                break
            name, rest = line[:24].strip(), line[24:].split()
            table[name] = (int(rest[0]), float(rest[1]))
        for op in ("linear", "linear_dx", "gemm", "low_rank_backward", "attention", "attention_backward", "adamw"):
            self.assertGreater(table[op][0], 0, op)
        products = sum(table[op][1] for op in ("linear", "linear_dx", "gemm", "low_rank_backward"))
        self.assertLessEqual(abs(table["matrix products"][1] - products), 0.03)
        self.assertEqual(table["adamw"][0], 8)
        self.assertGreaterEqual(table["outside the ops"][1], 0)

    def test_overrides_without_a_recipe(self):
        for verb in (
            ["generate", "--model", self.model, "--prompt", "x"],
            ["eval", "--model", self.model, "--data", self.home / "validation.jsonl"],
        ):
            result = run(*verb, "train.epochs=3", "trian.dtype=fp32", check=78)
            self.assertIn("train.epochs has no effect here", result.stderr)
            self.assertIn("trian.dtype is unknown", result.stderr)
            self.assertIn("bf16", run(*verb, "train.dtype=fp16", check=78).stderr)
        longest = run(
            "eval", "--model", self.model, "--data", self.home / "validation.jsonl", "data.max_length=2", check=65
        )
        self.assertIn("no token to train on", longest.stderr)

    def eval(self, *arguments, **keywords):
        return json.loads(
            run(
                "eval",
                "--json",
                "train.dtype=fp32",
                "--data",
                self.home / "validation.jsonl",
                *arguments,
                check=0,
                **keywords,
            ).stdout
        )

    def test_merged_equals_adapter(self):
        base = self.eval("--model", self.model)
        adapted = self.eval("--model", self.model, "--adapter", self.plain / "adapter")
        run("export", self.plain, "--merged", self.home / "merged", check=0)
        merged = self.eval("--model", self.home / "merged")
        self.assertGreater(abs(adapted["loss"] - base["loss"]), 0.01)
        self.assertLess(abs(adapted["loss"] - merged["loss"]), 2e-3)  # one rounding of the weights to bf16
        self.assertEqual(adapted["tokens"], merged["tokens"])

    def logprobs(self, model, *arguments):
        out = self.home / "logprobs.jsonl"
        run("eval", "--model", model, "--data", self.home / "validation.jsonl", "--per-token", out, *arguments, check=0)
        return [p for line in out.read_text().splitlines() for p in json.loads(line)["logprobs"]]

    def test_merged_equals_unmerged_token_by_token(self):
        wide, run_directory = self.home / "wide", self.home / "runs" / "wide"
        widened(self.model, wide)
        self.train("wide", f"model.path={wide}", check=0)
        run("export", run_directory, "--merged", self.home / "wide-merged", check=0)
        run("export", self.plain, "--merged", self.home / "half-merged", check=0)
        unmerged = self.logprobs(wide, "--adapter", run_directory / "adapter", "train.dtype=fp32")
        size = math.hypot(*unmerged)
        self.assertGreater(math.dist(self.logprobs(wide, "train.dtype=fp32"), unmerged), 0.01 * size)
        self.assertLess(math.dist(self.logprobs(self.home / "wide-merged", "train.dtype=fp32"), unmerged), 1e-5 * size)
        run("export", run_directory, "--merged", self.home / "wide-older", "--step", 6, check=0)
        self.assertGreater(
            math.dist(self.logprobs(self.home / "wide-older", "train.dtype=fp32"), unmerged), 1e-4 * size
        )  # another adapter is noticed
        # In bf16 the merged weights are rounded once more: at most twice the error of the unmerged model.
        exact = self.logprobs(self.model, "--adapter", self.plain / "adapter", "train.dtype=fp32")
        error = math.dist(self.logprobs(self.model, "--adapter", self.plain / "adapter", "train.dtype=bf16"), exact)
        self.assertGreater(error, 0)
        self.assertLess(math.dist(self.logprobs(self.home / "half-merged", "train.dtype=bf16"), exact), 2 * error)

    def test_export_adapter_equals_the_run_s(self):
        run("export", self.plain, "--adapter", self.home / "exported", check=0)
        self.assertEqual(safetensors(self.home / "exported" / "adapter_model.safetensors"), self.adapter("plain"))
        run("export", self.plain, "--adapter", self.home / "older", "--step", 6, check=0)
        self.assertNotEqual(safetensors(self.home / "older" / "adapter_model.safetensors"), self.adapter("plain"))

    def test_eval_counts_each_token_once_on_any_mesh(self):
        one = self.eval("--model", self.model)
        two = self.eval("--model", self.model, ranks=2)
        self.assertEqual(one["tokens"], two["tokens"])
        self.assertLess(abs(one["loss"] - two["loss"]), 1e-6)
        self.assertAlmostEqual(one["perplexity"], math.exp(one["loss"]), places=6)

    def test_eval_per_token(self):
        text = self.home / "texts.jsonl"
        text.write_text(
            "".join(json.dumps({"text": t}) + "\n" for t in ("The harbour opens.", "ab", "Lorries wait in line."))
        )
        out = self.home / "tokens.jsonl"
        result = json.loads(
            run(
                "eval", "--json", "train.dtype=fp32", "--model", self.model, "--data", text, "--per-token", out, check=0
            ).stdout
        )
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        self.assertEqual(len(rows), 3)
        every = [p for r in rows for p in r["logprobs"]]
        for r in rows:
            self.assertEqual(len(r["logprobs"]), len(r["ids"]) - 1)
        self.assertEqual(result["tokens"], len(every))
        self.assertAlmostEqual(result["loss"], -sum(every) / len(every), places=5)

    def test_eval_per_token_gives_a_line_for_every_row(self):
        dialogs = (self.home / "validation.jsonl").read_text()
        texts = "".join(json.dumps({"text": t}) + "\n" for t in ("x", "The harbour opens."))
        arguments = ["eval", "--json", "train.dtype=fp32", "--model", self.model, "--adapter", self.plain / "adapter"]
        for name, text, count in (("dialogs", dialogs, 7), ("texts", texts, 2)):
            rows, out = self.home / f"{name}.jsonl", self.home / f"{name}-tokens.jsonl"
            rows.write_text(text)
            with_file = json.loads(run(*arguments, "--data", rows, "--per-token", out, check=0).stdout)
            lines = [json.loads(line) for line in out.read_text().splitlines()]
            self.assertEqual(len(lines), count)
            for line in lines:
                self.assertEqual(len(line["logprobs"]), len(line["ids"]) - 1)
            without = json.loads(run(*arguments, "--data", rows, check=0).stdout)
            # log-probabilities of every token, and the loss of the trained ones
            self.assertEqual(with_file["tokens"], without["tokens"])
            self.assertLess(abs(with_file["loss"] - without["loss"]), 1e-6)
            again = self.home / f"{name}-tokens-3.jsonl"
            run(*arguments, "--data", rows, "--per-token", again, ranks=3, check=0)  # 3 does not divide the batch
            for one, three in zip(lines, (json.loads(line) for line in again.read_text().splitlines()), strict=True):
                self.assertEqual(one["ids"], three["ids"])
                pairs = zip(one["logprobs"], three["logprobs"], strict=True)
                self.assertTrue(all(abs(a - b) < 1e-4 for a, b in pairs))
        self.assertEqual(lines[0]["logprobs"], [])
        rows.write_text(texts + json.dumps({"text": "harbour " * 2000}) + "\n")
        self.assertIn("texts.jsonl:3", run(*arguments, "--data", rows, "--per-token", out, check=65).stderr)

    def test_eval_of_a_recipe(self):
        directory = self.home / "runs" / "shared"
        shared = [self.recipe, f"output.dir={directory}", "data.validation={share: 0.2}"]
        run("train", *shared, check=0)
        loss = json.loads(run("eval", *shared, "--json", check=0).stdout)["loss"]
        self.assertLess(abs(loss - validations(directory)[-1][1]), 1e-5)
        self.assertIn(
            "lora.alpha", run("eval", self.recipe, f"output.dir={self.plain}", "lora.alpha=64", check=78).stderr
        )
        for option in (["--data", self.home / "train.jsonl"], ["--adapter", self.plain / "adapter"]):
            self.assertIn("or --model DIR with --data", run("eval", self.recipe, *option, check=64).stderr)
        self.assertIn("--per-token", run("eval", *shared, "--per-token", self.home / "x", check=64).stderr)

    def test_prompts_may_have_parts(self):
        prompts = self.home / "parts.jsonl"
        content = [{"type": "text", "text": "Where is "}, {"type": "text", "text": "the lorry?"}]
        prompts.write_text(
            "\ufeff"
            + json.dumps({"messages": [{"role": "user", "content": content}]})
            + "\r\n"
            + json.dumps({"prompt": "Where is the lorry?"})
            + "\n"
        )
        arguments = ["generate", "--model", self.model, "--greedy", "--max-tokens", 4, "--prompts", prompts]
        one, two = run(*arguments, check=0).stdout.splitlines()
        self.assertEqual(one, two)
        out = self.home / "parts-answers.jsonl"
        run(*arguments, "--out", out, check=0)
        prompts.write_text(json.dumps({"prompt": "Another?"}) + "\n")
        self.assertIn("does not answer", run(*arguments, "--out", out, "--resume", check=65).stderr)

    def test_generate(self):
        one = json.loads(
            run(
                "generate",
                "--model",
                self.model,
                "--prompt",
                "Where?",
                "--greedy",
                "--max-tokens",
                6,
                "--json",
                check=0,
            ).stdout
        )
        self.assertEqual(set(one), {"prompt_ids", "ids", "text", "finish_reason"})
        two = json.loads(
            run(
                "generate",
                "--model",
                self.model,
                "--prompt",
                "Where?",
                "--greedy",
                "--max-tokens",
                6,
                "--json",
                ranks=2,
                check=0,
            ).stdout
        )
        self.assertEqual(one, two)
        for ranks, mesh in ((2, ["parallel.pp=2"]), (4, ["parallel.tp=2", "parallel.pp=2"])):
            divided = [
                "generate",
                "--model",
                self.model,
                "--prompt",
                "Where?",
                "--greedy",
                "--max-tokens",
                6,
                "--json",
                "train.dtype=fp32",
                *mesh,
            ]
            self.assertEqual(json.loads(run(*divided, ranks=ranks, check=0).stdout), one)
        a = run(
            "generate",
            "--model",
            self.model,
            "--prompt",
            "Where?",
            "--temperature",
            1,
            "--seed",
            1,
            "--max-tokens",
            12,
            check=0,
        ).stdout
        b = run(
            "generate",
            "--model",
            self.model,
            "--prompt",
            "Where?",
            "--temperature",
            1,
            "--seed",
            1,
            "--max-tokens",
            12,
            check=0,
        ).stdout
        c = run(
            "generate",
            "--model",
            self.model,
            "--prompt",
            "Where?",
            "--temperature",
            1,
            "--seed",
            2,
            "--max-tokens",
            12,
            check=0,
        ).stdout
        self.assertEqual(a, b)
        self.assertNotEqual(a, c)

    def test_generate_goes_on_with_a_file(self):
        out, prompts = self.home / "answers.jsonl", self.home / "validation.jsonl"
        arguments = [
            "generate",
            "--model",
            self.model,
            "--prompts",
            prompts,
            "--greedy",
            "--max-tokens",
            5,
            "--out",
            out,
        ]
        run(*arguments, check=0)
        whole = out.read_text()
        self.assertEqual(len(whole.splitlines()), 7)
        out.write_text("".join(whole.splitlines(True)[:3]) + '{"half')
        run(*arguments, "--resume", check=0)
        self.assertEqual(out.read_text().splitlines()[:3], whole.splitlines()[:3])
        self.assertEqual(len(out.read_text().splitlines()), 7)

    def test_rows_choose_their_adapter(self):
        fast = ["optim.learning_rate=0.05", "optim.schedule=constant", "optim.warmup_steps=0"]
        # Each learns an answer of its own, so that the three differ whatever a CPU's roundings are.
        for name, answer, more in (
            ("all", "zzzzzzzz", []),
            ("some", "77777777", ["lora.r=3", "lora.target_modules=[q_proj, down_proj]"]),
        ):
            rows = self.home / f"chosen-{name}.jsonl"
            dialog = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": answer}]
            rows.write_text((json.dumps({"messages": dialog}) + "\n") * 16)
            self.train(f"chosen-{name}", f"data.train={rows}", *more, *fast, check=0)
        folders = {name: self.home / "runs" / f"chosen-{name}" / "adapter" for name in ("all", "some")}
        questions = [f"What is {i}?" for i in range(12)]
        prompts = self.home / "chosen.jsonl"
        arguments = ["generate", "--model", self.model, "--prompts", prompts, "--greedy", "--max-tokens", 8]

        def answers(rows, *more, ranks=0):
            prompts.write_text("".join(json.dumps(r) + "\n" for r in rows))
            return run(*arguments, *more, ranks=ranks, check=0).stdout.splitlines()

        plain = [{"prompt": q} for q in questions]
        alone = {None: answers(plain)}
        for name, folder in folders.items():
            alone[name] = answers(plain, "--adapter", folder)
        self.assertEqual(len({tuple(a) for a in alone.values()}), 3)
        names = [[None, "all", "some"][i % 3] for i in range(len(questions))]
        mixed = [{"prompt": q, "adapter": n} if n else {"prompt": q} for q, n in zip(questions, names)]
        named = [part for name, folder in folders.items() for part in ("--adapter", f"{name}={folder}")]
        expected = [alone[n][i] for i, n in enumerate(names)]
        self.assertEqual(answers(mixed, *named), expected)
        self.assertEqual(answers(mixed, *named, "parallel.pp=2", ranks=2), expected)
        # What is asked for and not there is refused before the first answer.
        self.assertIn("there is no adapter some", run(*arguments, *named[:2], check=65).stderr)
        self.assertIn("no --adapter NAME=DIR", run(*arguments, "--adapter", folders["all"], check=65).stderr)
        run(*arguments, *named, "--adapter", folders["all"], check=64)
        run("generate", "--model", self.model, "--prompt", "x", *named, check=64)
        asked = self.train("chosen-none", f"eval.prompts={prompts}", check=65).stderr
        self.assertIn("chosen.jsonl:2: the row asks for the adapter all", asked)

    def test_one_prompt_that_fails_leaves_the_others(self):
        prompts, out = self.home / "some-bad.jsonl", self.home / "some-bad-answers.jsonl"
        rows = [
            {"prompt": "Where?"},
            {"prompt": "x " * 5000},
            {"no": "prompt"},
            {"prompt": "Who?"},
            {"prompt": "y " * 5000},
        ]
        prompts.write_text("".join(json.dumps(r) + "\n" for r in rows))
        arguments = [
            "generate",
            "--model",
            self.model,
            "--prompts",
            prompts,
            "--greedy",
            "--max-tokens",
            5,
            "--out",
            out,
        ]
        result = run(*arguments, check=65)
        self.assertIn("3 of 5 prompts could not be answered", result.stderr)
        answers = [json.loads(line) for line in out.read_text().splitlines()]
        self.assertEqual([list(a) for a in answers], [["messages"], ["error"], ["error"], ["messages"], ["error"]])
        self.assertEqual([a["error"]["row"] for a in answers if "error" in a], [2, 3, 5])
        self.assertRegex(answers[1]["error"]["message"], r"some-bad.jsonl:2: the prompt has \d+ tokens")
        self.assertIn('neither "prompt" nor "messages"', answers[2]["error"]["message"])
        whole = out.read_text()
        out.write_text("".join(whole.splitlines(True)[:3]))
        run(*arguments, "--resume", ranks=2, check=65)
        self.assertEqual(out.read_text(), whole)
        trained = self.train(
            "from-answers",
            f"data.train={out}",
            "data.validation=none",
            "optim.warmup_ratio=0",
            "train.epochs=none",
            "train.max_steps=1",
            check=0,
        )
        self.assertIn('3 training rows say {"error"', trained.stderr)
        run("generate", "--model", self.model, "--prompt", "x " * 5000, check=65)

    def test_sampling_options(self):
        arguments = ["generate", "--model", self.model, "--prompt", "Where?", "--max-tokens", 12, "--json"]
        ids = lambda *options, ranks=0: json.loads(run(*arguments, *options, ranks=ranks, check=0).stdout)["ids"]
        greedy = ids("--greedy")
        self.assertEqual(ids("--top-k", 1, "--seed", 3), greedy)
        self.assertEqual(ids("--min-p", 1, "--temperature", 3), greedy)
        self.assertNotEqual(ids("--top-k", 50, "--temperature", 3), greedy)
        penalized = ids("--greedy", "--repetition-penalty", 5)
        self.assertNotEqual(penalized, greedy)
        self.assertEqual(
            ids("--greedy", "--repetition-penalty", 5, "parallel.pp=2", "train.dtype=fp32", ranks=2), penalized
        )
        for refused in (
            ["--top-k", 0],
            ["--min-p", 1.5],
            ["--repetition-penalty", 0],
            ["--greedy", "--top-k", 3],
            ["--greedy", "--min-p", 0.1],
            ["--seed", 1],
        ):
            run(*arguments, *refused, check=64)

    def test_answers_end_before_a_stop_text(self):
        arguments = ["generate", "--model", self.model, "--prompt", "Where?", "--greedy", "--max-tokens", 12, "--json"]
        free = json.loads(run(*arguments, check=0).stdout)
        self.assertGreater(len(free["text"]), 6)
        stop = free["text"][3:6]
        stopped = json.loads(run(*arguments, "--stop", "never in it", "--stop", stop, check=0).stdout)
        self.assertEqual(stopped["text"], free["text"][: free["text"].index(stop)])
        self.assertEqual(stopped["finish_reason"], "stop")
        self.assertEqual(stopped["ids"], free["ids"][: len(stopped["ids"])])
        self.assertIn("--stop needs a text", run(*arguments, "--stop", "", check=64).stderr)

    def test_tokenize(self):
        plain = json.loads(run("tokenize", "--model", self.model, "--text", "a<|im_end|>", check=0).stdout)["ids"]
        special = json.loads(
            run("tokenize", "--model", self.model, "--text", "a<|im_end|>", "--special", check=0).stdout
        )["ids"]
        self.assertNotIn(2, plain)
        self.assertEqual(special, [plain[0], 2])

    def test_plan_prepare_inspect_doctor(self):
        plan = json.loads(
            run("plan", self.recipe, "--ranks", 4, "parallel.tp=2", "parallel.pp=2", "--json", check=0).stdout
        )
        self.assertEqual(len(plan["ranks"]), 4)
        mesh = [self.recipe, "--ranks", 8, "parallel.tp=2", "parallel.pp=2", "parallel.dp=2"]
        table = lambda *more: [
            line.split()[:2] for line in run("plan", *mesh, *more, check=0).stdout.splitlines() if "." in line[:24]
        ]
        rows = [row for row in table() if row[0] != "rank"]
        self.assertEqual(len(rows), 2, rows)  # of two stages; the ranks of one hold the same
        self.assertEqual(len([row for row in table("--all") if row[0].isdigit()]), 8)
        for rank in plan["ranks"]:
            parts = ("weights_bytes", "adapter_bytes", "optimizer_bytes", "saved_bytes", "scratch_bytes")
            self.assertEqual(rank["total_bytes"], sum(rank[p] for p in parts))
        model = ROOT / "tests" / "golden" / "quantised" / "nf4-nested"
        weights = {}
        for word in ("as_is", "nf4", "fp8", "bf16"):
            words = (f"model.path={model}", f"model.weights={word}", "--json")
            weights[word] = json.loads(run("plan", self.recipe, *words, check=0).stdout)["ranks"][0]["weights_bytes"]
        self.assertEqual(weights["as_is"], weights["nf4"])
        self.assertLess(weights["as_is"], weights["fp8"])
        self.assertLess(weights["fp8"], weights["bf16"])
        prepared = run("prepare", self.recipe, f"output.dir={self.home}/runs/prepared", check=0).stdout
        for part in ("[[", "⟨<|im_end|>⟩]]", "Lengths in tokens", "▇", "% full", "Answers: 40, 100.0 % of them end"):
            self.assertIn(part, prepared)
        for path in (self.model, self.plain / "adapter", self.plain / "step-8", self.plain / "data" / "train.h5"):
            self.assertIn("kind", json.loads(run("inspect", path, "--json", check=0).stdout))
        self.assertTrue(json.loads(run("doctor", "--json", check=0).stdout)["ready"])
        for part in ("drover ", "backends", "oneDNN", "MPI", "HDF5", "yaml-cpp", "zlib", "xgrammar"):
            self.assertIn(part, run("--version", check=0).stdout)


if __name__ == "__main__":
    unittest.main(verbosity=1)
