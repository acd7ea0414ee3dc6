"""gguf_encode.json: numbers, and the bytes that the gguf package makes of them in every type that whole models are
written in. tests/files/gguf_writer_test.cpp holds model/files against it. Usage: gguf_encode.py OUT"""

import json
import sys

import gguf
import numpy as np


def rows():
    draw = np.random.default_rng(21)
    some = [draw.normal(0, scale, 32) for scale in (0.02, 1, 900, 1e-4, 1e-7, 1e-9)]
    ties = np.arange(-16, 16) + 0.5  # of q8_0, where the largest is 127: away from zero
    ties[0] = 127
    halves = 1 + np.arange(32) / 2048  # between two halves, and between two bf16
    wide = np.where(np.arange(32) % 2, 1, -1) * 2.0 ** np.arange(-20, 12)
    return np.array([*some, ties, halves, wide, np.zeros(32), -np.ones(32)], dtype=np.float32)


def main(out):
    values = rows()
    types = {
        name.lower(): {"type": int(kind), "bytes": gguf.quants.quantize(values, kind).tobytes().hex()}
        for name, kind in gguf.GGMLQuantizationType.__members__.items()
        if name in ("F16", "BF16", "Q8_0")
    }
    with open(out, "w") as file:
        json.dump({"values": [float(v) for v in values.reshape(-1)], "types": types}, file, separators=(",", ":"))


main(sys.argv[1])
