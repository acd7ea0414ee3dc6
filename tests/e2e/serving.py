"""A server under test: `drover serve` on a free port, asked by the standard library alone."""

import contextlib
import http.client
import json
import pathlib
import re
import shutil
import signal
import subprocess
import time

from case import DROVER, ENVIRONMENT, ROOT, Case, run, within

GREEDY = {"temperature": 0}
ADDRESS = re.compile(r"http://[^/]*:(\d+)/ \(a page")


class Reply:
    """A whole answer."""

    def __init__(self, response):
        self.status, self.headers = response.status, response.headers
        self.body = response.read()

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


class Stream:
    """An answer that is read as it comes: its chunks, without the [DONE] at their end, which must be there."""

    def __init__(self, connection, response):
        self.connection, self.response = connection, response

    def __iter__(self):
        with contextlib.closing(self.connection):
            for line in self.response:
                if line == b"data: [DONE]\n":
                    assert self.response.read() == b"\n"
                    return
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        raise AssertionError("the stream ends without [DONE]")

    def close(self):
        self.response.close()
        self.connection.close()


class Server:
    """With `with`: killed at the end, where it has not ended by itself."""

    def __init__(self, model, *arguments, ranks=0, dtype="fp32", home, **variables):
        self.log = home / f"server-{time.monotonic_ns()}.log"
        command = [str(DROVER), "serve", "--model", str(model), "--port", "0", f"train.dtype={dtype}"]
        command += map(str, arguments)
        if ranks:
            command = [str(ROOT / "launch" / "run"), "-n", str(ranks), *command]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=ENVIRONMENT | variables, start_new_session=True
            )
        try:
            self.port = int(self.wait_for(ADDRESS).group(1))
        except BaseException:
            self.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=within(10))
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def output(self):
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern, seconds=60):
        end = time.monotonic() + within(seconds)
        while not (found := re.search(pattern, self.output)):
            ended = self.process.poll() is not None
            if (ended or time.monotonic() > end) and not re.search(pattern, self.output):
                raise AssertionError(f"no {pattern!r}; exit {self.process.poll()}\n{self.output}")
            time.sleep(0.02)
        return found

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(timeout=within(60))

    def open(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=within(60))
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection.request(method, path, body, headers or {})
        return connection, connection.getresponse()

    def request(self, method, path, body=None, headers=None):
        connection, response = self.open(method, path, body, headers)
        with contextlib.closing(connection):
            return Reply(response)

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def ask(self, path, headers=None, **fields):
        reply = self.request("POST", path, fields, headers)
        if reply.status != 200:
            raise AssertionError(f"{path} {fields}: {reply.status} {reply.text}")
        return reply.json

    def complete(self, prompt, **fields):
        return self.ask("/v1/completions", prompt=prompt, **fields)

    def chat(self, content, **fields):
        messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
        return self.ask("/v1/chat/completions", messages=messages, **fields)

    def stream(self, path, **fields):
        connection, response = self.open("POST", path, fields | {"stream": True})
        if response.status != 200:
            raise AssertionError(f"{path} {fields}: {response.status} {response.read()}")
        assert response.getheader("Content-Type").startswith("text/event-stream")
        return Stream(connection, response)

    def metric(self, name, **labels):
        """Of the series with these labels, and perhaps others; 0 where there is none yet."""
        total = 0.0
        for line in self.get("/metrics").text.splitlines():
            if re.match(rf"{re.escape(name)}[{{ ]", line) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def wait_for_metric(self, name, value, seconds=20):
        end = time.monotonic() + within(seconds)
        while (found := self.metric(name)) != value:
            if time.monotonic() > end:
                raise AssertionError(f"{name} is {found}, and was to become {value}")
            time.sleep(0.02)


def text_of(body):
    choice = body["choices"][0]
    return choice["text"] if "text" in choice else choice["message"]["content"]


def joined(chunks, index=0):
    """Text, log-probabilities (as the whole answer has them) and finish_reason of a stream."""
    text, entries, reason = "", None, None
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != index:
                continue
            text += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
            entries = with_entries(entries, choice["logprobs"])
            reason = choice["finish_reason"] or reason
    return text, entries, reason


def with_entries(before, more):
    if not before or not more:
        return before or more
    return {k: None if v is None else before[k] + v for k, v in more.items()}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class ServingCase(Case):
    """Case's model and adapter, and servers of them."""

    def serve(self, *arguments, model=None, **keywords):
        return Server(model or self.model, *arguments, home=self.home, **keywords)

    def generated(self, contents, max_tokens, *arguments):
        """What `drover generate` answers greedily to each dialog of one question."""
        prompts, out = self.home / "asked.jsonl", self.home / "answered.jsonl"
        write_rows(prompts, [{"messages": [{"role": "user", "content": c}]} for c in contents])
        command = ["generate", "--model", self.model, "--prompts", prompts, "--out", out, "--greedy"]
        run(*command, "--max-tokens", max_tokens, *arguments, "train.dtype=fp32", check=0)
        return [json.loads(line)["messages"][-1]["content"] for line in out.read_text().splitlines()]

    @classmethod
    def with_positions(cls, positions):
        """The model with room for longer answers, so that one lasts while a test does something else."""
        directory = cls.home / f"model-{positions}"
        if not directory.exists():
            shutil.copytree(cls.model, directory)
            config = json.loads((directory / "config.json").read_text())
            config["max_position_embeddings"] = positions
            (directory / "config.json").write_text(json.dumps(config))
        return directory

    def refused(self, server, status, path, body, param=None, code=None, **headers):
        """The message of an error in OpenAI's shape."""
        reply = server.request("POST", path, body, headers)
        self.assertEqual(reply.status, status, reply.text)
        self.assertEqual(list(reply.json), ["error"])
        error = reply.json["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertEqual(error["param"], param, error)
        self.assertEqual(error["code"], code, error)
        self.assertTrue(error["message"])
        return error["message"]
