"""Answers that are held to a form: JSON by a schema, calls of tools. The model is made up and would write neither."""

import json
import unittest

from case import run
from serving import ServingCase, joined, text_of

CHAT = "/v1/chat/completions"
GRAMMARS = "xgrammar" in run("--version", check=0).stdout
PERSON = {
    "type": "object",
    "properties": {"name": {"enum": ["Ada", "Bö"]}, "adult": {"type": "boolean"}, "tags": {"const": [1, 2]}},
    "required": ["name", "adult", "tags"],
    "additionalProperties": False,
}
TEMPLATE = """{% if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% else %}{{ m.content }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def tool(name, **properties):
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters | {"additionalProperties": False}}}


TOOLS = [tool("weather", city={"enum": ["Rome", "Oslo"]}), tool("dice", sides={"enum": [6, 20]})]


def schema(of):
    return {"type": "json_schema", "json_schema": {"name": "form", "strict": True, "schema": of}}


class Grammars(ServingCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        template = cls.home / "tools.jinja"
        template.write_text(TEMPLATE)
        cls.server = cls.serve(cls, f"data.template={template}")

    @classmethod
    def tearDownClass(cls):
        cls.server.kill()
        super().tearDownClass()

    def drawn(self, seed, **fields):
        return {"messages": [{"role": "user", "content": "Hi"}], "temperature": 1, "seed": seed} | fields

    @unittest.skipUnless(GRAMMARS, "this build has no xgrammar")
    def test_answers_fit_their_schema(self):
        seen = set()
        for seed in range(8):
            asked = self.drawn(seed, response_format=schema(PERSON), max_tokens=100)
            whole = self.server.ask(CHAT, **asked)
            person = json.loads(text_of(whole))
            self.assertEqual(list(person), ["name", "adult", "tags"])
            self.assertIn(person["name"], PERSON["properties"]["name"]["enum"])
            self.assertEqual(whole["choices"][0]["finish_reason"], "stop")
            seen.add(text_of(whole))
            self.assertEqual(joined(self.server.stream(CHAT, **asked))[0], text_of(whole))
        self.assertGreater(len(seen), 1)
        self.assertTrue(text_of(self.server.ask(CHAT, **self.drawn(1, response_format={"type": "json_object"}))))

    @unittest.skipUnless(GRAMMARS, "this build has no xgrammar")
    def test_forced_calls(self):
        names = set()
        for seed in range(8):
            asked = self.drawn(seed, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_tokens=100)
            choice = self.server.ask(CHAT, **asked)["choices"][0]
            self.assertEqual(choice["finish_reason"], "tool_calls")
            (call,) = choice["message"]["tool_calls"]
            names.add(call["function"]["name"])
            arguments = json.loads(call["function"]["arguments"])
            allowed = {"weather": {"city": ["Rome", "Oslo"]}, "dice": {"sides": [6, 20]}}[call["function"]["name"]]
            self.assertEqual(list(arguments), list(allowed))
            self.assertTrue(all(arguments[k] in v for k, v in allowed.items()))
        self.assertEqual(names, {"weather", "dice"})
        chosen = {"type": "function", "function": {"name": "dice"}}
        asked = self.drawn(1, tools=TOOLS, tool_choice=chosen, max_tokens=100)
        deltas = [c["delta"] for chunk in self.server.stream(CHAT, **asked) for c in chunk["choices"]]
        calls = [call["function"] for delta in deltas for call in delta.get("tool_calls", [])]
        self.assertEqual(calls[0]["name"], "dice")
        self.assertIn(json.loads("".join(c.get("arguments") or "" for c in calls))["sides"], [6, 20])

    @unittest.skipUnless(GRAMMARS, "this build has no xgrammar")
    def test_a_call_and_its_result_are_a_second_turn(self):
        asked = self.drawn(3, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_tokens=100)
        message = self.server.ask(CHAT, **asked)["choices"][0]["message"]
        self.assertIsNone(message["content"])
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "12 degrees"}
        dialog = asked["messages"] + [message, result]
        self.assertTrue(self.server.ask(CHAT, **(asked | {"messages": dialog, "tool_choice": "none", "max_tokens": 5})))

    @unittest.skipUnless(GRAMMARS, "this build has no xgrammar")
    def test_what_cannot_be_held_to_is_refused(self):
        def refused(param, **fields):
            return self.refused(self.server, 400, CHAT, self.drawn(1, **fields), param)

        lost = schema({"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}})
        self.assertIn("#/nowhere", refused("response_format", response_format=lost))
        refused("ignore_eos", response_format=schema(PERSON), ignore_eos=True)
        refused("response_format", response_format=schema(PERSON), tools=TOOLS, tool_choice="required")
        self.assertTrue(self.server.ask(CHAT, **self.drawn(1, max_tokens=2)))

    @unittest.skipIf(GRAMMARS, "this build has xgrammar")
    def test_a_build_without_grammars_says_so(self):
        asked = self.drawn(1, response_format=schema(PERSON))
        self.assertIn("xgrammar", self.refused(self.server, 400, CHAT, asked, "response_format"))


if __name__ == "__main__":
    unittest.main()
