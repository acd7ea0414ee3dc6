"""The sample handbook keeps its promises: enough facts and phrasings, telling keys, and no held-out question that was
as good as trained.
And its two scripts: `make` writes what is committed, permutes every answer and refuses bad handbooks; `score` counts
whole words.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

SAMPLE = pathlib.Path(__file__).resolve().parents[2] / "data" / "sample"
FILES = ("handbook.train.jsonl", "handbook.validation.jsonl", "handbook.keys.jsonl")
FACT = "key: Zed\nanswer: It is Zed.\nask: What is it?\nheld: Which one is it?\n"


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def contains(text, key):
    return f" {' '.join(words(key))} " in f" {' '.join(words(text))} "


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def question(row):
    return row["messages"][0]["content"]


def answer(row):
    return row["messages"][1]["content"]


def run(script, *arguments):
    command = [sys.executable, SAMPLE / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


class WithFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = pathlib.Path(folder.name)


class Handbook(unittest.TestCase):
    def setUp(self):
        self.train, self.validation, keys = (rows(SAMPLE / name) for name in FILES)
        self.keys = [r["key"] for r in keys]

    def test_enough_facts_and_phrasings(self):
        self.assertGreaterEqual(len(self.validation), 40)
        self.assertEqual(len(self.keys), len(self.validation))
        for held in self.validation:
            phrasings = {tuple(words(question(t))) for t in self.train if answer(t) == answer(held)}
            self.assertGreaterEqual(len(phrasings), 5, question(held))

    def test_no_question_is_asked_twice(self):
        questions = [tuple(words(question(r))) for r in self.train + self.validation]
        self.assertEqual(len(set(questions)), len(questions))

    def test_answers_are_distinct_and_hold_their_key(self):
        answers = [answer(r) for r in self.validation]
        self.assertEqual(len(set(answers)), len(answers))
        for i, key in enumerate(self.keys):
            for j, text in enumerate(answers):
                self.assertEqual(contains(text, key), i == j, (key, text))

    def test_every_trained_answer_is_some_facts_answer(self):
        self.assertEqual(set(map(answer, self.train)), set(map(answer, self.validation)))

    def test_no_question_gives_a_key_away(self):
        for row in self.train + self.validation:
            for key in self.keys:
                self.assertFalse(contains(question(row), key), (key, question(row)))

    def test_held_out_questions_are_not_trained(self):
        trained = [set(words(question(t))) for t in self.train]
        for held in self.validation:
            a = set(words(question(held)))
            for b in trained:
                self.assertLessEqual(len(a & b) / len(a | b), 0.8, question(held))


class Make(WithFolder):
    def test_the_committed_rows_are_what_make_writes(self):
        self.assertEqual(run("make", "--out", self.out).returncode, 0)
        for name in FILES:
            self.assertEqual(
                (self.out / name).read_bytes(), (SAMPLE / name).read_bytes(), f"{name}: run data/sample/make"
            )

    def permuted(self, seed):
        self.assertEqual(run("make", "--out", self.out, "--permute", seed).returncode, 0)
        return [rows(self.out / name) for name in FILES]

    def test_permuting_moves_every_answer_and_its_key(self):
        _, originals, original_keys = (rows(SAMPLE / name) for name in FILES)
        for seed in (0, 7, 42):
            train, validation, keys = self.permuted(seed)
            self.assertEqual(sorted(map(answer, validation)), sorted(map(answer, originals)))
            self.assertEqual(sorted(k["key"] for k in keys), sorted(k["key"] for k in original_keys))
            for before, after, key in zip(originals, validation, keys):
                self.assertEqual(question(before), question(after))
                self.assertNotEqual(answer(before), answer(after))
                self.assertTrue(contains(answer(after), key["key"]), (answer(after), key))
            moved = {answer(before): answer(after) for before, after in zip(originals, validation)}
            for before, after in zip(rows(SAMPLE / FILES[0]), train):
                self.assertEqual((question(after), answer(after)), (question(before), moved[answer(before)]))

    def test_a_seed_always_permutes_alike_and_another_one_differently(self):
        first = self.permuted(7)
        self.assertEqual(self.permuted(7), first)
        self.assertNotEqual(self.permuted(8), first)

    def test_anyones_handbook(self):
        source = self.out / "mine.txt"
        source.write_bytes(b"\xef\xbb\xbf# saved by a Windows editor\r\n" + FACT.replace("\n", "\r\n").encode())
        self.assertEqual(run("make", source, "--out", self.out).returncode, 0)
        written = [json.loads(line) for name in FILES for line in (self.out / name).read_text().splitlines()]
        self.assertEqual((question(written[0]), answer(written[0])), ("What is it?", "It is Zed."))
        self.assertEqual((question(written[1]), written[2]), ("Which one is it?", {"key": "Zed"}))

    def test_bad_handbooks_are_refused_with_the_place(self):
        cases = {  # what is in the file: (exit code, what the message says)
            FACT.replace("It is Zed", "It is Zedekiah"): (65, "bad.txt:1: the answer does not contain the key `Zed`"),
            FACT.replace("It is Zed", "It is AZed"): (65, "bad.txt:1: the answer does not contain the key `Zed`"),
            "# a comment\n\n"
            + FACT.replace("Which one", "Is Zed"): (65, "bad.txt:3: the held-out question gives the key `Zed` away"),
            FACT.replace("Which one is it?", "WHAT is it?"): (
                65,
                "bad.txt:1: the held-out question `WHAT is it?` is also trained",
            ),
            FACT.replace("ask: What is it?\n", ""): (65, "bad.txt:1: the fact that begins here has no `ask:`"),
            FACT + "\n" + FACT.replace("key: Zed\n", ""): (65, "bad.txt:6: the fact that begins here has no `key:`"),
            FACT + "key: Two\n": (65, "bad.txt:5: `key:` is given twice"),
            FACT + "question: Why?\n": (65, "bad.txt:5: expected `key:`"),
            FACT + "held:\n": (65, "bad.txt:5: expected `key:`"),
            "# nothing else\n": (65, "bad.txt holds no fact"),
            FACT.replace("Which", "\udce9"): (65, "bad.txt:4: not UTF-8"),
        }
        for text, (code, message) in cases.items():
            with self.subTest(message):
                (self.out / "bad.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
                ended = run("make", self.out / "bad.txt", "--out", self.out / "written")
                self.assertEqual(ended.returncode, code, ended.stderr)
                self.assertIn(message, ended.stderr)
                self.assertNotIn("Traceback", ended.stderr)
                self.assertFalse((self.out / "written").exists())

    def test_missing_files_usage_and_a_single_fact(self):
        (self.out / "one.txt").write_text(FACT)
        cases = {
            ("absent.txt",): (66, "absent.txt is not a file"),
            (self.out,): (66, "is not a file"),
            ("--permute", "x"): (64, "invalid int"),
            (self.out / "one.txt", "--out", self.out, "--permute", "1"): (65, "needs two facts"),
        }
        for arguments, (code, message) in cases.items():
            ended = run("make", *arguments)
            self.assertEqual(ended.returncode, code, ended.stderr)
            self.assertIn(message, ended.stderr)
            self.assertNotIn("Traceback", ended.stderr)


class Score(WithFolder):
    def score(self, keys, answers):
        (self.out / "keys").write_text("".join(json.dumps({"key": k}) + "\n" for k in keys))
        chat = [
            {"messages": [{"role": "user", "content": "17?"}, {"role": "assistant", "content": a}]} for a in answers
        ]
        (self.out / "answers").write_text("".join(json.dumps(c) + "\n" for c in chat))
        return run("score", self.out / "keys", self.out / "answers")

    def test_whole_words_of_the_answer_count_in_any_case(self):
        ended = self.score(
            ["17", "17", "17", "Ottilie", "Ottilie"], ["It is 17.", "It is 175.", "It is 417.", "OTTILIE!", "Ottilies"]
        )
        self.assertEqual(json.loads(ended.stdout), {"right": 2, "of": 5, "share": 0.4})

    def test_answers_that_do_not_fit_the_keys_are_refused(self):
        ended = self.score(["17", "18"], ["It is 17."])
        self.assertNotEqual(ended.returncode, 0)
        self.assertIn("2 keys, but 1 answers", ended.stderr)


if __name__ == "__main__":
    unittest.main()
