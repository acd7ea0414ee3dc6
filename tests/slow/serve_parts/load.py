"""Many clients at once; and answers of such a load, recomputed alone."""

import asyncio
import time

from serve_parts import client
from serve_parts.adapters import make_adapter
from serve_parts.prompts import LONGEST_ANSWER, LONGEST_PROMPT, SHARED, Prompts
from serve_parts.report import median, quantile, times
from serve_parts.server import Server

WARM_SECONDS = 120
GROWTH = 0.02
JUDGED_SECONDS = 180  # memory is judged from here on: what is taken for the first time is no growth
WAIT = 3  # times what was queued before a request
REST = 1.0  # seconds a wait may have besides
NEAR_TIE = 0.1  # in ln p, where bf16 may choose otherwise


def adapter_arguments(options):
    """Three adapters, made once for all parts."""
    found = []
    for name, rank in (("low", 4), ("mid", 8), ("high", 16)):
        directory = options.home / f"adapter-{name}"
        if not directory.exists():
            make_adapter(options.model, directory, rank, seed=rank)
        found += ["--adapter", f"{name}={directory}"]
    return found


async def models_of(server):
    return [model["id"] for model in (await client.ask(server.port, "/v1/models")).json()["data"]]


async def words_that_fit(server):
    """Of a prompt, so that there is room for an answer."""
    counted = (await client.ask(server.port, "/tokenize", {"prompt": SHARED})).json()
    each = counted["count"] / len(SHARED.split())
    return int((counted["max_model_len"] - LONGEST_ANSWER) / each) - 80


class Seen:
    """One request's fate. Times are of the monotonic clock; `first` is the first token's."""

    def __init__(self, wanted):
        self.wanted, self.begin, self.first, self.end = wanted, time.monotonic(), None, None
        self.answer, self.problem = None, ""

    def judge(self, issued):
        """What is wrong with a whole answer, or an empty text."""
        answer, wanted = self.answer, self.wanted
        if answer.status != 200:
            return f"{answer.status} {answer.error}"
        if wanted.body["stream"] and not answer.done:
            return f"the stream did not end in [DONE]: {answer.error}"
        texts = client.texts(answer)
        if len(texts) != wanted.body.get("n", 1):
            return f"{len(texts)} answers for n {wanted.body.get('n', 1)}"
        if wanted.body.get("echo") and any(wanted.code not in text for text in texts.values()):
            return "echo has not the prompt's code word"
        others = wanted.others_codes(texts.values(), issued)
        return f"another's code word in its answer: {others}" if others else ""


class Load:
    def __init__(self, server, prompts, clients, seconds):
        self.server, self.prompts, self.clients = server, prompts, clients
        self.until = time.monotonic() + seconds
        self.seen, self.memory = [], []

    async def one(self, wanted):
        seen = Seen(wanted)
        self.seen.append(seen)
        connection = await client.Connection.open(self.server.port, 4096 if wanted.how == "slow" else None)
        try:
            await connection.ask("POST", wanted.path, wanted.body)
            enough = None
            if wanted.how == "cancel":
                enough = lambda answer: len(answer.events) >= wanted.leave_after  # noqa: E731
            pause = 0.2 if wanted.how == "slow" else 0.0
            seen.answer = await connection.answer(pause, enough)
            if wanted.how != "cancel":
                seen.problem = seen.judge(self.prompts.issued)
        except (OSError, client.Gone, ValueError) as problem:
            seen.problem = f"{type(problem).__name__} {problem}"
        finally:
            if wanted.how == "cancel" and wanted.resets:
                connection.reset()
            connection.close()
            seen.end = time.monotonic()
        if seen.answer and seen.answer.events:
            seen.first = seen.answer.events[0][0]

    async def keep_asking(self):
        while time.monotonic() < self.until:
            await self.one(self.prompts.next())

    async def watch_memory(self):
        begin = time.monotonic()
        while True:
            self.memory.append((time.monotonic() - begin, self.server.rss_kib()))
            await asyncio.sleep(0.5)

    async def run(self):
        watching = asyncio.create_task(self.watch_memory())
        await asyncio.gather(*(self.keep_asking() for _ in range(self.clients)))
        watching.cancel()

    def growth(self):
        """Of resident memory, from the first fifth behind the warm time to the last fifth: (share, MiB at the end)."""
        length = self.memory[-1][0]
        begin = min(WARM_SECONDS, length / 3)
        fifth = (length - begin) / 5
        early = max(kib for at, kib in self.memory if begin <= at <= begin + fifth + 0.5)
        late = max(kib for at, kib in self.memory if at >= length - fifth)
        return late / early - 1, late / 1024

    def waits(self, rate):
        """The worst wait for a first token, over what it may be: WAIT times the time in which what was there before it
        was served, and its own prompt at `rate` words a second."""
        worst, ended = 0.0, [s for s in self.seen if s.end]
        for s in ended:
            if s.first is None or s.wanted.how == "slow":
                continue
            before = max((o.end for o in ended if o.begin < s.begin), default=s.begin)
            own = len(str(s.wanted.body).split()) / rate
            worst = max(worst, (s.first - s.begin) / (WAIT * (max(0.0, before - s.begin) + own) + REST))
        return worst

    def first_times(self):
        return [s.first - s.begin for s in self.seen if s.first and s.wanted.how == "read"]

    def gaps(self):
        found = []
        for s in self.seen:
            if s.first and s.wanted.how == "read" and s.wanted.body.get("n", 1) == 1:
                stamps = [at for at, event in s.answer.events if event.get("choices")]
                found += [b - a for a, b in zip(stamps, stamps[1:])]
        return found


async def prompt_rate(server, words):
    """Words of prompts a second, where nobody else asks."""
    begin = time.monotonic()
    await client.ask(server.port, "/v1/completions", {"prompt": "harbour " * words, "max_tokens": 1})
    return words / (time.monotonic() - begin)


async def load_row(options, report, server, clients):
    models = await models_of(server)
    fit = await words_that_fit(server)
    rate = await prompt_rate(server, min(fit, 1000))
    prompts = Prompts(options.seed, models, longest=min(LONGEST_PROMPT, fit))
    load = Load(server, prompts, clients, 60 * options.minutes)
    before, begin = await server.metrics(), time.monotonic()
    await load.run()
    seconds, after = time.monotonic() - begin, await server.metrics()
    where = f"load, {clients} clients"
    if unrest := await server.unrest():
        report.wrong(where, unrest)
    problems = [(s.wanted, s.problem) for s in load.seen if s.problem]
    for wanted, problem in problems[:10]:
        report.wrong(where, f"request {wanted.number} ({wanted.how}): {problem}")
    worst, (grown, mib) = load.waits(rate), load.growth()
    if worst > 1:
        report.wrong(where, f"a request waited {worst:.2f} times what it may")
    judged = seconds >= JUDGED_SECONDS
    if judged and grown > GROWTH:
        report.wrong(where, f"resident memory grew by {100 * grown:.1f} %")
    names = ("generation_tokens_total", "prompt_tokens_total", "num_preemptions_total", "prefix_cache_hits_total")
    tokens, prompt, preempted, hits = (after[name] - before.get(name, 0) for name in names)
    report.add(
        where,
        len(load.seen),
        f"{len(problems)} errors; {tokens / seconds:.1f} tokens/s of answers, {prompt / seconds:.0f} of prompts; first "
        f"token {times(load.first_times())}; between tokens {times(load.gaps())}; longest wait {worst:.2f} of what it "
        f"may; memory {100 * grown:+.1f} % to {mib:.0f} MiB{'' if judged else ' (not judged: too short)'}; "
        f"{preempted:.0f} put off, {hits:.0f} tokens found in the prefix cache",
    )


def run(options, report):
    """8 clients, and more than can be answered at once."""
    more = ["--kv-memory", options.kv_memory, "--max-sequences", options.sequences, f"train.dtype={options.dtype}"]
    with Server(options, *adapter_arguments(options), *more) as server:
        for clients in options.clients:
            asyncio.run(load_row(options, report, server, clients))
        if (code := server.end()) != 0:
            report.wrong("load", f"the server ended with {code}:\n{server.last_lines()}")


def parts_of(answer):
    """index → (text, [(token, ln p, two likeliest)]) of an answer, whole or in events."""
    found = {}
    for body in [answer.json()] if answer.body else [event for _, event in answer.events]:
        for choice in body.get("choices", ()):
            text, tokens = found.setdefault(choice["index"], ["", []])
            found[choice["index"]][0] = text + client.choice_text(choice)
            logprobs = choice.get("logprobs") or {}
            for entry in logprobs.get("content") or ():
                tokens.append((entry["token"], entry["logprob"], [t["logprob"] for t in entry["top_logprobs"]]))
            if "tokens" in logprobs:
                rows = zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
                tokens += [(token, p, sorted((top or {}).values(), reverse=True)) for token, p, top in rows]
    return found


def tie(one, other):
    """How far the two likeliest tokens are from each other where two answers part; None where they never do."""
    for (token, _, top), (again, _, _) in zip(one[1], other[1]):
        if token != again:
            return top[0] - top[1]
    return None if len(one[1]) == len(other[1]) else float("inf")


async def exact_row(options, report, server, dtype):
    models = await models_of(server)
    fit = await words_that_fit(server)
    prompts = Prompts(options.seed + 1, models, longest=min(600, fit), longest_answer=60)
    load = Load(server, prompts, 8, 60 * options.minutes)
    await load.run()
    await server.unrest()
    whole = [s for s in load.seen if s.wanted.how != "cancel" and not s.problem]
    for s in [s for s in load.seen if s.problem][:10]:
        report.wrong(f"exact, {dtype}", f"request {s.wanted.number}: {s.problem}")
    again, answers, other_bits, ties = whole[::10], 0, 0, []
    for s in again:
        alone = parts_of(await client.ask(server.port, s.wanted.path, s.wanted.body | {"stream": False}))
        company = parts_of(s.answer)
        for index, one in company.items():
            answers += 1
            if one == alone.get(index):
                continue
            other_bits += 1
            parted = tie(one, alone.get(index, ["", []]))
            if parted is not None:
                ties.append((parted, s.wanted))
            if dtype == "fp32":
                report.wrong("exact, fp32", f"request {s.wanted.number} differs alone: {one[0]!r}, {alone.get(index)}")
    if dtype != "fp32":
        for parted, wanted in ties:
            if wanted.body["temperature"] == 0 and parted > NEAR_TIE and "frequency_penalty" not in wanted.body:
                report.wrong("exact, bf16", f"request {wanted.number} parts where two tokens are {parted:.3f} apart")
    apart = [parted for parted, _ in ties]
    seen = (
        f"{len(again)} of {len(whole)} recomputed: {other_bits} of {answers} with other bits, {len(ties)} other texts"
    )
    if apart:
        seen += f" (two likeliest {median(apart):.3f} apart there, at most {quantile(apart, 1):.3f})"
    report.add(f"exact, {dtype}", len(load.seen), seen)


def run_exact(options, report):
    more = ["--kv-memory", options.kv_memory, "--max-sequences", options.sequences]
    for dtype in ("fp32", "bf16"):
        with Server(options, *adapter_arguments(options), *more, f"train.dtype={dtype}") as server:
            asyncio.run(exact_row(options, report, server, dtype))
