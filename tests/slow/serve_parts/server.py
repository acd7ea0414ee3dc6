"""`drover serve` as a child: started, watched, ended."""

import asyncio
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

from serve_parts import client

ROOT = pathlib.Path(__file__).resolve().parents[3]
PATIENCE = 120  # seconds for whatever should take one


def free_port():
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        return end.getsockname()[1]


def get(port, path, seconds=30):
    """Status and text, whatever the status is."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=seconds) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


class Server:
    """`log`: where its messages are written; `before`: what stands in front of the program (launch/run)."""

    def __init__(self, options, *arguments, log=None, before=(), port=None):
        self.port = port or free_port()
        self.log = pathlib.Path(log or options.home / f"server-{self.port}.log")
        command = [*before, options.drover, "serve", "--model", options.model, "--port", self.port, *arguments]
        environment = dict(os.environ, OMP_NUM_THREADS=str(options.threads), DROVER_COMM_TIMEOUT_S="60")
        with open(self.log, "ab", buffering=0) as out:
            self.process = subprocess.Popen(
                list(map(str, command)), stdout=out, stderr=out, env=environment, start_new_session=True
            )
        try:
            self.wait_until_ready()
        except BaseException:
            self.end(signal.SIGKILL)
            raise
        self.rss_at_start = self.rss_kib()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def wait_until_ready(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if get(self.port, "/health")[0] == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"the server did not start:\n{self.last_lines()}")

    def last_lines(self, count=12):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:]) if self.log.is_file() else ""

    def end(self, number=signal.SIGTERM):
        """The exit code; KILL for one that takes longer than it may."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        return self.process.returncode

    def rss_kib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    async def metrics(self):
        """name{labels without the model's} → value."""
        answer = await client.ask(self.port, "/metrics", seconds=PATIENCE)
        found = {}
        for line in answer.body.decode().splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                name = re.sub(r'model_name="[^"]*",?', "", name).removesuffix("{}").removeprefix("vllm:")
                found[name] = float(value)
        return found

    async def unrest(self, seconds=PATIENCE):
        """What is not as it is where nobody asks: empty when all is calm. Waits until nothing moves for so long."""
        end, done = time.monotonic() + seconds, None
        while True:
            wrong, now_done = await self.looked_at()
            if not wrong or time.monotonic() > end or self.process.poll() is not None:
                return wrong
            if now_done != done:
                end, done = time.monotonic() + seconds, now_done
            await asyncio.sleep(0.1)

    async def looked_at(self):
        """What is not calm, and what changes where work is done."""
        if self.process.poll() is not None:
            return f"the server ended with {self.process.returncode}:\n{self.last_lines()}", None
        try:
            health = await client.ask(self.port, "/health", seconds=30)
            seen = await self.metrics()
        except (OSError, client.Gone, TimeoutError) as problem:
            return f"/health or /metrics: {type(problem).__name__} {problem}", None
        if health.status != 200:
            return f"/health says {health.status}", None
        now = [(name, seen[name]) for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")]
        return ", ".join(f"{name} is {value:g}" for name, value in now if value != 0), now
