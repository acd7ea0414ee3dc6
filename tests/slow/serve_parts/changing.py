"""Adapters that come, are replaced and leave while they answer."""

import asyncio
import time

from serve_parts import client
from serve_parts.case import GOOD


class Changing:
    """Adapters come, are replaced and leave, while streams ask for them: every answer is, from its first token to its
    last, that of one adapter which had the name while it was asked."""

    NAMES = ("red", "green", "blue")

    def __init__(self, c):
        self.c, self.port, self.draw = c, c.port, c.draw
        self.until, self.known = time.monotonic() + max(10, c.seconds), {}

    def ask(self):
        return {"prompt": GOOD["prompt"], "max_tokens": 24, "seed": 7, "ignore_eos": True}

    async def change(self, action, body):
        answer = await client.ask(self.port, f"/v1/{action}_lora_adapter", body)
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
            answer = await client.ask(self.port, "/v1/completions", body)
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
