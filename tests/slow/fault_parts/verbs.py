"""KILL at random moments of the verbs that write files."""

import random
import signal
import time

from fault_parts.started import Findings, Started, finished, runs
from fault_parts.writers import undisturbed, writers


def left_behind(writer, name):
    """What lies next to the target and belongs to it."""
    place = writer.target(name).parent
    return [path.name for path in place.iterdir() if name in path.name and path != writer.target(name)]


def kill(writer, name, draw):
    """Whether the verb was killed before its end."""
    run = Started(writer.command(name), writer.target(name))
    if draw.random() < 0.5:
        time.sleep(draw.uniform(0, 1.2 * writer.seconds))
    else:  # while it writes
        run.wait_until(lambda: writer.target(name).exists() or left_behind(writer, name))
        time.sleep(draw.uniform(0, writer.seconds / 2))
    run.strike("all ranks", signal.SIGKILL)
    run.end()
    return run.process.returncode == -signal.SIGKILL


def run(options):
    findings = Findings()
    found = {name: writer for name, writer in writers().items() if not name.startswith("train")}
    print(f"verbs         {'verb':<26} kills    absent     whole  left behind, then gone", flush=True)
    for index, (name, writer) in enumerate(found.items()):
        undisturbed(writer)
        share = options.kills // 2 * (index + 1) // len(found) - options.kills // 2 * index // len(found)
        draw, kills, absent, left, number = random.Random(f"{options.seed} {name}"), 0, 0, 0, 0
        while kills < share:
            target, number = f"{writer.name}-{number}".replace(" ", "_"), number + 1
            writer.before(target)
            for _ in range(draw.randint(1, 3)):  # once, or several times with the same target
                if writer.target(target).exists() and writer.result(target) is not None:
                    break
                kills += kill(writer, target, draw)
                left += bool(left_behind(writer, target))
            there = writer.result(target) is not None
            absent += not there
            if there and not writer.complete(target):
                findings.add(name, "what it left under its name is not whole")
            if writer.result(target) != writer.result("undisturbed-" + name):
                again = finished(writer.again(target))
                if again.returncode != 0:
                    findings.add(name, f"the next start ended with {again.returncode}", again.stdout)
                elif writer.result(target) != writer.result("undisturbed-" + name):
                    findings.add(name, "the next start wrote something else")
            if left_behind(writer, target):
                findings.add(name, f"left behind after all: {left_behind(writer, target)}")
        print(f"              {name:<26} {kills:>5} {absent:>9} {number - absent:>9} {left:>12}", flush=True)
    return findings.count
