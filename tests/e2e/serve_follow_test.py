"""drover serve --follow: each new checkpoint of a run is served, by its step and by the run's name."""

import shutil
import time
import unittest

from case import run, within
from serving import GREEDY, ServingCase, text_of


class Follow(ServingCase):
    def test_new_checkpoints_are_served_and_old_ones_leave(self):
        directory = self.home / "runs" / "followed"

        def names(server):
            return {model["id"] for model in server.get("/v1/models").json["data"]}

        def wait_for(server, wanted):
            end = time.monotonic() + within(30)
            while not wanted(names(server)):
                self.assertLess(time.monotonic(), end, f"{names(server)}\n{server.output}")
                time.sleep(0.1)

        with self.serve("--follow", f"live={directory}", model=self.model) as server:
            self.assertFalse({n for n in names(server) if n.startswith("live")})
            settings = ["checkpoint.every_steps=2", "checkpoint.keep=1", "optim.warmup_steps=0"]
            self.train("followed", *settings, "train.max_steps=2", check=0)
            wait_for(server, lambda found: {"live", "live@2"} <= found)
            first = [text_of(server.complete("crane", model=m, max_tokens=12, **GREEDY)) for m in ("live", "live@2")]
            self.assertEqual(first[0], first[1])
            self.train("followed", *settings, "train.max_steps=4", check=0)
            wait_for(server, lambda found: "live@4" in found and "live@2" not in found)
            wait_for(server, lambda found: "live" in found)
            echo = {"echo": True, "logprobs": 0, "max_tokens": 0}
            newest = server.complete("crane", model="live@4", **echo)["choices"][0]["logprobs"]["token_logprobs"]
            self.assertNotEqual(newest, server.complete("crane", **echo)["choices"][0]["logprobs"]["token_logprobs"])
            damaged = directory / "step-6"
            shutil.copytree(directory / "step-4", self.home / "damaged")
            weights = self.home / "damaged" / "adapter" / "adapter_model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1] + b"?")
            (self.home / "damaged").rename(damaged)
            server.wait_for("warning: --follow .*SHA-256")
            self.assertNotIn("live@6", names(server))
            again = server.complete("crane", model="live", **echo)["choices"][0]["logprobs"]["token_logprobs"]
            self.assertEqual(again, newest)

    def test_what_means_nothing_is_refused(self):
        for flags, code in (
            (["--max-adapter-rank", "8"], 64),
            (["--follow", f"{self.model.name}=runs/x"], 64),
            (["--allow-adapter-changes", "--adapter-root", self.home / "nowhere"], 66),
        ):
            run("serve", "--model", self.model, "--port", "0", *flags, check=code)


if __name__ == "__main__":
    unittest.main()
