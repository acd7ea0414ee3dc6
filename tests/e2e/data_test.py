"""Data as people bring it, through the program: what it is taken for, what is said of it, and what a resumed run must
share."""

import gzip
import json
import shutil
import struct
import unittest

from case import Case, losses, run


def rows_of(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


class Data(Case):
    def alpaca(self, count=24):
        return [{"instruction": f"Say {i}.", "input": "", "output": f"harbour {i}"} for i in range(count)]

    def test_shards_of_several_kinds_of_file_are_the_same_data(self):
        alpaca = self.alpaca()
        whole = self.home / "whole.jsonl"
        whole.write_text(rows_of(*alpaca))
        shards = self.home / "shards"
        shards.mkdir()
        (shards / "a.jsonl").write_text("\ufeff" + rows_of(*alpaca[:8]).replace("\n", "\r\n"))
        (shards / "b.jsonl.gz").write_bytes(gzip.compress(rows_of(*alpaca[8:16]).encode()))
        (shards / "c.jsonl").write_text(json.dumps(alpaca[16:], indent=2))
        runs = {"whole": whole, "directory": shards, "pattern": shards / "*.jsonl*"}
        for name, path in runs.items():
            said = self.train(name, f"data.train={path}", check=0).stderr
            self.assertIn("training data: rows of alpaca: 24 documents", said)
            self.assertEqual(losses(self.home / "runs" / "whole"), losses(self.home / "runs" / name))

    def test_files_that_cannot_be_read_are_named(self):
        def refused(code, word, path, *more):
            self.assertIn(word, self.train("refused", f"data.train={path}", *more, check=code).stderr)

        refused(66, "matches no file", self.home / "nothing-*.jsonl")
        empty = self.home / "empty"
        empty.mkdir()
        refused(66, "no file is in it", empty)
        cut = self.home / "cut.jsonl.gz"
        cut.write_bytes(gzip.compress(rows_of(*self.alpaca()).encode())[:-20])
        refused(65, "cut.jsonl.gz: is compressed by gzip, and it is cut off", cut, "data.bad_rows=skip")
        mixed = self.home / "mixed.jsonl"
        mixed.write_text(rows_of(*self.alpaca(2), {"text": "x"}))
        refused(65, "mixed.jsonl:3: it is a row of text, and the rows before it are of alpaca", mixed)
        ids = self.home / "ids.jsonl"
        ids.write_text(rows_of({"input_ids": [1, 2, 10**6]}))
        refused(65, "ids.jsonl:1: the id 1000000 is not in the tokenizer's vocabulary", ids)
        refused(78, "txet is no field of ours", mixed, "data.fields={txet: text}")

    def test_what_is_said_of_the_data_is_said_at_every_start(self):
        data = self.home / "rendered.jsonl"
        rendered = "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
        spelled = json.loads((self.model / "tokenizer.json").read_text())["added_tokens"][0]["content"]
        data.write_text(rows_of(*({"body": f"{spelled}{rendered} {i}", "id": i} for i in range(8))))
        arguments = [f"data.train={data}", "data.fields={text: body, weight: w}", "data.validation=none"]
        prepared = run("prepare", self.recipe, f"output.dir={self.home}/runs/said", *arguments, check=0)
        self.assertIn("Rows: text\n", prepared.stdout)
        for said in (
            prepared.stderr,
            run("prepare", self.recipe, f"output.dir={self.home}/runs/said", *arguments, check=0).stderr,
            self.train("said", *arguments, check=0).stderr,
        ):
            self.assertIn("8 training texts hold spellings of control tokens", said)
            self.assertIn("data.special: true", said)
            self.assertIn('8 training rows have "id", which means nothing here', said)
            self.assertIn('data.fields: none of the training rows has "w"', said)
        special = run(
            "prepare", self.recipe, f"output.dir={self.home}/runs/special", *arguments, "data.special=true", check=0
        )
        self.assertNotIn("spellings of control tokens", special.stderr)
        self.assertIn("rows of text", special.stderr)

    def test_control_tokens_that_the_base_never_trained_are_named(self):
        arguments = ["data.validation=none", "train.max_steps=1", "optim.warmup_steps=0"]
        self.assertNotIn("never trained", self.train("known", *arguments, check=0).stderr)
        special = {
            t["content"]: t["id"] for t in json.loads((self.model / "tokenizer.json").read_text())["added_tokens"]
        }
        by_id = sorted(special, key=special.get)
        eos, other = by_id[-1], by_id[0]  # the other is not in the data
        for name, row_of in (("zero", None), ("equal", special[other])):
            base = self.home / f"base-{name}"
            shutil.copytree(self.model, base)
            file = base / "model.safetensors"
            data = bytearray(file.read_bytes())
            size = struct.unpack("<Q", data[:8])[0]
            tensor = json.loads(data[8 : 8 + size])["model.embed_tokens.weight"]
            row, begin = 2 * tensor["shape"][1], 8 + size + tensor["data_offsets"][0]
            copied = bytes(row) if row_of is None else data[begin + row_of * row : begin + (row_of + 1) * row]
            at = begin + special[eos] * row
            data[at : at + row] = copied
            file.write_bytes(data)
            options = [*arguments, f"model.path={base}"]
            prepared = run("prepare", self.recipe, f"output.dir={self.home}/runs/{name}", *options, check=0)
            self.assertIn(f"warning: the model never trained {eos}", prepared.stdout)
            self.assertIn("instruction-tuned variant", prepared.stdout)
            self.assertIn(f"the model never trained {eos}", self.train(name, *options, check=0).stderr)

    def test_repeat_is_the_same_at_any_dp_and_part_of_the_run(self):
        train, more = self.home / "train.jsonl", self.home / "more.jsonl"
        more.write_text(rows_of(*self.alpaca(10)))
        arguments = [f"data.train=[{{path: {train}, repeat: 0.3}}, {{path: {more}, repeat: 2.5}}]"]
        said = self.train("repeat-1", *arguments, check=0).stderr
        self.assertIn("5 steps an epoch", said)  # of 8 rows: 12 and 25
        self.train("repeat-2", *arguments, ranks=2, check=0)
        one, two = (losses(self.home / "runs" / f"repeat-{n}") for n in (1, 2))
        for step, loss in one.items():
            self.assertLess(abs(loss - two[step]), 1e-5 * loss)
        other = arguments[0].replace("2.5", "2")
        self.assertIn(
            "data.train: repeat: 0.3, 2.5 in the checkpoint, 0.3, 2 now", self.train("repeat-1", other, check=78).stderr
        )

    def test_a_share_for_validation_is_part_of_the_run(self):
        share, constant = "data.validation={share: 0.25}", "optim.schedule=constant"
        self.train("share", share, constant, "train.max_steps=4", check=0)
        for other in (
            "data.validation={share: 0.5}",
            "data.validation=none",
            f"data.validation={self.home}/validation.jsonl",
        ):
            self.assertIn(
                "data.validation: {share: 0.25} in the checkpoint",
                self.train("share", other, constant, check=78).stderr,
            )
        self.train("share", share, constant, check=0)
        self.train("share-at-once", share, constant, check=0)
        self.assertEqual(losses(self.home / "runs" / "share"), losses(self.home / "runs" / "share-at-once"))

    def test_another_file_for_validation_is_said(self):
        constant = "optim.schedule=constant"
        self.train("files", constant, "train.max_steps=4", check=0)
        other = self.home / "other-validation.jsonl"
        other.write_text(rows_of(*self.alpaca(3)))
        same = self.train("files", constant, "train.max_steps=6", check=0).stderr
        self.assertNotIn("validation data are others", same)
        another = self.train("files", constant, f"data.validation={other}", check=0).stderr
        self.assertIn("validation data are others", another)
        self.train("files-at-once", constant, check=0)
        self.assertEqual(losses(self.home / "runs" / "files"), losses(self.home / "runs" / "files-at-once"))

    def test_a_share_is_of_texts_and_not_of_their_pieces(self):
        texts = self.home / "long.jsonl"
        texts.write_text(rows_of(*({"text": f"{letter} " * 400} for letter in "abcd")))
        arguments = [f"data.train={texts}", "data.validation={share: 0.25}"]
        self.train("pieces", *arguments, check=0)
        prepared = run("prepare", self.recipe, f"output.dir={self.home}/runs/pieces", "--json", *arguments, check=0)
        kept = json.loads(prepared.stdout)
        self.assertGreater(kept["documents"], 3)
        metrics = [
            json.loads(line) for line in (self.home / "runs" / "pieces" / "metrics.jsonl").read_text().splitlines()
        ]
        self.assertEqual(3 * [row["tokens"] for row in metrics if "validation_loss" in row][0], kept["tokens"])
        one = self.home / "one.txt"
        one.write_text("harbour " * 500)
        refused = self.train("one-text", f"data.train={one}", "data.validation={share: 0.5}", check=65).stderr
        self.assertIn("a share needs at least two rows of training data", refused)

    def test_eval_takes_every_format(self):
        ids = [10, 20, 30, 40]
        formats = {
            "ids": ({"input_ids": ids, "labels": [-100, -100, 30, 40]}, 4, 2),
            "completion": ({"prompt": "ab", "completion": "c"}, None, None),
            "alpaca": (self.alpaca(1)[0], None, None),
            "text": ({"body": "The harbour opens."}, None, None),
        }
        for name, (row, length, trained) in formats.items():
            data, out = self.home / f"eval-{name}.json.gz", self.home / f"eval-{name}-tokens.jsonl"
            data.write_bytes(gzip.compress(json.dumps([row]).encode()))
            arguments = ["eval", "--json", "--model", self.model, "--data", data, "data.fields={text: body}"]
            score = json.loads(run(*arguments, check=0).stdout)
            each = json.loads(run(*arguments, "--per-token", out, check=0).stdout)
            line = json.loads(out.read_text())
            self.assertEqual(len(line["logprobs"]), len(line["ids"]) - 1)
            self.assertEqual(score["tokens"], each["tokens"])
            self.assertLess(abs(score["loss"] - each["loss"]), 1e-5)
            if length:
                self.assertEqual((line["ids"], score["tokens"]), (ids, trained))


if __name__ == "__main__":
    unittest.main(verbosity=1)
