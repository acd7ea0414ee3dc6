"""A client of HTTP that can also misbehave: connections, requests whole or in pieces, answers as they come."""

import asyncio
import contextlib
import json
import socket
import struct
import time


class Gone(Exception):
    """The server closed the connection before the answer was whole."""


class Answer:
    def __init__(self, status, headers):
        self.status, self.headers = status, headers
        self.body = b""
        self.events = []  # (time, object), of a stream
        self.done = False  # the stream ended in [DONE]

    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """What the server says is wrong, or an empty text."""
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            return self.json()["error"]["message"]
        return next((event["error"]["message"] for _, event in self.events if "error" in event), "")


class Connection:
    """`receive_bytes`: of the system's buffer, small for a reader that is slow to take what comes."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port, receive_bytes=None):
        end = socket.socket()
        end.setblocking(False)
        if receive_bytes:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(end, ("127.0.0.1", port))
        except BaseException:
            end.close()
            raise
        return cls(*await asyncio.open_connection(sock=end, limit=1 << 26))

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def ask(self, method, path, body=None, headers=()):
        await self.send(request(method, path, body, headers))

    async def head(self):
        """Status and headers; an answer of 100 is passed over."""
        line = await self.reader.readline()
        if not line.endswith(b"\n"):
            raise Gone("no answer")
        if not line.startswith(b"HTTP/1.1 "):
            raise ValueError(f"not an answer: {line[:80]!r}")
        headers = {}
        while (field := await self.reader.readline()) not in (b"\r\n", b""):
            name, _, value = field.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        status = int(line.split()[1])
        return await self.head() if status == 100 else Answer(status, headers)

    async def pieces(self, answer):
        """The parts of a body as they come."""
        try:
            if answer.headers.get("transfer-encoding") == "chunked":
                while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                    yield await self.reader.readexactly(size)
                    await self.reader.readexactly(2)
                await self.reader.readuntil(b"\r\n")
            elif "content-length" in answer.headers:
                yield await self.reader.readexactly(int(answer.headers["content-length"]))
            elif answer.status != 204:
                yield await self.reader.read()
        except (asyncio.IncompleteReadError, ConnectionError) as problem:
            raise Gone("the answer is not whole") from problem

    async def answer(self, pause=0.0, enough=None):
        """A whole answer. `pause` seconds before each piece is taken; `enough(answer)`: true ends the reading there."""
        answer, rest = await self.head(), b""
        stream = answer.headers.get("content-type", "").startswith("text/event-stream")
        async for piece in self.pieces(answer):
            if not stream:
                answer.body += piece
                continue
            *events, rest = (rest + piece).split(b"\n\n")
            for event in events:
                self.take(answer, event)
            if enough and enough(answer):
                return answer
            if pause:
                await asyncio.sleep(pause)
        if rest.strip():
            raise ValueError(f"an event without an end: {rest[:80]!r}")
        return answer

    @staticmethod
    def take(answer, event):
        if not event.startswith(b"data: "):
            raise ValueError(f"not an event: {event[:80]!r}")
        if event == b"data: [DONE]":
            answer.done = True
        else:
            answer.events.append((time.monotonic(), json.loads(event[6:])))

    def close(self):
        self.writer.close()

    def reset(self):
        """Leaves without a word: the other side's next write fails."""
        end = self.writer.get_extra_info("socket")
        if end is not None:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def request(method, path, body=None, headers=()):
    """A request's bytes; `body` is bytes, or what becomes JSON."""
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


async def ask(port, path, body=None, seconds=600.0, **how):
    """One request over a connection of its own."""
    connection = await Connection.open(port)
    try:
        async with asyncio.timeout(seconds):
            await connection.ask("GET" if body is None else "POST", path, body)
            return await connection.answer(**how)
    finally:
        connection.close()


def choice_text(choice):
    """An answer's text, of either endpoint, whole or of a stream's event."""
    if "text" in choice:
        return choice["text"] or ""
    return (choice.get("message") or choice.get("delta") or {}).get("content") or ""


def texts(answer):
    """index → text of all its choices."""
    if answer.body:
        return {choice["index"]: choice_text(choice) for choice in answer.json()["choices"]}
    found = {}
    for _, event in answer.events:
        for choice in event.get("choices", ()):
            found[choice["index"]] = found.get(choice["index"], "") + choice_text(choice)
    return found
