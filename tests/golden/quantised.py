"""One small model with drawn weights, quantised in each layout that is read: directories, and what their weights are.

NF4 is made and read by bitsandbytes, through transformers; compressed-tensors by its own library. Meta's, DeepSeek's and ModelOpt's
layouts are a few lines of PyTorch each, as their libraries need a GPU.
"""
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import bitsandbytes
import torch
import transformers
from compressed_tensors.compressors.model_compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import philox
import tiny

# Rows and columns of which some are no multiple of 128, and all columns one of 64.
MODEL = {
    "name": "quantised",
    "seed": 20263,
    "config": tiny.COMMON | {
        "eos_token_id": 2,
        "head_dim": 32,
        "hidden_size": 192,
        "intermediate_size": 320,
        "num_attention_heads": 4,
        "num_hidden_layers": 1,
        "num_key_value_heads": 2,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": 64,
    },
    "std": {"linear": 0.1875, "vocabulary": 0.1875},
}
TOKENS = 64
LARGEST = 448.0  # of e4m3
BLOCK = 128


def is_linear(name):
    return name.endswith("_proj.weight")


def e4m3(values):
    return values.clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)


def by_rows(weight):
    scale = weight.float().abs().amax(1, keepdim=True) / LARGEST
    return e4m3(weight.float() / scale), scale


def by_blocks(weight):
    rows, cols = weight.shape
    high, wide = -(-rows // BLOCK), -(-cols // BLOCK)
    padded = torch.zeros(high * BLOCK, wide * BLOCK)
    padded[:rows, :cols] = weight.float()
    scale = padded.view(high, BLOCK, wide, BLOCK).abs().amax((1, 3)) / LARGEST
    return e4m3(weight.float() / widened(scale, weight.shape)), scale


def by_tensor(weight):
    scale = weight.float().abs().max() / LARGEST
    return e4m3(weight.float() / scale), scale


def widened(scale, shape):
    """The scale of every element."""
    if scale.numel() == 1:
        return scale.reshape(1, 1).expand(shape)
    if scale.shape == (shape[0], 1):
        return scale.expand(shape)
    return scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[: shape[0], : shape[1]]


def fp8_directory(folder, dense, config, quantise, suffix, wanted, more=None):
    """Writes codes and scales; returns code · scale in fp32."""
    stored, values = {}, {}
    for name, weight in dense.items():
        stored[name] = weight
        if is_linear(name) and wanted(name):
            stored[name], scale = quantise(weight)
            stored[name + suffix] = scale
            values[name] = stored[name].float() * widened(scale, weight.shape)
            stored |= more(name) if more else {}
    save_file({n: t.contiguous() for n, t in stored.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return values


def meta(folder, dense, config):
    quantisation = {"activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head", "model.layers.0.self_attn"],
                    "quant_method": "fbgemm_fp8"}
    ub = lambda name: {name.replace(".weight", ".input_scale_ub"): torch.tensor([1200.0])}
    return fp8_directory(folder, dense, config | {"quantization_config": quantisation}, by_rows, "_scale", lambda n: ".mlp." in n, ub)


def blocks(folder, dense, config):
    quantisation = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
    return fp8_directory(folder, dense, config | {"quantization_config": quantisation}, by_blocks, "_scale_inv", lambda n: True)


def modelopt(folder, dense, config):
    quantisation = {"producer": {"name": "modelopt", "version": "0.29.0"},
                    "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    (folder / "hf_quant_config.json").write_text(json.dumps(quantisation, indent=2))

    def more(name):
        scales = {name.replace(".weight", ".input_scale"): torch.tensor(0.02)}
        for part in ("k", "v"):
            if f"{part}_proj" in name:
                scales[name.replace(".weight", f".{part}_scale")] = torch.tensor(1.0)
        return scales

    return fp8_directory(folder, dense, config, by_tensor, "_scale", lambda n: True, more)


def compressed(folder, source):
    """Attention by channels with scales of bf16, the MLP by tensors with scales of fp32."""
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "dynamic": False}
    inputs = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "dynamic": True}
    groups = {
        "group_0": {"targets": ["re:.*self_attn\\.[qkvo]_proj"], "weights": weights | {"strategy": "channel"}, "input_activations": inputs},
        "group_1": {"targets": ["re:.*mlp.*_proj"], "weights": weights | {"strategy": "tensor"}, "input_activations": inputs},
    }
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    apply_quantization_config(model, QuantizationConfig(config_groups=groups, ignore=["lm_head"], quantization_status="frozen"))
    for module in model.modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is None:
            continue
        of = module.weight if scheme.weights.strategy == "channel" else module.weight.float()
        low, high = (of.amin(1, keepdim=True), of.amax(1, keepdim=True)) if scheme.weights.strategy == "channel" else (of.min(), of.max())
        module.weight_scale = torch.nn.Parameter(calculate_qparams(low, high, scheme.weights)[0], requires_grad=False)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    stored = {n: t.contiguous() for n, t in model.state_dict().items() if n != "lm_head.weight"}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(source / "config.json", folder / "config.json")
    compressor.update_config(folder)
    compressor.decompress_model(model)
    return {n: p.detach() for n, p in model.state_dict().items() if is_linear(n)}


def nf4(folder, source, nested):
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=nested,
                                bnb_4bit_compute_dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(source, quantization_config=config, dtype=torch.bfloat16, device_map="cpu")
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    written = json.loads((folder / "config.json").read_text())["quantization_config"]
    (folder / "config.json").write_text(json.dumps(MODEL["config"] | {"quantization_config": written}, indent=2))
    return {f"{name}.weight": bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}


def varied(file):
    """The model's weights, the linears' multiplied by a factor from 0.5 to 1.5 of each row and each column: every block has a scale of
    its own."""
    dense = load_file(file)
    for name, weight in dense.items():
        if is_linear(name):
            rows, cols = (torch.from_numpy(philox.uniform(MODEL["seed"], f"{name} {axis}", n)) + 0.5
                          for axis, n in zip(("rows", "columns"), weight.shape))
            dense[name] = (weight.float() * rows[:, None] * cols).to(torch.bfloat16)
    save_file(dense, file, metadata={"format": "pt"})
    return dense


def sha256(values):
    return hashlib.sha256(values.detach().float().contiguous().numpy().tobytes()).hexdigest()


def log_probabilities(source, values, tokens):
    """Of tokens[1:], given those before: the whole model in fp32 with these weights in place of its own."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager").eval()
    missing = model.load_state_dict({n: v.float() for n, v in values.items()}, strict=False)
    assert not missing.unexpected_keys
    with torch.no_grad():
        scores = tiny.logits_of(model, tokens).log_softmax(-1)
    return [float(scores[i, tokens[i + 1]]) for i in range(len(tokens) - 1)]


def make(out, write_json):
    root = out / "quantised"
    shutil.rmtree(root, ignore_errors=True)
    tokens = tiny.document(MODEL, 0, TOKENS)[0]
    with tempfile.TemporaryDirectory() as scratch:
        tiny.Workshop(out, Path(scratch)).write(MODEL)
        source = Path(scratch) / MODEL["name"]
        dense = varied(source / "model.safetensors")
        makers = {
            "nf4-nested": lambda folder: nf4(folder, source, True),
            "nf4-plain": lambda folder: nf4(folder, source, False),
            "fbgemm": lambda folder: meta(folder, dense, MODEL["config"]),
            "blocks": lambda folder: blocks(folder, dense, MODEL["config"]),
            "compressed": lambda folder: compressed(folder, source),
            "modelopt": lambda folder: modelopt(folder, dense, MODEL["config"]),
        }
        rows = []
        for name, maker in makers.items():
            folder = root / name
            folder.mkdir(parents=True)
            values = maker(folder)
            exact = {n: dense[n].float() for n in values}
            worst = max(tiny.distance(values[n].float(), exact[n]) for n in values)
            assert worst < (0.2 if "nf4" in name else 0.05), (name, worst)
            rows.append({
                "name": name,
                "weights": {n: {"shape": list(v.shape), "sha256": sha256(v)} for n, v in sorted(values.items())},
                "log_probabilities": log_probabilities(source, values, tokens),
                "error_of_weights": worst,
            })
        rows.append({"name": "dense", "log_probabilities": log_probabilities(source, {}, tokens)})
    for path in root.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
    write_json("quantised.json", {"seed": MODEL["seed"], "config": MODEL["config"], "document": 0, "tokens": tokens, "layouts": rows})
