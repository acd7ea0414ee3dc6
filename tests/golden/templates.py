"""templates.json: generated dialogs, and what transformers renders of them through the public chat templates of the trl
wheel, as hashes: of the text, and of the ids and the trained mask by a tokenizer of bytes with the template's control
tokens. The mask is found without looking into the rendering: fields of one message are enclosed in sentinels, and what
stands between them is what the message gave. tests/data/public_templates_test.cpp holds Drover's own against it.
Usage: templates.py TEMPLATES OUT         TEMPLATES: a folder of *.jinja, as tests/fetch-chat-templates leaves it"""

import datetime
import hashlib
import json
import pathlib
import random
import re
import sys

from transformers.utils import chat_template_utils

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
DATE = datetime.datetime(2024, 7, 26)
WORDS = [
    "Hi", "Où est la gare ?", "  spaced  ", "", "a\nb\n\nc", "日本語のテスト", "emoji 🙂👩‍👩‍👧", '{"a": 1, "b": [true, null]}', "it's \"quoted\" \\ back",
    "<think>hm</think>yes", "<think>\nfirst\n</think>\n\nthen", "</think> only", "<|im_end|> in words", "[INST] x [/INST]", "{{ braces }} {% if %}",
    "tab\there", "CRLF\r\nline", "<tool_call>\n{}\n</tool_call>", "/no_think please", "x" * 300, "0", "None", "a<b>&c", "\u00a0nbsp\u00a0", "e\u0301 composed",
]
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "description": "Name, e.g. Zürich"}, "days": {"type": "integer", "default": 1},
                                         "unit": {"type": "string", "enum": ["C", "F"]}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "add", "description": "a + b", "parameters": {
        "type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}, "tags": {"type": "array", "items": {"type": "string"}}},
        "required": ["a", "b"]}, "return": {"type": "number"}}},
    {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}}},
]
ARGUMENTS = {"get_weather": {"city": "Zürich \"old\"", "days": 3, "unit": "C"}, "add": {"a": 1.5, "b": -2e-7, "tags": ["x", "y"]}, "now": {}}


def turn(draw, role):
    return {"role": role, "content": draw.choice(WORDS)}


def answer(draw):
    message = turn(draw, "assistant")
    if draw.random() < 0.25:
        message["reasoning_content"] = draw.choice(WORDS[:9])
    return message


def calls(draw, tools, number):
    chosen = draw.sample(tools, draw.randint(1, min(2, len(tools))))
    message = {"role": "assistant", "content": draw.choice(["", None, "Let me look."]), "tool_calls": [
        {"id": f"call{number}{i:04d}"[:9], "type": "function", "function": {"name": t["function"]["name"], "arguments": ARGUMENTS[t["function"]["name"]]}}
        for i, t in enumerate(chosen)]}
    results = [{"role": "tool", "tool_call_id": c["id"], "name": c["function"]["name"], "content": draw.choice(['{"ok": true}', "12 °C", ""])}
               for c in message["tool_calls"]]
    return [message] + results


def dialog(number):
    draw = random.Random(number)
    messages, tools = [], None
    if draw.random() < 0.5:
        messages.append(turn(draw, "system"))
    if draw.random() < 0.4:
        tools = draw.sample(TOOLS, draw.randint(1, 3))
    for round_number in range(draw.randint(1, 3)):
        messages.append(turn(draw, "user"))
        if tools and draw.random() < 0.6:
            messages += calls(draw, tools, round_number)
        messages.append(answer(draw))
    prompt = draw.random() < 0.4
    if prompt:
        messages.pop()
    return {"messages": messages, "tools": tools, "add_generation_prompt": prompt}


def render(template, row):
    return chat_template_utils._compile_jinja_template(template).render(
        messages=row["messages"], tools=row["tools"], documents=None, add_generation_prompt=row["add_generation_prompt"],
        strftime_now=DATE.strftime, **TOKENS)


def short(text):
    return hashlib.sha256(text.encode()).hexdigest()[:8]


# What looks like a control token in a template, in the order of their ids from 256 on.
CONTROL = re.compile(r"<[|｜][^<>|｜\s{}'\"]+[|｜]>|<(?:start|end)_of_turn>|</?s>|\[/?[A-Z_]+\]")
OPEN, CLOSE = "\U000F0000", "\U000F0001"


def controls(template):
    return sorted(set(CONTROL.findall(template)) | {"<s>", "</s>"})


def enclosed(value):
    if isinstance(value, str):
        return OPEN + value + CLOSE
    if isinstance(value, list):
        return [enclosed(v) for v in value]
    if isinstance(value, dict):
        return {k: enclosed(v) for k, v in value.items()}
    return value


def marked(row):
    """The dialog with all its fields in sentinels, those of message i in its own: (OPEN, CLOSE) shifted by 2 i."""
    messages = []
    for i, message in enumerate(row["messages"]):
        shift = str.maketrans({OPEN: chr(ord(OPEN) + 2 * i), CLOSE: chr(ord(CLOSE) + 2 * i)})
        fields = {k: v if k in ("role", "tool_calls") else enclosed(v) for k, v in message.items()}
        messages.append({k: v.translate(shift) if isinstance(v, str) else v for k, v in fields.items()})
    return row | {"messages": messages}


def is_sentinel(c):
    return 0xF0000 <= ord(c) < 0xF0100


def plain_dialog(row):
    """Whose fields a template hands on as they are: no calls, no tools, no reasoning, nothing to trim or to cut."""
    return row["tools"] is None and all(
        m["content"] and m["content"].strip() == m["content"] and "think" not in m["content"] and "<" not in m["content"] and "reasoning_content" not in m
        for m in row["messages"])


def spans(template, row):
    """(text, [(begin, end)] in characters of what each message gives), or nothing where sentinels change the text."""
    out, begins, found = "", {}, [None] * len(row["messages"])
    for c in render(template, marked(row)):
        if not is_sentinel(c):
            out += c
            continue
        i, closes = divmod(ord(c) - 0xF0000, 2)
        if closes:
            found[i] = (found[i][0] if found[i] else begins[i], len(out))
        else:
            begins[i] = len(out)
    return (out, found) if out == render(template, row) else None


def turn_end(template, names):
    """The first control token behind the answer of a dialog of one question."""
    got = spans(template, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "tools": None, "add_generation_prompt": False})
    if got is None or got[1][1] is None:
        return None
    text, found = got
    after = [m for m in re.finditer("|".join(map(re.escape, names)), text) if m.start() >= found[1][1]]
    return after[0].group() if after else None


def masked(template, row):
    """[ids, mask] as bytes and control tokens; nothing where the sentinels do not tell."""
    names = controls(template)
    got = spans(template, row)
    if got is None:
        return None
    text, found = got
    given = [f for f in found if f]
    inside = lambda at: any(b <= at < e for b, e in given)
    tokens = [m for m in re.finditer("|".join(map(re.escape, sorted(names, key=len, reverse=True))), text) if not any(inside(i) for i in range(m.start(), m.end()))]
    trained = [False] * len(text)
    if "{% generation" in template.replace("{%-", "{%"):
        for begin, stop in marked_by_template(template, row):
            trained[begin:stop] = [True] * (stop - begin)
    elif not train_answers(template, row, text, found, tokens, trained):
        return None
    ids, mask, at = [], [], 0
    starts = {m.start(): m for m in tokens}
    while at < len(text):
        step = len(starts[at].group()) if at in starts else 1
        piece = [256 + names.index(starts[at].group())] if at in starts else list(text[at].encode())
        ids += piece
        mask += [int(any(trained[at : at + step]))] * len(piece)
        at += step
    return [ids, mask]


def marked_by_template(template, row):
    compiled = chat_template_utils._compile_jinja_template(template)
    text, spans_of_blocks = chat_template_utils._render_with_assistant_indices(
        compiled, row["messages"], row["tools"], None, row["add_generation_prompt"], strftime_now=DATE.strftime, **TOKENS)
    assert text == render(template, row)
    return spans_of_blocks


def train_answers(template, row, text, found, tokens, trained):
    """Marks every answer through its end of turn; False where the sentinels do not tell."""
    end = turn_end(template, controls(template))
    for i, (message, span) in enumerate(zip(row["messages"], found)):
        if message["role"] != "assistant":
            continue
        if span is None:
            return False
        if i + 1 < len(row["messages"]):  # as when it was given?
            before = spans(template, row | {"messages": row["messages"][: i + 1], "add_generation_prompt": False})
            if before is None or before[1][i] is None:
                return False
            if before[0][: before[1][i][1]] != text[: span[1]]:
                continue
        following = min([f[0] for f in found[i + 1 :] if f] + [len(text)])
        stop = next((m for m in tokens if span[1] <= m.start() < following), None)
        last = stop.end() if stop and stop.group() in (end, "</s>") else span[1]
        trained[span[0] : last] = [True] * (last - span[0])
    return True


def main(folder, out):
    dialogs = [dialog(i) for i in range(220)]
    templates = {}
    for file in sorted(pathlib.Path(folder).glob("*.jinja")):
        text = file.read_bytes().decode()
        results, masks = [], {}
        for i, row in enumerate(dialogs):
            try:
                results.append(short(render(text, row)))
            except Exception:
                results.append("-")
                continue
            try:
                ids = masked(text, row) if plain_dialog(row) else None
            except Exception:  # a part of the dialog is not taken
                continue
            if ids is not None:
                masks[i] = short(json.dumps(ids, separators=(",", ":")))
        templates[file.stem] = {"controls": controls(text), "texts": "".join(r.ljust(8) for r in results), "masks": masks}
    rows = {"tokens": TOKENS, "dialogs": dialogs, "templates": templates}
    pathlib.Path(out).write_text(json.dumps(rows, ensure_ascii=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
