"""Models of any size for tests and for measuring, which know nothing."""

import json
import random
import struct


def write_random_model(directory, layers, hidden, heads, kv_heads, head, ffn, vocab=259):
    """Makes the model of a directory another one: of these sizes, in bf16, with weights that a pattern repeats."""
    config = json.loads((directory / "config.json").read_text())
    config |= {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "head_dim": head,
               "num_key_value_heads": kv_heads, "intermediate_size": ffn}  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "lm_head.weight": (vocab, hidden),
              "model.norm.weight": (hidden,)}  # fmt: skip
    for i in range(layers):
        layer = f"model.layers.{i}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}{norm}.weight"] = (hidden,)
        for name, rows, cols in (
            ("self_attn.q_proj", heads * head, hidden),
            ("self_attn.k_proj", kv_heads * head, hidden),
            ("self_attn.v_proj", kv_heads * head, hidden),
            ("self_attn.o_proj", hidden, heads * head),
            ("mlp.gate_proj", ffn, hidden),
            ("mlp.up_proj", ffn, hidden),
            ("mlp.down_proj", hidden, ffn),
        ):
            shapes[f"{layer}{name}.weight"] = (rows, cols)
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) == 2 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    draw = random.Random(7)
    pattern = b"".join(bytes((draw.randrange(256), draw.choice((0x3C, 0xBC)))) for _ in range(99_991))
    with open(directory / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for number, (name, tensor) in enumerate(header.items()):
            size = tensor["data_offsets"][1] - tensor["data_offsets"][0]
            if "norm" in name:
                out.write(b"\x80\x3f" * (size // 2))
                continue
            shift = 2 * (number * 997 % 99_991)
            some = pattern[shift:] + pattern[:shift]
            out.write((some * (size // len(some) + 1))[:size])
