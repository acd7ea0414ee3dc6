"""What the tests from outside share: the program under test, a made-up model with data, and a run that others are
compared with."""

import json
import os
import pathlib
import pty
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

DROVER = pathlib.Path(sys.argv.pop(1)).resolve()  # TEST.py DROVER [unittest arguments]
ROOT = pathlib.Path(__file__).resolve().parents[2]
MPIRUN = DROVER.parent / "tests" / "mpirun"  # of the MPI that the program is linked with
ENVIRONMENT = dict(
    os.environ,
    OMP_NUM_THREADS="1",
    DROVER_COMM_SYNCHRONOUS="1",
    DROVER_MPIRUN=str(MPIRUN),
)

PATIENCE = float(os.environ.get("DROVER_TEST_PATIENCE", "1"))  # more in builds with sanitizers (tests/slow/sanitize)


def within(seconds):
    """What a program is given to end, before it counts as hung."""
    return seconds * PATIENCE


def run(*arguments, ranks=0, check=None, timeout=120, cwd=None, **variables):
    command = [str(DROVER), *map(str, arguments)]
    if ranks:
        command = [str(ROOT / "launch" / "run"), "-n", str(ranks), *command]
    environment = ENVIRONMENT | variables
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=within(timeout), cwd=cwd)
    if check is not None and result.returncode != check:
        raise AssertionError(
            f"{' '.join(command)}\nexit {result.returncode}, expected {check}\n{result.stdout}\n{result.stderr}"
        )
    return result


def terminal():
    """A pseudo-terminal's two ends; a sandbox may have none."""
    try:
        return pty.openpty()
    except OSError as problem:
        raise unittest.SkipTest(f"no pseudo-terminal can be had: {problem}") from None


def can_mount():
    return (
        os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL).returncode == 0
    )


def losses(directory):
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return {r["step"]: r["loss"] for r in rows if "loss" in r}


def validations(directory):
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [(r["step"], r["validation_loss"]) for r in rows if "validation_loss" in r]


def safetensors(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    return {n: data[8 + size + t["data_offsets"][0] : 8 + size + t["data_offsets"][1]] for n, t in header.items()}


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def no_file_over(size, killed):
    """A process that writes a larger one is killed by a signal, or finds no room, as on a full disk."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if killed else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return limit


def widened(source, target):
    """Copies a model directory with its bf16 weights stored as fp32."""
    shutil.copytree(source, target)
    data = (source / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    for name, tensor in header.items():
        if name != "__metadata__":
            tensor["dtype"], tensor["data_offsets"] = "F32", [2 * offset for offset in tensor["data_offsets"]]
    halves = data[8 + size :]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    wide = b"".join(b"\0\0" + halves[i : i + 2] for i in range(0, len(halves), 2))
    (target / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + wide)


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = pathlib.Path(tempfile.mkdtemp(prefix="drover-e2e-"))
        cls.model = cls.home / "model"
        run("make-tiny", cls.model, check=0)
        draw = random.Random(3)
        words = ["harbour", "lorry", "customs", "depot", "parcel", "ferry", "crane", "ledger"]
        for name, count in (("train", 40), ("validation", 7)):
            with open(cls.home / f"{name}.jsonl", "w") as out:
                for i in range(count):
                    q = " ".join(draw.choice(words) for _ in range(draw.randint(1, 9)))
                    messages = [
                        {"role": "user", "content": q + "?"},
                        {"role": "assistant", "content": draw.choice(words) + str(i)},
                    ]
                    out.write(json.dumps({"messages": messages}) + "\n")
        cls.recipe = cls.home / "recipe.yaml"
        cls.recipe.write_text(f"""model:
  path: {cls.model}
lora:
  r: 4
data:
  train: {cls.home}/train.jsonl
  validation: {cls.home}/validation.jsonl
  max_length: 128
  packing: false
train:
  dtype: fp32
  micro_batch_size: 2
  global_batch_size: 8
  max_steps: 8
optim:
  learning_rate: 5.0e-3
  warmup_steps: 1
checkpoint:
  every_steps: 2
output:
  dir: {cls.home}/runs/plain
""")
        run("train", cls.recipe, check=0)
        cls.plain = cls.home / "runs" / "plain"

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.home)

    def train(self, name, *overrides, **keywords):
        return run("train", self.recipe, f"output.dir={self.home}/runs/{name}", *overrides, **keywords)

    def adapter(self, name):
        return safetensors(self.home / "runs" / name / "adapter" / "adapter_model.safetensors")

    def assert_same_run(self, name):
        self.assertEqual(losses(self.plain), losses(self.home / "runs" / name))
        self.assertEqual(self.adapter("plain"), self.adapter(name))

    def assert_close_run(self, name):
        ours = losses(self.home / "runs" / name)
        for step, loss in losses(self.plain).items():
            self.assertLess(abs(ours[step] - loss), 1e-5 * loss, step)
