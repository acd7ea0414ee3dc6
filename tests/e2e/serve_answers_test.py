"""What requests to drover serve may ask for: stops, draws, several answers, biases, log-probabilities."""

import json
import math
import unittest

from case import run
from serving import GREEDY, ServingCase, joined, text_of, write_rows

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
# Tokens of the made-up model are bytes, three control tokens in front. These make texts of é, x, y and of halves of é.
FEW = {str(byte + 3): 60 for byte in b"xy" + "é".encode()}
EXACT = 1e-5  # fp32; a chunk's rows are summed in another order than a batch's


def cut(text, stops):
    """In front of the stop that is complete first; of those that are so at one place, the longest."""
    found = [(text.find(s) + len(s), -len(s)) for s in stops if s in text]
    return text[: sum(min(found))] if found else text


class Answers(ServingCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = cls.serve(cls)

    @classmethod
    def tearDownClass(cls):
        cls.server.kill()
        super().tearDownClass()

    def drawn(self, **fields):
        return self.server.complete("crane", **{"temperature": 1, "logit_bias": FEW, "max_tokens": 40} | fields)

    def test_stops_over_the_borders_of_tokens(self):
        found = 0
        for seed in range(12):
            whole = text_of(self.drawn(seed=seed))
            for stop in ("éx", ["x", "xé"], ["xé", "x"], ["xyx", "yé", "éé"], ["\ufffdx", "yyy"], "never"):
                stops = [stop] if isinstance(stop, str) else stop
                expected = cut(whole, stops)
                found += expected != whole
                body = self.drawn(seed=seed, stop=stop, logprobs=0)["choices"][0]
                self.assertEqual(
                    (body["text"], body["finish_reason"]), (expected, "stop" if expected != whole else "length")
                )
                fields = {"prompt": "crane", "temperature": 1, "logit_bias": FEW, "max_tokens": 40, "logprobs": 0}
                streamed = joined(self.server.stream(TEXT, **fields, seed=seed, stop=stop))
                self.assertEqual(streamed, (expected, body["logprobs"] if expected else None, body["finish_reason"]))
                self.assertLessEqual(len(body["logprobs"]["tokens"]), len(expected.encode()) + 1)
        self.assertGreater(found, 24)

    def test_stops_in_chats(self):
        fields = {"max_completion_tokens": 40, "logit_bias": FEW, "temperature": 1, "seed": 3}
        whole = text_of(self.server.chat("crane?", **fields))
        expected = cut(whole, ["xy", "yx"])
        self.assertNotEqual(whole, expected)
        choice = self.server.chat("crane?", **fields, stop=["xy", "yx"])["choices"][0]
        self.assertEqual((choice["message"]["content"], choice["finish_reason"]), (expected, "stop"))
        dialog = [{"role": "user", "content": "crane?"}]
        chunks = self.server.stream(CHAT, messages=dialog, **fields, stop=["xy", "yx"])
        self.assertEqual(joined(chunks), (expected, None, "stop"))
        ids = self.server.chat("crane?", **fields, stop_token_ids=[ord("y") + 3])["choices"][0]
        self.assertEqual(ids["message"]["content"], cut(whole, ["y"]))

    def test_the_model_s_own_stop(self):
        ends = {"logit_bias": {"2": 100}, "max_tokens": 5, **GREEDY}
        ended = self.server.complete("crane", **ends)
        self.assertEqual((text_of(ended), ended["choices"][0]["finish_reason"]), ("", "stop"))
        ignored = self.server.complete("crane", **ends, ignore_eos=True)
        self.assertEqual((text_of(ignored), ignored["usage"]["completion_tokens"]), ("", 5))
        shown = self.server.complete("crane", **ends, ignore_eos=True, skip_special_tokens=False)
        self.assertEqual(text_of(shown), 5 * "<|im_end|>")

    def test_draws_are_named_by_their_seed(self):
        first = self.drawn(seed=1, n=3)["choices"]
        self.assertEqual(self.drawn(seed=1, n=3)["choices"], first)
        self.assertEqual(len({c["text"] for c in first}), 3)
        self.assertEqual(text_of(self.drawn(seed=1)), first[0]["text"])
        self.assertNotEqual(text_of(self.drawn(seed=2)), first[0]["text"])
        self.assertNotEqual(text_of(self.drawn(seed=-2)), text_of(self.drawn(seed=2)))
        self.assertNotEqual(text_of(self.drawn()), text_of(self.drawn()))
        chats = self.server.chat("crane?", max_tokens=20, n=3, seed=1, logprobs=True)["choices"]
        self.assertEqual(len({c["message"]["content"] for c in chats}), 3)
        greedy = self.server.chat("crane?", max_tokens=20, n=2, **GREEDY)["choices"]
        self.assertEqual(greedy[0]["message"], greedy[1]["message"])
        for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1}):
            self.assertEqual(
                text_of(self.server.complete("crane", max_tokens=20, **narrow)),
                text_of(self.server.complete("crane", max_tokens=20, **GREEDY)),
            )

    def test_penalties_and_biases_are_heard(self):
        self.assertEqual(set(text_of(self.drawn(**GREEDY, logit_bias={"123": 100}))), {"x"})
        both = text_of(self.drawn(seed=1, temperature=2, logit_bias={"123": 60, "124": 60}))
        self.assertEqual(set(both), {"x", "y"})
        self.assertEqual(set(text_of(self.drawn(seed=1, logit_bias={"123": -100, "124": 60}))), {"y"})
        for change in ({"frequency_penalty": 2}, {"presence_penalty": 2}, {"repetition_penalty": 3}):
            unbiased = {"logit_bias": {}, **GREEDY}
            self.assertNotEqual(text_of(self.drawn(**unbiased, **change)), text_of(self.drawn(**unbiased)), change)

    def test_logprobs_are_those_of_eval(self):
        texts = ["The harbour opens at six.", "ab", "Lorries wait in line. " * 9]
        rows, out = self.home / "texts.jsonl", self.home / "tokens.jsonl"
        write_rows(rows, [{"text": t} for t in texts])
        run("eval", "--model", self.model, "--data", rows, "--per-token", out, "train.dtype=fp32", check=0)
        for text, line in zip(texts, out.read_text().splitlines()):
            expected = json.loads(line)
            for prompt in (text, expected["ids"]):
                choice = self.server.complete(prompt, echo=True, logprobs=2, max_tokens=1, **GREEDY)["choices"][0]
                count, got = len(expected["ids"]), choice["logprobs"]
                self.assertEqual([len(got[k]) for k in got], [count + 1] * 4)
                self.assertEqual((got["token_logprobs"][0], got["top_logprobs"][0]), (None, None))
                self.assert_close(got["token_logprobs"][1:count], expected["logprobs"])
                for token, logprob, top in list(zip(got["tokens"], got["token_logprobs"], got["top_logprobs"]))[1:]:
                    self.assertEqual(top[token], logprob)  # the same bits
                    self.assertIn(len(top), (2, 3))
                self.assertEqual(got["text_offset"][:count], list(range(count)))
            scored = self.server.complete(text, echo=True, logprobs=2, max_tokens=0, **GREEDY)
            self.assertEqual(scored["choices"][0]["text"], text)
            self.assertEqual(scored["usage"]["completion_tokens"], 0)
            only = scored["choices"][0]["logprobs"]
            self.assertEqual(only, {k: v[:count] for k, v in got.items()})
            fields = {"prompt": text, "echo": True, "logprobs": 2, "max_tokens": 0}
            self.assertEqual(joined(self.server.stream(TEXT, **fields, **GREEDY)), (text, only, "length"))
            self.assert_prompt_logprobs(text, expected)

    def assert_prompt_logprobs(self, text, expected):
        body = self.server.complete(text, prompt_logprobs=1, max_tokens=1, **GREEDY)
        first, *rest = body["choices"][0]["prompt_logprobs"]
        self.assertIsNone(first)
        own = [entry[str(token)] for entry, token in zip(rest, expected["ids"][1:])]
        self.assert_close([o["logprob"] for o in own], expected["logprobs"])
        for entry in rest:
            likeliest = max(entry.values(), key=lambda e: e["logprob"])
            self.assertEqual(likeliest["rank"], 1)
            self.assertIn(len(entry), (1, 2))

    def assert_close(self, ours, theirs):
        self.assertEqual(len(ours), len(theirs))
        for a, b in zip(ours, theirs):
            self.assertLessEqual(abs(a - b), EXACT * max(1, abs(b)))

    def test_logprobs_of_answers_are_those_of_eval(self):
        prompt, ids = "crane", [102, 117, 100, 113, 104]
        plain = self.server.complete(prompt, logprobs=0, max_tokens=30, **GREEDY)["choices"][0]
        greedy = self.server.complete(ids, echo=True, logprobs=0, max_tokens=30, **GREEDY)["choices"][0]
        self.assertEqual(greedy["logprobs"]["token_logprobs"][5:], plain["logprobs"]["token_logprobs"])
        self.assertEqual(greedy["logprobs"]["text_offset"][5:], [5 + o for o in plain["logprobs"]["text_offset"]])
        self.assertEqual(greedy["text"], prompt + plain["text"])
        chat = self.server.chat("crane?", logprobs=True, top_logprobs=20, max_tokens=9, **GREEDY)["choices"][0]
        content = chat["logprobs"]["content"]
        self.assertEqual(
            bytes(b for t in content for b in t["bytes"]).decode(errors="replace"), chat["message"]["content"]
        )
        for token in content:
            self.assertEqual(len(token["top_logprobs"]), 20)
            self.assertEqual(token["top_logprobs"][0], {k: token[k] for k in ("token", "logprob", "bytes")})
            self.assertLessEqual(sum(math.exp(t["logprob"]) for t in token["top_logprobs"]), 1 + EXACT)
        scored = self.server.chat("crane?", prompt_logprobs=0, max_tokens=1, **GREEDY)
        self.assertEqual(len(scored["prompt_logprobs"]), scored["usage"]["prompt_tokens"])


if __name__ == "__main__":
    unittest.main(verbosity=1)
