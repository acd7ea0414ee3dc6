"""launch/serve/page.html without a browser: what its Content-Security-Policy and its readers rely on, the contrast of
its colours, and, in node, its functions that touch no document. In a browser: tests/slow/page.
Usage: page_test.py [NAME…]     (unittest's names)"""

import html.parser
import json
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

PAGE = pathlib.Path(__file__).resolve().parents[2] / "launch" / "serve" / "page.html"
BYTES = 30_000
CONTRAST = 4.5  # WCAG 2.2, AA, text
EDGE_CONTRAST = 3.0  # the same, edges of fields
FIELDS = {"input", "select", "textarea"}
VOID = {"input", "link", "meta", "br"}


class Elements(html.parser.HTMLParser):
    """All elements as (name, attributes), and the text inside each label and button."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.found.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append((name, len(self.found) - 1, []))

    def handle_endtag(self, name):
        opened, index, words = self.open.pop()
        assert opened == name, f"<{opened}> is closed by </{name}>"
        self.texts.append((index, "".join(words).strip()))

    def handle_data(self, data):
        for _, _, words in self.open:
            words.append(data)

    def of(self, *names):
        return [attributes for name, attributes in self.found if name in names]


def colours(block):
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))


def contrast(a, b):
    darker, lighter = sorted((luminance(a), luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)


class Structure(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.text = PAGE.read_text(encoding="utf-8")
        cls.page = Elements(cls.text)
        cls.script = re.search(r"<script>(.*)</script>", cls.text, re.S)[1]
        cls.style = re.search(r"<style>(.*)</style>", cls.text, re.S)[1]

    def test_it_is_small(self):
        self.assertLess(len(self.text.encode()), BYTES)

    def test_one_script_and_one_style_and_no_such_tag_in_other_text(self):
        for tag in ("<script", "</script", "<style", "</style"):
            self.assertEqual(self.text.count(tag), 1, tag)
        for name in ("script", "style"):
            self.assertEqual(
                self.page.of(name), [{}], "an attribute would change what is hashed or where it comes from"
            )

    def test_nothing_is_inline_elsewhere(self):
        for name, attributes in self.page.found:
            self.assertNotIn("style", attributes, name)
            self.assertFalse([a for a in attributes if a.startswith("on")], name)
            self.assertFalse([v for v in attributes.values() if (v or "").lower().startswith("javascript:")], name)

    def test_nothing_comes_from_outside(self):
        named = re.sub(r"xmlns='http://www\.w3\.org/2000/svg'", "", self.text)
        urls = set(re.findall(r"\w+://[^\s'\")]+", named))
        self.assertEqual(urls, {"https://html.spec.whatwg.org/multipage/server-sent-events.html"})  # in a comment
        self.assertNotRegex(self.style, r"url\(|@import|@font-face")
        self.assertNotRegex(self.script, r"\bimport\b|importScripts|WebSocket|EventSource|sendBeacon")
        for attributes in (a for _, a in self.page.found):
            self.assertFalse({"src", "srcset", "action", "formaction", "background", "ping"} & set(attributes))
            self.assertTrue((attributes.get("href") or "data:image/svg+xml,").startswith("data:image/svg+xml,"))
        for path in re.findall(r"ask\('([^']*)'", self.script):
            self.assertIn(path, ("v1/models", "v1/chat/completions"))

    def test_texts_never_become_markup_or_code(self):
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "eval(",
            "Function(",
        ):
            self.assertNotIn(way, self.script)
        self.assertNotRegex(self.script, r"localStorage|sessionStorage|document\.cookie")

    def test_the_script_is_strict(self):
        self.assertTrue(self.script.lstrip().startswith("'use strict';"))

    def test_language_title_and_width(self):
        self.assertEqual(self.page.of("html"), [{"lang": "en"}])
        self.assertEqual(len(self.page.of("title")), 1)
        self.assertIn({"name": "viewport", "content": "width=device-width, initial-scale=1"}, self.page.of("meta"))
        self.assertIn({"charset": "utf-8"}, self.page.of("meta"))

    def test_ids_are_unique_and_all_that_are_named_exist(self):
        ids = [a["id"] for _, a in self.page.found if "id" in a]
        self.assertEqual(len(ids), len(set(ids)))
        named = set(re.findall(r"\$\('([\w-]+)'\)", self.script))
        named |= {
            a[key] for _, a in self.page.found for key in ("for", "aria-controls", "aria-describedby") if key in a
        }
        self.assertLessEqual(named, set(ids))

    def test_every_field_has_a_label_and_every_button_a_text(self):
        texts = {index: text for index, text in self.page.texts}
        labelled = {a["for"] for i, (n, a) in enumerate(self.page.found) if n == "label" and texts[i]}
        self.assertEqual(labelled, {attributes.get("id") for attributes in self.page.of(*FIELDS)})
        buttons = [texts[i] for i, (name, _) in enumerate(self.page.found) if name == "button"]
        self.assertTrue(buttons and all(buttons), buttons)

    def test_buttons_outside_of_their_form_do_not_send_it(self):
        senders = [a for a in self.page.of("button") if a.get("type") != "button"]
        self.assertEqual(len(senders), 2, "Send and Use key")

    def test_answers_and_errors_are_announced(self):
        live = {a.get("id"): a for _, a in self.page.found if a.get("role") in ("log", "alert", "status")}
        self.assertEqual(live["turns"]["aria-live"], "polite")
        self.assertLessEqual({"turns", "notice", "status"}, set(live))

    def test_dark_and_light_and_less_motion(self):
        for feature in ("prefers-color-scheme: dark", "prefers-reduced-motion: reduce"):
            self.assertIn(f"@media ({feature})", self.style)
        self.assertNotRegex(self.style, r"outline: (none|0)")

    def test_contrast(self):
        light, dark = (colours(block) for block in re.findall(r":root \{(.*?)\}", self.style, re.S))
        self.assertEqual(set(light), set(dark))
        for scheme in (light, dark):
            for ground in ("ground", "card", "tint"):
                for ink in ("ink", "soft", "accent", "bad"):
                    self.assertGreaterEqual(contrast(scheme[ink], scheme[ground]), CONTRAST, (ink, ground, scheme))
            self.assertGreaterEqual(contrast(scheme["on-accent"], scheme["accent"]), CONTRAST, scheme)
            self.assertGreaterEqual(contrast(scheme["edge"], scheme["card"]), EDGE_CONTRAST, scheme)


def evaluate(expression, **names):
    """What an expression over the page's own functions gives in node, as JSON."""
    script = re.search(r"<script>(.*?)\n// ---- Above:", PAGE.read_text(encoding="utf-8"), re.S)[1]
    given = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in names.items())
    program = f"{script}\n{given}console.log(JSON.stringify({expression}));\n"
    ended = subprocess.run(["node", "-"], input=program, capture_output=True, text=True, timeout=60)
    if ended.returncode != 0:
        raise AssertionError(ended.stderr)
    return json.loads(ended.stdout)


def chunks(*pieces):
    """What one reader gives for these pieces of bytes: a list of events for each."""
    return evaluate(
        "(reader => pieces.map(p => reader.push(Uint8Array.from(p))))(new EventReader())",
        pieces=[list(p) for p in pieces],
    )


@unittest.skipUnless(shutil.which("node"), "node is not installed")
class Functions(unittest.TestCase):
    TEXT = (
        b'\xef\xbb\xbf: hello\n\nevent: x\ndata: {"a":"\xe6\x9d\xb1\xe4\xba\xac \xf0\x9f\x90\x91"}\r\n\r\n'
        b"data:first\ndata:  second\r\rdata\nid: 7\n\ndata: [DONE]\n\ndata: never ended\n"
    )
    EVENTS = ['{"a":"東京 🐑"}', "first\n second", "[DONE]"]

    def test_events_cut_at_every_place(self):
        cuts = [[list(self.TEXT[:i]), list(self.TEXT[i:])] for i in range(len(self.TEXT) + 1)]
        found = evaluate(
            "cuts.map(([a, b]) => { const r = new EventReader();"
            " return [...r.push(Uint8Array.from(a)), ...r.push(Uint8Array.from(b))]; })",
            cuts=cuts,
        )
        for i, events in enumerate(found):
            self.assertEqual(events, self.EVENTS, f"cut at byte {i}")

    def test_events_byte_by_byte(self):
        self.assertEqual(sum(chunks(*(bytes([b]) for b in self.TEXT)), []), self.EVENTS)

    def test_an_event_comes_with_the_bytes_that_complete_it(self):
        self.assertEqual(chunks(b"data: a\n", b"\nda", b"ta: b\r\n\r", b"\ndata: c\n\n"), [[], ["a"], [], ["b", "c"]])

    def test_a_chunk(self):
        def read(chunk):
            return evaluate("readChunk(data)", data=json.dumps(chunk))

        self.assertEqual(read({"choices": [{"delta": {"role": "assistant"}}]}), {"text": ""})
        self.assertEqual(
            read({"choices": [{"delta": {"content": "é"}, "finish_reason": "length"}], "usage": None}),
            {"text": "é", "reason": "length"},
        )
        self.assertEqual(read({"choices": [], "usage": {"completion_tokens": 7}}), {"text": "", "tokens": 7})

    def test_an_error_in_a_stream(self):
        caught = "(() => { try { readChunk(data); } catch (e) { return [e.constructor.name, e.message]; } })()"
        self.assertEqual(evaluate(caught, data='{"error":{"message":"no room"}}'), ["ServerError", "no room"])

    def test_what_a_refusal_says(self):
        said = "((e) => [e.status, e.message])(refusal(status, body))"
        self.assertEqual(evaluate(said, status=400, body='{"error":{"message":"too long"}}'), [400, "too long"])
        for body in ("", "<html>", "null", '{"error":"x"}', '{"error":{"message":""}}'):
            words = "The server answered with status 502 and gave no reason."
            self.assertEqual(evaluate(said, status=502, body=body), [502, words])

    def test_speed(self):
        def speed(tokens, **times):
            if tokens is None:
                return evaluate("speed(times, undefined)", times=times).replace("\u00a0", " ")
            return evaluate("speed(times, tokens)", times=times, tokens=tokens).replace("\u00a0", " ")

        whole = speed(21, sent=1000, first=1250, last=3250)
        self.assertEqual(whole, "first token after 0.25 s · 10.0 tokens/s · 21 tokens")
        self.assertEqual(speed(1, sent=0, first=100, last=100), "first token after 0.10 s · 1 token")
        self.assertEqual(speed(9, sent=0, first=100, last=100), "first token after 0.10 s · 9 tokens")
        self.assertEqual(speed(None, sent=0, first=100, last=900), "first token after 0.10 s")
        self.assertEqual(speed(0, sent=0), "0 tokens")
        self.assertEqual(speed(None, sent=0), "")

    TURNS = [
        {"question": "one", "answers": [{"text": "1"}]},
        {"question": "two", "answers": [{"text": "2"}, {"text": "zwei"}]},
        {"question": "broken", "answers": [{"text": "3", "failed": True}, {"text": "drei"}]},
        {"question": "waits", "answers": [{"text": ""}, {"text": ""}]},
    ]

    def spoken(self, column, system):
        messages = evaluate("messagesOf(turns, column, system)", turns=self.TURNS, column=column, system=system)
        return [(m["role"], m["content"]) for m in messages]

    def test_what_each_column_has_said(self):
        first = [("user", "one"), ("assistant", "1"), ("user", "two"), ("assistant", "2")]
        self.assertEqual(self.spoken(0, ""), first)
        self.assertEqual(self.spoken(0, " \n"), first)
        self.assertEqual(
            self.spoken(1, "Be brief."),
            [("system", "Be brief."), ("user", "one"), ("assistant", "1"), ("user", "two"), ("assistant", "zwei")]
            + [("user", "broken"), ("assistant", "drei")],
        )

    def test_a_request_leaves_empty_fields_to_the_server(self):
        settings = {"temperature": "0", "seed": "", "max_tokens": "64"}
        request = evaluate("requestOf('m', [], settings)", settings=settings)
        streamed = {"model": "m", "messages": [], "stream": True, "stream_options": {"include_usage": True}}
        self.assertEqual(request, {**streamed, "temperature": 0, "max_tokens": 64})

    def test_the_base_is_on_the_left_and_its_adapter_on_the_right(self):
        base, other = {"id": "base"}, {"id": "other"}
        adapter, foreign = {"id": "a", "parent": "base"}, {"id": "f", "parent": "other"}
        cases = [
            ([base], ["base", "base"]),
            ([adapter, base], ["base", "a"]),
            ([base, other, foreign, adapter], ["base", "a"]),
            ([base, foreign], ["base", "f"]),
            ([adapter], ["a", "a"]),
            ([], [None, None]),
        ]
        for models, expected in cases:
            self.assertEqual(evaluate("firstModels(models)", models=models), expected)

    def test_a_training_row_is_one_line(self):
        messages = [{"role": "user", "content": "a\nb\u2028“c”"}, {"role": "assistant", "content": "d"}]
        row = evaluate("rowOf(messages)", messages=messages)
        self.assertEqual((row.count("\n"), row[-1]), (1, "\n"))
        self.assertEqual(json.loads(row), {"messages": messages})


if __name__ == "__main__":
    if not shutil.which("node"):
        print("SKIPPED: node is not installed, so none of the page's functions is tested", file=sys.stderr)
    unittest.main()
