"""What people type."""

import json
import shutil
import subprocess

CHAT = '{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5, "temperature": 0}'
TEXT = '{"prompt": "Hello", "max_tokens": 5, "temperature": 0}'


def has(*words):
    return lambda text: all(word in text for word in words)


def run(report, server):
    if not shutil.which("curl"):
        return report.add("curl", 0, "SKIPPED: not installed")
    url = f"http://127.0.0.1:{server.port}"
    big = json.dumps({"prompt": "Hello", "max_tokens": 1, "note": "x" * 2_000_000})
    lines = {
        "models": ([url + "/v1/models"], "", has('"object":"list"')),
        "chat": ([url + "/v1/chat/completions", "-d", CHAT], "", has('"role":"assistant"', '"usage"')),
        "chat, with a key nobody asked for": (
            [url + "/v1/chat/completions", "-H", "Authorization: Bearer x", "-d", CHAT], "", has("assistant")),
        "stream": ([url + "/v1/completions", "-N", "-d", TEXT[:-1] + ', "stream": true}'], "", has("data: [DONE]")),
        "stream over HTTP/1.0": (
            [url + "/v1/completions", "-0", "-N", "-d", TEXT[:-1] + ', "stream": true}'], "", has("data: [DONE]")),
        "body on standard input": ([url + "/v1/completions", "-d", "@-"], TEXT, has('"text_completion"')),
        "2 MB with Expect": (
            [url + "/v1/completions", "-d", "@-", "-H", "Expect: 100-continue"], big, has('"choices"')),
        "chunked": ([url + "/v1/completions", "-d", "@-", "-H", "Transfer-Encoding: chunked"], TEXT, has('"choices"')),
        "compressed is not asked for": ([url + "/v1/models", "--compressed"], "", has('"object":"list"')),
        "HEAD": ([url + "/health", "-I"], "", has("HTTP/1.1 200", "Content-Length")),
        "OPTIONS": ([url + "/v1/models", "-X", "OPTIONS", "-i"], "", has("HTTP/1.1 204", "Allow: GET")),
        "wrong method": ([url + "/v1/completions", "-i"], "", has("HTTP/1.1 405", "Allow: POST")),
        "wrong path": ([url + "/v1/nothing", "-i"], "", has("HTTP/1.1 404", '"error"')),
        "tokenize": ([url + "/tokenize", "-d", '{"prompt": "Hello"}'], "", has('"tokens"', '"count"')),
        "metrics": ([url + "/metrics"], "", has("vllm:num_requests_running")),
        "the page": ([url + "/"], "", has("<html", "</html>")),
        "two over one connection": (
            [url + "/health", url + "/health", "-w", "%{num_connects}\n"], "", has("}1\n", "}0\n")),
    }  # fmt: skip
    for name, (arguments, text, good) in lines.items():
        ran = subprocess.run(["curl", "-sS", "-m", "300", *arguments], input=text, capture_output=True, text=True)
        if ran.returncode != 0 or not good(ran.stdout):
            report.wrong("curl", f"{name}: exit {ran.returncode}, {ran.stdout[:500]!r} {ran.stderr!r}")
    return report.add("curl", len(lines), "one-liners; what each must say is there, but for FOUND above")
