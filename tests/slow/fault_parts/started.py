"""Programs that are started, watched and struck; the made-up model and data that they work on."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "e2e"))
from case import DROVER, ENVIRONMENT, ROOT, Case, losses  # noqa: E402

LIMIT = 12  # seconds in which the ranks that are left end
SUITE = Case  # its class holds the model, the data and the recipe


@contextlib.contextmanager
def home():
    """The directory of it all, with a model, data, a recipe and a finished run (`runs/plain`) in it."""
    SUITE.setUpClass()
    try:
        yield
    finally:
        SUITE.tearDownClass()


def runs(name):
    return SUITE.home / "runs" / name


def training(name, ranks, *overrides):
    """A command that trains in runs(name)."""
    command = [str(DROVER), "train", str(SUITE.recipe), f"output.dir={runs(name)}", *overrides]
    return [str(ROOT / "launch" / "run"), "-n", str(ranks), *command] if ranks > 1 else command


def result(name):
    """What a finished run is compared by."""
    return losses(runs(name)), (runs(name) / "adapter" / "adapter_model.safetensors").read_bytes()


def checkpoints(name):
    """The steps of the checkpoints that have their names."""
    whole = [path.parent for path in runs(name).glob("step-*/manifest.json")]
    return sorted(int(path.name[5:]) for path in whole if path.suffix == "")


def snapshot(path):
    """The bytes below a path, by relative name."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def processes_of(word):
    """pid → command of the processes in whose command the word is."""
    found = {}
    for folder in os.scandir("/proc"):
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = pathlib.Path(folder.path, "cmdline").read_bytes()
            if word.encode() in command and pathlib.Path(folder.path, "stat").read_text().rsplit(")", 1)[1][1] != "Z":
                found[int(folder.name)] = command.split(b"\0")
    return found


class Started:
    """A program that runs; `word` is in the command of it and of all its ranks, and of nothing else."""

    def __init__(self, command, word, **variables):
        self.word = str(word)
        self.begin = time.monotonic()
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENVIRONMENT | variables,
            start_new_session=True,
        )
        self.lines = []
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line))

    @property
    def output(self):
        return "".join(line for _, line in list(self.lines))

    def ranks(self):
        """rank → pid of the ranks that are there."""
        found = {}
        for pid, command in processes_of(self.word).items():
            if command[0] != str(DROVER).encode():
                continue
            with contextlib.suppress(OSError):
                environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
                rank = re.search(rb"OMPI_COMM_WORLD_RANK=(\d+)", environment)
                found[int(rank[1]) if rank else 0] = pid
        return found

    def mpirun(self):
        """mpirun's pid, or none."""
        names = (b"mpirun", b"mpiexec", b"orterun")
        return next((pid for pid, c in processes_of(self.word).items() if c[0].split(b"/")[-1] in names), None)

    def strike(self, victim, number=signal.SIGKILL, draw=None):
        """Sends a signal to a rank, to all ranks or to mpirun; whom it found, nothing where nobody is there yet."""
        if victim == "mpirun":
            found = {"mpirun": self.mpirun()}
        else:
            found = self.ranks()
            if victim == "a rank" and found:
                rank = draw.choice(sorted(found))
                found = {rank: found[rank]}
        self.struck = time.monotonic()
        hit = []
        for name, pid in found.items():
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.kill(pid, number)
                hit.append(name)
        return hit

    def wait_until(self, ready, seconds=60):
        """Whether `ready` became true before the program ended."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            if ready():
                return True
            time.sleep(0.001)
        return False

    def end(self, seconds=LIMIT):
        """Seconds from the strike until the last of its processes was gone; none: more than allowed."""
        end = self.struck + seconds
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=max(0.1, end - time.monotonic()))
        while processes_of(self.word) and time.monotonic() < end:
            time.sleep(0.02)
        left = processes_of(self.word)
        took = time.monotonic() - self.struck
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.reader.join()
        return None if left else took


def finished(command, seconds=120, **variables):
    """The result of a program that ends by itself."""
    return subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT | variables,
        timeout=seconds,
    )


class Findings:
    """What was not as it should be; printed as it is found."""

    def __init__(self):
        self.count = 0

    def add(self, where, what, output=""):
        self.count += 1
        print(f"FOUND {where}: {what}", *output.splitlines()[-12:], sep="\n  | ", flush=True)
