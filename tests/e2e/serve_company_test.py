"""Answers of drover serve in company: each has the bits that it has alone."""

import concurrent.futures
import unittest

from serving import GREEDY, ServingCase, joined, text_of

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
WORDS = "harbour lorry customs depot parcel ferry crane ledger".split()
COMMON = " ".join(WORDS * 3)  # more than a chunk


def asked(i):
    """Twelve requests of many kinds and lengths; some begin alike."""
    question = " ".join(WORDS[: 1 + i % 8] * (1 + 3 * (i % 5)))
    if i % 4 == 0:
        return TEXT, {"prompt": question, "logprobs": 2, "max_tokens": 20 + 9 * i, "ignore_eos": True, **GREEDY}
    if i % 4 == 1:
        return TEXT, {"prompt": COMMON + question, "logprobs": 0, "echo": True, "max_tokens": 60, "seed": i}
    fields = {"logprobs": True, "max_tokens": 50 + i, "ignore_eos": True, "seed": i, "n": 1 + i % 3}
    if i % 4 == 3:
        fields |= {"model": "port", "frequency_penalty": 0.5}
    return CHAT, {"messages": [{"role": "user", "content": COMMON + question}], **fields}


def answers(server, i):
    path, fields = asked(i)
    return server.ask(path, **fields)["choices"]


def streamed(server, i):
    path, fields = asked(i)
    chunks = list(server.stream(path, **fields))
    return [joined(chunks, n) for n in range(fields.get("n", 1))]


class Company(ServingCase):
    def together(self, server, ask=answers, repeats=1):
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            return list(pool.map(lambda i: ask(server, i % 12), range(12 * repeats)))

    def alone(self):
        with self.serve("--adapter", f"port={self.plain}/adapter", "--max-sequences", 1) as server:
            return [answers(server, i) for i in range(12)]

    def test_company_changes_no_bit(self):
        alone = self.alone()
        self.assertEqual(len({str(c) for c in alone}), 12)
        adapter = ("--adapter", f"port={self.plain}/adapter")
        with self.serve(*adapter) as server:
            self.assertEqual(self.together(server), alone)
            self.assertEqual(self.together(server, repeats=3), 3 * alone)  # and behind hits of the prefix cache
            self.assertGreater(server.metric("vllm:prefix_cache_hits_total"), 500)
            for choices, streams in zip(alone, self.together(server, streamed)):
                for choice, (text, logprobs, reason) in zip(choices, streams):
                    self.assertEqual(choice.get("text", choice.get("message", {}).get("content")), text)
                    self.assertEqual((choice["logprobs"], choice["finish_reason"]), (logprobs, reason))
        # Room for one or two answers: others are put off and computed again. Small passes: prompts come in chunks.
        with self.serve(*adapter, "--kv-memory", "2MiB", "--pass-tokens", 128) as server:
            self.assertEqual(self.together(server, repeats=2), 2 * alone)
            self.assertGreater(server.metric("vllm:num_preemptions_total"), 0)

    def test_a_hit_of_the_prefix_cache_changes_no_bit(self):
        ask = {"prompt": COMMON + "x", "logprobs": 1, "max_tokens": 30, **GREEDY}
        with self.serve() as server:
            first = server.ask(TEXT, **ask)["choices"]
            hits = server.metric("vllm:prefix_cache_hits_total")
            self.assertEqual(server.ask(TEXT, **ask)["choices"], first)
            self.assertGreater(server.metric("vllm:prefix_cache_hits_total"), hits)
            scored = server.ask(TEXT, **ask, echo=True)["choices"][0]  # its prompt is computed, though it is cached
            self.assertEqual(scored["text"], COMMON + "x" + text_of({"choices": first}))
            self.assertEqual(scored["logprobs"]["token_logprobs"][-30:], first[0]["logprobs"]["token_logprobs"])

    def test_what_does_not_fit_is_refused_or_waits(self):
        with self.serve("--kv-memory", "1MiB", "--max-sequences", 2, "--max-queue", 2) as server:
            room = server.get("/v1/models").json["data"][0]["max_model_len"]
            self.assertLess(room, 1024)
            body = {"prompt": "x" * room}
            self.refused(server, 400, TEXT, body, None, "context_length_exceeded")
            self.assertEqual(server.complete("x", max_tokens=room - 1, ignore_eos=True)["usage"]["total_tokens"], room)
            self.refused(server, 400, TEXT, {"prompt": "x", "n": 5}, "n")
            statuses = self.flood(server)
            self.assertEqual(set(statuses), {200, 429})
            self.assertEqual(server.metric("vllm:num_requests_running"), 0)

    def flood(self, server):
        body = {"prompt": "x", "max_tokens": 500, "ignore_eos": True}
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            replies = list(pool.map(lambda _: server.request("POST", TEXT, body), range(32)))
        for reply in replies:
            if reply.status == 429:
                self.assertEqual(reply.json["error"]["code"], "rate_limit_exceeded")
                self.assertIn("Retry-After", reply.headers)
        return [r.status for r in replies]


if __name__ == "__main__":
    unittest.main(verbosity=1)
