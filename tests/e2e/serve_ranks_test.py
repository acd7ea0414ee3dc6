"""drover serve divided over two ranks: the answers of one, adapters that come later, and the end of a rank."""

import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import signal
import time
import unittest

from case import run, within
from serving import GREEDY, ServingCase, text_of
from stops import processes_of

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
VARIED = {"temperature": 0, "repetition_penalty": 1.5}
QUESTIONS = ["harbour?", "lorry customs?", "depot parcel ferry crane? " * 9]
SUMS = 1e-5  # of log-probabilities: ranks add up in another order


class Ranks(ServingCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.root = cls.home / "adapters"
        run("export", cls.plain, "--adapter", cls.root / "late", check=0)
        shutil.copytree(cls.root / "late", cls.root / "broken")
        (cls.root / "broken" / "adapter_model.safetensors").write_bytes(bytes(100))
        cls.arguments = ["--adapter", f"port={cls.root}/late", "--allow-adapter-changes", "--adapter-root", cls.root]
        with cls.serve(cls, *cls.arguments) as server:
            cls.alone = cls.answers(server, ("model", "port"))

    @staticmethod
    def answers(server, names):
        asked = [(name, q) for name in names for q in QUESTIONS]
        ask = lambda a: server.chat(a[1], model=a[0], logprobs=True, max_tokens=30, prompt_logprobs=0, **VARIED)
        with concurrent.futures.ThreadPoolExecutor(len(asked)) as pool:
            bodies = list(pool.map(ask, asked))
        own = [[next(iter(p.values()))["logprob"] for p in b["prompt_logprobs"][1:]] for b in bodies]
        chosen = [[t["logprob"] for t in b["choices"][0]["logprobs"]["content"]] for b in bodies]
        return [text_of(b) for b in bodies], [a + b for a, b in zip(own, chosen)]

    def assert_answers(self, answers, expected):
        self.assertEqual(answers[0], expected[0])
        for ours, theirs in zip(answers[1], expected[1]):
            self.assertEqual(len(ours), len(theirs))
            for a, b in zip(ours, theirs):
                self.assertLessEqual(abs(a - b), SUMS * max(1, abs(b)))

    def test_the_answers_of_one_rank(self):
        half = len(QUESTIONS)
        of_adapter = [part[half:] for part in self.alone]
        self.assertNotEqual(self.alone[0][:half], of_adapter[0])
        for mesh in ("parallel.tp=2", "parallel.pp=2"):
            with self.subTest(mesh), self.serve(mesh, *self.arguments, ranks=2) as server:
                self.assert_answers(self.answers(server, ("model", "port")), self.alone)
                body = {"lora_name": "more", "lora_path": "late"}
                self.assertEqual(server.request("POST", "/v1/load_lora_adapter", body).status, 200)
                self.assert_answers(self.answers(server, ["more"]), of_adapter)
                broken = {"lora_name": "broken", "lora_path": "broken"}
                self.refused(server, 400, "/v1/load_lora_adapter", broken, "lora_path")
                self.assertEqual(server.request("POST", "/v1/unload_lora_adapter", {"lora_name": "more"}).status, 200)
                drawn = {"max_tokens": 20, "seed": 3, "temperature": 1}
                self.assertEqual(server.chat("x", **drawn)["choices"], server.chat("x", **drawn)["choices"])
                time.sleep(2)  # nothing to do, for longer than a beat
                self.assert_answers(self.answers(server, ["port"]), of_adapter)
                self.assertEqual(server.stop(), 0, server.output)
                self.assert_gone()

    def test_a_rank_that_is_killed(self):
        model = self.with_positions(8192)
        with self.serve("parallel.tp=2", "--kv-memory", "32MiB", model=model, ranks=2) as server:
            chunks = iter(server.stream(TEXT, prompt="x", max_tokens=8000, ignore_eos=True, **GREEDY))
            next(chunks)
            second = [p for p in processes_of(str(model)) if b"_WORLD_RANK=1\0" in self.environment(p)]
            self.assertTrue(second)
            os.kill(second[-1], signal.SIGKILL)
            self.assertEqual(server.process.wait(timeout=within(60)), 83, server.output)
            with self.assertRaises((AssertionError, OSError)):  # no stream that looks whole
                list(chunks)
            self.assert_gone()

    @staticmethod
    def environment(process):
        with contextlib.suppress(OSError):
            return pathlib.Path(f"/proc/{process}/environ").read_bytes()
        return b""

    def assert_gone(self):
        end = time.monotonic() + within(15)
        while left := processes_of(str(self.home)):
            self.assertLess(time.monotonic(), end, f"left behind: {left}")
            time.sleep(0.1)


if __name__ == "__main__":
    unittest.main(verbosity=1)
