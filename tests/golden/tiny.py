"""Tiny Llama models with drawn weights: logits, greedy ids, LoRA gradients and a 20-step LoRA curve by transformers and PEFT."""
import contextlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.models.llama import modeling_llama

import philox

DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16}
POSITIONS = [0, 1, 2, 7, 15, 31, 32, 33, 63, 64, 96, 127, 128, 140, 148, 149]
TRAINED_SHARE = 0.6

COMMON = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "model_type": "llama",
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "use_cache": True,
}

MODELS = [
    {
        "name": "tiny",
        "seed": 20261,
        "config": COMMON | {
            "eos_token_id": [5, 7],
            "head_dim": 12,
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_attention_heads": 8,
            "num_hidden_layers": 4,
            "num_key_value_heads": 4,
            "rope_scaling": {
                "factor": 8.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 32,
                "rope_type": "llama3",
            },
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": 323,
        },
        "std": {"linear": 0.1875, "vocabulary": 0.25},
    },
    {
        "name": "tied",
        "seed": 20262,
        "config": COMMON | {
            "dtype": "bfloat16",
            "eos_token_id": 2,
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_attention_heads": 6,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
            "tie_word_embeddings": True,
            "vocab_size": 200,
        },
        "std": {"linear": 0.1875, "vocabulary": 0.1875},
    },
]

ADAPTERS = [
    {"name": "tiny-all", "model": "tiny", "seed": 7101, "config": {"r": 4, "lora_alpha": 8, "target_modules": [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}},
    {"name": "tiny-patterns", "model": "tiny", "seed": 7102, "config": {
        "r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": ["q_proj", "v_proj", "gate_proj", "down_proj"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 7, "down_proj": 2, r"layers\.[02]\..*gate_proj": 5},
        "alpha_pattern": {"v_proj": 3, "model.layers.1.self_attn.q_proj": 11, "q_proj": 9}}},
    {"name": "tiny-regex", "model": "tiny", "seed": 7103, "config": {
        "r": 3, "lora_alpha": 5, "target_modules": r".*\.layers\.[13]\.(self_attn\.(k|o)_proj|mlp\.up_proj)"}},
    {"name": "tied-all", "model": "tied", "seed": 7104, "config": {"r": 4, "lora_alpha": 8, "target_modules": [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}},
    {"name": "tiny-head", "model": "tiny", "seed": 7105, "config": {
        "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj", "lm_head"], "rank_pattern": {"lm_head": 6}}},
    {"name": "tied-head", "model": "tied", "seed": 7106, "config": {
        "r": 3, "lora_alpha": 6, "target_modules": ["v_proj", "lm_head"]}},
    # Only read: no gradients.
    {"name": "tied-saved", "model": "tied", "seed": 7107, "reads": True, "config": {
        "r": 3, "lora_alpha": 6, "target_modules": ["o_proj", "embed_tokens"], "modules_to_save": ["lm_head", "norm"]}},
]
ADAPTER_STD = {"lora_A": 0.1875, "lora_B": 0.0625}

CURVE = {
    "model": "tiny",
    "adapter": "tiny-all",
    "steps": 20,
    "learning_rate": 5e-3,
    "schedule": "linear",
    "warmup_steps": 2,
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "weight_decay": 0.01,
    "max_grad_norm": 4.5,
    "document_lengths": [40, 75, 150, 23, 64, 111, 33, 90],
    "first_document": 100,
}


# The same run with a higher rate for B, by PEFT's own optimizer.
LORA_PLUS = CURVE | {"learning_rate": 1e-3, "ratio": 8.0, "weight_decays": [0.0, 0.1]}
del LORA_PLUS["weight_decay"]


def rule_of(model, name):
    """(offset, scale) of a weight by its Hugging Face name."""
    if name.endswith("norm.weight"):
        return 1.0, 0.8
    kind = "vocabulary" if name in ("model.embed_tokens.weight", "lm_head.weight") else "linear"
    return 0.0, philox.scale_of(model["std"][kind])


def models_json():
    """models.json: config and drawing rules, for the C++ side."""
    rows = []
    for model in MODELS:
        norm = float(np.float32(0.8))
        rows.append({
            "name": model["name"],
            "seed": model["seed"],
            "config": model["config"],
            "weights": {
                "linear": {"offset": 0.0, "std": model["std"]["linear"], "scale": philox.scale_of(model["std"]["linear"])},
                "vocabulary": {"offset": 0.0, "std": model["std"]["vocabulary"], "scale": philox.scale_of(model["std"]["vocabulary"])},
                "norm": {"offset": 1.0, "scale": norm},
                "rounded_to": "bf16",
            },
        })
    adapters = [{
        "name": a["name"],
        "model": a["model"],
        "seed": a["seed"],
        "weights": {k: {"offset": 0.0, "std": s, "scale": philox.scale_of(s)} for k, s in ADAPTER_STD.items()} | {"rounded_to": "fp32"},
    } for a in ADAPTERS]
    return {
        "models": rows,
        "adapters": adapters,
        "kinds": {
            "norm": "names ending in norm.weight",
            "vocabulary": "model.embed_tokens.weight and lm_head.weight (a tied model has no lm_head)",
            "linear": "every other weight",
        },
        "documents": {
            "tokens": "floor(fp32(uniform(seed, 'document D', i) * vocab)), seed of the model; uniform = (lane >> 8) * 2^-24",
            "trained": f"label i is token i+1 where uniform(seed, 'document D mask', i) < {TRAINED_SHARE}, else -1; the last label is -1",
        },
    }


def document(model, index, length):
    """Tokens, and for each position its target or -1."""
    vocab = np.float32(model["config"]["vocab_size"])
    tokens = [int(v) for v in philox.uniform(model["seed"], f"document {index}", length) * vocab]
    mask = philox.uniform(model["seed"], f"document {index} mask", length) < np.float32(TRAINED_SHARE)
    labels = [tokens[i + 1] if i + 1 < length and mask[i] else -1 for i in range(length)]
    return tokens, labels


class NormInDouble(torch.nn.Module):
    """LlamaRMSNorm without its cast to fp32."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


@contextlib.contextmanager
def softmax_in_double():
    """transformers' eager attention asks for an fp32 softmax; here it is given fp64."""
    original = torch.nn.functional.softmax
    torch.nn.functional.softmax = lambda x, dim=None, dtype=None: original(x, dim=dim, dtype=torch.float64 if x.dtype == torch.float64 else dtype)
    try:
        yield
    finally:
        torch.nn.functional.softmax = original


class Workshop:
    """Model directories in a temporary folder, opened as a user would open them."""

    def __init__(self, out, scratch):
        self.out, self.scratch = out, scratch

    def write(self, model):
        folder = self.scratch / model["name"]
        folder.mkdir()
        config = transformers.LlamaConfig(**model["config"])
        with torch.device("meta"):
            shapes = {n: tuple(p.shape) for n, p in transformers.LlamaForCausalLM(config).named_parameters()}
        weights = {}
        for name, shape in shapes.items():
            values = philox.round_to_bf16(philox.draw(model["seed"], name, shape, *rule_of(model, name)))
            weights[name] = torch.from_numpy(values).to(torch.bfloat16)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(model["config"], indent=2))
        return shapes

    def base(self, name, dtype):
        start = torch.float32 if dtype == "fp64" else DTYPES[dtype]
        model = AutoModelForCausalLM.from_pretrained(self.scratch / name, dtype=start, attn_implementation="eager")
        model.config.use_cache = False
        return model.eval()

    def adapted(self, model_name, adapter_dir, dtype):
        model = PeftModel.from_pretrained(self.base(model_name, dtype), adapter_dir, is_trainable=True)
        return in_double(model.eval()) if dtype == "fp64" else model.eval()


def in_double(model):
    model = model.double()
    for parent in list(model.modules()):
        for child_name, child in list(parent.named_children()):
            if isinstance(child, modeling_llama.LlamaRMSNorm):
                setattr(parent, child_name, NormInDouble(child))
    return model


def logits_of(model, tokens):
    with softmax_in_double():
        return model(input_ids=torch.tensor([tokens])).logits[0]


def all_logits(open_model, tokens):
    out = {}
    for name in DTYPES:
        with torch.no_grad():
            logits = logits_of(open_model(name), tokens)
        assert logits.dtype == DTYPES[name]
        out[f"logits.{name}"] = logits[POSITIONS].to(torch.float32).contiguous()
    return out


def distance(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


def greedy(model, prompt, count):
    ids, margins = list(prompt), []
    with torch.no_grad():
        for _ in range(count):
            top = logits_of(model, ids)[-1].topk(2)
            margins.append(float(top.values[0] - top.values[1]))
            ids.append(int(top.indices[0]))
        generated = model.generate(input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                                   do_sample=False, max_new_tokens=count, use_cache=True, pad_token_id=0)[0].tolist()
    assert generated == ids[: len(generated)]
    return ids[len(prompt):], generated[len(prompt):], min(margins)


def base_goldens(shop, model):
    name = model["name"]
    shapes = shop.write(model)
    tokens, _ = document(model, 0, 150)
    tensors = all_logits(lambda dtype: in_double(shop.base(name, dtype)) if dtype == "fp64" else shop.base(name, dtype), tokens)
    prompt = document(model, 1, 10)[0]
    ids, generated, margin = greedy(shop.base(name, "fp32"), prompt, 24)
    save_file(tensors, shop.out / f"{name}.safetensors", metadata={"format": "pt"})
    exact = tensors["logits.fp64"]
    return {
        "model": name,
        "shapes": shapes,
        "document": 0,
        "tokens": tokens,
        "positions": POSITIONS,
        "logits_std": float(exact.std()),
        "error_fp32_vs_fp64": distance(tensors["logits.fp32"], exact),
        "error_bf16_vs_fp64": distance(tensors["logits.bf16"], exact),
        "max_abs_error_fp32_vs_fp64": float((tensors["logits.fp32"] - exact).abs().max()),
        "greedy": {"document": 1, "prompt": prompt, "ids": ids, "min_top2_margin": margin, "generated_until_eos": generated},
    }


def disk_name(parameter):
    return parameter.replace(".default", "")


def save_adapter(model, config, values, folder, base_name):
    peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", bias="none", **config))
    with torch.no_grad():
        for name, p in peft.named_parameters():
            if p.requires_grad:
                p.copy_(values(disk_name(name), tuple(p.shape)))
    peft.peft_config["default"].base_model_name_or_path = base_name
    peft.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)


def loss_of(model, tokens, labels, trained):
    """Σ nll over this document / trained, as transformers computes it: logits in fp32 (fp64 in double)."""
    logits = logits_of(model, tokens)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return torch.nn.functional.cross_entropy(logits, torch.tensor(labels), ignore_index=-1, reduction="sum") / trained


def trained_in(batch):
    return sum(sum(label >= 0 for label in labels) for _, labels in batch)


def adapter_goldens(shop, spec):
    model = next(m for m in MODELS if m["name"] == spec["model"])
    name = spec["name"]
    folder = shop.out / "adapters" / name

    def values(parameter, shape):
        if ".modules_to_save." in parameter:
            rule = rule_of(model, parameter)
            return torch.from_numpy(philox.round_to_bf16(philox.draw(spec["seed"], parameter, shape, *rule)))
        kind = "lora_A" if ".lora_A." in parameter or parameter.endswith("_A") else "lora_B"
        return torch.from_numpy(philox.draw(spec["seed"], parameter, shape, 0.0, philox.scale_of(ADAPTER_STD[kind])))

    save_adapter(shop.base(spec["model"], "fp32"), spec["config"], values, folder, spec["model"])
    tokens, _ = document(model, 0, 150)
    tensors = all_logits(lambda dtype: shop.adapted(spec["model"], folder, dtype), tokens)
    plain = logits_of(in_double(shop.base(spec["model"], "fp64")), tokens)[POSITIONS].detach()

    batch = [document(model, 2, 150), document(model, 3, 61)]
    trained = trained_in(batch)
    losses, shapes, scales = {}, {}, {}
    for dtype in DTYPES:
        peft = shop.adapted(spec["model"], folder, dtype)
        total = sum(loss_of(peft, t, l, trained) for t, l in batch)
        total.backward()
        losses[dtype] = float(total.detach())
        for parameter, p in peft.named_parameters():
            if p.requires_grad and not spec.get("reads"):
                shapes[disk_name(parameter)] = list(p.shape)
                tensors[f"grad.{dtype}/{disk_name(parameter)}"] = p.grad.to(torch.float32).contiguous()
        for module_name, module in peft.named_modules():
            if isinstance(module, LoraLayer):
                scales[module_name.removeprefix("base_model.model.")] = module.scaling["default"]
    save_file(tensors, shop.out / f"{name}.safetensors", metadata={"format": "pt"})
    exact = tensors["logits.fp64"]
    worst = {d: max((distance(tensors[f"grad.{d}/{n}"], tensors[f"grad.fp64/{n}"]) for n in shapes), default=0.0)
             for d in ("fp32", "bf16")}
    return {
        "model": spec["model"],
        "adapter": name,
        "adapter_config": spec["config"],
        "shapes": shapes,
        "scales": scales,
        "document": 0,
        "tokens": tokens,
        "positions": POSITIONS,
        "moves_logits_by": distance(exact, plain),
        "error_fp32_vs_fp64": distance(tensors["logits.fp32"], exact),
        "error_bf16_vs_fp64": distance(tensors["logits.bf16"], exact),
        "batch": [{"document": d, "tokens": t, "labels": l} for d, (t, l) in zip((2, 3), batch)],
        "trained_tokens": trained,
        "loss": losses,
        "worst_gradient_error_vs_fp64": worst,
    }


def adamw(peft):
    trained = [p for p in peft.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=CURVE["learning_rate"], betas=tuple(CURVE["betas"]), eps=CURVE["eps"],
                             weight_decay=CURVE["weight_decay"])


def lora_plus(weight_decay):
    return lambda peft: create_loraplus_optimizer(
        peft, torch.optim.AdamW, lr=LORA_PLUS["learning_rate"], loraplus_lr_ratio=LORA_PLUS["ratio"],
        loraplus_weight_decay=weight_decay, betas=tuple(LORA_PLUS["betas"]), eps=LORA_PLUS["eps"])


def train(shop, dtype, documents, plan, optimizer_of):
    peft = shop.adapted(CURVE["model"], shop.out / "adapters" / CURVE["adapter"], dtype)
    named = {disk_name(n): p for n, p in peft.named_parameters() if p.requires_grad}
    optimizer = optimizer_of(peft)
    schedule = transformers.get_scheduler(CURVE["schedule"], optimizer, num_warmup_steps=CURVE["warmup_steps"],
                                          num_training_steps=CURVE["steps"])
    rows = []
    for micro_batches in plan:
        trained = trained_in([documents[d] for m in micro_batches for d in m])
        loss = 0.0
        for micro in micro_batches:
            part = sum(loss_of(peft, *documents[d], trained) for d in micro)
            part.backward()
            loss += float(part.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(named.values(), CURVE["max_grad_norm"]))
        rows.append({"loss": loss, "grad_norm": norm, "learning_rate": schedule.get_last_lr()[0]})
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return rows, {n: p.detach().to(torch.float32).contiguous() for n, p in named.items()}


def curve_data():
    """Documents, and which of them are in each micro-batch of each step."""
    model = next(m for m in MODELS if m["name"] == CURVE["model"])
    documents = [document(model, CURVE["first_document"] + i, n) for i, n in enumerate(CURVE["document_lengths"])]
    return documents, [[[(3 * s) % 8], [(3 * s + 1) % 8, (3 * s + 2) % 8]] for s in range(CURVE["steps"])]


def lora_plus_goldens(shop):
    documents, plan = curve_data()
    cases = []
    for weight_decay in LORA_PLUS["weight_decays"]:
        curves = {dtype: train(shop, dtype, documents, plan, lora_plus(weight_decay))[0] for dtype in ("fp32", "fp64")}
        pairs = [(row["loss"], exact["loss"]) for row, exact in zip(curves["fp32"], curves["fp64"])]
        worst = max(abs(loss - exact) / exact for loss, exact in pairs)
        cases.append({"weight_decay": weight_decay, "curves": curves, "worst_loss_error_fp32_vs_fp64": worst})
    return LORA_PLUS | {"cases": cases}


def curve_goldens(shop):
    documents, plan = curve_data()
    first = CURVE["first_document"]
    results = {dtype: train(shop, dtype, documents, plan, adamw) for dtype in DTYPES}
    tensors = {f"final.fp32/{n}": t for n, t in results["fp32"][1].items()}
    tensors |= {f"final.fp64/{n}": t for n, t in results["fp64"][1].items()}
    save_file(tensors, shop.out / "curve.safetensors", metadata={"format": "pt"})
    exact = [row["loss"] for row in results["fp64"][0]]
    return CURVE | {
        "documents": [{"document": first + i, "tokens": t, "labels": l} for i, (t, l) in enumerate(documents)],
        "plan": plan,
        "trained_tokens": [[trained_in([documents[d] for d in micro]) for micro in step] for step in plan],
        "curves": {dtype: results[dtype][0] for dtype in DTYPES},
        "clipped_steps": [i + 1 for i, row in enumerate(results["fp32"][0]) if row["grad_norm"] > CURVE["max_grad_norm"]],
        "worst_loss_error_vs_fp64": {d: max(abs(row["loss"] - e) / e for row, e in zip(results[d][0], exact)) for d in ("fp32", "bf16")},
        "worst_final_error_fp32_vs_fp64": max(distance(tensors[f"final.fp32/{n}"], tensors[f"final.fp64/{n}"]) for n in results["fp64"][1]),
    }


def make(out, write_json):
    scratch = Path(tempfile.mkdtemp(prefix="drover-golden-"))
    try:
        shop = Workshop(out, scratch)
        write_json("models.json", models_json())
        for model in MODELS:
            write_json(f"{model['name']}.json", base_goldens(shop, model))
        for spec in ADAPTERS:
            write_json(f"{spec['name']}.json", adapter_goldens(shop, spec))
        write_json("curve.json", curve_goldens(shop))
        write_json("lora_plus.json", lora_plus_goldens(shop))
    finally:
        shutil.rmtree(scratch)
