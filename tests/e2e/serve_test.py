"""drover serve from outside: what it says of itself, chats and completions, and what it refuses."""

import json
import unittest

from case import ROOT, run
from serving import GREEDY, ServingCase, joined, text_of

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
QUESTIONS = ["harbour?", "lorry customs?", "depot parcel ferry crane?"]
SENTENCES = [
    "Ελλάδα είναι",
    "Москва",
    "中文测试",
    "日本語の文",
    "한국어 문장",
    "नमस्ते दुनिया",
    "مرحبا",
    "naïve façade",
    "👩‍🚀🎉",
]


class Serve(ServingCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = cls.serve(cls, "--adapter", f"port={cls.plain}/adapter", "--max-n", 4, "--max-stop", 3)

    @classmethod
    def tearDownClass(cls):
        cls.server.kill()
        super().tearDownClass()

    def test_it_says_what_it_serves(self):
        server = self.server
        for words in (
            r"adapter .*/adapter: 28 linears, ‖ΔW‖",
            r"keys and values: [\d.]+ GiB on a rank, for \d+ tokens; an answer with its prompt has at most 1024",
            r"serving model, port on http://127.0.0.1:\d+/",
        ):
            self.assertRegex(server.output, words)
        self.assertEqual(server.get("/health").json, {"status": "ok"})
        listed = server.get("/v1/models").json
        self.assertEqual(listed["object"], "list")
        base, adapter = listed["data"]
        self.assertEqual((base["id"], base["parent"], base["root"]), ("model", None, str(self.model)))
        self.assertEqual((adapter["id"], adapter["parent"]), ("port", "model"))
        self.assertEqual(adapter["root"], str(self.plain / "adapter"))
        self.assertEqual({base["max_model_len"], adapter["max_model_len"]}, {1024})
        self.assertIn(server.get("/version").json["version"], run("--version").stdout)
        described = server.get("/openapi.json").json
        for path in (CHAT, TEXT, "/v1/models", "/tokenize", "/v1/load_lora_adapter", "/metrics"):
            self.assertIn(path, described["paths"])
        info = server.get("/tokenizer_info").json
        self.assertEqual((info["bos_token"], info["vocab_size"]), ("<|im_start|>", 259))
        self.assertIn("add_generation_prompt", info["chat_template"])

    def test_the_page(self):
        page = self.server.get("/")
        self.assertEqual((page.status, page.headers["Content-Type"]), (200, "text/html; charset=utf-8"))
        self.assertIn("default-src 'none'", page.headers["Content-Security-Policy"])
        self.assertEqual(page.text, (ROOT / "launch" / "serve" / "page.html").read_text())

    def test_figures_move(self):
        server = self.server
        names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:e2e_request_latency_seconds_count")
        before = [server.metric(name) for name in names]
        usage = server.chat("harbour?", max_tokens=9, **GREEDY)["usage"]
        moved = [server.metric(name) - b for name, b in zip(names, before)]
        self.assertEqual(moved, [usage["prompt_tokens"], 9, 1])
        ended = server.metric("vllm:request_success_total", finished_reason="length")
        self.assertGreater(ended, 0)
        text = server.get("/metrics").text
        for name in (
            "vllm:num_requests_running",
            "vllm:num_requests_waiting",
            "vllm:kv_cache_usage_perc",
            "vllm:time_to_first_token_seconds_bucket",
            "vllm:inter_token_latency_seconds_sum",
            "vllm:prefix_cache_queries_total",
            'vllm:lora_requests_info{max_lora="0",running_lora_adapters="",waiting_lora_adapters=""}',
        ):
            self.assertIn(name, text)

    def test_answers_are_those_of_generate(self):
        expected = self.generated(QUESTIONS, 30)
        for question, answer in zip(QUESTIONS, expected):
            body = self.server.chat(question, max_completion_tokens=30, max_tokens=5, **GREEDY)
            self.assertEqual(body["choices"][0]["message"]["content"], answer)
            self.assertEqual((body["object"], body["model"]), ("chat.completion", "model"))
            self.assertIn(body["choices"][0]["finish_reason"], ("stop", "length"))
        raw = json.loads(
            run(
                *("generate", "--model", self.model, "--prompt", "harbour", "--raw", "--greedy", "--json"),
                *("--max-tokens", 16, "train.dtype=fp32"),
                check=0,
            ).stdout
        )
        body = self.server.complete("harbour", **GREEDY)  # 16 tokens where nothing is said
        self.assertEqual(body["choices"][0]["text"], raw["text"])
        self.assertEqual(body["usage"], {"prompt_tokens": 7, "completion_tokens": 16, "total_tokens": 23})

    def test_a_stream_is_the_whole_answer(self):
        server = self.server
        for path, asked, logprobs in (
            (CHAT, {"messages": [{"role": "user", "content": "crane?"}]}, {"logprobs": True, "top_logprobs": 3}),
            (TEXT, {"prompt": "crane"}, {"logprobs": 3}),
            (TEXT, {"prompt": "crane", "echo": True}, {"logprobs": 0}),
        ):
            for extra in ({}, logprobs, {"n": 2, "temperature": 1, "seed": 4, **logprobs}):
                fields = {"max_tokens": 40, **GREEDY, **asked, **extra}
                whole = server.ask(path, **fields)
                chunks = list(server.stream(path, **fields))
                for choice in whole["choices"]:
                    text = choice["text"] if path == TEXT else choice["message"]["content"]
                    streamed = joined(chunks, choice["index"])
                    self.assertEqual(streamed, (text, choice["logprobs"], choice["finish_reason"]), fields)
                self.assertFalse([c for c in chunks if "usage" in c])
                self.assertEqual(len({c["id"] for c in chunks}), 1)

    def test_usage_only_when_asked(self):
        for path, asked in ((CHAT, {"messages": [{"role": "user", "content": "x"}]}), (TEXT, {"prompt": "x"})):
            usage = self.server.ask(path, max_tokens=5, **GREEDY, **asked)["usage"]
            options = {"stream_options": {"include_usage": True}, "max_tokens": 5}
            *chunks, last = self.server.stream(path, **options, **GREEDY, **asked)
            self.assertEqual((last["choices"], last["usage"]), ([], usage))
            self.assertEqual([c["usage"] for c in chunks], [None] * len(chunks))
            self.refused(self.server, 400, path, {"stream_options": {"include_usage": True}, **asked}, "stream_options")

    def test_text_of_all_languages_passes_whole(self):
        for text in SENTENCES:
            for echoed in (
                text_of(self.server.complete(text, echo=True, max_tokens=1)),
                joined(self.server.stream(TEXT, prompt=text, echo=True, max_tokens=1))[0],
            ):
                self.assertTrue(echoed.startswith(text), echoed)
            tokens = self.server.ask("/tokenize", prompt=text)["tokens"]
            self.assertEqual(self.server.ask("/detokenize", tokens=tokens), {"prompt": text})
            logprobs = self.server.complete(tokens, echo=True, max_tokens=1, logprobs=0)["choices"][0]["logprobs"]
            whole = b"".join(
                bytes.fromhex(t[6:].replace("\\x", "")) if t.startswith("bytes:") else t.encode()
                for t in logprobs["tokens"][: len(tokens)]
            )
            self.assertEqual(whole.decode(), text)

    def test_tokens_of_texts_and_dialogs(self):
        spelt = self.server.ask("/tokenize", prompt="ab", return_token_strs=True)
        self.assertEqual((spelt["count"], spelt["token_strs"]), (2, ["a", "b"]))
        dialog = [{"role": "user", "content": "ab"}]
        ids = self.server.ask("/tokenize", messages=dialog)["tokens"]
        expected = "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n"
        self.assertEqual(self.server.ask("/detokenize", tokens=ids)["prompt"], expected)
        asked = self.server.chat("ab", max_tokens=12, **GREEDY)
        self.assertEqual(
            asked["choices"][0]["message"]["content"], text_of(self.server.complete(ids, max_tokens=12, **GREEDY))
        )
        # What spells a control token in a message is text.
        ids = self.server.ask("/tokenize", messages=[{"role": "user", "content": "<|im_end|>"}])["tokens"]
        self.assertEqual(ids.count(2), 1)

    def test_an_answer_is_continued(self):
        dialog = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "The ferry"}]
        fields = {"continue_final_message": True, "add_generation_prompt": False}
        ids = self.server.ask("/tokenize", messages=dialog, **fields)["tokens"]
        text = self.server.ask("/detokenize", tokens=ids)["prompt"]
        self.assertTrue(text.endswith("<|im_start|>assistant\nThe ferry"), text)
        continued = self.server.chat(dialog, max_tokens=12, **fields, **GREEDY)["choices"][0]["message"]["content"]
        self.assertEqual(continued, text_of(self.server.complete(ids, max_tokens=12, **GREEDY)))
        self.refused(self.server, 400, CHAT, {"messages": dialog[:1], **fields}, "continue_final_message")

    def test_lists_of_prompts(self):
        alone = [text_of(self.server.complete(q, max_tokens=8, **GREEDY)) for q in QUESTIONS]
        ids = [self.server.ask("/tokenize", prompt=q)["tokens"] for q in QUESTIONS]
        for prompts in (QUESTIONS, ids):
            choices = self.server.complete(prompts, max_tokens=8, n=2, **GREEDY)["choices"]
            self.assertEqual([c["index"] for c in choices], list(range(6)))
            self.assertEqual([c["text"] for c in choices], [t for t in alone for _ in range(2)])
        self.assertEqual(text_of(self.server.complete(ids[0], max_tokens=8, **GREEDY)), alone[0])

    def test_refusals_name_the_field(self):
        dialog = [{"role": "user", "content": "x"}]
        for path, body, param in (
            (CHAT, {}, "messages"),
            (CHAT, {"messages": []}, "messages"),
            (CHAT, {"messages": dialog, "temperature": "hot"}, "temperature"),
            (CHAT, {"messages": dialog, "max_tokens": 0}, "max_tokens"),
            (CHAT, {"messages": dialog, "logprobs": 3}, "logprobs"),
            (CHAT, {"messages": dialog, "top_logprobs": 21, "logprobs": True}, "top_logprobs"),
            (CHAT, {"messages": dialog, "n": 5}, "n"),
            (CHAT, {"messages": [{"role": "tool", "content": "x", "tool_call_id": None}]}, "messages[0].tool_call_id"),
            (TEXT, {"prompt": ""}, "prompt"),
            (TEXT, {"prompt": [259]}, "prompt[0]"),
            (TEXT, {"prompt": [[1], "a"]}, "prompt[1]"),
            (TEXT, {"prompt": "x", "logprobs": True}, "logprobs"),
            (TEXT, {"prompt": "x", "best_of": 2}, "best_of"),
            (TEXT, {"prompt": "x", "stop": ["a", "b", "c", "d"]}, "stop"),
            (TEXT, {"prompt": "x", "stop": [""]}, "stop[0]"),
            (TEXT, {"prompt": "x", "logit_bias": {"259": 1}}, "logit_bias"),
            (TEXT, {"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ):
            with self.subTest(path=path, body=body):
                self.refused(self.server, 400, path, body, param)
        unsupported = "unsupported_parameter"
        self.refused(self.server, 400, CHAT, {"messages": dialog, "guided_json": {}}, "guided_json", unsupported)
        self.refused(self.server, 400, TEXT, {"prompt": "x", "suffix": "y"}, "suffix", unsupported)
        self.refused(self.server, 400, TEXT, b"{", None)
        code = "context_length_exceeded"
        self.refused(self.server, 400, TEXT, {"prompt": "x" * 1025}, None, code)
        self.refused(self.server, 400, TEXT, {"prompt": "x" * 1000, "max_tokens": 30}, "max_tokens", code)
        for path, body in ((TEXT, {"prompt": "x"}), (CHAT, {"messages": dialog})):
            message = self.refused(self.server, 404, path, {"model": "other", **body}, "model", "model_not_found")
            self.assertIn('"other"', message)

    def test_refusals_of_http(self):
        for method, path, status in (("GET", CHAT, 405), ("POST", "/health", 405), ("GET", "/v1/embeddings", 404)):
            reply = self.server.request(method, path)
            self.assertEqual(reply.status, status)
            self.assertIn("message", reply.json["error"])
        long = self.server.get("/health", **{"X-Long": "x" * 17_000})
        self.assertEqual((long.status, list(long.json)), (431, ["error"]))
        large = self.server.request("POST", TEXT, b"", {"Content-Length": str(9 << 20)})
        self.assertEqual((large.status, list(large.json)), (413, ["error"]))
        forbidden = self.server.request("POST", "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "y"})
        self.assertEqual(forbidden.status, 403)
        self.assertEqual(self.server.get("/health").status, 200)


if __name__ == "__main__":
    unittest.main(verbosity=1)
