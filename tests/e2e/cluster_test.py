"""launch/cluster without a cluster: drover.sbatch under stand-ins for Slurm's commands, the hostfile's line by mpirun
itself, the Dockerfile read line by line.
(The MPIJob is checked by tests/launch/mpijob_test.cpp.)"""

import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
import unittest

from case import DROVER, ENVIRONMENT, MPIRUN, ROOT, Case, within

CLUSTER = ROOT / "launch" / "cluster"
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do
  case $1 in
    --mpi=pmix | --kill-on-bad-exit=1 | --gpu-bind=none | --cpu-bind=none) shift ;;
    *) echo "srun: what is $1?" >&2; exit 2 ;;
  esac
done
"""
SCONTROL = """#!/bin/bash
case $* in
  "--oneliner show job 7") echo "JobId=7 JobName=drover Requeue=1 JobState=$STATE Reason=None" ;;
  "requeue 7") echo "$*" >>"$CALLS" ;;
  *) exit 2 ;;
esac
"""


class Slurm(Case):
    def submit(self, name, *overrides, state="RUNNING", srun=f'exec {ROOT}/launch/run -n 2 "$@"\n', signal_after=None):
        """drover.sbatch's exit code, its output, and whether it requeued itself; signal_after: a line whose beginning
        has USR1 sent to the batch shell."""
        home = self.home / name
        home.mkdir()
        for command, text in (("srun", SRUN + srun), ("scontrol", SCONTROL)):
            (home / command).write_text(text)
            (home / command).chmod(0o755)
        environment = dict(
            ENVIRONMENT,
            PATH=f"{home}:{os.environ['PATH']}",
            SLURM_JOB_ID="7",
            STATE=state,
            CALLS=str(home / "calls"),
            DROVER=str(DROVER),
        )
        command = [
            "bash",
            str(CLUSTER / "drover.sbatch"),
            str(self.recipe),
            f"output.dir={self.home}/runs/{name}",
            "log.every_steps=1",
            *overrides,
        ]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )
        too_late = threading.Timer(90, os.killpg, (process.pid, signal.SIGKILL))
        too_late.start()
        output = []
        for line in process.stdout:
            output.append(line)
            if signal_after and line.startswith(signal_after):
                process.send_signal(signal.SIGUSR1)
        process.stdout.close()
        process.wait()
        too_late.cancel()
        return process.returncode, "".join(output), (home / "calls").exists()

    def test_a_run_that_ends_is_not_requeued(self):
        code, output, requeued = self.submit("ends")
        self.assertEqual((code, requeued), (0, False), output)
        self.assertTrue((self.home / "runs" / "ends" / "adapter").is_dir())

    def test_the_time_limit_saves_and_requeues(self):
        settings = ["train.max_steps=100000", "checkpoint.every_steps=0"]
        code, output, requeued = self.submit("limited", *settings, signal_after="step 2/")
        self.assertEqual((code, requeued), (75, True), output)
        self.assertEqual(len(list((self.home / "runs" / "limited").glob("step-*/manifest.json"))), 1)
        code, output, requeued = self.submit("cancelled", *settings, signal_after="step 2/", state="CANCELLED")
        self.assertEqual((code, requeued), (75, False), output)

    def test_ranks_that_srun_killed_had_saved(self):
        for code in (137, 138, 143):  # 138: one was not loaded yet when USR1 came
            saved = f"trap 'exit {code}' USR1\necho ready\nwhile sleep 0.1; do :; done\n"
            self.assertEqual(self.submit(f"killed-{code}", srun=saved, signal_after="ready")[::2], (75, True))
        self.assertEqual(self.submit("lost", srun="exit 137\n")[::2], (137, False))

    def test_a_signal_right_at_the_start_is_handed_on(self):
        saved = "trap 'exit 138' USR1\nkill -USR1 $PPID\nwhile sleep 0.1; do :; done\n"
        for number in range(5):
            self.assertEqual(self.submit(f"early-{number}", srun=saved)[::2], (75, True))

    def test_options_stand_before_the_first_command(self):
        lines = (CLUSTER / "drover.sbatch").read_text().splitlines()
        first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
        options = dict(
            line.removeprefix("#SBATCH --").partition("=")[::2]
            for line in lines[:first]
            if line.startswith("#SBATCH --")
        )
        self.assertFalse([line for line in lines[first:] if line.startswith("#SBATCH")])
        self.assertRegex(options["signal"], r"^B:USR1@\d+$")
        self.assertIn("requeue", options)
        self.assertEqual(options["open-mode"], "append")
        self.assertEqual(options["ntasks-per-node"], options["gpus-per-node"])


class Hostfile(unittest.TestCase):
    def test_mpirun_takes_the_line(self):
        text = re.sub(r" \\\n# +", " ", (CLUSTER / "hostfile").read_text())
        words = shlex.split(re.search(r"^# +(launch/run .*)$", text, re.M)[1])
        ranks = int(words[words.index("-n") + 1])
        self.assertEqual(ranks, sum(int(n) for n in re.findall(r"^\w+ slots=(\d+)$", text, re.M)))
        self.assertTrue((ROOT / words[-1]).is_file())
        if "Open" not in subprocess.run([MPIRUN, "--version"], capture_output=True, text=True).stdout:
            self.skipTest("the hostfile is Open MPI's, and this mpirun is another")
        with tempfile.NamedTemporaryFile("w") as here:
            here.write(f"localhost slots={ranks}\n")
            here.flush()
            words[words.index("--hostfile") + 1] = here.name
            # mpirun without a pseudo-terminal may hang on ranks that end at once.
            command = [str(ROOT / words[0]), *words[1 : words.index("drover")], "sh", "-c", "sleep 2; echo started"]
            ended = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT, timeout=within(60)
            )
        self.assertEqual((ended.returncode, ended.stdout.count("started"), ended.stderr), (0, ranks, ""))


class Dockerfile(unittest.TestCase):
    def setUp(self):
        text = re.sub(r"^#.*\n", "", (CLUSTER / "Dockerfile").read_text(), flags=re.M)
        self.lines = [line.split(maxsplit=1) for line in text.replace("\\\n", " ").splitlines() if line.strip()]

    def all(self, instruction):
        return [rest for word, rest in self.lines if word == instruction]

    def test_images_are_arguments(self):
        self.assertLessEqual({word for word, rest in self.lines}, {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV"})
        before = [word for word, rest in self.lines].index("FROM")
        arguments = {rest.split("=")[0] for word, rest in self.lines[:before]}
        self.assertEqual({word for word, rest in self.lines[:before]}, {"ARG"})
        self.assertEqual({rest.split()[0] for rest in self.all("FROM")}, {f"${{{name}}}" for name in arguments})

    def test_what_is_copied_is_there(self):
        stages = [rest.split(" AS ")[1] for rest in self.all("FROM") if " AS " in rest]
        copied = set()
        for rest in self.all("COPY"):
            *sources, target = rest.split()
            if sources[0].startswith("--from="):
                self.assertIn(sources[0].removeprefix("--from="), stages)
                continue
            for source in sources:
                self.assertTrue((ROOT / source).exists(), source)
                self.assertTrue(len(sources) == 1 or target.endswith("/"), rest)
                if (ROOT / source).is_dir():
                    self.assertEqual(source, target)
            copied.update(sources)
        listed = set(re.findall(r"^drover_library\(\w+ ([a-z]+)", (ROOT / "CMakeLists.txt").read_text(), re.M))
        self.assertLessEqual(listed | {"CMakeLists.txt"}, copied)  # all that the build reads

    def test_commands_are_sound(self):
        for command in self.all("RUN"):
            subprocess.run(["bash", "-n"], input=command, text=True, check=True)
            for script in re.findall(r"(?<![\w/])launch/[\w-]+", command):
                self.assertTrue(os.access(ROOT / script, os.X_OK), script)

    def test_packages_exist(self):
        names = {
            name
            for command in self.all("RUN")
            for part in re.findall(r"apt-get install ([^<&]*)", command)
            for name in part.split()
            if not name.startswith("-")
        }
        self.assertIn("openssh-server", names)
        unknown = names - set((ROOT / "launch" / "packages").read_text().splitlines())
        known = lambda name: subprocess.run(["apt-cache", "show", name], capture_output=True).returncode == 0
        if not known("nano"):
            self.skipTest("apt has no lists here (apt-get update)")
        self.assertEqual([name for name in unknown if not known(name)], [])


if __name__ == "__main__":
    unittest.main(verbosity=1)
