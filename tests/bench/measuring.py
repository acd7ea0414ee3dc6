"""What the benches share: a model, a text, a run of drover and what it reached."""

import json
import os
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DROVER = pathlib.Path(os.environ.get("DROVER", ROOT / "build/drover")).absolute()
SAMPLE_MODEL = ROOT / "models/smollm2-135m-instruct"
WORDS = (
    "the lorry waits at the harbour while customs reads every ledger and crane drivers drink tea before rain returns"
)


def fail(message, code):
    print(f"{sys.argv[0]}: {message}", file=sys.stderr)
    sys.exit(code)


def checked_model(path):
    if not (path / "model.safetensors").exists():
        fail(f"{path} holds no model; run launch/quickstart or launch/sample-model first", 66)
    return path.absolute()


def first_layers(model, count, to):
    """A copy of a model in one file, of its first layers only."""
    shutil.copytree(model, to, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((model / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | {"num_hidden_layers": count}))
    with open(model / "model.safetensors", "rb") as source, open(to / "model.safetensors", "wb") as copy:
        header = json.loads(source.read(int.from_bytes(source.read(8), "little")))
        data, taken, at = source.tell(), {}, 0
        for name, tensor in header.items():
            layer = re.match(r"model\.layers\.(\d+)\.", name)
            if name != "__metadata__" and (layer is None or int(layer[1]) < count):
                begin, end = tensor["data_offsets"]
                taken[name] = (tensor | {"data_offsets": [at, at + end - begin]}, begin)
                at += end - begin
        text = json.dumps({name: tensor for name, (tensor, _) in taken.items()}).encode()
        copy.write(len(text).to_bytes(8, "little") + text)
        for tensor, begin in taken.values():
            source.seek(data + begin)
            copy.write(source.read(tensor["data_offsets"][1] - tensor["data_offsets"][0]))


def run(command, **environment):
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode != 0:
        fail(f"{' '.join(words)} exited with {done.returncode}:\n{done.stderr}", 70)
    return done


def write_text(path, words=60000):
    draw = random.Random(1)
    path.write_text(json.dumps({"text": " ".join(draw.choice(WORDS.split()) for _ in range(words))}) + "\n")


def train(work, model, overrides, ranks=1, steps=5, threads=2):
    """Tokens a second of a training run in work/run: the median of the steps behind the first."""
    recipe = work / "recipe.yaml"
    recipe.write_text(f"""
model: {{path: {model}}}
lora: {{r: 16, alpha: 32}}
data: {{train: {work}/text.jsonl, packing: false}}
train: {{micro_batch_size: 1, global_batch_size: 1, max_steps: {steps + 1}}}
optim: {{warmup_steps: 0}}
device: cpu
output: {{dir: {work}/run}}
""")
    subprocess.run(["rm", "-rf", work / "run"], check=True)
    launcher = [ROOT / "launch/run", "-n", ranks] if ranks > 1 else []
    run([*launcher, DROVER, "train", recipe, *overrides.split()], OMP_NUM_THREADS=str(threads))
    lines = [json.loads(line) for line in (work / "run/metrics.jsonl").read_text().splitlines()]
    return statistics.median([line["tokens_per_second"] for line in lines if "tokens_per_second" in line][1:])
