"""Bytes that are no requests, bodies that are no bodies, and values at and beyond every border; with the statuses that
they may get. 0: the connection is closed without an answer."""

import json

HOST = b"Host: 127.0.0.1\r\n"
PATH = "/v1/completions"


def post(body, *fields):
    head = [f"POST {PATH} HTTP/1.1", "Host: a", *fields, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


def chunked(data):
    return b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data


MALFORMED = {
    "no HTTP": (b"hello\r\n\r\n", {400}),
    "HTTP/0.9": (b"GET /health\r\n\r\n", {400, 505}),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 405, 505}),
    "HTTP/1.2": (b"GET /health HTTP/1.2\r\n" + HOST + b"\r\n", {400, 505}),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n", {400}),
    "no Host": (b"GET /health HTTP/1.1\r\n\r\n", {400}),
    "two Hosts": (b"GET /health HTTP/1.1\r\n" + HOST * 2 + b"\r\n", {400}),
    "space in a name": (b"GET /health HTTP/1.1\r\n" + HOST + b"X : y\r\n\r\n", {400}),
    "folded field": (b"GET /health HTTP/1.1\r\n" + HOST + b"X: y\r\n z\r\n\r\n", {200, 400}),
    "NUL in a field": (b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n", {400}),
    "NUL in the path": (b"GET /hea\0lth HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "bare CR": (b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\rb: c\r\n\r\n", {400}),
    "bare LF": (b"GET /health HTTP/1.1\nHost: a\n\n", {400, 408}),
    "CL and TE": (
        b"POST /tokenize HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        {400},
    ),
    "two lengths": (post(b"{}", "Content-Length: 3"), {400}),
    "length -1": (b"POST /tokenize HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", {400}),
    "length +2": (b"POST /tokenize HTTP/1.1\r\n" + HOST + b"Content-Length: +2\r\n\r\n{}", {400}),
    "length 2^64": (
        b"POST /tokenize HTTP/1.1\r\n" + HOST + b"Content-Length: 18446744073709551616\r\n\r\n",
        {400, 413},
    ),
    "length 10 GB": (b"POST /tokenize HTTP/1.1\r\n" + HOST + b"Content-Length: 10000000000\r\n\r\n", {413}),
    "gzip, chunked": (b"POST /tokenize HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", {400, 501}),
    "chunk of -1": (chunked(b"-1\r\n"), {400}),
    "chunk of 2^68": (chunked(b"100000000000000000\r\n"), {400, 413}),
    "chunk without end": (chunked(b"2\r\n{}xx0\r\n\r\n"), {400}),
    "chunk's long note": (chunked(b"2;" + b"x" * 200000 + b"\r\n{}\r\n0\r\n\r\n"), {400, 413}),
    "expects 200-ok": (post(b"{}", "Expect: 200-ok"), {417}),
    "CONNECT": (b"CONNECT example.org:443 HTTP/1.1\r\n" + HOST + b"\r\n", {400, 404, 405}),
    "TRACE": (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", {400, 405}),
    "a method of 5000": (b"A" * 5000 + b" / HTTP/1.1\r\n" + HOST + b"\r\n", {400, 405, 431}),
    "absolute target": (b"GET http://127.0.0.1/health HTTP/1.1\r\n" + HOST + b"\r\n", {200, 400, 404}),
    "path out of the tree": (b"GET /../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", {400, 404}),
    "header of 17 KiB": (b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 17500 + b"\r\n\r\n", {431}),
    "2000 fields": (b"GET /health HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 20000 + b"\r\n", {431}),
    "target of 1 MB": (b"GET /" + b"a" * 1000000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", {400, 414, 431}),
}

BAD_JSON = {
    "nothing": b"",
    "an array": b"[]",
    "NaN": b'{"prompt": NaN}',
    "100 000 brackets": b"[" * 100000,
    "65 levels": b'{"prompt": ' + b"[" * 65 + b"]" * 65 + b"}",
    "deep objects": b'{"a":' * 20000,
    "a million numbers": b'{"prompt": "a", "stop_token_ids": [' + b"1," * 999999 + b"1]}",
    "a name twice": b'{"prompt": "a", "prompt": "b"}',
    "no UTF-8": b'{"prompt": "\xff\xfe"}',
    "overlong NUL": b'{"prompt": "\xc0\x80"}',
    "a surrogate in UTF-8": b'{"prompt": "\xed\xa0\x80"}',
    "half a surrogate": b'{"prompt": "\\ud800"}',
    "NUL in front": b'\x00{"prompt": "a"}',
    "NUL behind": b'{"prompt": "a"}\x00',
    "two objects": b'{"prompt": "a"}{}',
    "1e999": b'{"prompt": "a", "temperature": 1e999}',
    "a number of 100 000 digits": b'{"prompt": "a", "seed": ' + b"9" * 100000 + b"}",
    "a comment": b'{"prompt": "a" /* b */}',
}

A = {"prompt": "The harbour opens at", "max_tokens": 2}
# Changes to a good request for a completion, and whether it is answered.
VALUES = [
    *(({"n": n}, good) for n, good in ((0, 0), (1, 1), (16, 1), (17, 0), (10**9, 0), (2**63, 0), (1.5, 0), ("1", 0))),
    *(({"logprobs": n}, good) for n, good in ((0, 1), (20, 1), (21, 0), (-1, 0), (2**31, 0), (True, 0), (0.0, 0))),
    *(({"prompt_logprobs": n}, good) for n, good in ((0, 1), (20, 1), (21, 0), (-1, 0))),
    *(
        ({"max_tokens": n}, good)
        for n, good in ((1, 1), (0, 0), (-1, 0), (10**9, 0), (2**63, 0), (2**64, 0), (1e300, 0))
    ),
    *(
        ({"temperature": t}, good)
        for t, good in ((0, 1), (1e-300, 1), (2, 1), (2.0001, 0), (-0.0, 1), (-1, 0), (1e308, 0))
    ),
    *(({"top_p": p}, good) for p, good in ((0, 1), (1e-300, 1), (1, 1), (1.0001, 0), (-1, 0))),
    *(({"top_k": k}, good) for k, good in ((-1, 1), (0, 1), (1, 1), (2**31 - 1, 1), (-2, 0), (2**40, 0))),
    *(({"min_p": p}, good) for p, good in ((0, 1), (1, 1), (1.1, 0))),
    *(({"repetition_penalty": p}, good) for p, good in ((0.01, 1), (100, 1), (0, 0), (-1, 0), (1e9, 0))),
    *(({"frequency_penalty": p}, good) for p, good in ((-2, 1), (2, 1), (2.1, 0))),
    *(({"seed": s}, good) for s, good in ((-(2**63), 1), (2**63 - 1, 1), (2**63, 0), (-(2**63) - 1, 0), (0.5, 0))),
    ({"stop": ""}, 0),
    ({"stop": []}, 1),
    ({"stop": ["a"] * 16}, 1),
    ({"stop": ["a"] * 17}, 0),
    ({"stop": ["x" * 1000] * 16}, 1),
    ({"stop": "x" * 1001}, 0),
    ({"stop": "\x00"}, 1),
    ({"stop": [None]}, 0),
    ({"stop_token_ids": [-1]}, 0),
    ({"stop_token_ids": list(range(17))}, 0),
    ({"logit_bias": {str(i): -100 for i in range(200)}}, 1),
    ({"logit_bias": {str(i): -100 for i in range(301)}}, 0),
    ({"logit_bias": {"-1": 1}}, 0),
    ({"logit_bias": {"1e3": 1}}, 0),
    ({"logit_bias": {"5": 101}}, 0),
    ({"prompt": ""}, 0),
    ({"prompt": []}, 0),
    ({"prompt": [[]]}, 0),
    ({"prompt": ["a", 1]}, 0),
    ({"prompt": [1, "a"]}, 0),
    ({"prompt": [0]}, 1),
    ({"prompt": [-1]}, 0),
    ({"prompt": [2**63]}, 0),
    ({"prompt": [1.0]}, 0),
    ({"prompt": "\x00"}, 1),
    ({"prompt": "a\x00b\x00"}, 1),
    ({"prompt": "\u202e\ufeff\uffff"}, 1),
    ({"prompt": [5] * 100000}, 0),
    ({"prompt": ["a"] * 1025}, 0),
    ({"prompt": ["a"] * 40, "n": 16}, 0),
    ({"model": "nobody"}, 0),
    ({"model": ""}, 1),
    ({"model": "x" * 1000}, 0),
    ({"model": "../../etc/passwd"}, 0),
    ({"stream": "yes"}, 0),
    ({"stream": None}, 1),
    ({"stream_options": {"include_usage": True}}, 0),
    ({"best_of": 2}, 0),
    ({"suffix": "b"}, 0),
    ({"guided_regex": "a*"}, 0),
    ({"echo": 1}, 0),
    ({"unknown": {"deep": [1, 2, {"a": None}]}}, 1),
]


def places(vocab, context):
    """The same, about a vocabulary and a context of these sizes."""
    return [
        ({"stop_token_ids": [0, vocab - 1]}, 1),
        ({"stop_token_ids": [vocab]}, 0),
        ({"logit_bias": {str(vocab): 1}}, 0),
        ({"prompt": [vocab - 1]}, 1),
        ({"prompt": [vocab]}, 0),
        ({"prompt": [5] * (context - 2)}, 1),
        ({"prompt": [5] * (context - 1)}, 0),
        ({"prompt": [5] * context}, 0),
    ]


def values(vocab, context):
    """(name, body, whether it is answered)"""
    for change, good in VALUES + places(vocab, context):
        text = json.dumps(change)
        yield text if len(text) < 60 else f"{text[:40]}… ({len(text)} bytes)", A | change, bool(good)
