"""The installed tree works from wherever it is moved to: the program, a shipped recipe's plan, ranks by its own
launch/run."""

import re
import shutil
import subprocess
import unittest

from case import DROVER, ENVIRONMENT, ROOT, Case, within


class Installed(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        prefix = cls.home / "prefix"
        subprocess.run(
            ["cmake", "--install", str(DROVER.parent), "--prefix", str(prefix)], check=True, capture_output=True
        )
        cls.tree = cls.home / "elsewhere" / "tree"
        cls.tree.parent.mkdir()
        shutil.move(prefix, cls.tree)

    def ask(self, *command, **keywords):
        return subprocess.run(
            [str(self.tree / command[0]), *map(str, command[1:])],
            capture_output=True,
            text=True,
            cwd=self.home,
            timeout=within(120),
            **keywords,
        )

    def test_the_program_is_the_built_one(self):
        built = subprocess.run([str(DROVER), "--version"], capture_output=True, text=True, check=True).stdout
        moved = self.ask("bin/drover", "--version", check=True).stdout
        self.assertEqual(
            moved.replace(str(self.tree / "lib"), ""), built.replace(str(DROVER.parent), "")
        )  # the CUDA backend's libraries, where it was built, are found too
        for file in [self.tree / "bin" / "drover", *self.tree.glob("lib/*")]:
            self.assertNotRegex(
                subprocess.run(["readelf", "-d", str(file)], capture_output=True, text=True, check=True).stdout,
                f"R(UN)?PATH.*{DROVER.parent}[:\\]]",
            )

    def test_every_shipped_recipe_is_there(self):
        shipped = {path.name for path in (ROOT / "configs" / "recipes").glob("*.yaml")}
        self.assertEqual({path.name for path in (self.tree / "share" / "drover" / "recipes").iterdir()}, shipped)
        plan = self.ask(
            "bin/drover",
            "plan",
            self.tree / "share" / "drover" / "recipes" / "llama3.1-405b-lora.yaml",
            "--ranks",
            32,
            check=True,
        ).stdout
        self.assertIn("tp 8 · pp 4 · dp 1", plan)
        pages = self.tree / "share" / "doc" / "drover"
        for name in ("LICENSE", "README.md"):
            self.assertEqual((pages / name).read_text(), (ROOT / name).read_text())
        links = re.findall(r"\]\(([^)#h][^)#]*)", (pages / "README.md").read_text())
        self.assertGreater(len(links), 10)
        for link in links:
            self.assertTrue((pages / link).is_file(), f"the installed README leads to {link}, which is not there")

    def test_two_ranks_train(self):
        path = self.home / "decoy"
        path.mkdir()
        (path / "drover").write_text("#!/bin/sh\necho another drover on the PATH >&2\nexit 1\n")
        (path / "drover").chmod(0o755)
        environment = dict(ENVIRONMENT, PATH=f"{path}:{ENVIRONMENT['PATH']}")
        ended = self.ask(
            "share/drover/launch/run",
            "-n",
            2,
            "drover",
            "train",
            self.recipe,
            f"output.dir={self.home}/runs/installed",
            "parallel.tp=2",
            env=environment,
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assert_close_run("installed")

    def test_what_the_cluster_files_name_is_there(self):
        cluster = self.tree / "share" / "drover" / "launch" / "cluster"
        self.assertEqual(
            {path.name for path in cluster.iterdir()}, {"Dockerfile", "drover.sbatch", "hostfile", "mpijob.yaml"}
        )
        named = {
            name
            for path in cluster.iterdir()
            for name in re.findall(r"/opt/drover/((?:bin|share)[\w./-]*)", path.read_text())
        }
        self.assertIn("share/drover/launch/run", named)
        self.assertEqual([name for name in named if not (self.tree / name).exists()], [])


if __name__ == "__main__":
    unittest.main(verbosity=1)
