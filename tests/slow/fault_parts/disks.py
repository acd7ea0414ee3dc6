"""Every write of every verb that writes fails in turn."""

import collections
import errno
import os
import pathlib
import re
import shutil
import subprocess

from fault_parts.started import DROVER, ENVIRONMENT, SUITE, Findings, checkpoints, finished, runs
from fault_parts.writers import undisturbed, writers

WAYS = {"full": (errno.ENOSPC, False), "read-only": (errno.EROFS, True)}  # from then on, or once
EVERY = 6  # of two ranks' writes only so many: alone they fail one by one
SIZES = range(50, 1200, 50)  # KiB of a small disk


def shim(name):
    """Builds what is loaded before the program."""
    library = SUITE.home / f"{name}.so"
    source = pathlib.Path(__file__).with_name(f"{name}.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


class Disk:
    """A verb whose k-th write fails."""

    def __init__(self, writer, way, library, findings):
        self.writer, self.way, self.library, self.findings = writer, way, library, findings
        self.log = SUITE.home / "faults.log"
        self.codes = collections.Counter()

    def start(self, name, at):
        self.log.unlink(missing_ok=True)
        number, on = WAYS[self.way]
        variables = {
            "LD_PRELOAD": str(self.library),
            "FAULT_UNDER": str(runs("")) + "/",
            "FAULT_PROGRAM": str(DROVER),
            "FAULT_LOG": str(self.log),
            "FAULT_AT": str(at),
            "FAULT_ERRNO": str(number),
            **({"FAULT_FROM": "1"} if on else {}),
        }
        if rank := re.search(r"rank (\d)", self.writer.name):
            variables["FAULT_RANK"] = rank[1]
        ended = finished(self.writer.command(name), **variables)
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        count = max((int(line[6:]) for line in lines if line.startswith("count ")), default=0)
        return ended, count, [line for line in lines if not line.startswith("count ")]

    def run(self):
        """How many writes were made to fail."""
        at, failed_writes = 0, 0
        while True:
            at += 1 if "rank" not in self.writer.name else EVERY
            name = f"disk-{at}"
            self.writer.before(name)
            ended, _, failed = self.start(name, at)
            if not failed:
                self.clear(name)
                return failed_writes
            failed_writes += 1
            where = f"{self.writer.name}, {self.way}, write {at} ({failed[0]})".replace(str(SUITE.home), "")
            self.judge(where, name, ended, failed)
            self.clear(name)

    def clear(self, name):
        for path in runs("").glob(f"*{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def judge(self, where, name, ended, failed):
        writer, output = self.writer, ended.stdout
        self.codes[ended.returncode] += 1
        expected = "undisturbed-" + writer.name
        if ended.returncode == 0:  # what failed was not needed
            if writer.result(name) != writer.result(expected):
                self.findings.add(where, "the verb ended with 0, and what it wrote is not right", output)
            return
        if ended.returncode != 74:
            self.findings.add(where, f"exit {ended.returncode}", output)
        reason = os.strerror(WAYS[self.way][0])
        said = [line for line in output.splitlines() if line.startswith("drover: ")]
        if not any(reason in line and str(runs(name)) in line.replace("/.", "/") for line in said):
            self.findings.add(where, f'path and "{reason}" are not said', output)
        if len(said) != 1 or "internal" in output:
            self.findings.add(where, f"{len(said)} messages", output)
        steps = checkpoints(name) if writer.name.startswith("train") else []
        if not steps and writer.result(name) is not None and not writer.complete(name):
            self.findings.add(where, "what it left under its name is not whole", output)
        again = finished(writer.again(name))
        if again.returncode != 0:
            self.findings.add(where, f"without the fault it ended with {again.returncode}", again.stdout)
        elif without_unwritten(writer.result(name), output) != without_unwritten(writer.result(expected), output):
            self.findings.add(where, "without the fault it gave something else", again.stdout)
        resumed = re.search(r"resuming after step (\d+)", again.stdout)
        if steps and (not resumed or int(resumed[1]) < steps[-1] or "passed over" in again.stdout):
            self.findings.add(where, f"a checkpoint of step {steps[-1]} was there", again.stdout)
        left = [path.name for path in runs("").glob(f"*{name}.*tmp-*")]
        if left:
            self.findings.add(where, f"left behind: {left}")


def without_unwritten(result, output):
    """What two runs are compared by where one says that it was saved without a line of its records."""
    return result[1] if result is not None and "without what could not be written" in output else result


def mounted(options, command):
    """The end of a command that runs where runs("small") is a disk of its own."""
    runs("small").mkdir(exist_ok=True)
    words = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o {options} none "$0" && exec "$@"', runs("small")]
    return subprocess.run(
        [*map(str, words), *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    )


def small_disks(findings):
    """Real ones, in a mount namespace."""
    codes = collections.Counter()
    names = ["train", "train, rank 0 of 2", "prepare", "export --merged", "generate --out"]
    for name in names:
        writer = writers()[name]
        writer.before("small")
        target = "small" if name in ("train", "train, rank 0 of 2", "prepare") else "small/inside"
        for disk in [*(f"size={size}k" for size in SIZES), "ro"]:
            ended = mounted(disk, writer.command(target))
            codes[ended.returncode] += 1
            reason = os.strerror(errno.EROFS if disk == "ro" else errno.ENOSPC)
            if ended.returncode not in ((74,) if disk == "ro" else (0, 74)):
                findings.add(f"{name}, {disk}", f"exit {ended.returncode}", ended.stdout)
            elif ended.returncode == 74 and (reason not in ended.stdout or str(runs("small")) not in ended.stdout):
                findings.add(f"{name}, {disk}", f'path and "{reason}" are not said', ended.stdout)
    print("              small disks, read-only disks, mounted:", words_of(codes), flush=True)


def words_of(codes):
    return ", ".join(f"{count} with {code}" for code, count in sorted(codes.items()))


def run(options):
    findings, library = Findings(), shim("fail_write")
    print(f"disks         {'verb':<26} disk        writes  ends", flush=True)
    for name, writer in writers().items():
        undisturbed(writer)
        for way in WAYS:
            disk = Disk(writer, way, library, findings)
            writes = disk.run()
            print(f"              {name:<26} {way:<10} {writes:>7}  {words_of(disk.codes)}", flush=True)
    if os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL).returncode == 0:
        small_disks(findings)
    else:
        print("              small disks, mounted: left out, mounting needs root and a mount namespace", flush=True)
    return findings.count
