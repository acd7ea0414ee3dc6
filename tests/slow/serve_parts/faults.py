"""A rank that is killed; a log that cannot be written."""

import asyncio
import contextlib
import fcntl
import os
import pathlib
import random
import re
import signal
import subprocess
import threading
import time

from serve_parts import client
from serve_parts.server import ROOT, Server

RANK_LOST = 83
LIMIT = 20  # seconds in which the others end
TWO_RANKS = ["parallel.pp=2", "--kv-memory", "64MiB", "train.dtype=bf16"]
PROMPT = {"prompt": "The harbour opens at six and", "max_tokens": 8, "temperature": 0}


def ranks_of(port):
    """rank → pid of the servers on this port."""
    found = {}
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"serve" not in words[1:2] or str(port).encode() not in words:
                continue
            rank = re.search(rb"OMPI_COMM_WORLD_RANK=(\d+)", (folder / "environ").read_bytes())
            if rank:
                found[int(rank[1])] = int(folder.name)
    return found


async def streams(port, count, events):
    """So many answers that are under way: returns when each has some events, with what ends when they do."""
    context = (await client.ask(port, "/v1/models")).json()["data"][0]["max_model_len"]
    body = PROMPT | {"max_tokens": context - 100, "ignore_eos": True, "stream": True}

    async def one(started):
        connection = await client.Connection.open(port)
        try:
            await connection.ask("POST", "/v1/completions", body)
            return await connection.answer(enough=lambda answer: len(answer.events) >= events and started.set())
        finally:
            started.set()
            connection.close()

    starts = [asyncio.Event() for _ in range(count)]
    tasks = [asyncio.create_task(one(start)) for start in starts]
    await asyncio.gather(*(start.wait() for start in starts))
    return tasks


async def kill_one(server, victim, draw):
    """Seconds from the KILL until everything ended, and how the clients saw it."""
    tasks = await streams(server.port, 4, draw.randint(1, 20))
    begin = time.monotonic()
    os.kill(ranks_of(server.port)[victim], signal.SIGKILL)
    seen = await asyncio.gather(*tasks, return_exceptions=True)
    while server.process.poll() is None and time.monotonic() < begin + LIMIT:
        await asyncio.sleep(0.05)
    return time.monotonic() - begin, seen


def run_kill(options, report):
    draw, before = random.Random(options.seed), [ROOT / "launch" / "run", "-n", "2"]
    count, codes, seconds, port, text = max(2, round(2 * options.minutes)), {}, [], None, None
    for i in range(count):
        with Server(options, *TWO_RANKS, before=before, port=port) as server:
            port = server.port
            again = client.texts(asyncio.run(client.ask(port, "/v1/completions", PROMPT)))
            if text not in (None, again):
                report.wrong("kill", f"a restart answers {again}, and before it was {text}")
            text = again
            took, seen = asyncio.run(kill_one(server, i % 2, draw))
            code = server.process.poll()
            codes[code] = codes.get(code, 0) + 1
            seconds.append(took)
            if code != RANK_LOST:
                report.wrong("kill", f"exit {code} after {took:.1f} s without rank {i % 2}:\n{server.last_lines()}")
            if whole := [s for s in seen if not isinstance(s, (client.Gone, OSError))]:
                report.wrong("kill", f"clients of a server that was killed saw {whole}")
            if left := ranks_of(port):
                report.wrong("kill", f"rank {sorted(left)} is left")
    with Server(options, *TWO_RANKS, before=before, port=port) as server:
        again = client.texts(asyncio.run(client.ask(port, "/v1/completions", PROMPT)))
        if again != text:
            report.wrong("kill", f"a restart answers {again}, and before it was {text}")
        if (code := server.end()) != 0:
            report.wrong("kill", f"stopped by TERM, two ranks end with {code}:\n{server.last_lines()}")
    report.add("kill, 2 ranks", count, f"exit codes {codes}, at most {max(seconds):.1f} s; each restart gave the same")


class Mounted:
    """A disk of 16 KiB in memory."""

    def __init__(self, directory):
        self.directory = directory

    def __enter__(self):
        self.directory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", self.directory], check=True)
        return self.directory / "log"

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.directory], check=True)


async def answers(server, count):
    """What is wrong with so many requests, of which each makes a line in the log."""
    expected, wrong = None, []
    for i in range(count):
        answer = await client.ask(server.port, "/v1/completions", PROMPT, seconds=60)
        await client.ask(server.port, f"/{'long' * 300}{i}", seconds=60)
        if answer.status != 200 or client.texts(answer) != (expected := expected or client.texts(answer)):
            wrong.append(f"request {i}: {answer.status} {answer.error}")
    return wrong


def disk_row(options, report, where, log, count):
    with Server(options, "--kv-memory", "64MiB", "--log-prompts", log=log) as server:
        try:
            wrong = asyncio.run(answers(server, count)) or [asyncio.run(server.unrest())]
        except (OSError, client.Gone) as problem:
            wrong = [f"{type(problem).__name__} {problem}: no answer"]
        for what in filter(None, wrong[:3]):
            report.wrong(where, what)
        if (code := server.end()) != 0:
            report.wrong(where, f"the server ended with {code}")
        report.add(
            where, 2 * count, "answered, and ended by TERM with 0" if not any(wrong) and not code else "see above"
        )


def run_disk(options, report):
    count = max(20, int(300 * options.minutes))
    disk_row(options, report, "log on /dev/full", "/dev/full", count)
    try:
        with Mounted(options.home / "small") as log:
            disk_row(options, report, "log on a full disk", log, count)
            if log.stat().st_size < 4096:
                report.wrong("log on a full disk", f"it was not full: {log.stat().st_size} bytes")
    except (OSError, subprocess.CalledProcessError) as problem:
        report.add("log on a full disk", 0, f"SKIPPED: no disk can be mounted here ({problem})")
    for where, seconds in (("log to a pipe that closes", 3), ("log that nobody reads", None)):
        pipe = options.home / where.replace(" ", "-")
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        closing = threading.Timer(seconds or 0, os.close if seconds else lambda _: None, [reader])
        closing.start()
        disk_row(options, report, where, pipe, count)
        closing.join()
