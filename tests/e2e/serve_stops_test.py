"""drover serve: who may ask, when it does not start, how it ends, and clients that leave."""

import concurrent.futures
import contextlib
import signal
import socket
import threading
import time
import unittest

from case import run, within
from serving import GREEDY, ServingCase, joined, text_of

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
KEY, OTHER = "sk-" + "a" * 20, "b" * 24
LONG = {"prompt": "crane", "max_tokens": 1500, "ignore_eos": True, **GREEDY}


class Doors(ServingCase):
    def test_keys(self):
        keys = self.home / "keys"
        keys.write_text(f"# two\n{KEY}\n  {OTHER}  \n")
        keys.chmod(0o600)
        with self.serve("--api-keys", keys) as server:
            for path in ("/health", "/"):
                self.assertEqual(server.get(path).status, 200)
            body, code = {"prompt": "x", "max_tokens": 1}, "invalid_api_key"
            for wrong in ({}, {"Authorization": KEY}, {"Authorization": f"Bearer {KEY}x"}, {"x-api-key": "nothing"}):
                message = self.refused(server, 401, TEXT, body, None, code, **wrong)
                self.assertNotIn(KEY, message)
                for path in ("/v1/models", "/metrics", "/tokenizer_info", "/nothing"):
                    self.assertEqual(server.get(path, **wrong).status, 401, path)
            for right in ({"Authorization": f"Bearer {KEY}"}, {"x-api-key": OTHER}):
                self.assertEqual(server.request("POST", TEXT, body, right).status, 200)
            self.assertNotIn(KEY, server.output)
        for text, code in (("sh0rt\n", 65), ("# none\n", 65), ("tw0 words1234\n", 65)):
            keys.write_text(text)
            self.assertNotIn(text.strip(), run(*self.command("--api-keys", keys), check=code).stderr)
        run(*self.command("--api-keys", self.home / "nowhere"), check=66)

    def test_pages_of_other_origins(self):
        body = {"prompt": "x", "max_tokens": 1}
        with self.serve() as server:
            own = f"http://127.0.0.1:{server.port}"
            self.assertEqual(server.request("POST", TEXT, body, {"Origin": own}).status, 200)
            self.refused(server, 403, TEXT, body, None, None, Origin="https://page.example")
            # A name that its owner lets point here, so that his page is of this origin.
            name = f"page.example:{server.port}"
            self.refused(server, 403, TEXT, body, None, None, Origin=f"http://{name}", Host=name)
            reply = server.request("OPTIONS", TEXT, headers={"Origin": "https://page.example"})
            self.assertIsNone(reply.headers["Access-Control-Allow-Origin"])
        with self.serve("--cors", "https://page.example") as server:
            reply = server.request("POST", TEXT, body, {"Origin": "https://page.example"})
            self.assertEqual(
                (reply.status, reply.headers["Access-Control-Allow-Origin"]), (200, "https://page.example")
            )
            before = server.request("OPTIONS", TEXT, headers={"Origin": "https://page.example"})
            self.assertEqual(before.status, 204)
            self.assertIn("POST", before.headers["Access-Control-Allow-Methods"])
            self.assertIn("Authorization", before.headers["Access-Control-Allow-Headers"])
            self.refused(server, 403, TEXT, body, None, None, Origin="https://other.example")

    def test_all_addresses(self):
        with self.serve("--host", "0.0.0.0") as server:
            self.assertIn("--api-keys", server.output)
            self.assertIn("can be reached from other machines", server.output)
        with self.serve() as server:
            self.assertNotIn("other machines", server.output)

    def test_texts_are_not_logged_unless_asked_for(self):
        for options, logged in (([], False), (["--log-prompts"], True)):
            with self.serve(*options) as server:
                server.chat("Ludwigshafen", max_tokens=2)
                self.refused(server, 400, TEXT, {"prompt": "Ludwigshafen", "n": 0}, "n")
                server.wait_for("POST /v1/completions 400")
                self.assertEqual("Ludwigshafen" in server.output, logged, server.output)

    def command(self, *arguments, port=0, model=None):
        return ["serve", "--model", model or self.model, "--port", port, *arguments]

    def test_what_does_not_start(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.assertIn(str(port), run(*self.command(port=port), check=74).stderr)
        adapter = self.plain / "adapter"
        changes = ["--allow-adapter-changes", "--adapter-root", self.home]
        for code, arguments in (
            (64, ["serve"]),
            (66, self.command(model=self.home / "nowhere")),
            (64, self.command("--adapter", adapter)),
            (64, self.command("--adapter", f"a/b={adapter}")),
            (64, self.command("--adapter", f"model={adapter}")),
            (64, self.command("--adapter", f"a={adapter}", "--adapter", f"a={adapter}")),
            (66, self.command("--adapter", f"a={self.home}/nowhere")),
            (64, self.command("--name", "a b")),
            (64, self.command("--kv-memory", "much")),
            (64, self.command("--allow-adapter-changes")),
            (64, self.command(changes[1], changes[2])),
            (64, self.command("--max-n", 0)),
            (64, self.command("--host", "192.0.2.1")),
            (64, self.command("--no-such-option")),
            (78, self.command("parallel.dp=2")),
            (78, self.command("train.epochs=3")),
            (78, self.command("--kv-memory", "1KiB")),
        ):
            with self.subTest(arguments=arguments):
                self.assertTrue(run(*arguments, check=code).stderr)


class Ends(ServingCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.long = cls.with_positions(4096)

    def serve_long(self, *arguments):
        return self.serve("--kv-memory", "64MiB", *arguments, model=self.long)

    def begun(self, server, **more):
        chunks = iter(server.stream(TEXT, **LONG | more))
        return [next(chunks) for _ in range(5)], chunks

    def test_a_stop_waits_for_the_answers(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.serve_long() as server:
                whole = text_of(server.complete(**LONG))
                first, chunks = self.begun(server)
                server.process.send_signal(number)
                server.wait_for("stop requested")
                health = server.get("/health")
                self.assertEqual((health.status, health.json), (503, {"status": "draining"}))
                self.refused(server, 503, TEXT, {"prompt": "x"}, None, "unavailable")
                self.assertEqual(joined([*first, *chunks]), (whole, None, "length"))
                self.assertEqual(server.process.wait(timeout=within(20)), 0, server.output)

    def test_a_stop_waits_for_requests_in_the_queue(self):
        with self.serve_long("--max-sequences", 1) as server, concurrent.futures.ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(server.complete, **LONG | {"max_tokens": 700}) for _ in range(3)]
            server.wait_for_metric("vllm:num_requests_waiting", 2)
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual({a.result()["usage"]["completion_tokens"] for a in asked}, {700})
            self.assertEqual(server.process.wait(timeout=within(20)), 0, server.output)

    def test_a_second_stop_ends_it_at_once(self):
        with self.serve_long() as server:
            _, chunks = self.begun(server, max_tokens=4000)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("stop requested")
            self.assertEqual(server.stop(), 130, server.output)
            with self.assertRaises((AssertionError, OSError)):
                list(chunks)

    def test_a_stop_of_an_idle_server(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            with self.serve() as server:
                connection, reply = server.open("GET", "/health")  # that stays open
                reply.read()
                begin = time.monotonic()
                self.assertEqual(server.stop(number), 0, server.output)
                self.assertLess(time.monotonic() - begin, 10)
                connection.close()

    def test_a_client_that_leaves_frees_its_place(self):
        with self.serve_long("--max-sequences", 2) as server:
            _, chunks = self.begun(server, max_tokens=4000, n=2)
            self.assertEqual(server.metric("vllm:num_requests_running"), 2)
            chunks.close()
            server.wait_for_metric("vllm:num_requests_running", 0, seconds=2)
            self.assertEqual(server.metric("vllm:request_success_total", finished_reason="abort"), 2)
            asked = threading.Thread(target=self.leave_early, args=(server,))
            asked.start()
            server.wait_for_metric("vllm:num_requests_running", 1)
            asked.join()
            server.wait_for_metric("vllm:num_requests_running", 0, seconds=2)
            self.assertEqual(server.metric("vllm:kv_cache_usage_perc"), 0)
            self.assertIn("ended early", server.output)

    def test_a_client_that_leaves_the_queue(self):
        with self.serve_long("--max-sequences", 1) as server:
            _, chunks = self.begun(server, max_tokens=4000)
            waiting = threading.Thread(target=self.leave_early, args=(server,))
            waiting.start()
            server.wait_for_metric("vllm:num_requests_waiting", 1)
            waiting.join()
            server.wait_for_metric("vllm:num_requests_waiting", 0, seconds=2)
            self.assertEqual(server.metric("vllm:num_requests_running"), 1)
            chunks.close()

    def test_an_answer_that_takes_too_long(self):
        with self.serve_long("--request-seconds", 1, "--max-connections", 2) as server:
            message = self.refused(server, 504, TEXT, LONG | {"n": 16, "max_tokens": 4000}, None, None)
            self.assertIn("1000 ms", message)
            with self.assertRaises(AssertionError):  # no [DONE]
                list(server.stream(TEXT, **LONG | {"n": 16, "max_tokens": 4000}))
            server.wait_for_metric("vllm:num_requests_running", 0, seconds=2)
            open_ones = [server.open("GET", "/health")[0] for _ in range(2)]
            error = server.get("/health")
            self.assertEqual((error.status, error.json["error"]["type"]), (503, "server_error"))
            for connection in open_ones:
                connection.close()

    def leave_early(self, server):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port)) as client:
            body = b'{"prompt": "x", "max_tokens": 4000, "ignore_eos": true}'
            client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            time.sleep(0.5)

    def test_a_client_that_does_not_read_holds_up_nobody(self):
        with self.serve_long() as server:
            slow = server.stream(TEXT, **LONG | {"max_tokens": 2500, "logprobs": 20})
            for _ in range(3):
                server.complete("x", max_tokens=20, **GREEDY)
            server.wait_for_metric("vllm:num_requests_running", 0, seconds=60)
            self.assertEqual(server.get("/health").status, 200)
            slow.close()


if __name__ == "__main__":
    unittest.main(verbosity=1)
