"""A stop never costs a run: signals at any moment, ranks that never start, checkpoints that others read."""

import os
import pathlib
import signal
import subprocess
import time
import unittest

from case import DROVER, ENVIRONMENT, MPIRUN, losses, within
from stops import LAUNCH, NARROW, Stops, processes_of

# Large products in fp32, which go through kernels that point the stack register into the heap: where a handler ran on
# such a thread, one stop of three ended in an abort, on a CPU with AVX-512.
LARGE_PRODUCTS = ["lora.r=64", "train.micro_batch_size=8", "train.max_steps=300"]
SAVED_OR_NOTHING_LOST = "Start the same command again to go on"


def session_of(pid):
    try:
        return os.getsid(pid)
    except OSError:  # it has ended
        return 0


class Stopping(Stops):
    # Stops at a fixed moment each, twenty or ten (an mpirun whose ranks end with a code waits for a second or two; more
    # of them are in tests/slow/stops): a run always ends with 75, and at last has the bits of one that was never
    # stopped.
    def stopped_again_and_again(self, name, stops, first, last, ranks, settings, environment):
        command = lambda run: self.command(run, *settings, ranks=ranks)
        runs = [f"{name}-0"]
        for i in range(stops):
            moment = first + (last - first) * ((i * 7) % stops) / stops
            code, output = self.stop(command(runs[-1]), moment, signal.SIGTERM, environment)
            if code == 0:  # the run had come to its end
                runs.append(f"{name}-{i + 1}")
                continue
            self.assertEqual(code, 75, f"stop {i} after {moment:.2f} s: {output}")
            self.assertIn(SAVED_OR_NOTHING_LOST, output)
        self.assertLess(len(runs), 8, "most runs ended before their stop")
        unstopped = f"{name}-unstopped"
        self.finish(command(unstopped), environment)
        for run in runs:
            self.finish(command(run), environment)
            self.assertEqual(losses(self.home / "runs" / run), losses(self.home / "runs" / unstopped))
            self.assertEqual(self.adapter(run), self.adapter(unstopped))

    def test_twenty_stops_of_a_process(self):
        self.stopped_again_and_again("twenty", 20, 0.3, 0.8, 0, LARGE_PRODUCTS, ENVIRONMENT)

    def test_ten_stops_of_two_ranks(self):
        self.stopped_again_and_again("ten-ranks", 10, 0.5, 1.2, 2, ["train.max_steps=300"], NARROW)

    def test_no_thread_that_computes_can_be_interrupted(self):
        process = self.start(
            self.command("masks", "train.max_steps=100000", "log.every_steps=1"), dict(NARROW, OMP_NUM_THREADS="2")
        )
        for line in process.stdout:
            if line.startswith("step 3/"):
                break
        bits = sum(
            1 << (number - 1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
        )
        threads, waiting = 0, 0
        for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
            status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
            threads += 1
            if int(status["SigBlk"], 16) & bits != bits:
                waiting += 1  # the thread that waits for them, in sigwait
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=within(60))
        self.assertEqual(process.returncode, 75)
        self.assertGreater(threads, 3)
        self.assertLessEqual(waiting, 1)

    def test_from_the_first_instant_on(self):
        alone = (0.02, 0.04, 0.06, 0.1, 0.15)
        for number, code, with_ranks in (
            (signal.SIGTERM, 75, (0.01, 0.06, 0.15, 0.25, 0.4)),
            (signal.SIGINT, 130, (0.03, 0.1, 0.2, 0.3)),
        ):
            for ranks, moments in ((0, alone), (2, with_ranks)):
                for moment in moments:
                    with self.subTest(number=number, ranks=ranks, moment=moment):
                        returned, output = self.stop(
                            self.command("first-instant", "train.max_steps=100000", ranks=ranks), moment, number
                        )
                        if returned == -number:  # neither the program nor launch/run was loaded yet
                            self.assertLessEqual(moment, 0.1)
                            self.assertFalse((self.home / "runs" / "first-instant" / "lock").exists())
                            continue
                        self.assertEqual(returned, code, output)
                        self.assertIn(SAVED_OR_NOTHING_LOST, output)
        self.assert_gone("runs/first-instant")

    def test_while_data_model_and_checkpoint_are_read_and_written(self):
        # Every step saves, so that most moments are in a save.
        command = self.command("saving", "checkpoint.every_steps=1", "train.max_steps=100000")
        for i in range(10):
            code, output = self.stop(command, 0.3 + i * 0.037, signal.SIGINT if i % 2 else signal.SIGTERM)
            self.assertEqual(code, 130 if i % 2 else 75, output)
        self.assertFalse(list((self.home / "runs" / "saving").glob("*.tmp")))
        self.assertFalse((self.home / "runs" / "saving" / "lock").exists())

    def test_a_validation_that_was_cut_off_is_made_up_for(self):
        rows = (self.home / "validation.jsonl").read_text() * 300
        (self.home / "long.jsonl").write_text(rows)
        settings = [
            f"data.validation={self.home}/long.jsonl",
            "eval.every_steps=5",
            "train.max_steps=10",
            "log.every_steps=1",
        ]
        command = self.command("validating", *settings)
        process = self.start(command)
        seen = []
        for line in process.stdout:
            seen.append(line)
            if line.startswith("step 5/"):
                process.send_signal(signal.SIGTERM)
        process.communicate()
        self.assertEqual(process.returncode, 75, "".join(seen))
        self.assertNotIn("step 5: validation loss", "".join(seen))
        self.finish(command)
        plain = self.command("validated", *settings)
        self.finish(plain)
        self.assertEqual(len(self.validations_of("validated")), 3)  # before the first step, and after two
        self.assertEqual(self.validations_of("validating"), self.validations_of("validated"))

    def validations_of(self, name):
        return [
            line
            for line in (self.home / "runs" / name / "metrics.jsonl").read_text().splitlines()
            if "validation_loss" in line
        ]

    def test_a_stop_of_all_processes_of_the_job(self):
        for number, code in ((signal.SIGTERM, 75), (signal.SIGUSR1, 75)):
            for moment in (0.1, 0.6, 1.2):
                with self.subTest(number=number, moment=moment):
                    command = self.command("everybody", "train.max_steps=100000", ranks=2)
                    returned, output = self.stop(command, moment, number, everywhere="runs/everybody")
                    self.assertEqual(returned, code, output)
                    self.assertIn(SAVED_OR_NOTHING_LOST, output)
        self.assert_gone("runs/everybody")

    def test_ranks_that_never_start(self):
        agent = self.home / "silent-node"
        agent.write_text("#!/bin/sh\nexec sleep 987\n")
        agent.chmod(0o755)
        command = [
            str(LAUNCH),
            "-n",
            "2",
            "--mca",
            "plm_rsh_agent",
            str(agent),
            "--host",
            "a-node-that-does-not-answer:2",
            str(DROVER),
            "train",
            str(self.recipe),
        ]
        if "Open" not in subprocess.run([MPIRUN, "--version"], capture_output=True, text=True).stdout:
            self.skipTest("plm_rsh_agent is Open MPI's")
        process = self.start(command)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=within(60))[0]
        self.assertEqual(process.returncode, 75, output)
        self.assertIn("before the ranks had started", output)
        self.assert_gone("a-node-that-does-not-answer")
        end = time.monotonic() + within(15)
        while left := [pid for pid in processes_of("") if session_of(pid) == process.pid]:
            self.assertLess(time.monotonic(), end, left)
            time.sleep(0.1)
        self.assertFalse(
            [pid for pid in processes_of("987") if b"sleep" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]
        )

    def test_few_descriptors_end_with_a_message(self):
        for files in (32, 48, 64):
            with self.subTest(files=files):
                begin = time.monotonic()
                limited = [
                    "bash",
                    "-c",
                    f'ulimit -n {files}; exec "$@"',
                    "bash",
                    *self.command(f"files-{files}", "train.max_steps=2", ranks=12),
                ]
                ended = subprocess.run(limited, capture_output=True, text=True, env=NARROW, timeout=within(60))
                self.assertLess(time.monotonic() - begin, 30)
                self.assertEqual(ended.returncode, 74, ended.stderr)
                self.assertIn("ulimit", ended.stderr)
                self.assert_gone(f"files-{files}")


class Exporting(Stops):
    def test_an_export_beside_a_run_that_prunes(self):
        process = self.start(
            self.command("pruning", "train.max_steps=100000", "checkpoint.every_steps=1", "checkpoint.keep=1"),
            stdout=subprocess.DEVNULL,
        )
        run = self.home / "runs" / "pruning"
        while not list(run.glob("step-[3-9]/manifest.json")):
            time.sleep(0.02)
        results = []
        for i in range(12):
            results.append(
                subprocess.run(
                    [str(DROVER), "export", str(run), "--adapter", str(self.home / f"exported-{i}")],
                    capture_output=True,
                    text=True,
                    env=NARROW,
                )
            )
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=within(60))
        self.assertEqual([r.returncode for r in results], [0] * 12, [r.stderr for r in results if r.returncode])
        self.assertGreater(
            len({(self.home / f"exported-{i}" / "adapter_model.safetensors").read_bytes() for i in range(12)}), 1
        )
        self.finish([str(DROVER), "export", str(run), "--adapter", str(self.home / "exported-last")])
        self.assertLessEqual(len(list(run.glob("step-*"))), 2)

    def test_a_second_start_from_scratch_keeps_what_the_first_set_aside(self):
        few = ["train.max_steps=4", "checkpoint.every_steps=2"]
        self.finish(self.command("scratch", *few))
        run = self.home / "runs" / "scratch"
        first = {
            p.relative_to(run): p.read_bytes()
            for p in run.rglob("*")
            if p.is_file() and p.relative_to(run).parts[0] in ("step-2", "step-4", "adapter", "metrics.jsonl")
        }
        for seed in (7, 8):
            self.finish(self.command("scratch", *few, "checkpoint.resume=never", f"train.seed={seed}"))
        for path, content in first.items():
            self.assertEqual((run / "set-aside" / path).read_bytes(), content, path)
        self.assertTrue((run / "set-aside-2" / "adapter" / "adapter_model.safetensors").exists())
        self.assertNotEqual(
            (run / "set-aside-2" / "adapter" / "adapter_model.safetensors").read_bytes(),
            first[pathlib.Path("adapter/adapter_model.safetensors")],
        )


if __name__ == "__main__":
    unittest.main(verbosity=1)
