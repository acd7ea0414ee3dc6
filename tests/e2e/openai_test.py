"""drover serve asked by OpenAI's own client. Skipped where the package is missing; tests/fetch-openai gets it, and
DROVER_OPENAI names the folder."""

import json
import os
import shutil
import sys
import unittest

from serving import ServingCase

if folder := os.environ.get("DROVER_OPENAI"):
    sys.path.append(folder)
try:
    import openai
except ImportError as problem:
    openai, MISSING = None, f"no package openai: {problem}; tests/fetch-openai DIR and DROVER_OPENAI=DIR"

DIALOG = [{"role": "user", "content": "harbour?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "tide",
            "description": "The tide at a port.",
            "parameters": {"type": "object", "properties": {"port": {"type": "string"}}, "required": ["port"]},
        },
    }
]
# ChatML with tools, and calls as Llama 3.1 writes them.
TEMPLATE = (
    "{%- if tools %}<|im_start|>system\n{% for t in tools %}{{ t.function | tojson }}\n{% endfor %}<|im_end|>\n"
    "{% endif %}"
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n"
    "{%- if m.tool_calls %}{% for c in m.tool_calls %}"
    "{'name': {{ c.function.name | tojson }}, 'parameters': {{ c.function.arguments | tojson }}}{% endfor %}"
    "{%- else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
KEY = "sk-" + "7" * 20
SHORT = {"max_tokens": 24, "temperature": 0}


@unittest.skipIf(openai is None, "the package openai is missing")
class OpenAi(ServingCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        keys = cls.home / "keys"
        keys.write_text(KEY + "\n")
        keys.chmod(0o600)
        model = cls.home / "with-tools"
        shutil.copytree(cls.model, model)
        settings = json.loads((model / "tokenizer_config.json").read_text())
        (model / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": TEMPLATE}))
        options = ["--api-keys", keys, "--adapter", f"port={cls.plain}/adapter", "--name", "base"]
        cls.server = cls.serve(cls, *options, model=model)
        cls.client = cls.client_of(KEY)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.server.kill()
        super().tearDownClass()

    @classmethod
    def client_of(cls, key):
        return openai.OpenAI(base_url=f"http://127.0.0.1:{cls.server.port}/v1", api_key=key, max_retries=0, timeout=60)

    def chat(self, messages=DIALOG, **more):
        return self.client.chat.completions.create(**{"model": "base", "messages": messages, **SHORT, **more})

    def test_models(self):
        models = list(self.client.models.list())
        self.assertEqual(
            [(m.id, m.object, m.parent) for m in models], [("base", "model", None), ("port", "model", "base")]
        )

    def test_chat(self):
        answer = self.chat(n=2, stop=["never"], seed=3, user="somebody")
        self.assertEqual([c.index for c in answer.choices], [0, 1])
        self.assertEqual(answer.choices[0].message.role, "assistant")
        self.assertEqual(answer.choices[0].message.content, answer.choices[1].message.content)
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)
        self.assertNotEqual(self.chat(model="port").choices[0].message.content, answer.choices[0].message.content)
        parts = [{"role": "user", "content": [{"type": "text", "text": "harbour"}, {"type": "text", "text": "?"}]}]
        self.assertEqual(self.chat(parts).choices[0].message, answer.choices[0].message)

    def test_streams(self):
        whole = self.chat(logprobs=True, top_logprobs=2)
        text, logprobs, usage = "", [], None
        for chunk in self.chat(logprobs=True, top_logprobs=2, stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                logprobs += choice.logprobs.content if choice.logprobs else []
        choice = whole.choices[0]
        self.assertEqual((text, logprobs, usage), (choice.message.content, choice.logprobs.content, whole.usage))
        self.assertEqual(len(logprobs[0].top_logprobs), 2)
        with self.client.chat.completions.stream(model="base", messages=DIALOG, **SHORT) as events:
            self.assertEqual("".join(e.delta for e in events if e.type == "content.delta"), text)
        with self.client.chat.completions.with_streaming_response.create(
            model="base", messages=DIALOG, **SHORT
        ) as response:
            self.assertEqual(json.loads(response.read())["choices"][0]["message"]["content"], text)
        raw = self.client.chat.completions.with_raw_response.create(model="base", messages=DIALOG, **SHORT)
        self.assertEqual(raw.parse().choices[0].message.content, text)

    def test_a_stream_that_is_left(self):
        stream = self.chat(max_tokens=900, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        self.assertTrue(self.chat().choices)

    def test_completions(self):
        answer = self.client.completions.create(model="base", prompt="crane", logprobs=2, echo=True, **SHORT)
        choice = answer.choices[0]
        self.assertTrue(choice.text.startswith("crane"))
        self.assertEqual(len(choice.logprobs.tokens), 29)
        self.assertIsNone(choice.logprobs.token_logprobs[0])
        streamed = self.client.completions.create(model="base", prompt="crane", echo=True, stream=True, **SHORT)
        self.assertEqual("".join(chunk.choices[0].text for chunk in streamed), choice.text)
        lists = self.client.completions.create(model="base", prompt=[[5, 6], [7]], max_tokens=2)
        self.assertEqual([c.index for c in lists.choices], [0, 1])

    def test_two_turns_with_tools(self):
        first = self.chat(tools=TOOLS, tool_choice="auto", parallel_tool_calls=False)
        self.assertIn(first.choices[0].finish_reason, ("stop", "length", "tool_calls"))
        # What a model that knows the format says first, content null or left out.
        call = {"id": "call-1", "type": "function", "function": {"name": "tide", "arguments": '{"port": "Kiel"}'}}
        result = {"role": "tool", "tool_call_id": "call-1", "content": "high"}
        texts = set()
        for said in ({"content": None}, {}, {"content": ""}):
            dialog = [*DIALOG, {"role": "assistant", **said, "tool_calls": [call]}, result]
            answer = self.chat(dialog, tools=TOOLS)
            texts.add(answer.choices[0].message.content)
            self.assertGreater(answer.usage.prompt_tokens, first.usage.prompt_tokens)
        self.assertEqual(len(texts), 1)
        message = openai.types.chat.ChatCompletionMessage(role="assistant", content="yes")
        self.assertTrue(self.chat([*DIALOG, message, *DIALOG]).choices)  # an answer, as it came
        with self.assertRaises(openai.BadRequestError) as refused:
            self.chat([*DIALOG, {"role": "assistant", "tool_calls": [call]}, {**result, "tool_call_id": None}])
        self.assertEqual(refused.exception.param, "messages[2].tool_call_id")
        with self.assertRaises(openai.BadRequestError) as refused:  # the adapter's own template writes no tools
            self.chat(model="port", tools=TOOLS)
        self.assertIn("tools", str(refused.exception))

    def test_errors_have_classes(self):
        for kind, param, code, fields in (
            (openai.BadRequestError, "temperature", None, {"temperature": 9}),
            (openai.BadRequestError, "guided_json", "unsupported_parameter", {"extra_body": {"guided_json": {}}}),
            (openai.BadRequestError, "max_tokens", "context_length_exceeded", {"max_tokens": 2000}),
            (openai.NotFoundError, "model", "model_not_found", {"model": "other"}),
        ):
            for stream in (False, True):
                with self.assertRaises(kind) as refused:
                    self.chat(**fields, stream=stream)
                self.assertEqual((refused.exception.param, refused.exception.code), (param, code))
        with self.assertRaises(openai.AuthenticationError), self.client_of("sk-wrong-wrong") as wrong:
            wrong.models.list()
        with self.assertRaises(openai.NotFoundError):
            self.client.embeddings.create(model="base", input="x")


if __name__ == "__main__":
    if openai is None:
        print(f"Skipped: {MISSING}")
        sys.exit(77)
    unittest.main(verbosity=1)
