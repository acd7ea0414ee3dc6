"""Clients that lie, stall, flood or leave. After each case the server must be as it was before."""

import asyncio
import random
import shutil

from serve_parts import changing, floods, odd_requests
from serve_parts.adapters import make_adapter
from serve_parts.case import Case
from serve_parts.load import adapter_arguments
from serve_parts.server import Server

FLAT = 1.02  # times the memory that it had, and MORE_KIB besides
MORE_KIB = 24 << 10

CASES = {
    "half-open connections": floods.half_open,
    "too many connections": floods.too_many,
    "no files left": floods.few_files,
    "slowloris": floods.slowloris,
    "malformed HTTP": odd_requests.malformed,
    "header bombs": floods.header_bombs,
    "body bombs": floods.body_bombs,
    "big bodies": floods.big_bodies,
    "bad JSON": odd_requests.bad_json,
    "extreme values": odd_requests.extremes,
    "random bytes": odd_requests.random_bytes,
    "random requests": odd_requests.random_requests,
    "resets": odd_requests.resets,
    "pipelined": odd_requests.pipelined,
    "adapters change": changing.changes,
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
    for _ in range(3):
        if server.process.poll() is not None or server.rss_kib() <= before * FLAT + MORE_KIB:
            break
        before = server.rss_kib()  # what was freed is kept for the next time; a leak grows each time
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
