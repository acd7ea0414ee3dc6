"""The sample handbook keeps its promises: enough facts and phrasings, telling keys, and no held-out question that was as good as trained."""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

SAMPLE = pathlib.Path(__file__).resolve().parents[2] / "data" / "sample"


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def question(row):
    return row["messages"][0]["content"]


def answer(row):
    return row["messages"][1]["content"]


class Handbook(unittest.TestCase):
    def setUp(self):
        self.train = rows(SAMPLE / "handbook.train.jsonl")
        self.validation = rows(SAMPLE / "handbook.validation.jsonl")
        self.keys = [r["key"] for r in rows(SAMPLE / "handbook.keys.jsonl")]

    def test_enough_facts_and_phrasings(self):
        self.assertGreaterEqual(len(self.validation), 40)
        self.assertEqual(len(self.keys), len(self.validation))
        for held in self.validation:
            self.assertGreaterEqual(sum(answer(t) == answer(held) for t in self.train), 5)

    def test_answers_are_distinct_and_hold_their_key(self):
        answers = [answer(r) for r in self.validation]
        self.assertEqual(len(set(answers)), len(answers))
        for i, key in enumerate(self.keys):
            for j, text in enumerate(answers):
                self.assertEqual(key.lower() in words(text), i == j, (key, text))

    def test_no_question_gives_a_key_away(self):
        for row in self.train + self.validation:
            for key in self.keys:
                self.assertNotIn(key.lower(), words(question(row)))

    def test_held_out_questions_are_not_trained(self):
        trained = [set(words(question(t))) for t in self.train]
        for held in self.validation:
            a = set(words(question(held)))
            for b in trained:
                self.assertLessEqual(len(a & b) / len(a | b), 0.8, question(held))

    def test_the_rows_are_what_make_writes(self):
        with tempfile.TemporaryDirectory() as out:
            subprocess.run([sys.executable, SAMPLE / "make", "--out", out], check=True)
            for name in ("handbook.train.jsonl", "handbook.validation.jsonl", "handbook.keys.jsonl"):
                self.assertEqual((pathlib.Path(out) / name).read_bytes(), (SAMPLE / name).read_bytes())

    def test_permuting_moves_every_answer(self):
        with tempfile.TemporaryDirectory() as out:
            subprocess.run([sys.executable, SAMPLE / "make", "--out", out, "--permute", "7"], check=True)
            moved = rows(pathlib.Path(out) / "handbook.validation.jsonl")
        self.assertEqual(sorted(map(answer, moved)), sorted(map(answer, self.validation)))
        for before, after in zip(self.validation, moved):
            self.assertEqual(question(before), question(after))
            self.assertNotEqual(answer(before), answer(after))


if __name__ == "__main__":
    unittest.main()
