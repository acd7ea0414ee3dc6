"""Runs that are stopped, killed, hung, robbed of their disk: all ranks end, and the next start continues."""

import fcntl
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import termios
import time
import unittest

from case import DROVER, ENVIRONMENT, MPIRUN, ROOT, Case, can_mount, losses, run, terminal, within


def pids(pattern):
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


class Faults(Case):
    def start(self, name, *overrides, ranks=0):
        command = [str(DROVER), "train", str(self.recipe), f"output.dir={self.home}/runs/{name}", *overrides]
        if ranks:
            command = [str(ROOT / "launch" / "run"), "-n", str(ranks), *command]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENVIRONMENT,
            start_new_session=True,
        )

    def stop_after_step_two(self, name, number, *overrides, ranks=0):
        process = self.start(name, *overrides, ranks=ranks)
        output = []
        for line in process.stdout:
            output.append(line)
            if line.startswith("step 2/"):
                process.send_signal(number)
        process.wait(timeout=within(60))
        process.stdout.close()
        return process.returncode, "".join(output)

    def test_signals_save_and_resuming_is_exact(self):
        # More steps than the plain run, so that the signal arrives before the end; the curve is compared with a run of
        # the same length.
        more = ["train.max_steps=60", "log.every_steps=1", "checkpoint.every_steps=0"]
        self.train("sixty", *more, check=0)
        for number, code in ((signal.SIGUSR1, 75), (signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGUSR2, 130)):
            name = f"stopped-{number}"
            returned, output = self.stop_after_step_two(name, number, *more)
            self.assertEqual(returned, code, output)
            self.assertIn("Start the same command again", output)
            self.train(name, *more, check=0)
            self.assertEqual(losses(self.home / "runs" / "sixty"), losses(self.home / "runs" / name))
            self.assertEqual(self.adapter("sixty"), self.adapter(name))

    def test_the_launcher_turns_term_into_a_save(self):
        more = ["train.max_steps=400", "checkpoint.every_steps=0"]
        code, output = self.stop_after_step_two("launcher", signal.SIGTERM, *more, ranks=2)
        self.assertEqual(code, 75, output)
        result = self.train(
            "launcher",
            "train.max_steps=400",
            "parallel.tp=2",
            "checkpoint.every_steps=0",
            "log.every_steps=100",
            ranks=2,
            check=0,
        )  # another mesh
        self.assertIn("resuming after step", result.stderr)

    def test_ctrl_c_on_a_terminal_saves(self):
        ours, theirs = terminal()

        def own_terminal():
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        command = [
            str(ROOT / "launch" / "run"),
            "-n",
            "2",
            str(DROVER),
            "train",
            str(self.recipe),
            f"output.dir={self.home}/runs/typed",
            "train.max_steps=100000",
            "checkpoint.every_steps=0",
        ]
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=ENVIRONMENT, preexec_fn=own_terminal
        )
        os.close(theirs)
        output, typed = b"", False
        try:
            while part := os.read(ours, 65536):
                output += part
                if not typed and b"\033[Kstep 3/" in output:  # one line, rewritten, though the ranks write into a pipe
                    os.write(ours, b"\x03")
                    typed = True
        except OSError:  # Linux's end of a terminal
            pass
        os.close(ours)
        text = output.decode()
        self.assertEqual(process.wait(timeout=within(60)), 130, text)
        self.assertIn("Start the same command again", text)
        self.assertEqual(len(list((self.home / "runs" / "typed").glob("step-*/manifest.json"))), 1)

    def test_the_launcher_s_death_ends_the_ranks(self):
        process = self.start("orphaned", "train.max_steps=100000", "checkpoint.every_steps=0", ranks=2)
        for line in process.stdout:
            if line.startswith("step 2/"):
                process.kill()
                break
        process.communicate()
        self.wait_for_orphans("orphaned")

    def test_ranks_that_differ_stop_at_once(self):
        other = self.home / "other.yaml"
        other.write_text(self.recipe.read_text().replace("r: 4", "r: 8"))
        verbs = [
            ["train", self.recipe, f"output.dir={self.home}/runs/differ"],
            ["eval", self.recipe],
            ["generate", "--model", self.model, "--prompt", "x"],
        ]
        odds = (
            (["parallel.tp=2"], 78, "differs on rank 1"),
            (["parallel.tp=7"], 78, "(on rank 1)"),
            (["train.dtype=fp32x"], 78, "(on rank 1)"),
            (["train.dtype=bf16"], 78, "differs on rank 1"),
        )
        for verb in verbs:
            for odd, code, words in odds if verb[0] == "train" else odds[1::2]:
                with self.subTest(verb=verb[0], odd=odd):
                    self.refused_by_rank_one(verb, [*verb, *odd], code, words)
        self.refused_by_rank_one(verbs[0], ["train", other, *verbs[0][2:]], 78, "differs on rank 1")
        self.refused_by_rank_one(verbs[0], ["train", self.home / "absent.yaml"], 66, "(on rank 1)")
        changed = self.home / "another-drover"
        changed.write_bytes(DROVER.read_bytes() + b"x")
        changed.chmod(0o755)
        self.refused_by_rank_one(verbs[0], verbs[0], 78, "the program differs on rank 1", program=changed)

    def refused_by_rank_one(self, zero, one, code, words, program=DROVER):
        command = [
            str(ROOT / "launch" / "run"),
            "-n",
            "1",
            str(DROVER),
            *map(str, zero),
            ":",
            "-n",
            "1",
            str(program),
            *map(str, one),
        ]
        ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=within(30))
        self.assertEqual(ended.returncode, code, ended.stderr)
        self.assertIn(words, ended.stderr)

    def test_killed_runs_resume_with_the_same_curve(self):
        more = [
            "train.max_steps=300",
            "checkpoint.every_steps=1",
            "log.every_steps=300",
            "train.deterministic=true",
        ]  # one rank or two: the same bits
        self.train("unkilled", *more, check=0)
        draw = random.Random(5)
        name, kills, while_saving = "killed", 0, 0
        while kills < 20:
            process = self.start(name, *more, ranks=2 if draw.random() < 0.3 else 0)
            try:
                process.wait(timeout=draw.uniform(0.1, min(3, within(0.9))))  # with sanitizers a start takes a second
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                subprocess.run(
                    ["pkill", "-KILL", "-f", f"^{DROVER}.*{self.home}/runs/{name}"]
                )  # and the ranks, which have a session of their own
                kills += 1
            process.communicate()
            self.wait_for_orphans(name)
            self.assertNotEqual(process.returncode, 0, f"the run ended after {kills} kills")
            while_saving += any((self.home / "runs" / name).glob("step-*.tmp"))
        if within(1) == 1:  # with sanitizers a start is so slow that kills may all fall into it
            self.assertGreater(while_saving, 0)
        self.train(name, *more, check=0, timeout=180)
        self.assertEqual(losses(self.home / "runs" / name), losses(self.home / "runs" / "unkilled"))
        self.assertEqual(self.adapter(name), self.adapter("unkilled"))

    def wait_for_orphans(self, name):
        """Ranks end by themselves within seconds of their mpirun."""
        pattern = f"^{DROVER}.*{self.home}/runs/{name}"
        for _ in range(120):
            if not pids(pattern):
                return
            time.sleep(0.1)
        self.fail("a rank outlived its launcher by 12 seconds")

    def test_a_damaged_checkpoint_is_passed_over(self):
        self.train("damaged", check=0)
        directory = self.home / "runs" / "damaged"
        shutil.rmtree(directory / "adapter")
        path = directory / "step-8" / "rank-00000.h5"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        result = self.train("damaged", check=0)
        self.assertIn("SHA-256", result.stderr)
        self.assertIn("resuming after step 6", result.stderr)
        self.assert_same_run("damaged")

    def test_bare_mpirun_ends_with_a_lost_rank(self):
        command = [
            str(MPIRUN),
            "-n",
            "2",
            str(DROVER),
            "train",
            str(self.recipe),
            f"output.dir={self.home}/runs/bare",
            "train.max_steps=100000",
            "checkpoint.every_steps=0",
            "log.every_steps=1",
        ]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        for line in process.stdout:
            if line.startswith("step 3/"):
                found = pids(f"^{DROVER}.*runs/bare")
                os.kill(found[-1], signal.SIGKILL)
        process.wait(timeout=within(12))
        process.stdout.close()
        self.assertNotEqual(process.returncode, 0)
        self.wait_for_orphans("bare")

    def test_a_killed_rank_ends_all(self):
        process = self.start("lost", "train.max_steps=100000", "checkpoint.every_steps=0", "log.every_steps=1", ranks=2)
        for line in process.stdout:
            if line.startswith("step 3/"):
                found = pids(f"^{DROVER}.*runs/lost")
                os.kill(found[-1], signal.SIGKILL)
        process.wait(timeout=within(30))
        process.stdout.close()
        self.assertEqual(process.returncode, 83)
        self.wait_for_orphans("lost")

    def test_a_killed_mpirun_ends_all_and_is_named(self):
        process = self.start("lost-mpirun", "train.max_steps=100000", "checkpoint.every_steps=0", ranks=2)
        output = []
        for line in process.stdout:
            output.append(line)
            if line.startswith("step 3/"):
                found = pids("^[^ ]*mpi(run|exec) .*runs/lost-mpirun")
                os.kill(found[-1], signal.SIGKILL)
        process.wait(timeout=within(12))
        process.stdout.close()
        self.assertEqual(process.returncode, 83, "".join(output))
        self.assertIn("mpirun itself was ended by signal 9", "".join(output))
        self.wait_for_orphans("lost-mpirun")

    def test_an_mpirun_that_does_not_end_with_a_lost_rank(self):
        fake = self.home / "mpirun"
        lost = "mpiexec noticed that process rank 1 with PID 0 on node here exited on signal 9 (Killed)."
        fake.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo "mpirun (Open MPI) 4.1.4" && exit\necho "{lost}" >&2\nsleep 60\n'
        )
        fake.chmod(0o755)
        ended = subprocess.run(
            [str(ROOT / "launch" / "run"), "-n", "2", str(DROVER), "--version"],
            capture_output=True,
            text=True,
            env=ENVIRONMENT | {"DROVER_MPIRUN": str(fake)},
            timeout=within(12),
        )
        self.assertEqual(ended.returncode, 83, ended.stderr)
        self.assertIn("a rank died of a signal (mpirun's code 137): process rank 1", ended.stderr)

    def test_what_a_killed_export_left_is_removed(self):
        left = self.home / "runs" / ".left.tmp-123456"
        left.mkdir()
        (left / "adapter_model.safetensors").write_bytes(b"half")
        run("export", self.plain, "--adapter", self.home / "runs" / "left", check=0)
        self.assertFalse(left.exists())
        self.assertTrue((self.home / "runs" / "left" / "adapter_model.safetensors").exists())

    def test_a_rank_that_hangs_ends_all(self):
        environment = dict(ENVIRONMENT, DROVER_COMM_TIMEOUT_S="3")
        command = [
            str(ROOT / "launch" / "run"),
            "-n",
            "2",
            str(DROVER),
            "train",
            str(self.recipe),
            f"output.dir={self.home}/runs/hung",
            "train.max_steps=100000",
            "checkpoint.every_steps=0",
            "log.every_steps=1",
        ]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )
        output = []
        for line in process.stdout:
            output.append(line)
            if line.startswith("step 3/"):
                found = pids(f"^{DROVER}.*runs/hung")
                last = [p for p in found if b"_WORLD_RANK=1\0" in pathlib.Path(f"/proc/{p}/environ").read_bytes()]
                os.kill(last[0], signal.SIGSTOP)
        process.wait(timeout=within(60))
        process.stdout.close()
        self.assertEqual(process.returncode, 80, "".join(output[-5:]))
        self.assertIn("launch/run: rank 1 hangs", "".join(output))
        self.wait_for_orphans("hung")

    def test_a_rank_that_hangs_before_mpi_has_started_ends_all(self):
        command = [
            *[str(ROOT / "launch" / "run"), "-n", "1", str(DROVER), "train", str(self.recipe)],
            f"output.dir={self.home}/runs/hung-early",
            *[":", "-n", "1", "sh", "-c", "kill -STOP $$", f"{self.home}/runs/hung-early"],
        ]
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=ENVIRONMENT | {"DROVER_COMM_TIMEOUT_S": "3"},
            timeout=within(30),
        )
        self.assertEqual(ended.returncode, 80, ended.stderr)
        self.assertIn("MPI's start has taken 3 s", ended.stderr)
        self.assertIn("launch/run: rank 1 hangs", ended.stderr)

    def test_a_file_that_cannot_grow(self):
        # No file may grow over 100 kB: the first checkpoint cannot be written. The run ends with 74, and continues once
        # there is room.
        def no_room():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing then fails as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

        settings = ["train", str(self.recipe), f"output.dir={self.home}/runs/full"]
        ended = subprocess.run(
            [str(DROVER), *settings],
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            timeout=within(60),
            preexec_fn=no_room,
        )
        self.assertEqual(ended.returncode, 74, ended.stderr)
        self.assertIn("step-2", ended.stderr)
        run(*settings, check=0)
        self.assert_same_run("full")

    @unittest.skipUnless(can_mount(), "mounting a small disk needs root and a mount namespace")
    def test_a_disk_that_is_full_ends_all_ranks(self):
        directory = self.home / "runs" / "small-disk"
        directory.mkdir(parents=True)
        command = [
            str(ROOT / "launch" / "run"),
            "-n",
            "2",
            str(DROVER),
            "train",
            str(self.recipe),
            f"output.dir={directory}",
        ]
        in_namespace = [
            "unshare",
            "--mount",
            "bash",
            "-c",
            'mount -t tmpfs -o size=200k none "$0" && exec "$@"',
            str(directory),
            *command,
        ]
        ended = subprocess.run(in_namespace, capture_output=True, text=True, env=ENVIRONMENT, timeout=within(60))
        self.assertEqual(ended.returncode, 74, ended.stderr)
        self.assertIn("small-disk", ended.stderr)
        self.assertIn("No space left on device", ended.stderr)
        self.assertNotIn("stop requested", ended.stderr)  # mpirun's TERM, once the first rank has left


if __name__ == "__main__":
    unittest.main(verbosity=1)
