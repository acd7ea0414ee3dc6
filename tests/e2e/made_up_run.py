"""Directories of runs that never ran: metrics of any length, and plans, for what draws them."""

import json
import math
import random

RATES = "a table, not calibrated (measures A(R) CPU (avx2) into /nowhere/c.json)"
RECIPE = """model:
  path: "/nowhere/base"  # command line
lora:
  r: 8  # recipe.yaml:4
train:
  max_steps: {steps}  # recipe.yaml:6
optim:
  learning_rate: {rate}  # recipe.yaml:8
  max_grad_norm: 1  # default
checkpoint:
  every_steps: 1000  # default
output:
  dir: "{directory}"  # command line
"""


def step(number, steps, rate, draw):
    return {
        "step": number,
        "loss": 1 + 2 * math.exp(-5 * number / steps) + 0.2 * draw.random(),
        "grad_norm": 0.5 + draw.random() ** 4,
        "learning_rate": rate * min(1, number / 10) * (1 - number / (steps + 1)),
        "tokens": 4096,
        "trained_tokens": 1024,
        "tokens_per_second": 4000.0,
        "step_seconds": 10.0 if number % 5000 == 77 else 1.024,
        "peak_bytes": 3 << 30,
    }


def made_up_run(directory, steps, rate=2e-4, first=1):
    """A run whose validation loss falls and rises again."""
    directory.mkdir(parents=True)
    draw = random.Random(steps)
    (directory / "recipe.yaml").write_text(RECIPE.format(steps=steps, rate=rate, directory=directory))
    with open(directory / "metrics.jsonl", "w") as out:
        for number in range(first, steps + 1):
            out.write(json.dumps(step(number, steps, rate, draw)) + "\n")
            if number % max(1, steps // 10) == 0:
                loss = 1.5 + 2 * (number / steps - 0.6) ** 2
                out.write(json.dumps({"step": number, "validation_loss": loss, "tokens": 99}) + "\n")
    return directory


def add_plan(directory, ranks):
    of_rank = {"weights": 2 << 30, "adapter": 1 << 28, "optimizer": 1 << 29, "saved": 1 << 28, "scratch": 1 << 27}
    plan = {
        "ranks": [
            {"rank": rank, "total_bytes": sum(of_rank.values())} | {f"{k}_bytes": v for k, v in of_rank.items()}
            for rank in range(ranks)
        ],
        "time": {"calibrated": False, "rates": RATES, "step_seconds": 0.9, "bubble": 0.27, "mfu": None},
    }
    (directory / "plan.json").write_text(json.dumps(plan))
