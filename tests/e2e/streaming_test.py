"""memory.weights: host: the same bits as weights that stay, in every verb and format; and a model of which a process
never holds more than a quarter."""

import json
import pathlib
import re
import resource
import shutil
import subprocess
import tempfile
import unittest

from case import DROVER, ENVIRONMENT, ROOT, Case, losses, run, safetensors, within
from random_model import write_random_model

HOST = "memory.weights=host"


class Streaming(Case):
    def assert_same_bits(self, name, *settings, model=None, ranks=0):
        for part, extra in (("resident", ()), ("host", (HOST,))):
            model_words = (f"model.path={model}",) if model else ()
            ended = self.train(f"{name}-{part}", "train.max_steps=3", *model_words, *settings, *extra, ranks=ranks,
                               check=0)  # fmt: skip
        runs = self.home / "runs"
        self.assertEqual(losses(runs / f"{name}-resident"), losses(runs / f"{name}-host"))
        self.assertEqual(self.adapter(f"{name}-resident"), self.adapter(f"{name}-host"))
        return ended.stderr

    def test_training_has_the_same_bits(self):
        said = self.assert_same_bits("plain")
        self.assertRegex(
            said, r"pass through \d+\.\d\d GB on each rank .*; \d+\.\d\d GB are read from the model's files"
        )
        planned, reached = re.search(r"arenas of rank 0: (\d+) bytes planned, (\d+) bytes reached", said).groups()
        self.assertLessEqual(int(reached), int(planned))

    def test_recomputed_and_under_tensor_parallelism(self):
        self.assert_same_bits("again", "memory.activation_checkpointing=full", "parallel.tp=2", ranks=2)

    def test_quantised_files_and_codes_that_are_made(self):
        model = self.home / "fp8"
        run("quantize", self.model, model, "--to", "fp8", check=0)
        self.assertNotIn("drover quantize", self.assert_same_bits("stored", model=model))
        said = self.assert_same_bits("made", "model.weights=fp8")
        self.assertEqual(said.count("makes the weights' codes anew"), 1, said)
        self.assertIn("drover quantize", said)

    def test_stored_codes_on_every_mesh(self):
        dense = self.home / "dense"
        shutil.copytree(self.model, dense)
        write_random_model(
            dense, 4, hidden=128, heads=4, kv_heads=2, head=32, ffn=256
        )  # tp 2 leaves whole blocks of 64
        constant = ("optim.schedule=constant", "optim.warmup_steps=0")
        for to in ("fp8", "nf4"):
            model = self.home / f"stored-{to}"
            run("quantize", dense, model, "--to", to, check=0)
            self.assert_same_bits(f"{to}-tp", "parallel.tp=2", "memory.activation_checkpointing=full", model=model,
                                  ranks=2)  # fmt: skip
            self.assert_same_bits(f"{to}-pp", "parallel.pp=2", "train.dtype=bf16", model=model, ranks=2)
            self.assert_same_bits(f"{to}-alone", *constant, model=model)
            for part, extra in (("resident", HOST), ("host", "memory.weights=resident")):  # the other way round
                said = self.train(f"{to}-alone-{part}", f"model.path={model}", *constant, "train.max_steps=6", extra,
                                  check=0).stderr  # fmt: skip
                self.assertIn("resuming after step 3", said)
            runs = self.home / "runs"
            self.assertEqual(len(losses(runs / f"{to}-alone-host")), 6)
            self.assertEqual(losses(runs / f"{to}-alone-resident"), losses(runs / f"{to}-alone-host"))
            self.assertEqual(self.adapter(f"{to}-alone-resident"), self.adapter(f"{to}-alone-host"))
            scored = [
                run("eval", "--model", model, "--adapter", runs / f"{to}-alone-host" / "adapter", "--data",
                    self.home / "validation.jsonl", "--json", *extra, check=0).stdout
                for extra in ((), (HOST,))
            ]  # fmt: skip
            self.assertEqual(*scored)

    def test_a_run_is_continued_either_way(self):
        self.train("changed", "train.max_steps=4", "optim.schedule=constant", check=0)
        self.train("changed", "train.max_steps=8", "optim.schedule=constant", HOST, check=0)
        self.train("stays", "train.max_steps=8", "optim.schedule=constant", check=0)
        self.assertEqual(losses(self.home / "runs" / "changed"), losses(self.home / "runs" / "stays"))
        self.assertEqual(self.adapter("changed"), self.adapter("stays"))

    def test_evaluating_and_generating(self):
        def answers(*extra):
            scored = run("eval", "--model", self.model, "--data", self.home / "validation.jsonl", "--json", *extra,
                         check=0)  # fmt: skip
            answered = run("generate", "--model", self.model, "--adapter", self.plain / "adapter", "--prompt", "crane",
                           "--greedy", "--max-tokens", "8", *extra, check=0)  # fmt: skip
            return scored.stdout, answered.stdout

        self.assertEqual(answers(HOST), answers())

    def test_plan_says_what_is_copied(self):
        overrides = (HOST, "device=cuda", "memory.activation_checkpointing=full", "train.global_batch_size=8")
        planned = json.loads(run("plan", self.recipe, *overrides, "--json", check=0).stdout)["ranks"][0]
        streamed = planned["streamed"]
        self.assertGreater(streamed["host_bytes"], 1.9 * streamed["ring_bytes"])  # four layers and two
        self.assertEqual(streamed["copied_bytes_a_step"], 2 * streamed["ring_bytes"])
        self.assertLess(streamed["ring_bytes"], planned["weights_bytes"])
        self.assertGreater(streamed["tokens_to_hide_copies"], 1000)
        text = run("plan", self.recipe, *overrides, check=0).stdout
        self.assertIn("taking 50 GB/s to the GPU and 989 TFLOP/s", text)
        resident = json.loads(run("plan", self.recipe, "--json", check=0).stdout)["ranks"][0]
        self.assertNotIn("streamed", resident)


LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD, FFN = 16, 1024, 8, 2, 128, 2816
FROZEN_BYTES = 2 * LAYERS * (HIDDEN * HEAD * 2 * (HEADS + KV_HEADS) + 3 * HIDDEN * FFN)  # of the layers' linears
# What a process takes besides, for a model of any depth: libraries, MPI, threads, a sample's activations, the adapter.
BASE_RESIDENT, BASE_ADDRESSES = 60 << 20, 260 << 20


@unittest.skipIf(within(1) > 1, "a sanitizer takes addresses of its own")
class Quarter(unittest.TestCase):
    """A model that is made up: deep and wide, with a vocabulary of bytes."""

    @classmethod
    def setUpClass(cls):
        cls.home = pathlib.Path(tempfile.mkdtemp(prefix="drover-streaming-"))
        cls.model = cls.home / "model"
        run("make-tiny", cls.model, check=0)
        write_random_model(cls.model, LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD, FFN)
        rows = "".join(json.dumps({"text": f"lorry {i}"}) + "\n" for i in range(8))
        (cls.home / "rows.jsonl").write_text(rows)
        cls.recipe = cls.home / "recipe.yaml"
        cls.recipe.write_text(
            f"model: {{path: {cls.model}}}\ndata: {{train: {cls.home}/rows.jsonl, max_length: 16, packing: false}}\n"
            f"lora: {{r: 2, target_modules: [q_proj, down_proj]}}\noptim: {{schedule: constant, warmup_steps: 0}}\n"
            f"train: {{global_batch_size: 2, max_steps: 2}}\nmemory: {{activation_checkpointing: full}}\n"
            f"output: {{dir: {cls.home}/runs/resident}}\n"
        )

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.home)

    def under(self, limit, *arguments, ranks=0):
        command = [str(DROVER), *map(str, arguments)]
        if ranks:
            command = [str(ROOT / "launch" / "run"), "-n", str(ranks), *command]
        cap = lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)) if limit else None
        environment = ENVIRONMENT | {"MALLOC_ARENA_MAX": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=within(120),
                              preexec_fn=cap)  # fmt: skip

    def train(self, name, *overrides, limit=0, ranks=0):
        ended = self.under(limit, "train", self.recipe, f"output.dir={self.home}/runs/{name}", *overrides, ranks=ranks)
        self.assertEqual(ended.returncode, 0, ended.stderr[-3000:])
        return ended.stderr

    def assert_same_bits(self, name, other):
        runs = self.home / "runs"
        self.assertEqual(losses(runs / name), losses(runs / other))
        adapters = (safetensors(runs / run / "adapter" / "adapter_model.safetensors") for run in (name, other))
        self.assertEqual(*adapters)

    def test_a_process_never_holds_more_than_a_quarter(self):
        limit = FROZEN_BYTES // 4 + BASE_ADDRESSES
        self.train("resident")
        stays = self.under(limit, "train", self.recipe, f"output.dir={self.home}/runs/refused")
        self.assertNotEqual(stays.returncode, 0, "resident weights do not fit")
        self.train("host", HOST, "train.max_steps=1", limit=limit)
        said = self.train("host", HOST, limit=limit)  # resumes
        self.assertIn("resuming after step 1", said)
        self.assert_same_bits("host", "resident")
        reached = float(re.search(r"a process: \d+ MiB predicted, (\d+) MiB reached", said)[1]) * (1 << 20)
        self.assertLessEqual(reached, FROZEN_BYTES / 4 + BASE_RESIDENT)
        scored = [
            self.under(cap, "eval", "--model", self.model, "--data", self.home / "rows.jsonl", "--json",
                       "train.dtype=bf16", *words).stdout
            for cap, words in ((0, ()), (limit, (HOST,)))
        ]  # fmt: skip
        self.assertIn("loss", scored[0])
        self.assertEqual(*scored)

    def test_a_merged_model_is_written_as_one_file(self):
        limit = BASE_ADDRESSES + (48 << 20)
        self.train("merged", HOST, "train.max_steps=1")
        file = self.home / "merged.gguf"
        ended = self.under(limit, "export", self.home / "runs" / "merged", "--merged", file, "--target", "llamacpp")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertGreater(file.stat().st_size, limit, "it could not be mapped")

    def test_nor_do_two_ranks(self):
        self.train("resident-tp", "parallel.tp=2", ranks=2)
        self.train("host-tp", HOST, "parallel.tp=2", ranks=2, limit=FROZEN_BYTES // 4 + BASE_ADDRESSES)
        self.assert_same_bits("host-tp", "resident-tp")


if __name__ == "__main__":
    unittest.main()
