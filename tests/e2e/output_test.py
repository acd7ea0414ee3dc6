"""Output that cannot be written never ends a run: terminals that are gone, full disks, closed descriptors."""

import contextlib
import fcntl
import os
import re
import resource
import signal
import time
import unittest

from case import DROVER, losses, terminal, within
from stops import Stops, processes_of


class Output(Stops):
    def ends_well(self, name, process, timeout=60):
        self.assertEqual(process.wait(timeout=within(timeout)), 0)
        self.assertTrue((self.home / "runs" / name / "adapter" / "adapter_model.safetensors").exists())
        self.assertEqual(len(losses(self.home / "runs" / name)), self.STEPS)

    def both(self):
        return ((ranks, "log.every_steps=1") for ranks in (0, 2))

    def test_a_terminal_that_is_gone(self):
        for ranks, every in self.both():
            with self.subTest(ranks=ranks):
                ours, theirs = terminal()
                name = f"terminal-{ranks}"
                disowned = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
                process = self.start(
                    self.command(name, every, ranks=ranks),
                    stdin=theirs,
                    stdout=theirs,
                    stderr=theirs,
                    preexec_fn=disowned,
                )
                os.close(theirs)
                while b"step 3/" not in os.read(ours, 65536):
                    pass
                os.close(ours)
                self.ends_well(name, process)

    def test_a_pipe_that_nobody_reads(self):
        for ranks, every in self.both():
            with self.subTest(ranks=ranks):
                name = f"pipe-{ranks}"
                process = self.start(self.command(name, every, ranks=ranks))
                while not process.stdout.readline().startswith("step 3/"):
                    pass
                process.stdout.close()
                self.ends_well(name, process)

    def test_a_reader_that_has_stopped(self):
        for ranks, every in self.both():
            with self.subTest(ranks=ranks):
                name = f"stopped-reader-{ranks}"
                read, write = os.pipe()
                fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
                process = self.start(self.command(name, every, ranks=ranks), stdout=write, stderr=write)
                os.close(write)
                self.ends_well(name, process)
                os.close(read)

    def test_a_log_on_a_full_disk(self):
        for ranks, every in self.both():
            with self.subTest(ranks=ranks), open("/dev/full", "w") as full:
                name = f"full-log-{ranks}"
                self.ends_well(name, self.start(self.command(name, every, ranks=ranks), stdout=full, stderr=full))

    def test_closed_descriptors(self):
        for ranks, every in self.both():
            for closed in ("2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
                with self.subTest(ranks=ranks, closed=closed):
                    name = f"closed-{ranks}-{closed.count('-')}"
                    process = self.start(
                        ["bash", "-c", f'exec "$@" {closed}', "bash", *self.command(name, every, ranks=ranks)]
                    )
                    process.stdout.close()
                    lock = self.home / "runs" / name / "lock"
                    while process.poll() is None:
                        with contextlib.suppress(OSError):
                            self.assertNotIn("step", lock.read_text())
                        time.sleep(0.02)
                    self.ends_well(name, process)

    def test_metrics_that_cannot_be_written_end_the_run_with_a_checkpoint(self):
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                name = f"metrics-{ranks}"
                directory = self.home / "runs" / name
                steps = 600
                # The checkpoint has room where the metrics have none.
                small = [
                    "lora.r=1",
                    "lora.target_modules=[q_proj]",
                    f"train.max_steps={steps}",
                    "train.micro_batch_size=1",
                ]
                small += ["train.global_batch_size=2"]
                process = self.start(self.command(name, *small, ranks=ranks))
                output = []
                for line in process.stdout:
                    output.append(line)
                    if line.startswith("step 100/"):
                        for pid in processes_of(f"runs/{name}"):
                            if os.readlink(f"/proc/{pid}/exe") == str(DROVER):
                                resource.prlimit(pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
                process.stdout.close()
                output = "".join(output)
                self.assertEqual(process.wait(timeout=within(60)), 74, output)
                self.assertIn("metrics.jsonl", output)
                step = int(re.search(r"saved after step (\d+)", output)[1])
                self.assertTrue((directory / f"step-{step}" / "manifest.json").exists())
                self.finish(self.command(name, *small, ranks=ranks))
                without_the_line_that_had_no_room = [s for s in range(1, steps + 1) if s != step]
                self.assertEqual(sorted(losses(directory)), without_the_line_that_had_no_room)
                self.assertEqual(self.adapter(name), self.adapter_of_unlimited(*small, ranks=ranks))

    def adapter_of_unlimited(self, *overrides, ranks):
        name = f"unlimited-{ranks}"
        self.finish(self.command(name, *overrides, ranks=ranks))
        return self.adapter(name)


if __name__ == "__main__":
    unittest.main(verbosity=1)
