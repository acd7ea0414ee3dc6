"""Numbers drawn by name: Philox4x32-10 keyed by SHA-256, the same bits here and in C++ (kernels/base/philox.h).

key = first 8 bytes (little endian) of SHA-256("SEED:NAME"); element i is lane i % 4 of block i / 4; u = lane >> 8;
value = offset + (u * 2^-24 - 0.5) * scale, two fp32 roundings (product, then sum).
Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
"""
import hashlib

import numpy as np

LOW = np.uint64(0xFFFFFFFF)


def philox4x32(counter, key):
    """counter: (n, 4) uint32; key: two integers below 2^32. Ten rounds; returns (n, 4) uint32."""
    c0, c1, c2, c3 = (counter[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = int(key[0]), int(key[1])
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * c0
        p1 = np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            p1 & LOW,
            (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            p0 & LOW,
        )
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def key_of(seed, name):
    h = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode("ascii")).digest()[:8], "little")
    return h & 0xFFFFFFFF, h >> 32


def lanes(seed, name, count):
    """The first `count` uint32 of the stream."""
    blocks = np.arange((count + 3) // 4, dtype=np.uint64)
    counter = np.zeros((len(blocks), 4), dtype=np.uint32)
    counter[:, 0] = (blocks & LOW).astype(np.uint32)
    counter[:, 1] = (blocks >> np.uint64(32)).astype(np.uint32)
    return philox4x32(counter, key_of(seed, name)).reshape(-1)[:count]


def uniform(seed, name, count):
    """fp32 in [0, 1) with 24 bits."""
    return (lanes(seed, name, count) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def draw(seed, name, shape, offset, scale):
    """fp32 array, row-major: offset + (uniform - 0.5) * scale."""
    product = (uniform(seed, name, int(np.prod(shape))) - np.float32(0.5)) * np.float32(scale)
    return (np.float32(offset) + product).reshape(shape)


def round_to_bf16(values):
    """fp32 values rounded to the nearest bf16, ties to even, still fp32."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + np.uint64(0x7FFF) + ((bits >> np.uint64(16)) & np.uint64(1))) & np.uint64(0xFFFF0000)
    return bits.astype(np.uint32).view(np.float32).reshape(np.shape(values))


def scale_of(std):
    """The width of a uniform distribution with this standard deviation, as fp32."""
    exact = np.float32(float(std) * 12.0**0.5)
    assert exact == np.float32(std) * np.sqrt(np.float32(12)), f"std {std}: fp32 and fp64 disagree on the width; take another"
    return float(exact)


def known_answers():
    """draws.json: what the C++ side must reproduce bit for bit."""
    zero = philox4x32(np.zeros((1, 4), np.uint32), (0, 0))[0]
    ones = philox4x32(np.full((1, 4), 0xFFFFFFFF, np.uint32), (0xFFFFFFFF, 0xFFFFFFFF))[0]
    assert [hex(v) for v in zero] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    assert [hex(v) for v in ones] == ["0x408f276d", "0x41c83b0e", "0xa20bc7c6", "0x6d5451fd"]
    rows = []
    for seed, name, offset, std, scale in [
        (1, "model.embed_tokens.weight", 0.0, 0.1875, None),
        (1, "model.norm.weight", 1.0, None, 0.8),
        (2026, "model.layers.3.mlp.down_proj.weight", 0.0, 0.25, None),
        (18446744073709551615, "document 0", 0.5, None, 1.0),
    ]:
        width = scale if scale is not None else scale_of(std)
        values = draw(seed, name, (10,), offset, width)
        rows.append({
            "seed": seed,
            "name": name,
            "key": list(key_of(seed, name)),
            "lanes": [int(v) for v in lanes(seed, name, 10)],
            "offset": offset,
            "scale": float(np.float32(width)),
            "values": [float(v) for v in values],
            "bf16": [float(v) for v in round_to_bf16(values)],
        })
    return {"philox_zero": [int(v) for v in zero], "philox_ones": [int(v) for v in ones], "draws": rows}
