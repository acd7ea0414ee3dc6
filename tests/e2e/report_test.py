"""drover report and drover compare: the page, its text and its numbers, of runs of any length and in any state."""

import html.parser
import json
import os
import pathlib
import re
import shutil
import socket
import time
import unittest
import xml.etree.ElementTree

from case import Case, run
from made_up_run import add_plan, made_up_run

SECTIONS = "summary next loss optimizer speed memory timeline plan data samples change proof recipe".split()
EMPTY = {"meta", "br", "link", "img", "input"}


class Page(html.parser.HTMLParser):
    """A page's elements; every one that is opened has to be closed."""

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.wrong = text, [], []
        self.elements, self.values, self.ids, self.words = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append(tag)
        self.values += [(name, value) for name, value in attributes]
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def says(self, words):
        if words not in self.words:  # assertIn would print the page
            raise AssertionError(f"the page does not say “{words}”")

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words += data


class Report(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.prompts = cls.home / "prompts.jsonl"
        cls.prompts.write_text('{"prompt": "<b>Which</b> depot & ferry?"}\n{"prompt": "harbour?"}\n')
        cls.full = cls.home / "runs" / "full"
        options = [f"eval.prompts={cls.prompts}", "eval.every_steps=2", "optim.learning_rate=1.0e-2"]
        options += ["parallel.pp=2", "train.micro_batch_size=1", "log.trace=1..6"]
        run("train", cls.recipe, f"output.dir={cls.full}", *options, ranks=2, check=0)
        add_plan(cls.full, 2)

    def page(self, *runs, limit=2e6):
        """A page that is whole, closed and loads nothing."""
        out = self.home / "page.html"
        self.assertEqual(run("report", *runs, "--out", out, check=0).stdout, f"{out}\n")
        text = out.read_text()
        self.assertLess(len(text), limit)
        page = Page(text)
        self.assertEqual((page.wrong, page.open), ([], []))
        self.assertEqual([i for i in page.ids if i in SECTIONS], SECTIONS)
        self.assertFalse(set(page.elements) & {"script", "link", "img", "iframe", "object", "embed", "use", "image"})
        for name, value in page.values:
            self.assertNotIn(name, ("src", "srcset", "onload", "onclick"))
            if name == "href":
                self.assertRegex(value, r"^(#[a-z]+|data:text/csv;)")
        self.assertNotRegex(text, r"https?://|@import|url\(")
        for svg in re.findall(r"<figure>.*?(<svg .*?</svg>)", text, re.S):
            xml.etree.ElementTree.fromstring(svg)
        for figure in re.findall(r"<figure>.*?</figure>", text, re.S):
            self.assertRegex(figure, r'role="img"><title>[^<]+</title><desc>[^<]+</desc>')
            self.assertIn("<details>", figure)
            self.assertIn("data:text/csv", figure)
        return page

    def test_a_run_with_everything(self):
        page = self.page(self.full)
        self.assertEqual(page.elements.count("figure"), 9)
        for words in ("validation", "rank 1, planned", "rank 1, reached", "documents", "read back", "q_proj"):
            page.says(words)
        page.says("command line")
        page.says("Times are planned from a table, not calibrated.")
        page.says("<b>Which</b> depot & ferry?")
        page.says("done after step 8")
        self.assertFalse("left out" in page.words)

    def test_memory_of_every_rank(self):
        kept = json.loads((self.full / "reached.json").read_text())["ranks"]
        ranks = json.loads(run("report", self.full, "--json", check=0).stdout)["runs"][0]["memory"]
        self.assertEqual([r["rank"] for r in ranks], [0, 1])
        for rank, reached in zip(ranks, kept):
            self.assertEqual(rank["reached_bytes"], reached["total_bytes"])
            self.assertEqual(rank["reached_process_bytes"], reached["process_bytes"])
            self.assertGreater(reached["process_bytes"], reached["total_bytes"])
        self.assertRegex(run("report", self.full, "--ascii", check=0).stdout, r"rank 1 +planned 3.12 GiB, reached ")
        stopped = made_up_run(self.home / "stopped", 30)
        add_plan(stopped, 2)
        page = self.page(stopped)
        page.says("most reached: 3.00 GiB")
        page.says("reached.json is not there")

    def test_by_default_the_page_lies_in_the_run(self):
        self.assertEqual(run("report", self.full, check=0).stdout, f"{self.full}/report.html\n")
        self.assertGreater((self.full / "report.html").stat().st_size, 10_000)

    def test_what_is_absent_is_said(self):
        page = self.page(made_up_run(self.home / "bare", 30))
        for why in (
            "plan.json is not there",
            "no step was traced",
            "train.h5 is not there",
            "no adapter",
            "eval.prompts",
        ):
            page.says(why)

    def test_without_a_recipe_nothing_is_said_of_it(self):
        directory = self.home / "no-recipe"
        shutil.copytree(self.full, directory)
        (directory / "recipe.yaml").unlink()
        page = self.page(directory)
        page.says("There is no recipe.yaml")
        page.says("data.max_length is not known")
        for words in (", packed", "a document each", "Give data.validation", "Every key has its default"):
            self.assertFalse(words in page.words, words)
        self.assertIsNone(json.loads(run("report", directory, "--json", check=0).stdout)["runs"][0]["data"]["cut"])

    def test_runs_of_any_length(self):
        for steps in (1, 100, 100_000):
            directory = made_up_run(self.home / f"of-{steps}", steps)
            begin = time.monotonic()
            page = self.page(directory)
            self.assertLess(time.monotonic() - begin, 20)
            page.says("Training loss and validation loss")
        page.says("no cause is on record")
        page.says("Stalls: 20;")

    def test_advice_follows_the_run(self):
        advice = json.loads(run("report", self.home / self.overfitting(), "--json", check=0).stdout)["runs"][0][
            "advice"
        ]
        holding = [a for a in advice if a["suggestion"]]
        self.assertIn("Overfit", holding[0]["rule"])
        self.assertIn("step 60", holding[0]["suggestion"])

    def overfitting(self):
        made_up_run(self.home / "overfitting", 100)
        return "overfitting"

    def test_two_runs(self):
        self.train("other", "optim.learning_rate=2.0e-3", "lora.r=2", check=0)
        page = self.page(self.full, self.home / "runs" / "other")
        page.says("Keys whose values differ")
        for words in ("full: validation", "other: validation", "lora.r", "optim.learning_rate"):
            page.says(words)

    def test_runs_of_one_name_have_more_of_their_paths(self):
        a, b = (made_up_run(self.home / place / "run", 20) for place in ("here", "there"))
        c = made_up_run(self.home / "other-name", 20)
        numbers = json.loads(run("report", a, b, c, "--json", check=0).stdout)["runs"]
        self.assertEqual([one["name"] for one in numbers], ["here/run", "there/run", "other-name"])
        self.assertIn("here/run", run("compare", a, b, check=0).stdout)
        (self.home / "link").symlink_to(a)
        for again in (a, f"{a}/", self.home / "link"):
            self.assertIn("one directory", run("report", a, b, again, check=64).stderr)
        self.assertIn("one directory", run("compare", a, a, check=64).stderr)

    def test_a_broken_trace_hides_no_other(self):
        directory = made_up_run(self.home / "traced", 20)
        shutil.copytree(self.full / "trace", directory / "trace")
        (directory / "trace" / "step-5.json").write_text("{")
        traces = json.loads(run("report", directory, "--json", check=0).stdout)["runs"][0]["traces"]
        self.assertEqual([trace["step"] for trace in traces], [3, 4, 6])
        page = self.page(directory)
        page.says("Step 6 took")
        page.says("the last 3 of 6")
        page.says("step-5.json is no trace")

    def test_fills_next_to_each_other_differ_in_grey(self):
        css = (pathlib.Path(__file__).parents[2] / "trainer" / "report" / "page.css").read_text()
        light, dark = (dict(re.findall(r"--(f\d): #(\w{6})", part)) for part in css.split("@media", 2)[:2])

        def luminance(colour):
            parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
            linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
            return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

        for fills in (light, dark):
            self.assertEqual(len(fills), 6)
            for a, b in zip(range(5), range(1, 6)):
                low, high = sorted(luminance(fills[f"f{i}"]) for i in (a, b))
                self.assertGreaterEqual((high + 0.05) / (low + 0.05), 2, (a, b))

    def test_a_resumed_run_has_each_step_once(self):
        self.train("resumed", "train.max_steps=4", "optim.schedule=constant", check=0)
        with open(self.home / "runs" / "resumed" / "metrics.jsonl", "a") as out:
            out.write('{"step": 5, "lo')
        self.page(self.home / "runs" / "resumed").says("1 line of metrics.jsonl could not be read and is left out")
        self.train("resumed", "optim.schedule=constant", check=0)
        numbers = json.loads(run("report", self.home / "runs" / "resumed", "--json", check=0).stdout)["runs"][0]
        self.assertEqual([b["step"] for b in numbers["series"]["loss"]], list(range(1, 9)))
        self.assertEqual((numbers["state"], numbers["steps"]), ("done", 8))

    def test_a_run_that_failed(self):
        directory = made_up_run(self.home / "failed", 40)
        with open(directory / "metrics.jsonl", "a") as out:
            out.write('{"step": 41, "loss": null, "grad_norm": null}\n')
        page = self.page(directory)
        page.says("ended early after step 41")
        page.says("A step has no finite loss.")

    def test_a_run_at_work(self):
        directory = made_up_run(self.home / "at-work", 40)
        host = socket.gethostname()
        (directory / "lock").write_text(json.dumps({"host": host, "pid": os.getpid()}))
        self.page(directory).says("running after step 40")
        (directory / "lock").write_text(json.dumps({"host": host, "pid": 2**22 + 1}))
        self.page(directory).says("ended early after step 40")

    def test_the_numbers(self):
        numbers = json.loads(run("report", self.full, "--json", check=0).stdout)["runs"][0]
        rows = [json.loads(line) for line in (self.full / "metrics.jsonl").read_text().splitlines()]
        self.assertEqual([b["mean"] for b in numbers["series"]["loss"]], [r["loss"] for r in rows if "loss" in r])
        self.assertEqual(len(numbers["linears"]), 28)
        for linear in numbers["linears"]:
            self.assertTrue(0 < linear["relative"] < 1)
            self.assertAlmostEqual(linear["relative"], linear["change"] / linear["base"])
        self.assertEqual(numbers["data"]["documents"], 40)
        self.assertEqual(numbers["proof"]["reloaded"]["distance"], 0)
        self.assertEqual([trace["step"] for trace in numbers["traces"]], [3, 4, 5, 6])
        for trace in numbers["traces"]:
            self.assertEqual([rank["rank"] for rank in trace["ranks"]], [0, 1])
            self.assertTrue(0 < trace["idle"] < 1)
        self.assertEqual(numbers["plan"]["step_seconds"], 0.9)

    def test_norms_of_the_base(self):
        never = json.loads(run("report", self.full, "--json", "--base-norms", "never", check=0).stdout)["runs"][0]
        self.assertIsNone(never["linears"][0]["base"])
        self.assertGreater(never["change"], 0)

    def test_in_a_terminal(self):
        text = run("report", self.full, "--ascii", check=0).stdout
        self.assertLess(len(text.splitlines()), 80)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        for words in ("full: done after step 8", "loss", "▁", "█", "q_proj", "what to try next", "<b>Which</b>"):
            self.assertIn(words, text)

    def test_compare(self):
        a, b = made_up_run(self.home / "lower", 60), made_up_run(self.home / "higher", 80, rate=6e-4)
        text = run("compare", a, b, check=0).stdout
        self.assertLess(len(text.splitlines()), 40)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        self.assertRegex(text, r"steps +60 +80 +1.33 ×")
        self.assertRegex(text, r"optim.learning_rate +0.0002 +0.0006")
        self.assertIn("validation loss", text)
        numbers = json.loads(run("compare", a, b, "--json", check=0).stdout)
        self.assertEqual((numbers["first"]["steps"], numbers["second"]["steps"]), (60, 80))
        self.assertEqual([d["key"] for d in numbers["recipe"]], ["train.max_steps", "optim.learning_rate"])

    def test_recipes_of_which_one_is_not_there_are_not_compared(self):
        a, b = made_up_run(self.home / "with-recipe", 30), made_up_run(self.home / "without-recipe", 30)
        (b / "recipe.yaml").unlink()
        why = "the second run has no recipe.yaml"
        self.assertIn(f"the recipes are not compared: {why}\n", run("compare", a, b, check=0).stdout)
        numbers = json.loads(run("compare", a, b, "--json", check=0).stdout)
        self.assertEqual((numbers["recipe"], numbers["recipe_lacking"]), (None, why))
        self.assertIn("first run", json.loads(run("compare", b, a, "--json", check=0).stdout)["recipe_lacking"])

    def test_what_is_no_run(self):
        empty = self.home / "empty"
        empty.mkdir(exist_ok=True)
        fresh = self.home / "fresh"
        fresh.mkdir(exist_ok=True)
        (fresh / "recipe.yaml").write_text("device: cpu\n")
        for path, code, words in (
            (self.home / "absent", 66, "does not exist"),
            (empty, 65, "is no run"),
            (self.recipe, 65, "is no run"),
            (self.model, 65, "is no run"),
            (fresh, 66, "has no metrics"),
        ):
            for command in (["report", path], ["compare", self.full, path]):
                ended = run(*command, check=code)
                self.assertEqual(ended.stdout, "")
                self.assertEqual(len(ended.stderr.splitlines()), 1, ended.stderr)
                self.assertIn(words, ended.stderr)
        (fresh / "metrics.jsonl").write_text("")
        self.assertIn("has no metrics", run("report", fresh, check=66).stderr)

    def test_usage(self):
        run("report", check=64)
        run("compare", self.full, check=64)
        self.assertIn("at most 8 runs", run("report", *[self.full] * 9, check=64).stderr)
        run("report", self.full, "--ascii", "--json", check=64)
        run("report", self.full, "--base-norms", "sometimes", check=64)
        run("report", self.full, "--out", self.home / "nowhere" / "page.html", check=74)

    def test_a_page_replaces_nothing_but_a_page(self):
        for name, words in ((self.recipe, "is no page"), (self.home, "is a directory"), ("-", "names a file")):
            self.assertIn(words, run("report", self.full, "--out", name, check=64).stderr)
        self.assertIn("model:", self.recipe.read_text())
        self.assertFalse(pathlib.Path("-").exists())
        out = self.home / "twice.html"
        out.write_text("")
        for _ in range(2):
            run("report", self.full, "--out", out, check=0)
        self.assertTrue(out.read_text().startswith("<!DOCTYPE html>"))


if __name__ == "__main__":
    unittest.main()
