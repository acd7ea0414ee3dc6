"""The verbs that write files: what each is asked, and what it has to leave."""

import json

from fault_parts.started import DROVER, ROOT, SUITE, finished, result, runs, snapshot, training

GGUF = ROOT / "tests" / "fuzz" / "corpus" / "gguf" / "llama_3"
TRAIN = ["train.max_steps=2", "checkpoint.every_steps=1", "eval.every_steps=2"]
TRAIN += ["lora.r=1", "lora.target_modules=[q_proj]"]


def stores(name):
    """What the token stores of a run hold."""
    found = {}
    for path in sorted((runs(name) / "data").glob("*.h5")):
        ended = finished([DROVER, "inspect", path, "--json"])
        text = json.loads(ended.stdout) if ended.returncode == 0 else {"broken": ended.stdout}
        found[path.name] = text
    return found


class Writer:
    """`command(name)` writes `target(name)`, a directory or file that is absent or whole at every moment."""

    whole = True  # what it writes appears at once

    def __init__(self, words, seconds):
        self.words, self.seconds = words, seconds  # `seconds`: about how long it takes

    def target(self, name):
        return runs(name)

    def before(self, name):
        """What has to be there before it starts."""

    def command(self, name):
        return [str(DROVER), *(str(word).replace("TARGET", str(self.target(name))) for word in self.words)]

    again = command  # what is started after it did not come to its end

    def result(self, name):
        return snapshot(self.target(name)) if self.target(name).exists() else None

    def complete(self, name):
        """Whether a target that is there is whole: it is what an undisturbed start writes."""
        return self.result(name) == self.result("undisturbed-" + self.name)


class Prepare(Writer):
    def command(self, name):
        return [str(DROVER), "prepare", str(SUITE.recipe), f"output.dir={self.target(name)}"]

    again = command

    def result(self, name):
        return stores(name) or None

    def complete(self, name):
        return self.result(name).items() <= self.result("undisturbed-" + self.name).items()


class Answers(Writer):
    """A line for every prompt as soon as it is known; --resume continues after those."""

    def before(self, name):
        if not (SUITE.home / "prompts.jsonl").exists():
            lines = [json.dumps({"prompt": word * 3}) for word in ("ferry ", "crane ", "depot ", "lorry ")]
            (SUITE.home / "prompts.jsonl").write_text("\n".join(lines) + "\n")

    def command(self, name):
        words = ["generate", "--model", SUITE.model, "--prompts", SUITE.home / "prompts.jsonl", "--max-tokens", "8"]
        return [str(DROVER), *map(str, words), "--out", str(self.target(name))]

    def again(self, name):
        return [*self.command(name), "--resume"]

    def complete(self, name):
        """Whole lines, then perhaps a half one."""
        lines = self.result(name)[""]
        return self.result("undisturbed-" + self.name)[""].startswith(lines)


class Train(Writer):
    def __init__(self, ranks, *overrides):
        self.ranks, self.overrides, self.seconds = ranks, overrides, 1.0

    def command(self, name):
        return training(name, self.ranks, *TRAIN, *self.overrides)

    again = command

    def result(self, name):
        return result(name) if (runs(name) / "adapter").exists() else None


def writers():
    """By name; those of training first."""
    plain = SUITE.plain
    adapter, model = plain / "adapter", SUITE.model
    found = {
        "train": Train(1),
        "train, rank 0 of 2": Train(2, "parallel.tp=2"),
        "train, rank 1 of 2": Train(2, "parallel.tp=2"),
        "prepare": Prepare([], 0.1),
        "export --merged": Writer(["export", plain, "--merged", "TARGET"], 0.2),
        "export --adapter": Writer(["export", plain, "--adapter", "TARGET"], 0.25),
        "export --target vllm": Writer(["export", plain, "--adapter", "TARGET", "--target", "vllm"], 0.12),
        "export --target llamacpp": Writer(["export", plain, "--adapter", "TARGET", "--target", "llamacpp"], 0.06),
        "export --from": Writer(["export", "--model", model, "--from", adapter, "--merged", "TARGET"], 0.2),
        "import": Writer(["import", GGUF, "TARGET"], 0.06),
        "make-tiny": Writer(["make-tiny", "TARGET"], 0.04),
        "generate --out": Answers([], 0.06),
        "eval --per-token": Writer(
            ["eval", "--model", model, "--data", SUITE.home / "validation.jsonl", "--per-token", "TARGET"], 0.1
        ),
    }
    for name, writer in found.items():
        writer.name = name
    return found


def undisturbed(writer):
    """Makes what the others are compared with."""
    name = "undisturbed-" + writer.name
    if not writer.target(name).exists():
        writer.before(name)
        ended = finished(writer.command(name))
        if ended.returncode != 0:
            raise RuntimeError(ended.stdout)
