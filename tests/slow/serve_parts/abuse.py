"""Clients that lie, stall, flood or leave. After each case the server must be as it was before."""

import asyncio
import contextlib
import json
import random
import shutil
import time

from serve_parts import client, raw
from serve_parts.adapters import make_adapter
from serve_parts.generated import Generator, codes
from serve_parts.load import adapter_arguments, models_of, words_that_fit
from serve_parts.prompts import Prompts
from serve_parts.report import median, quantile
from serve_parts.server import Server

FLAT = 1.02  # times the memory that it had, and MORE_KIB besides
MORE_KIB = 24 << 10
GOOD = {"prompt": "The harbour opens at six and", "max_tokens": 4, "temperature": 0}
HELD = 400  # connections of those that only hold them; a server takes 1024


class Case:
    """What a case works with: `tried` counts, `seen` holds what it got, `wrong` what it should not have got."""

    def __init__(self, options, server, draw):
        self.options, self.server, self.draw = options, server, draw
        self.port, self.seconds = server.port, 60 * options.minutes
        self.tried, self.seen, self.wrong = 0, {}, []

    def count(self, what):
        self.seen[what] = self.seen.get(what, 0) + 1

    def check(self, good, what):
        if not good:
            self.wrong.append(what)

    async def hold(self, count, data=b""):
        """So many connections that have sent this much."""
        connections = []
        for _ in range(count):
            connections.append(await client.Connection.open(self.port))
            if data:
                await connections[-1].send(data)
        self.tried += count
        return connections

    async def latency(self, count=12):
        """Seconds of good requests, one after another."""
        found = []
        for _ in range(count):
            begin = time.monotonic()
            answer = await client.ask(self.port, "/v1/completions", GOOD, seconds=120)
            self.check(answer.status == 200, f"a good client got {answer.status} {answer.error}")
            found.append(time.monotonic() - begin)
        return found


async def status_of(port, data, seconds=30, slowly=False):
    """(status, body) of whatever comes for these bytes; 0 where the connection is closed without an answer."""
    connection = await client.Connection.open(port)
    try:
        async with asyncio.timeout(seconds):
            if slowly:
                for at in range(0, len(data), 7):
                    await connection.send(data[at : at + 7])
            else:
                await connection.send(data)
            answer = await connection.answer()
            return answer.status, answer.body
    except (client.Gone, OSError):
        return 0, b""
    except TimeoutError:
        return -1, b""
    finally:
        connection.close()


async def half_open(c):
    """Connections that say nothing, half a header or half a body, and then close, reset or stay."""
    before = await c.latency()
    half = raw.post(json.dumps(GOOD).encode())
    held = []
    for data in (b"", b"GET /hea", half[:40], half[:-5]):
        held += await c.hold(HELD // 4, data)
    during = await c.latency()
    c.check(
        median(during) < 2 * median(before) + 0.1, f"good clients: {median(before):.3f} s, then {median(during):.3f}"
    )
    c.seen = {"good clients": f"{1000 * median(before):.0f} ms, meanwhile {1000 * median(during):.0f} ms"}
    for i, connection in enumerate(held):
        (connection.close, connection.reset)[i % 2]()


async def too_many(c):
    """More connections than the server takes: what is too many gets 503, and there is room again afterwards."""
    held = await c.hold(1024 + 50)
    await asyncio.sleep(0.5)
    status, _ = await status_of(c.port, client.request("GET", "/health"))
    c.count(f"one more: {status}")
    c.check(status in (0, 503), f"connection 1075 got {status}")
    for connection in held:
        connection.close()


async def few_files(c):
    """A flood of connections at a server whose files are used up: it takes none, and answers when there are files."""
    import resource

    pid = c.server.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (c.server.open_files() + 20, limits[1]))
    try:
        held = await c.hold(100)
        await asyncio.sleep(1)
        for connection in held:
            connection.close()
        await asyncio.sleep(0.5)
        seconds = await c.latency(3)
        c.seen = {"afterwards": f"{1000 * median(seconds):.0f} ms"}
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


async def slowloris(c):
    """Many connections of a byte a second: headers, and bodies."""
    before = await c.latency()
    head, body = client.request("GET", "/health", headers=["X: " + "y" * 500]), raw.post(b" " * 100000)
    ended = {}

    async def drip(data, start):
        connection = await client.Connection.open(c.port)
        begin, answering = time.monotonic(), asyncio.create_task(connection.answer())
        try:
            await connection.send(data[:start])
            for at in range(start, len(data)):
                if time.monotonic() > until or answering.done():
                    break
                await connection.send(data[at : at + 1])
                await asyncio.sleep(1)
            if answering.done():
                answer = await answering
                ended[answer.status] = ended.get(answer.status, 0) + 1
                c.check(answer.status == 408 and time.monotonic() - begin < 20, f"a slow header got {answer.status}")
        except (OSError, client.Gone):
            ended["closed"] = ended.get("closed", 0) + 1
        finally:
            answering.cancel()
            connection.close()

    until = time.monotonic() + max(15, min(60, c.seconds))
    slow = [asyncio.create_task(drip(head, 20)) for _ in range(HELD // 2)]
    slow += [asyncio.create_task(drip(body, 120)) for _ in range(HELD // 2)]
    during = []
    while time.monotonic() < until:
        during += await c.latency(3)
    await asyncio.gather(*slow)
    c.tried = len(slow)
    c.check(ended.get(408, 0) + ended.get("closed", 0) >= HELD // 2, f"slow headers were not ended: {ended}")
    c.check(
        median(during) < 2 * median(before) + 0.1, f"good clients: {median(before):.3f} s, then {median(during):.3f}"
    )
    c.seen = {"good clients": f"{1000 * median(before):.0f} ms, meanwhile {1000 * median(during):.0f} ms"} | ended


async def malformed(c):
    """Bytes that are no requests, at once and in pieces of seven."""
    for name, (data, allowed) in raw.MALFORMED.items():
        for slowly in (False, True) if len(data) < 3000 else (False,):
            status, _ = await status_of(c.port, data, slowly=slowly)
            c.tried += 1
            c.count(status)
            c.check(status in allowed | {0}, f"{name}: {status}, expected one of {sorted(allowed)}")


async def header_bombs(c):
    """Headers without an end, from many at once."""

    async def one():
        connection = await client.Connection.open(c.port)
        try:
            await connection.send(b"GET / HTTP/1.1\r\n")
            for _ in range(2000):
                await connection.send(b"X: " + b"y" * 1000 + b"\r\n")
        except OSError:
            pass
        try:
            status = (await connection.answer()).status
        except (OSError, client.Gone):
            status = 0
        connection.close()
        c.count(status)
        c.check(status in (0, 431), f"a header without an end got {status}")

    c.tried = 50
    await asyncio.gather(*(one() for _ in range(c.tried)))


async def body_bombs(c):
    """Bodies without an end, and more of them at once than the server holds."""

    async def endless():
        connection = await client.Connection.open(c.port)
        try:
            await connection.send(raw.chunked(b""))
            for _ in range(20):
                await connection.send(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")
        except OSError:
            pass
        try:
            c.count((await connection.answer()).status)
        except (OSError, client.Gone):
            c.count("closed")
        finally:
            connection.close()

    async def big():
        status, _ = await status_of(c.port, raw.post(b" " * (8 << 20)), seconds=120)
        c.count(status)
        c.check(status in (0, 400, 429, 503), f"a body of 8 MiB of spaces got {status}")

    c.tried = 8 + 48
    await asyncio.gather(*(endless() for _ in range(8)), *(big() for _ in range(48)))


async def big_bodies(c):
    """Bodies of almost as many bytes as are taken, which say little: nothing of them stays while they are answered."""
    body = GOOD | {"max_tokens": 200, "ignore_eos": True, "stream": True, "note": "x" * (7 << 20)}
    data, most = client.request("POST", "/v1/completions", body), []

    async def one():
        connection = await client.Connection.open(c.port)
        with contextlib.suppress(OSError):  # of one that is refused before it has sent all
            await connection.send(data)
        try:
            answer = await connection.answer()
            c.count(answer.status)
            c.check(answer.status in (200, 429, 503), f"{answer.status} {answer.error}")
        except (OSError, client.Gone):
            c.count("closed")
        finally:
            connection.close()

    async def watch():
        while True:
            most.append(c.server.rss_kib())
            await asyncio.sleep(0.05)

    before, watching = c.server.rss_kib(), asyncio.create_task(watch())
    c.tried = 120
    await asyncio.gather(*(one() for _ in range(c.tried)))
    watching.cancel()
    grown = (max(most) - before) >> 10
    c.seen[f"memory at most {grown} MiB more"] = 1
    c.check(grown < 700, f"{c.tried} bodies of 7 MiB took {grown} MiB")


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
        answer = await client.ask(c.port, "/v1/completions", body, seconds=300)
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
                answer = await client.ask(c.port, path, body, seconds=300)
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


class Changing:
    """Adapters come, are replaced and leave, while streams ask for them: every answer is, from its first token to its
    last, that of one adapter which had the name while it was asked."""

    NAMES = ("red", "green", "blue")

    def __init__(self, c):
        self.c, self.port, self.draw = c, c.port, c.draw
        self.until, self.known = time.monotonic() + max(10, c.seconds), {}

    def ask(self):
        return {"prompt": GOOD["prompt"], "max_tokens": 24, "temperature": 0, "ignore_eos": True}

    async def change(self, action, body):
        answer = await client.ask(self.port, f"/v1/{action}_lora_adapter", body, seconds=120)
        self.c.tried += 1
        self.c.count(f"{action} {answer.status}")
        return answer

    async def learn(self):
        for content in ("one", "two", "three"):
            answer = await self.change("load", {"lora_name": content, "lora_path": content})
            self.c.check(answer.status == 200, f"load {content}: {answer.status} {answer.error}")
            said = await client.ask(self.port, "/v1/completions", self.ask() | {"model": content})
            self.known[client.texts(said).get(0)] = content
            await self.change("unload", {"lora_name": content})
        self.c.check(len(self.known) == 3, f"three adapters give {len(self.known)} answers")

    async def keep_changing(self):
        while time.monotonic() < self.until:
            name, action = self.draw.choice(self.NAMES), self.draw.random()
            if action < 0.3:
                answer = await self.change("unload", {"lora_name": name})
            else:
                path = self.draw.choice(("one", "two", "three", "nowhere", "..", "broken"))
                answer = await self.change("load", {"lora_name": name, "lora_path": path,
                                                    "load_inplace": action < 0.8})  # fmt: skip
                good = path in ("one", "two", "three")
                self.c.check(good or answer.status != 200, f"{path} was loaded as an adapter")
            self.c.check(answer.status in (200, 400, 404), f"a change got {answer.status} {answer.error}")
            await asyncio.sleep(self.draw.random() * 0.2)

    async def keep_asking(self):
        while time.monotonic() < self.until:
            stream = self.draw.random() < 0.7
            body = self.ask() | {"model": self.draw.choice(self.NAMES), "stream": stream}
            answer = await client.ask(self.port, "/v1/completions", body, seconds=120)
            self.c.count(f"answer {answer.status}")
            self.c.check(answer.status in (200, 404), f"an answer got {answer.status} {answer.error}")
            if answer.status == 200:
                text = client.texts(answer).get(0)
                self.c.check(text in self.known, f"{body['model']} said what no adapter says: {text!r}")
            else:
                await asyncio.sleep(0.05)


async def changes(c):
    """Adapters that come, are replaced and leave while they answer."""
    changing = Changing(c)
    await changing.learn()
    await asyncio.gather(*(changing.keep_changing() for _ in range(2)), *(changing.keep_asking() for _ in range(8)))
    for name in changing.NAMES:
        await changing.change("unload", {"lora_name": name})


CASES = {
    "half-open connections": half_open,
    "too many connections": too_many,
    "no files left": few_files,
    "slowloris": slowloris,
    "malformed HTTP": malformed,
    "header bombs": header_bombs,
    "body bombs": body_bombs,
    "big bodies": big_bodies,
    "bad JSON": bad_json,
    "extreme values": extremes,
    "random bytes": random_bytes,
    "random requests": random_requests,
    "resets": resets,
    "pipelined": pipelined,
    "adapters change": changes,
}


async def tried(name, c):
    try:
        await CASES[name](c)
    except Exception as problem:  # of a client that did not get what it must get: the others are still tried
        c.wrong.append(f"{type(problem).__name__} {problem}")
    if unrest := await c.server.unrest():
        c.wrong.append(unrest)


async def one_case(name, options, report, server):
    c = Case(options, server, random.Random(f"{options.seed} {name}"))
    before = server.rss_kib()
    await tried(name, c)
    if server.process.poll() is None and server.rss_kib() > before * FLAT + MORE_KIB:
        before = server.rss_kib()  # what was freed is kept for the next time; a leak grows again
        await tried(name, c)
    if server.process.poll() is not None:
        report.wrong(name, "; ".join(c.wrong[:5]))
        return False
    after = server.rss_kib()
    c.check(after < before * FLAT + MORE_KIB, f"resident memory: {before >> 10} MiB before, {after >> 10} MiB after")
    for what in c.wrong[:10]:
        report.wrong(name, what)
    if len(c.wrong) > 10:
        report.wrong(name, f"and {len(c.wrong) - 10} more")
    seen = ", ".join(f"{what}: {count}" for what, count in sorted(c.seen.items(), key=lambda kv: str(kv[0])))
    report.add(name, c.tried, f"{seen}; memory {before >> 10} to {after >> 10} MiB".removeprefix("; "))
    return True


def run(options, report):
    root = options.home / "changing"
    for seed, name in enumerate(("one", "two", "three")):
        make_adapter(options.model, root / name, rank=8, seed=100 + seed, effect=0.05)
    shutil.copytree(root / "one", root / "broken")
    (root / "broken" / "adapter_model.safetensors").write_bytes(b"\x08")
    more = ["--kv-memory", options.kv_memory, "--max-sequences", options.sequences, f"train.dtype={options.dtype}"]
    more += ["--allow-adapter-changes", "--adapter-root", root, *adapter_arguments(options)]
    server = Server(options, *more)
    try:
        for name in options.case or CASES:
            if not asyncio.run(one_case(name, options, report, server)):
                server = Server(options, *more)
        if (code := server.end()) != 0:
            report.wrong("abuse", f"the server ended with {code}:\n{server.last_lines()}")
    finally:
        server.end()
    warnings = [line for line in server.log.read_text(errors="replace").splitlines() if "internal" in line]
    if warnings:
        report.wrong("abuse", f"the log speaks of {len(warnings)} internal errors: {warnings[0]}")
