"""compare.py COMMITTED FRESH: every file that FRESH holds must stand in COMMITTED with the same content; exit 1 otherwise.

Text, ids, names and hashes are compared exactly; floats by ||a - b|| / ||b||: fp64 results to 1e-6 (they are stored as fp32), fp32 to 2e-5,
bf16 to half of its own distance from fp64 (other processors round sums elsewhere). COMMITTED must also be what its MANIFEST.json says.
"""
import hashlib
import json
import math
import sys
from pathlib import Path

from safetensors.numpy import load_file

import numpy as np

EXACT, FP32, BF16 = 1e-6, 2e-5, 0.15
MEASURED = ("error", "min_top2_margin")  # figures about the figures: reported, not compared


def tolerance(path):
    return BF16 if "bf16" in path else EXACT if "fp64" in path else FP32


def differences(old, new, path, complaints):
    if isinstance(old, dict) and isinstance(new, dict):
        if old.keys() != new.keys():
            complaints.append(f"{path}: keys {sorted(old.keys() ^ new.keys())}")
        for key in old.keys() & new.keys():
            if not any(word in key for word in MEASURED):
                differences(old[key], new[key], f"{path}.{key}", complaints)
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            complaints.append(f"{path}: {len(old)} entries, now {len(new)}")
        for i, (a, b) in enumerate(zip(old, new)):
            differences(a, b, f"{path}[{i}]", complaints)
    elif isinstance(old, float) and isinstance(new, float):
        if not math.isclose(old, new, rel_tol=tolerance(path), abs_tol=1e-12):
            complaints.append(f"{path}: {old!r}, now {new!r}")
    elif old != new or type(old) is not type(new):
        complaints.append(f"{path}: {old!r}, now {new!r}")


def tensor_differences(old_file, new_file, name, complaints):
    old, new = load_file(old_file), load_file(new_file)
    if old.keys() != new.keys():
        complaints.append(f"{name}: tensors {sorted(old.keys() ^ new.keys())}")
    for key in old.keys() & new.keys():
        a, b = old[key].astype(np.float64), new[key].astype(np.float64)
        if a.shape != b.shape:
            complaints.append(f"{name}: {key} has shape {a.shape}, now {b.shape}")
            continue
        distance = np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-30)
        if not distance <= (0 if name.startswith("adapters/") else tolerance(key)):
            complaints.append(f"{name}: {key} differs by {distance:.3g}")


def read(path):
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line] if path.suffix == ".jsonl" else json.loads(text)


def main():
    committed, fresh = Path(sys.argv[1]), Path(sys.argv[2])
    complaints = []
    manifest = read(committed / "MANIFEST.json")
    for section in ("files", "scripts"):
        for name, digest in manifest[section].items():
            path = committed / name
            if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                complaints.append(f"{name}: missing or not what MANIFEST.json says")
    files = sorted(p for p in fresh.rglob("*") if p.is_file() and p.name != "MANIFEST.json")
    for path in files:
        name = str(path.relative_to(fresh))
        if name not in manifest["files"]:
            complaints.append(f"{name}: not in MANIFEST.json")
        elif path.suffix == ".safetensors" and name.startswith("quantised/"):
            if (committed / name).read_bytes() != path.read_bytes():  # codes of types that numpy does not have
                complaints.append(f"{name}: other bytes")
        elif path.suffix == ".safetensors":
            tensor_differences(committed / name, path, name, complaints)
        else:
            differences(read(committed / name), read(path), name, complaints)
    new = read(fresh / "MANIFEST.json")
    for part, packages in new["packages"].items():
        differences(manifest["packages"].get(part), packages, f"packages of {part}", complaints)
    for line in complaints[:40]:
        print(line)
    if len(complaints) > 40:
        print(f"... and {len(complaints) - 40} more")
    print(f"{len(files)} files compared, {len(complaints)} differences")
    sys.exit(1 if complaints or not files else 0)


main()
