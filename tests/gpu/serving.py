"""What a client of `drover serve` sees: the time to a first token, and tokens a second, for one client and for many.
Prompts are token ids, so that any made-up model will do; an answer's length is what was asked for."""

import concurrent.futures
import http.client
import json
import random
import shutil
import signal
import socket
import subprocess
import time


class Server:
    """`drover serve` from its start to its end; a context."""

    def __init__(self, program, environment, log, *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = log
        with open(log, "w") as out:
            command = [program, "serve", "--port", self.port, *arguments]
            self.process = subprocess.Popen(list(map(str, command)), env=environment, stdout=out, stderr=out)

    def __enter__(self):
        end = time.monotonic() + 200
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.ask("GET", "/health")[0] == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.1)
        self.process.kill()
        raise ValueError(f"drover serve did not start:\n{self.log.read_text()[-1500:]}")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        if code != 0:
            raise ValueError(f"drover serve ended with {code}:\n{self.log.read_text()[-1500:]}")

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=200)
        try:
            connection.request(method, path, json.dumps(body) if body else None)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def seconds(self, prompt, tokens, model=None):
        """Of an answer of so many tokens, whole."""
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        begin = time.monotonic()
        status, answer = self.ask("POST", "/v1/completions", body | ({"model": model} if model else {}))
        took = time.monotonic() - begin
        if status != 200 or json.loads(answer)["usage"]["completion_tokens"] != tokens:
            raise ValueError(f"asked for {tokens} tokens: {status} {answer[:500]}")
        return took


def prompt(length, seed):
    draw = random.Random(seed)
    return [draw.randrange(100, 200) for _ in range(length)]


def one_answer(server, length, tokens, seed):
    """Seconds to the first token of a prompt that was not seen before; and, behind it, tokens a second. The second and
    third request find all but the prompt's end in the cache: their difference is the other tokens' time."""
    ids = prompt(length, seed)
    first = server.seconds(ids, 1)
    again = server.seconds(ids, 1)
    return {"first_token_seconds": first, "tokens_per_second": tokens / (server.seconds(ids, tokens + 1) - again)}


def clients(server, models, length, tokens, seed):
    """Tokens a second of all answers, prompts included: one client for each of `models`, all at once."""
    with concurrent.futures.ThreadPoolExecutor(len(models)) as pool:
        begin = time.monotonic()
        asked = [pool.submit(server.seconds, prompt(length, 100 * seed + i), tokens, m) for i, m in enumerate(models)]
        for answer in asked:
            answer.result()
        return len(models) * tokens / (time.monotonic() - begin)


def measure(server, prompts, counts, adapters, tokens):
    """Each figure from a second round: the first one's passes build what later ones use."""
    found = {}
    for seed in (1, 2):
        for length in prompts:
            found[f"behind {length} tokens"] = one_answer(server, length, tokens, seed * 1000 + length)
        for count in counts:
            found[f"{count} clients, tokens per second"] = clients(server, [None] * count, prompts[0], tokens, seed)
        for number in (1, len(adapters)):
            models = [adapters[i % number] for i in range(counts[0])]
            found[f"{counts[0]} clients of {number} adapters, tokens per second"] = clients(
                server, models, prompts[0], tokens, seed + 2
            )
    return found


def other_adapters(folder, number, work):
    """Copies of an adapter that differ in a bit, so that each has a slot of its own."""
    made = []
    for i in range(number):
        copy = work / f"adapter-{i}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        weights = copy / "adapter_model.safetensors"
        content = bytearray(weights.read_bytes())
        for bit in range(2):
            content[-4] ^= (i >> bit & 1) << bit  # of the last number's lowest
        weights.write_bytes(content)
        made.append(copy)
    return made
