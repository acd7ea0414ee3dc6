"""Random requests made from a server's own /openapi.json: most of them right, some wrong in one place."""

import json
import random

from serve_parts.prompts import CODE, WORDS

ODD_TEXTS = (
    "",
    "\x00",
    "\ud800",
    "🚢" * 5,
    "\u202e",
    "<|im_start|>",
    "<|im_end|>",
    "a" * 300,
    "\r\n\r\n",
    '"\\',
    "\x7f\x1b[2J",
)
ODD_VALUES = (
    None,
    True,
    False,
    -1,
    0,
    1e308,
    -1e308,
    2**63,
    -(2**63),
    2**64,
    0.5,
    "",
    "1",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
    "\x00",
)
SHORT = {"max_tokens": 6, "max_completion_tokens": 6, "n": 2, "best_of": 2}  # at most, or all would take hours
LISTS = {"messages": 4, "tools": 2, "prompt": 3, "stop": 3}


class Generator:
    def __init__(self, document, seed, models, prompts):
        self.schemas, self.paths = document["components"]["schemas"], document["paths"]
        self.draw, self.models, self.prompts = random.Random(seed), models, prompts

    def schema(self, schema):
        while True:
            if "$ref" in schema:
                schema = self.schemas[schema["$ref"].rpartition("/")[2]]
            elif "allOf" in schema:
                schema = schema["allOf"][0]
            elif "anyOf" in schema:
                schema = self.draw.choice(schema["anyOf"])
            else:
                return schema

    def text(self, schema):
        d = self.draw
        if "enum" in schema:
            return d.choice(schema["enum"])
        if "pattern" in schema:
            return "f" + str(d.randrange(100))
        words = " ".join(d.choices(WORDS, k=d.randint(1, 20)))
        return d.choice(ODD_TEXTS) + words if d.random() < 0.15 else words

    def number(self, schema):
        d, low, high = self.draw, schema.get("minimum", 0), schema.get("maximum", 1000)
        if d.random() < 0.2:
            return d.choice((low, high))
        if schema["type"] == "integer":
            return d.randint(max(low, -1000), min(high, 1000))
        return d.uniform(low, high)

    def value(self, schema, name="", depth=0):
        d, schema = self.draw, self.schema(schema)
        kind = schema.get("type")
        if kind == "string":
            return self.text(schema)
        if kind in ("integer", "number"):
            return min(self.number(schema), SHORT.get(name, float("inf")))
        if kind == "boolean":
            return d.random() < 0.5
        if kind == "array":
            least = schema.get("minItems", 0)
            count = d.randint(least, max(least, min(schema.get("maxItems", 3), LISTS.get(name, 3))))
            return [self.value(schema["items"], "", depth + 1) for _ in range(count)]
        if kind == "object" and "properties" in schema:
            needed = schema.get("required", ())
            few = 0.15 if depth == 0 else 0.5
            return {
                key: self.value(each, key, depth + 1)
                for key, each in schema["properties"].items()
                if key in needed or d.random() < few
            }
        if kind == "object":
            return {str(d.randrange(49152)): d.uniform(-100, 100) for _ in range(d.randint(0, 3))}
        return d.choice(ODD_VALUES)

    def body(self, path):
        """(body, what is known of it: its code word)."""
        schema = self.paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        body, d, code = self.value(schema), self.draw, self.prompts.code()
        if d.random() < 0.9:
            body.pop("model", None)
            body |= {"model": d.choice(self.models)}
        if path == "/v1/completions":
            body["prompt"] = self.prompt(body["prompt"], code)
        elif "messages" in body:
            body["messages"][-1] |= {"role": "user", "content": f"My code is {code}. Repeat it."}
        if path.endswith("completions"):
            body.setdefault("max_tokens", 4)
            if body.get("best_of") is not None:
                body["best_of"] = body.get("n", 1)
            if d.random() < 0.8:
                self.tame(body)
        return body, code

    def prompt(self, prompt, code):
        said = f"My code is {code}. I repeat, my code is"
        return said if isinstance(prompt, str) or isinstance(prompt[0], int) else [said for _ in prompt]

    def tame(self, body):
        """Takes out what contradicts something else, so that most requests are answered."""
        for name in ("tool_choice", "response_format", "tools", "continue_final_message", "top_logprobs",
                     "prompt_logprobs"):  # fmt: skip
            body.pop(name, None)
        if not body.get("stream"):
            body.pop("stream_options", None)
        for message in body.get("messages", ()):
            message.pop("tool_calls", None)
            message.pop("tool_call_id", None)
            if message.get("role") == "tool":
                message["role"] = "user"
            if not isinstance(message.get("content"), str):
                message["content"] = "at six"

    def spoil(self, body):
        """One place is made wrong, somewhere."""
        d, place = self.draw, body
        while isinstance(place, (dict, list)) and place:
            key = d.choice(list(place)) if isinstance(place, dict) else d.randrange(len(place))
            if not isinstance(place[key], (dict, list)) or not place[key] or d.random() < 0.4:
                place[key] = d.choice(ODD_VALUES)
                return
            place = place[key]

    def request(self):
        """(path, bytes of a body, code word, stream, whether something was made wrong)."""
        d = self.draw
        path = d.choices(("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"), (4, 4, 1, 1))[0]
        body, code = self.body(path)
        wrong = d.random() < 0.3
        if wrong:
            self.spoil(body)
        data = json.dumps(body).encode()
        if d.random() < 0.05:
            at = d.randrange(len(data))
            data, wrong = data[:at] + d.choice((b"", b"\xff", b"\x00", b"}", b'"', b"1e999")) + data[at + 1 :], True
        return path, data, code, wrong


def codes(text):
    return set(CODE.findall(text))
