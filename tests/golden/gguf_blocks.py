"""gguf_blocks.json: blocks of every quantised GGUF type that is read, and the numbers that the gguf package makes of them.
tests/files/gguf_test.cpp holds model/files against it. Usage: gguf_blocks.py OUT"""

import json
import sys

import gguf
import numpy as np

TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def main(out):
    draw = np.random.default_rng(20)
    types = {}
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        weights, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = draw.integers(0, 256, (512 // weights, size), dtype=np.uint8)
        for at in HALVES[name]:  # random bytes would be NaN at times
            scales = draw.normal(0, 0.05, len(blocks)).astype(np.float16)
            blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
        values = gguf.quants.dequantize(blocks, kind).reshape(-1)
        types[name] = {"type": int(kind), "bytes": blocks.tobytes().hex(), "values": [float(v) for v in values]}
    with open(out, "w") as file:
        json.dump(types, file, separators=(",", ":"))


main(sys.argv[1])
