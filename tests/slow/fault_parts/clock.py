"""Jumps of the wall clock, in every process of a run."""

import json
import re
import time

from fault_parts.disks import shim
from fault_parts.started import Findings, finished, runs, training
from fault_parts.writers import undisturbed, writers

EVERY_MS = 20, 150, 1000
MORE = ["train.max_steps=40", "checkpoint.every_steps=5", "eval.every_steps=10", "train.deterministic=true"]
LONGEST = 60  # seconds: no step of this model takes as long
MESHES = {"1": (1, []), "dp 2": (2, ["parallel.dp=2"]), "pp 4": (4, ["parallel.pp=2", "parallel.dp=2"])}


def absurd(name):
    """Times and rates that cannot be."""
    rows = [json.loads(line) for line in (runs(name) / "metrics.jsonl").read_text().splitlines()]
    return [
        row
        for row in rows
        if "loss" in row and not (0 < row["step_seconds"] < LONGEST and 0 < row["tokens_per_second"] < 1e9)
    ]


def run(options):
    findings, library, count = Findings(), shim("wall_clock"), 0
    shown = int(finished(["date", "+%s"], LD_PRELOAD=str(library)).stdout)
    if abs(shown - time.time()) < 3000:
        findings.add("date", "its clock has not jumped: what is loaded before it does nothing")
    reference = None
    for mesh, (ranks, axes) in MESHES.items():
        for every in EVERY_MS:
            name = f"clock-{mesh}-{every}".replace(" ", "")
            ended = finished(
                training(name, ranks, *MORE, *axes),
                DROVER_COMM_TIMEOUT_S="10",
                LD_PRELOAD=str(library),
                CLOCK_EVERY_MS=str(every),
            )
            count += 1
            where = f"{mesh}, a jump every {every} ms"
            if ended.returncode != 0:
                findings.add(where, f"exit {ended.returncode}", ended.stdout)
                continue
            if reference is None:
                finished(training("clock-none", 1, *MORE)).check_returncode()
                reference = writers()["train"].result("clock-none")
            if writers()["train"].result(name) != reference:
                findings.add(where, "the run differs from one with a steady clock")
            if rows := absurd(name):
                findings.add(where, f"times that cannot be: {rows[0]}")
            if eta := [e for e in re.findall(r"ETA (\S+)", ended.stdout) if not re.fullmatch(r"[0-2]:\d\d", e)]:
                findings.add(where, f"ETA {eta[0]}", ended.stdout)
    for name, writer in writers().items():
        if name.startswith("train"):
            continue
        undisturbed(writer)
        target = "clock-" + name.replace(" ", "_")
        writer.before(target)
        ended = finished(writer.command(target), LD_PRELOAD=str(library), CLOCK_EVERY_MS="20")
        count += 1
        if ended.returncode != 0 or writer.result(target) != writer.result("undisturbed-" + name):
            findings.add(name, f"with jumps: exit {ended.returncode}, or something else is written", ended.stdout)
    print(f"clock         {count} runs whose wall clock jumps every {EVERY_MS} ms, {findings.count} not as without")
    return findings.count
