"""Every field of every request, with values of every type that is not its own."""

import asyncio
import json

from serve_parts import client

VALUES = {"string": "no", "integer": 7, "number": 0.5, "boolean": True, "array": [{"no": 1}], "object": {"no": [1]}}
# Requests that are answered; each object in them is one whose fields are tried.
GOOD = {
    "/v1/chat/completions": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "content": "six", "tool_call_id": "c"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "response_format": {"type": "text"},
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 1,
    },
    "/v1/completions": {"prompt": "Hello", "max_tokens": 1, "stream": True, "stream_options": {"include_usage": True}},
    "/tokenize": {"prompt": "Hello"},
    "/tokenize of a dialog": {"messages": [{"role": "user", "content": "Hello"}]},
    "/detokenize": {"tokens": [5]},
    "/v1/load_lora_adapter": {"lora_name": "a", "lora_path": "nowhere"},
    "/v1/unload_lora_adapter": {"lora_name": "a"},
}  # fmt: skip


class Document:
    def __init__(self, document):
        self.document = document

    def alternatives(self, schema):
        """The schema without references, as a list of those of which one holds."""
        if "$ref" in schema:
            return self.alternatives(self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        for word in ("allOf", "anyOf"):
            if word in schema:
                return [each for part in schema[word] for each in self.alternatives(part)]
        return [schema]

    def takes(self, schema, kind):
        """Whether a value of this type may be right there."""
        for each in self.alternatives(schema):
            own = each.get("type")
            if own is None or own == kind or (own == "number" and kind == "integer"):
                return True
        return False

    def objects(self, schema, value, place=()):
        """(place, properties) of every object in a good request."""
        for each in self.alternatives(schema):
            if isinstance(value, dict) and "properties" in each and set(each.get("required", ())) <= set(value):
                yield place, each["properties"]
                for name, inner in each["properties"].items():
                    if name in value:
                        yield from self.objects(inner, value[name], (*place, name))
            if isinstance(value, list) and "items" in each:
                for i, inner in enumerate(value):
                    yield from self.objects(each["items"], inner, (*place, i))

    def wrong_values(self, schema, body):
        for place, properties in self.objects(schema, body):
            for name, each in properties.items():
                for kind, value in VALUES.items():
                    if not self.takes(each, kind):
                        yield place, name, kind, value


def changed(body, place, name, value):
    body = json.loads(json.dumps(body))
    inner = body
    for key in place:
        inner = inner[key]
    inner[name] = value
    return body


async def try_all(report, port):
    document, tried, fields = Document((await client.ask(port, "/openapi.json")).json()), 0, set()
    for path, operations in document.document["paths"].items():
        if "post" not in operations:
            continue
        bodies = [body for key, body in GOOD.items() if key.split()[0] == path]
        if not bodies:
            report.wrong("fields", f"{path} has no good request here")
        schema = operations["post"]["requestBody"]["content"]["application/json"]["schema"]
        for body in bodies:
            good = await client.ask(port, path, body)
            if good.status != 200 and "lora" not in path and "template" not in good.error:
                report.wrong("fields", f"{path}: the good request gets {good.status} {good.error}")
            for place, name, kind, value in document.wrong_values(schema, body):
                tried += 1
                fields.add((path, place, name))
                answer = await client.ask(port, path, changed(body, place, name, value))
                where = ".".join(map(str, (*place, name)))
                if answer.status != 400 or name not in answer.body.decode():
                    report.wrong("fields", f"{path}: {where} of type {kind} gets {answer.status} {answer.body!r}")
    report.add(
        "fields of a wrong type", tried, f"{len(fields)} fields; each got 400 with its name, but for FOUND above"
    )


def run(report, server):
    asyncio.run(try_all(report, server.port))
