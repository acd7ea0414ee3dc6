"""Seeded requests. Each has a code word of its own, which the prompt asks to say again: where another request's code
word stands in an answer, somebody was given what is not theirs."""

import itertools
import random
import re

WORDS = (
    "the harbour opens at six and a crane lifts parcels from ships while clerks count what came by rail or road over "
    "night then customs looks at papers of every lorry that leaves depot two before noon some drivers wait outside "
    "because their ferry is late today people say it will rain again near evening so ledger books stay in the office"
).split()
CODE = re.compile(r"[A-Z]{3}\d{5}[A-Z]{2}")
LONGEST_PROMPT, LONGEST_ANSWER = 1500, 200
SHARED = " ".join(WORDS * 3)  # the beginning of some prompts, which the prefix cache knows


class Prompts:
    """Requests without end, the same for the same seed; `models`: the base and its adapters. `issued`: code words."""

    def __init__(self, seed, models, cancels=0.1, slow=0.05, longest=LONGEST_PROMPT, longest_answer=LONGEST_ANSWER):
        self.draw, self.models = random.Random(seed), models
        self.cancels, self.slow, self.longest, self.longest_answer = cancels, slow, longest, longest_answer
        self.issued, self.numbers = set(), itertools.count()

    def code(self):
        letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
        while True:
            word = "".join(self.draw.choices(letters, k=3) + self.draw.choices("23456789", k=5))
            word += "".join(self.draw.choices(letters, k=2))
            if word not in self.issued:
                self.issued.add(word)
                return word

    def text(self, code):
        d = self.draw
        length = int(16 * (self.longest / 16) ** d.random())  # as many short ones as long ones
        words = d.choices(WORDS, k=max(1, length - 40))
        shared = SHARED if length > 400 and d.random() < 0.3 else ""
        return f"{shared} {' '.join(words[len(WORDS) * 3 if shared else 0:])}. My code is {code}. I repeat, my code is"

    def next(self):
        d, code = self.draw, self.code()
        body = {"model": d.choice(self.models), "max_tokens": int(self.longest_answer ** d.random())}
        body |= {"temperature": d.choice((0, 0, 0.7, 1.0)), "seed": d.randrange(2**31)}
        if d.random() < 0.3:
            body |= {"top_p": 0.9, "top_k": d.choice((0, 20)), "min_p": d.choice((0, 0.05))}
        if d.random() < 0.2:
            body |= {"frequency_penalty": 0.5, "presence_penalty": 0.2, "repetition_penalty": 1.1}
        if d.random() < 0.15:
            body["n"] = d.randint(2, 3)
        chat = d.random() < 0.4
        if chat:
            body |= {"messages": [{"role": "user", "content": self.text(code)}], "logprobs": True}
            body["top_logprobs"] = 2
        else:
            body |= {"prompt": self.text(code), "logprobs": 2}
        if d.random() < 0.2:
            body["stop"] = ["\n\n", "harbour office"]
        body["stream"] = d.random() < 0.7
        if not chat and not body["stream"] and d.random() < 0.2:
            body["echo"] = True
        how = "read"
        if body["stream"]:
            way = d.random()
            how = "cancel" if way < self.cancels else "slow" if way < self.cancels + self.slow else "read"
        return Wanted(next(self.numbers), "/v1/chat/completions" if chat else "/v1/completions", body, code, how, d)


class Wanted:
    """A request, and what its client does with the answer: read it, slowly, or leave after `leave_after` events."""

    def __init__(self, number, path, body, code, how, draw):
        self.number, self.path, self.body, self.code, self.how = number, path, body, code, how
        self.leave_after = draw.randint(0, 20)
        self.resets = draw.random() < 0.5

    def others_codes(self, texts, issued):
        """Code words of others in these texts."""
        found = {word for text in texts for word in CODE.findall(text)}
        return sorted((found & issued) - {self.code})
