"""Requests that are none, or say what nobody expects; and clients that leave before they have an answer."""

import asyncio
import json
import time

from serve_parts import client, raw
from serve_parts.case import GOOD, status_of
from serve_parts.generated import Generator, codes
from serve_parts.load import models_of, words_that_fit
from serve_parts.prompts import Prompts


async def malformed(c):
    """Bytes that are no requests, at once and in pieces of seven."""
    for name, (data, allowed) in raw.MALFORMED.items():
        for slowly in (False, True) if len(data) < 3000 else (False,):
            status, _ = await status_of(c.port, data, slowly=slowly)
            c.tried += 1
            c.count(status)
            c.check(status in allowed | {0}, f"{name}: {status}, expected one of {sorted(allowed)}")


async def bad_json(c):
    for name, body in raw.BAD_JSON.items():
        status, text = await status_of(c.port, raw.post(body))
        c.tried += 1
        c.count(status)
        c.check(status == 400, f"{name}: {status}")
        c.check(len(text) < 4000, f"{name}: the answer has {len(text)} bytes")


async def extremes(c):
    """Every border of every field, and one step beyond."""
    info = (await client.ask(c.port, "/tokenizer_info")).json()
    for name, body, good in raw.values(info["vocab_size"], info["model_max_length"]):
        answer = await client.ask(c.port, "/v1/completions", body)
        c.tried += 1
        c.count(answer.status)
        allowed = {200} if good else {400, 404}
        c.check(answer.status in allowed, f"{name}: {answer.status} {answer.error}")
        if good and answer.status == 200:
            c.check(
                len(answer.json()["choices"]) == body.get("n", 1), f"{name}: {len(answer.json()['choices'])} answers"
            )


async def random_bytes(c):
    for _ in range(max(50, int(10 * c.seconds))):
        data = c.draw.randbytes(c.draw.randint(1, 2000))
        if c.draw.random() < 0.5:
            good = bytearray(raw.post(json.dumps(GOOD).encode()))
            for _ in range(c.draw.randint(1, 4)):
                good[c.draw.randrange(len(good))] = c.draw.randrange(256)
            data = bytes(good)
        connection = await client.Connection.open(c.port)
        try:
            await connection.send(data)
            if connection.writer.can_write_eof():
                connection.writer.write_eof()
            async with asyncio.timeout(60):
                status = (await connection.answer()).status
        except (OSError, client.Gone):
            status = 0
        finally:
            connection.close()
        c.tried += 1
        c.count(status)
        c.check(status < 500 or status in (501, 505), f"{data[:200]!r}: {status}")


async def random_requests(c):
    """Eight clients with requests made from /openapi.json."""
    document = (await client.ask(c.port, "/openapi.json")).json()
    prompts = Prompts(c.options.seed, [])
    generator = Generator(document, c.options.seed, await models_of(c.server), prompts)
    until, count = time.monotonic() + c.seconds, c.options.requests

    async def keep_asking():
        while time.monotonic() < until and c.tried < count:
            path, body, code, spoilt = generator.request()
            c.tried += 1
            try:
                answer = await client.ask(c.port, path, body)
            except (OSError, client.Gone, ValueError, TimeoutError) as problem:
                c.wrong.append(f"{path} {body[:300]!r}: {type(problem).__name__} {problem}")
                continue
            c.count(f"{answer.status}{', spoilt' if spoilt else ''}")
            c.check(answer.status in (200, 400, 404, 429), f"{path} {body[:600]!r}: {answer.status} {answer.error}")
            if answer.status == 200 and not answer.body:
                c.check(answer.done or answer.error, f"{path} {body[:300]!r}: the stream has no end")
            text = answer.body.decode() + "".join(json.dumps(event) for _, event in answer.events)
            others = (codes(text) & prompts.issued) - {code}
            c.check(not others, f"{path}: another's code word: {others}")

    await asyncio.gather(*(keep_asking() for _ in range(8)))


async def resets(c):
    """Clients that leave at a random moment: while they wait, while their prompt is read, in the middle."""
    prompts = Prompts(c.options.seed, [None], longest=min(800, await words_that_fit(c.server)))
    until = time.monotonic() + max(5, c.seconds / 2)

    async def keep_leaving():
        while time.monotonic() < until:
            wanted = prompts.next()
            wanted.body.pop("model")
            wanted.body["stream"] = c.draw.random() < 0.7
            connection = await client.Connection.open(c.port)
            reading = None
            try:
                await connection.ask("POST", wanted.path, wanted.body)
                reading = asyncio.create_task(connection.answer())
                await asyncio.wait([reading], timeout=c.draw.random() ** 3 * 3)
                c.count("answered" if reading.done() else "left")
            except OSError:
                c.count("refused")
            finally:
                connection.reset()
                if reading:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
            c.tried += 1

    await asyncio.gather(*(keep_leaving() for _ in range(40)))


async def pipelined(c):
    """A hundred requests in one piece, answered in order."""
    connection = await client.Connection.open(c.port)
    bodies = [{"prompt": f"number {i}", "max_tokens": 1, "temperature": 0, "echo": True} for i in range(100)]
    await connection.send(b"".join(client.request("POST", "/v1/completions", body) for body in bodies))
    for body in bodies:
        answer = await connection.answer()
        c.tried += 1
        c.count(answer.status)
        text = client.texts(answer).get(0, "")
        c.check(text.startswith(body["prompt"]), f"{body['prompt']} got {answer.status} {text!r}")
    connection.close()
