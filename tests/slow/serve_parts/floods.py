"""Clients that hold connections, stall, or send without an end."""

import asyncio
import json
import resource
import time

from serve_parts import client, raw
from serve_parts.case import GOOD, status_of
from serve_parts.report import median

HELD = 400  # connections of those that only hold them; a server takes 1024


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
    """Bodies of almost as many bytes as are taken, which say little, sent one after another: nothing of them stays
    while they wait and are answered."""
    body = GOOD | {"max_tokens": 100, "ignore_eos": True, "stream": True, "note": "x" * (7 << 20)}
    data, before, most, connections = client.request("POST", "/v1/completions", body), c.server.rss_kib(), 0, []
    for _ in range(150):
        connections.append(await client.Connection.open(c.port))
        await connections[-1].send(data)
        await asyncio.sleep(0.1)
        c.tried += 1
        most = max(most, c.server.rss_kib())
    grown = (most - before) >> 10
    c.seen[f"memory meanwhile {grown:+} MiB"] = 1
    c.check(
        grown < 640,  # twice 256 MiB: of bodies that are read, and of those that wait
        f"{c.tried} bodies of 7 MiB took {grown} MiB",
    )
    for connection in connections:
        connection.reset()
