"""What a case of abuse works with."""

import asyncio
import time

from serve_parts import client

GOOD = {"prompt": "The harbour opens at six and", "max_tokens": 4, "temperature": 0}


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
            answer = await client.ask(self.port, "/v1/completions", GOOD)
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
