"""Runs that are stopped, or that nobody listens to: how they are started, and what they may leave."""

import contextlib
import os
import pathlib
import subprocess
import time

from case import DROVER, ENVIRONMENT, ROOT, Case, within

LAUNCH = ROOT / "launch" / "run"
# As a CPU with AVX2 only computes.
NARROW = dict(ENVIRONMENT, DROVER_ISA="avx2")


def processes_of(word):
    """Processes whose command line holds the word, but for this test."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word.encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


class Stops(Case):
    STEPS = 150

    def command(self, name, *overrides, ranks=0):
        command = [
            str(DROVER),
            "train",
            str(self.recipe),
            f"output.dir={self.home}/runs/{name}",
            f"train.max_steps={self.STEPS}",
            "log.every_steps=50",
            "checkpoint.every_steps=0",
            "data.validation=null",
            *overrides,
        ]
        return [str(LAUNCH), "-n", str(ranks), *command] if ranks else command

    def start(self, command, environment=NARROW, **keywords):
        keywords = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True) | keywords
        return subprocess.Popen(command, env=environment, **keywords)

    def stop(self, command, moment, number, environment=NARROW, everywhere=None):
        """Exit code and output of a command that gets a signal after some seconds; `everywhere`: as does every process
        with this word in its command."""
        process = self.start(command, environment)
        time.sleep(moment)
        if everywhere:
            for pid in processes_of(everywhere):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        else:
            process.send_signal(number)
        output = process.communicate(timeout=within(60))[0]
        return process.returncode, output

    def finish(self, command, environment=NARROW):
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=within(120))
        self.assertEqual(ended.returncode, 0, ended.stderr)

    def assert_gone(self, word):
        end = time.monotonic() + within(15)
        while processes_of(word):
            self.assertLess(
                time.monotonic(),
                end,
                f"left behind: {[pathlib.Path(f'/proc/{p}/cmdline').read_bytes() for p in processes_of(word)]}",
            )
            time.sleep(0.1)
