"""KILL at random moments of training."""

import collections
import random
import re
import signal
import time

from fault_parts.started import LIMIT, Findings, Started, checkpoints, finished, result, runs, training

STEPS, VALIDATES, FAMILY = 30, 3, {"tp": 1, "pp": 1, "dp": 1}
MESHES = {  # all of one tp compute the same bits (train.deterministic)
    "1": {},
    "dp 2": {"dp": 2},
    "pp 2": {"pp": 2},
    "tp 2": {"tp": 2},
    "dp 2 pp 2": {"dp": 2, "pp": 2},
    "tp 2 pp 2": {"tp": 2, "pp": 2},
    "tp 2 dp 2": {"tp": 2, "dp": 2},
}
CHANGING = ["1", "dp 2", "pp 2", "dp 2 pp 2"]  # a chain whose mesh is another after every kill
PHASES = {"start": 3, "steps": 2, "validation": 3, "saving": 4, "end": 3}  # how often each is aimed at
VICTIMS = {"a rank": 7, "all ranks": 2, "mpirun": 2}


def command(name, mesh):
    axes = FAMILY | MESHES[mesh]
    return training(
        name,
        axes["tp"] * axes["pp"] * axes["dp"],
        f"train.max_steps={STEPS}",
        "train.deterministic=true",
        "checkpoint.every_steps=1",
        f"eval.every_steps={VALIDATES}",
        *(f"parallel.{axis}={size}" for axis, size in axes.items()),
    )


def temporary(name):
    """The steps whose checkpoints are being written or removed."""
    return [int(path.name[5:-4]) for path in runs(name).glob("step-*.tmp")]


def phase_of(run, name, steps):
    """Where a run was when it ended, by what it said and left."""
    if list(runs(name).glob(".adapter.tmp-*")) or f"step {STEPS}: validation" in run.output and not temporary(name):
        return "end"
    if any(step > max(checkpoints(name), default=0) for step in temporary(name)):
        return "saving"
    if temporary(name):
        return "removing"
    if not steps:
        return "start"
    validated = re.findall(r"^step (\d+): validation", run.output, re.M)
    if steps[-1] % VALIDATES == 0 and str(steps[-1]) not in validated:
        return "validation"
    return "steps"


class Chain:
    """A run that is killed and started again until it has come to its end, then the next."""

    def __init__(self, name, meshes, draw, findings):
        self.name, self.meshes, self.draw, self.findings = name, meshes, draw, findings
        self.hits, self.victims, self.number, self.seen, self.slowest = (
            collections.Counter(),
            collections.Counter(),
            0,
            0,
            0.0,
        )

    @property
    def run(self):
        return f"{self.name.replace(' ', '')}-{self.number}"

    def aim(self, run, phase):
        """Waits for the moment to strike; false: the run ended before."""

        def steps():
            return [int(step) for step in re.findall(r"^step (\d+)/", run.output, re.M)]

        if phase == "start":
            time.sleep(self.draw.uniform(0.02, 0.3 if self.meshes == ["1"] else 1.0))
            return run.process.poll() is None
        number = self.draw.randint(1, 8)
        ready, delay = {
            "steps": (lambda: len(steps()) >= number, 0.05),
            "validation": (lambda: len(steps()) >= number and steps()[-1] % VALIDATES == 0, 0.01),
            "saving": (
                lambda: len(steps()) >= number
                and any(step > max(checkpoints(self.run), default=0) for step in temporary(self.run)),
                0.02,
            ),
            "end": (lambda: f"step {STEPS}: validation" in run.output, 0.15),
        }[phase]
        if not run.wait_until(ready):
            return False
        time.sleep(self.draw.uniform(0, delay))
        return run.process.poll() is None

    def kill_once(self):
        """One start, one kill; false where the run ended by itself before."""
        mesh = self.draw.choice(self.meshes)
        phase = self.draw.choices(list(PHASES), PHASES.values())[0]
        victim = self.draw.choices(list(VICTIMS), VICTIMS.values())[0]
        if mesh == "1":
            victim = "a rank"
        run = Started(command(self.run, mesh), runs(self.run))
        aimed = self.aim(run, phase)
        # Every checkpoint that is there now has to outlast what follows.
        whole = max(checkpoints(self.run), default=0)
        hit = run.strike(victim, signal.SIGKILL, self.draw) if aimed else []
        if not hit:
            run.struck = time.monotonic()
            run.end(120)
            if run.process.returncode != 0:
                self.findings.add(f"{mesh}, not struck", f"exit {run.process.returncode}", run.output)
            self.check_resumed(run, mesh)
            self.check_end()
            self.number += 1
            self.seen = 0
            return False
        took = run.end()
        steps = [int(step) for step in re.findall(r"^step (\d+)/", run.output, re.M)]
        where = f"{mesh}, {victim} {hit} killed at {phase}"
        self.check_resumed(run, mesh)
        self.seen = max(self.seen, whole)
        self.judge(run, mesh, victim, hit, took, where)
        self.hits[phase_of(run, self.run, steps)] += 1
        self.victims[victim if mesh != "1" else "the process"] += 1
        return True

    def judge(self, run, mesh, victim, hit, took, where):
        if took is None:
            self.findings.add(where, f"something was left after {LIMIT} s", run.output)
            return
        self.slowest = max(self.slowest, took)
        code = run.process.returncode
        if code == 0:  # it had done all it had to, before the ranks were gone
            return self.check_end()
        if code != (83 if mesh != "1" else -signal.SIGKILL):
            self.findings.add(where, f"exit {code}", run.output)
        named = [f"process rank {rank} " in run.output for rank in hit if rank != "mpirun"]
        if mesh != "1" and not (
            any(named) if victim != "mpirun" else "mpirun itself was ended by signal 9" in run.output
        ):
            self.findings.add(where, "who was lost is not said", run.output)

    def check_resumed(self, run, mesh):
        """A start continues from the newest checkpoint that was seen before, or a newer one."""
        found = re.search(r"resuming after step (\d+)", run.output)
        step = int(found[1]) if found else 0
        began = re.search(r"^step \d+/", run.output, re.M) or run.process.returncode == 0
        if (found or began) and step < self.seen:
            self.findings.add(mesh, f"step {self.seen} was saved, resumed after step {step}", run.output)
        if "is passed over" in run.output:
            self.findings.add(mesh, "a checkpoint was damaged", run.output)

    def check_end(self):
        same = "1" if "tp" not in MESHES[self.meshes[0]] else "tp 2"
        if not runs(f"unkilled-{same}").exists():
            finished(command(f"unkilled-{same}", same)).check_returncode()
        if result(self.run) != result(f"unkilled-{same}"):
            self.findings.add(self.run, "the finished run differs from the one that was never killed")
        left = [p.name for p in runs(self.run).iterdir() if "tmp" in p.name or p.name == "lock"]
        if left:
            self.findings.add(self.run, f"left behind: {left}")

    def finish(self):
        run = finished(command(self.run, self.meshes[0]))
        if run.returncode != 0:
            self.findings.add(self.name, f"the last start ended with {run.returncode}", run.stdout)
            return
        self.check_end()


def run(options):
    findings, total = Findings(), collections.Counter()
    chains = list({mesh: [mesh] for mesh in MESHES}.items()) + [("changing", CHANGING)]
    columns = ["start", "steps", "validation", "saving", "removing", "end"]
    print(f"kills         {'mesh':<11} kills", *(f"{c:>10}" for c in columns), " slowest s  finished runs", flush=True)
    victims = collections.Counter()
    for index, (name, meshes) in enumerate(chains):
        share = options.kills * (index + 1) // len(chains) - options.kills * index // len(chains)
        chain = Chain(name, meshes, random.Random(f"{options.seed} {name}"), findings)
        while sum(chain.hits.values()) < share:
            chain.kill_once()
        chain.finish()
        counts = [chain.hits[c] for c in columns]
        total.update(chain.hits)
        victims.update(chain.victims)
        print(
            f"              {name:<11} {sum(counts):>5}",
            *(f"{c:>10}" for c in counts),
            f"{chain.slowest:>10.1f} {chain.number + 1:>14}",
            flush=True,
        )
    print(f"              {'all':<11} {sum(total.values()):>5}", *(f"{total[c]:>10}" for c in columns))
    print("             ", ", ".join(f"{who}: {count}" for who, count in victims.items()), flush=True)
    return findings.count
