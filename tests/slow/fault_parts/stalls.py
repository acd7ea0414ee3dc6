"""A rank that stops at a random moment. One that stops when all is done and MPI has ended is not counted: mpirun waits
for it, and the run is complete."""

import collections
import random
import signal
import time

from fault_parts.kills import MESHES, Chain, command
from fault_parts.started import LIMIT, Findings, Started, runs

TIMEOUT = 10  # seconds, DROVER_COMM_TIMEOUT_S
PHASES = ["start", "steps", "validation", "saving", "end"]


def over(run, rank):
    """Waits for the end; whether the rank was not needed any more: all is done, and the others have left. Then mpirun
    waits for nothing but the stopped process."""
    end = run.struck + 3 * TIMEOUT
    while time.monotonic() < end and run.process.poll() is None:
        time.sleep(0.5)
        if "done. The adapter is in" in run.output and set(run.ranks()) == {rank}:
            run.end(0)
            return True
    return run.process.poll() == 0


def stall(mesh, phase, chain, findings):
    """Seconds until the run had ended; nothing where it had before."""
    run = Started(command(chain.run, mesh), runs(chain.run), DROVER_COMM_TIMEOUT_S=str(TIMEOUT))
    hit = run.strike("a rank", signal.SIGSTOP, chain.draw) if chain.aim(run, phase) else []
    chain.number += 1
    if not hit:
        run.struck = time.monotonic()
        run.end(60)
        return None
    if over(run, hit[0]):
        return None
    took = run.end(6 * TIMEOUT)
    verdict = f"launch/run: rank {hit[0]} hangs"
    named = [at - run.struck for at, line in run.lines if line.startswith(verdict)]
    where = f"{mesh}, rank {hit[0]} stopped at {phase}"
    if took is None:
        findings.add(where, f"nothing ended in {6 * TIMEOUT} s", run.output)
    elif run.process.returncode != 80:
        findings.add(where, f"exit {run.process.returncode} after {took:.1f} s", run.output)
    if not named or named[0] > LIMIT:
        after = f"{named[0]:.1f} s" if named else "ever"
        findings.add(where, f"not named {'before' if named else 'for'} {after}", run.output)
    return named[0] if named else took


def run(options):
    findings, share = Findings(), max(1, options.kills // 5)
    meshes = [mesh for mesh in MESHES if mesh != "1"]
    print(f"stalls        {'mesh':<11}", *(f"{phase:>10}" for phase in PHASES), "  named after s (slowest)", flush=True)
    done = 0
    for index, mesh in enumerate(meshes):
        counts, slowest = collections.Counter(), 0.0
        chain = Chain(f"stalled {mesh}", [mesh], random.Random(f"{options.seed} {mesh}"), findings)
        while sum(counts.values()) < share * (index + 1) // len(meshes) - share * index // len(meshes):
            phase = PHASES[done % len(PHASES)]
            took = stall(mesh, phase, chain, findings)
            if took is not None:
                counts[phase] += 1
                done += 1
                slowest = max(slowest, took)
        row = [f"{counts[phase]:>10}" for phase in PHASES]
        print(f"              {mesh:<11}", *row, f"{slowest:>10.1f}", flush=True)
    return findings.count
