"""lm-eval's tasks through the server, and the same numbers from `drover eval` and `drover generate`."""

import asyncio
import json
import math
import os
import pathlib
import subprocess

from serve_parts import client

HERE = pathlib.Path(__file__).resolve().parent
CLOSE = 1e-4  # of a sum of log-probabilities; both are fp32
# How lm-eval asks: (name, its model's arguments, batch size)
WAYS = (
    ("one at a time", "", 1),
    ("batches of 4, 3 at once", ",num_concurrent=3", 4),
    ("as text", ",tokenized_requests=False", 1),
)


def lm_eval(options, program, server, model, url, tasks, more, batch):
    """task → its rows, and task → its scores."""
    out = options.home / f"lm-eval-{len(list(options.home.glob('lm-eval-*')))}"
    arguments = f"base_url=http://127.0.0.1:{server.port}{url},model={options.model.name}{more}"
    command = [program, "run", "--model", model, "--model_args", arguments, "--tasks", tasks, "--include_path", HERE,
               "--log_samples", "--output_path", out, "--batch_size", batch]  # fmt: skip
    if model == "local-chat-completions":
        command.append("--apply_chat_template")
    environment = dict(os.environ, HF_HUB_OFFLINE="1", HF_HOME=str(options.home / "hf"), TQDM_DISABLE="1")
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, cwd=HERE)
    if ran.returncode != 0:
        raise RuntimeError(f"lm-eval ends with {ran.returncode}:\n{(ran.stdout + ran.stderr)[-3000:]}")
    rows = {}
    for task in tasks.split(","):
        file = next(out.rglob(f"samples_{task}_*.jsonl"))
        rows[task] = sorted((json.loads(line) for line in file.read_text().splitlines()), key=lambda r: r["doc_id"])
    return rows, json.loads(next(out.rglob("results_*.json")).read_text())["results"]


class Reference:
    """Numbers of this program without a server."""

    def __init__(self, options):
        self.options = options

    def drover(self, *arguments):
        environment = dict(os.environ, OMP_NUM_THREADS=str(self.options.threads))
        command = [self.options.drover, *arguments]
        return subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=True, env=environment
        ).stdout

    def ids(self, text):
        file = self.options.home / "text"
        file.write_text(text, newline="")
        return json.loads(self.drover("tokenize", "--model", self.options.model, "--file", file, "--json"))["ids"]

    def logprobs(self, rows):
        """Of every token but the first, for lists of ids."""
        data, out = self.options.home / "ids.jsonl", self.options.home / "per-token.jsonl"
        data.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
        out.unlink(missing_ok=True)
        self.drover("eval", "--model", self.options.model, "--data", data, "--per-token", out, "train.dtype=fp32")
        return [json.loads(line)["logprobs"] for line in out.read_text().splitlines()]

    def choices(self):
        """Sums for each choice of each question; accuracy."""
        facts = [json.loads(line) for line in (HERE / "facts.jsonl").read_text().splitlines()]
        rows, counts = [], []
        for fact in facts:
            context = f"Question: {fact['question']}\nAnswer:"
            for choice in fact["choices"]:
                whole = self.ids(f"{context} {choice}")
                rows.append(whole)
                counts.append(len(whole) - len(self.ids(context)))
        flat = [sum(logprobs[-n:]) for logprobs, n in zip(self.logprobs(rows), counts, strict=True)]
        sums = [flat[i : i + 4] for i in range(0, len(flat), 4)]
        right = [max(range(4), key=four.__getitem__) == fact["answer"] for four, fact in zip(sums, facts, strict=True)]
        return sums, sum(right) / len(right)

    def texts(self, begin):
        """Sums for the texts behind the token `begin`, which lm-eval puts in front; their byte perplexity."""
        texts = [json.loads(line)["text"] for line in (HERE / "texts.jsonl").read_text().splitlines()]
        sums = [sum(logprobs) for logprobs in self.logprobs([[begin] + self.ids(text) for text in texts])]
        return sums, math.exp(-sum(sums) / sum(len(text.encode()) for text in texts))

    def answers(self):
        facts = [json.loads(line) for line in (HERE / "facts.jsonl").read_text().splitlines()]
        prompts, out = self.options.home / "prompts.jsonl", self.options.home / "answers.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": fact["question"]}) + "\n" for fact in facts))
        self.drover("generate", "--model", self.options.model, "--prompts", prompts, "--out", out, "--greedy",
                    "--max-tokens", 24, "--stop", "\n\n", "train.dtype=fp32")  # fmt: skip
        return [json.loads(line) for line in out.read_text().splitlines()]


def farthest(ours, theirs):
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


def completions(options, report, program, server, reference):
    info = json.loads(subprocess.check_output(["curl", "-s", f"http://127.0.0.1:{server.port}/tokenizer_info"]))
    sums, accuracy = reference.choices()
    begin = reference_begin(reference, options, info)
    text_sums, perplexity = reference.texts(begin)
    spelt = {"prompt": info["bos_token"] or info["eos_token"], "add_special_tokens": False}
    if (ids := asyncio.run(client.ask(server.port, "/tokenize", spelt)).json()["tokens"]) != [begin]:
        report.wrong("lm-eval", f"it puts token {ids[0]} in front of texts, and BOS is {begin}: /tokenize gives {ids}")
    for way, more, batch in WAYS:
        where = f"lm-eval, {way}"
        more = f",tokenizer_backend=remote,max_length={info['model_max_length']}{more}"
        rows, scores = lm_eval(options, program, server, "local-completions", "/v1/completions",
                               "drover_facts,drover_texts", more, batch)  # fmt: skip
        theirs = [float(answer[0][0]) for row in rows["drover_facts"] for answer in row["resps"]]
        far = farthest([x for four in sums for x in four], theirs)
        texts_far = farthest(text_sums, [float(row["resps"][0][0]) for row in rows["drover_texts"]])
        found = scores["drover_facts"]["acc,none"], scores["drover_texts"]["byte_perplexity,none"]
        if far > CLOSE or texts_far > CLOSE:
            report.wrong(where, f"sums of log-probabilities are off by {far:.2g} (choices) and {texts_far:.2g} (texts)")
        if found[0] != accuracy or abs(found[1] / perplexity - 1) > 1e-5:
            report.wrong(where, f"accuracy and perplexity {found}, drover eval {accuracy, perplexity}")
        seen = f"sums off by {far:.1e} (choices) and {texts_far:.1e} (texts); accuracy {found[0]:.4f}, perplexity of a "
        report.add(where, len(theirs) + len(text_sums), f"{seen}byte {found[1]:.5f}: drover eval's")


def reference_begin(reference, options, info):
    """The token in front of a text: BOS, else EOS, by its spelling."""
    spelt = options.home / "bos"
    spelt.write_text(info["bos_token"] or info["eos_token"])
    out = reference.drover("tokenize", "--model", options.model, "--file", spelt, "--special", "--json")
    return json.loads(out)["ids"][0]


def chat(options, report, program, server, reference):
    rows, scores = lm_eval(options, program, server, "local-chat-completions", "/v1/chat/completions", "drover_answers",
                           "", 1)  # fmt: skip
    theirs = [row["resps"][0][0] for row in rows["drover_answers"]]
    ours = [row["messages"][-1]["content"] for row in reference.answers()]
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a.strip() != b.strip():
            report.wrong("lm-eval, chat", f"question {i}: {b!r}, drover generate {a!r}")
    same = sum(a.strip() == b.strip() for a, b in zip(ours, theirs, strict=True))
    score = scores["drover_answers"]["exact_match,none"]
    report.add("lm-eval, chat", len(theirs), f"{same} answers are drover generate's; exact_match {score:.4f}")


def run(options, report, program, server):
    reference = Reference(options)
    try:
        completions(options, report, program, server, reference)
        chat(options, report, program, server, reference)
    except (RuntimeError, StopIteration, KeyError) as problem:
        report.wrong("lm-eval", f"{type(problem).__name__} {problem}")
