"""What a run records for others to look at: event files for TensorBoard, Chrome traces, and `drover watch`."""

import fcntl
import json
import os
import struct
import subprocess
import termios
import unittest

from case import DROVER, ENVIRONMENT, Case, losses, run, terminal, validations, within


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    """Events of a file, each with its CRCs checked."""
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        (crc_of_length,), event = struct.unpack("<I", data[8:12]), data[12 : 12 + length]
        (crc_of_event,) = struct.unpack("<I", data[12 + length : 16 + length])
        assert (crc_of_length, crc_of_event) == (masked(data[:8]), masked(event))
        yield event
        data = data[16 + length :]


def fields(message):
    """(number, value) of a protobuf message: whole numbers, or bytes."""

    def varint():
        nonlocal message
        value = shift = 0
        while True:
            byte, message = message[0], message[1:]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while message:
        number, kind = divmod(varint(), 8)
        value = varint() if kind in (0, 2) else {1: 8, 5: 4}[kind]
        if kind != 0:
            value, message = message[:value], message[value:]
        yield number, value


def shown(directory):
    """What TensorBoard shows: {tag: {step: value}} of all files in the order of their names. A SessionLog START drops
    what stood of its step and later ones."""
    tags = {}
    for path in sorted(directory.iterdir()):
        for event in records(path.read_bytes()):
            parts = dict(fields(event))
            step = parts.get(2, 0)
            if parts.get(7) == b"\x08\x01":
                tags = {tag: {s: v for s, v in points.items() if s < step} for tag, points in tags.items()}
            for _, value in fields(parts.get(5, b"")):
                scalar = dict(fields(value))
                points = tags.setdefault(scalar[1].decode(), {})
                assert step not in points, f"step {step} stands twice"
                points[step] = struct.unpack("<f", scalar[2])[0]
    return tags


class Records(Case):
    def assert_shown(self, name):
        directory = self.home / "runs" / name
        tags = shown(directory / "tensorboard")
        steps = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        for tag in ("loss", "grad_norm", "learning_rate", "tokens_per_second", "peak_bytes", "validation_loss"):
            expected = {row["step"]: row[tag] for row in steps if tag in row}
            self.assertEqual(list(tags[tag]), list(expected), tag)
            for step, value in expected.items():
                self.assertAlmostEqual(tags[tag][step], value, delta=1e-6 * abs(value))
        return tags

    def test_event_files_say_what_the_metrics_say(self):
        self.assertFalse((self.plain / "tensorboard").exists())
        self.train("shown", "log.tensorboard=true", "eval.every_steps=4", check=0)
        tags = self.assert_shown("shown")
        self.assertEqual(list(tags["loss"]), list(range(1, 9)))
        self.assertEqual(list(tags["validation_loss"]), [0, 4, 8])
        self.assert_same_run("shown")

    # The second run continues after step 4, though the first one wrote of six steps.
    def test_a_step_stands_once_after_a_resume(self):
        more = ["log.tensorboard=true", "eval.every_steps=2", "optim.schedule=constant", "checkpoint.every_steps=4"]
        self.train("resumed", *more, "train.max_steps=6", check=0)
        directory = self.home / "runs" / "resumed"
        (directory / "step-6" / "manifest.json").unlink()
        self.assertIn("resuming after step 4", self.train("resumed", *more, check=0).stderr)
        self.assertEqual(len(list((directory / "tensorboard").iterdir())), 2)
        self.assertEqual(list(self.assert_shown("resumed")["loss"]), list(range(1, 9)))
        self.assertEqual([step for step, _ in validations(directory)], [0, 2, 4, 6, 8])

    def test_event_files_that_cannot_be_written_end_the_run_with_a_checkpoint(self):
        directory = self.home / "runs" / "full"
        self.train("full", "optim.schedule=constant", "train.max_steps=4", check=0)
        (directory / "tensorboard").write_text("no directory")
        more = ["optim.schedule=constant", "log.tensorboard=true"]
        said = self.train("full", *more, check=74).stderr
        self.assertIn("tensorboard", said)
        self.assertIn("The run was saved after step 5", said)
        (directory / "tensorboard").unlink()
        self.assertIn("resuming after step 5", self.train("full", *more, check=0).stderr)
        self.assertEqual(list(losses(directory)), list(range(1, 9)))

    def traced(self, name, *overrides, **keywords):
        self.train(name, *overrides, check=0, **keywords)
        folder = self.home / "runs" / name / "trace"
        return {path.name: json.loads(path.read_text()) for path in sorted(folder.iterdir())}

    def assert_lanes(self, trace):
        """{rank: {lane: events in order of time}}; those of a lane do not overlap, and lie within the step."""
        self.assertEqual(trace["displayTimeUnit"], "ms")
        events, names, ranks = trace["traceEvents"], {}, {}
        for event in (e for e in events if e["ph"] == "M" and e["name"] == "thread_name"):
            names[event["pid"], event["tid"]] = event["args"]["name"]
        for event in (e for e in events if e["ph"] == "X"):
            ranks.setdefault(event["pid"], {}).setdefault(names[event["pid"], event["tid"]], []).append(event)
        for lanes in ranks.values():
            self.assertEqual(set(lanes), {"step", "actions", "ops"} | ({"messages"} if len(ranks) > 1 else set()))
            (step,) = lanes["step"]
            for lane in lanes.values():
                lane.sort(key=lambda event: event["ts"])
                ends = [event["ts"] + event["dur"] for event in lane]
                self.assertGreaterEqual(lane[0]["ts"], step["ts"])
                self.assertLessEqual(ends[-1], step["ts"] + step["dur"] + 0.01)
                for end, after in zip(ends, lane[1:]):
                    self.assertLessEqual(end, after["ts"] + 0.01)
        return ranks

    def test_a_trace_of_one_rank(self):
        traces = self.traced("traced", "log.trace=2..3")
        self.assertEqual(list(traces), ["step-2.json", "step-3.json"])
        self.assert_same_run("traced")
        lanes = self.assert_lanes(traces["step-2.json"])[0]
        self.assertEqual(lanes["step"][0]["name"], "step 2")
        self.assertEqual(
            [event["name"] for event in lanes["actions"]],
            "F0 B0 F1 B1 F2 B2 F3 B3 sum update".split(),
        )
        ops = {event["name"]: event for event in lanes["ops"]}
        for op in ("linear", "linear_dx", "attention", "attention_backward", "adamw"):
            self.assertGreater(ops[op]["args"]["GB/s"], 0)
            self.assertRegex(ops[op]["args"]["shape"], r"^\d+×\d+")
        self.assertRegex(ops["linear"]["args"]["shape"], r"^\d+×\d+ · \d+×\d+$")
        self.assertGreater(ops["linear"]["args"]["GFLOP/s"], 0)
        self.assertFalse((self.plain / "trace").exists())

    # With log.profile, so that two look at the ops of one step.
    def test_a_trace_of_a_pipeline_shows_the_schedule(self):
        mesh = ["parallel.pp=2", "train.micro_batch_size=1"]
        trace = self.traced("traced-pp", *mesh, "log.trace=[2, 1000]", "log.profile=true", ranks=2)["step-2.json"]
        ranks = self.assert_lanes(trace)
        plan = json.loads(run("plan", self.recipe, "--ranks", 2, "--json", *mesh, check=0).stdout)
        for rank, lanes in ranks.items():
            (line,) = (line for line in plan["schedule"].splitlines() if line.startswith(f"stage {rank}: "))
            done = " ".join(event["name"] for event in lanes["actions"])
            self.assertEqual(done.split(), line.split(": ")[1].split() + ["sum", "update"])
        self.assertEqual(min(lanes["step"][0]["ts"] for lanes in ranks.values()), 0)
        names = {e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"}
        self.assertEqual(names, {"rank 0 · tp 0 pp 0 dp 0", "rank 1 · tp 0 pp 1 dp 0"})
        moved = []
        for lanes in ranks.values():
            messages = [e for e in lanes["messages"] if e["name"] in ("send", "receive", "exchange")]
            self.assertEqual({(e["args"]["group"], e["args"]["ranks"]) for e in messages}, {("pp", 2)})
            moved.append(sum(e["args"]["bytes"] for e in messages))
            self.assertIn("all_reduce", {e["name"] for e in lanes["messages"]})
        self.assertEqual(moved[0], moved[1])
        self.assertGreater(moved[0], 0)
        # What one stage sends arrives after it was begun, by one clock.
        first, second = (
            {event["name"]: event for event in ranks[rank]["actions"] if event["cat"] == "message"} for rank in (0, 1)
        )
        self.assertGreaterEqual(second["<F0"]["ts"] + second["<F0"]["dur"], first[">F0"]["ts"])

    def test_watching_a_run_that_is_done(self):
        page = run("watch", self.plain, check=0).stdout.splitlines()
        self.assertEqual(page[0], f"{self.plain}: done"[:80])
        self.assertIn("step 8/8", page[1])
        self.assertIn("tok/s", page[2])
        self.assertIn("validation", page[3])
        self.assertEqual(page[4], "checkpoint step-8")
        self.assertIn("loss by step", page[-1])
        seen = json.loads(run("watch", self.plain, "--json", check=0).stdout)
        self.assertEqual((seen["state"], seen["step"], seen["total_steps"]), ("ended", 8, 8))
        self.assertEqual(seen["loss"], losses(self.plain)[8])
        self.assertEqual([(v["step"], v["validation_loss"]) for v in seen["validations"]], validations(self.plain))
        self.assertEqual(seen["checkpoint"], "step-8")

    def test_what_is_no_run_is_not_watched(self):
        for place, words in ((self.model, "is not a run"), (self.home / "absent", "there is no run")):
            self.assertIn(words, run("watch", place, "--once", check=66).stderr)
        self.assertIn("is not a run", run("watch", self.recipe, check=66).stderr)

    def test_a_run_that_has_not_begun_is_awaited(self):
        directory = self.home / "to-come"
        (directory / "data").mkdir(parents=True)
        self.assertIn("waiting for it", run("watch", directory, "--once", check=0).stdout)
        self.assertEqual(json.loads(run("watch", directory, "--json", check=0).stdout)["state"], "awaited")

    def test_a_terminal_is_joined_and_left(self):
        for key in (b"q", b"\x03"):
            with self.subTest(key=key):
                self.watch_from_before_its_begin(self.home / "runs" / f"watched-{key[0]}", key)

    def watch_from_before_its_begin(self, directory, key):
        ours, theirs = terminal()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        before = termios.tcgetattr(theirs)

        def own_terminal():
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        process = subprocess.Popen(
            [str(DROVER), "watch", str(directory)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=ENVIRONMENT,
            preexec_fn=own_terminal,
        )
        seen = b""

        def until(*texts):
            nonlocal seen
            while not all(text in seen for text in texts):
                seen += os.read(ours, 65536)

        until(b"waiting for it")
        directory.mkdir()
        (directory / "notes").touch()
        until(b"is not a run")
        (directory / "notes").unlink()
        self.train(directory.name, check=0)
        until(b"step 8/8", ": done".encode(), "loss by step".encode())
        self.assertIn("⠤".encode()[:1], seen)
        os.write(ours, key)
        until(b"\x1b[?1049l")  # back on the screen of before
        self.assertEqual(process.wait(timeout=within(20)), 0)
        self.assertEqual(termios.tcgetattr(theirs), before)
        os.close(theirs)
        os.close(ours)


if __name__ == "__main__":
    unittest.main(verbosity=1)
