"""LoRA adapters for a model, made up: random A and B, with an effect that can be seen and an answer that stays text."""

import array
import json
import random
import struct

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def shape(config, linear):
    """(outputs, inputs) of a linear."""
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    return {
        "q_proj": (queries, hidden),
        "k_proj": (keys, hidden),
        "v_proj": (keys, hidden),
        "o_proj": (hidden, queries),
        "gate_proj": (ffn, hidden),
        "up_proj": (ffn, hidden),
        "down_proj": (hidden, ffn),
    }[linear]


def make_adapter(model, directory, rank=8, seed=1, linears=LINEARS, effect=0.02):
    """`effect`: of B·A, the size of an output for an input of size 1, about."""
    config = json.loads((model / "config.json").read_text())
    draw, header, parts, offset = random.Random(seed), {}, [], 0
    noise = [draw.uniform(-1, 1) for _ in range(10007)]
    for layer in range(config["num_hidden_layers"]):
        for linear in linears:
            block = "self_attn" if linear in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
            outputs, inputs = shape(config, linear)
            for factor, rows, columns, size in (
                ("A", rank, inputs, inputs**-0.5),
                ("B", outputs, rank, effect * rank**-0.5),
            ):
                count, at = rows * columns, draw.randrange(len(noise))
                scaled = [size * x for x in noise]
                values = (scaled[at:] + scaled * (count // len(scaled) + 1))[:count]
                name = f"base_model.model.model.layers.{layer}.{block}.{linear}.lora_{factor}.weight"
                data = array.array("f", values).tobytes()
                header[name] = {
                    "dtype": "F32",
                    "shape": [rows, columns],
                    "data_offsets": [offset, offset + len(data)],
                }
                parts.append(data)
                offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    directory.mkdir(parents=True)
    with open(directory / "adapter_model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.writelines(parts)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(model),
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(linears),
        "inference_mode": True,
    }
    (directory / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return directory
