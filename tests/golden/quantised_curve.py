"""QLoRA: 20 steps of PEFT's LoRA on all linears over the NF4 directories of quantised.py.

The curves `float32`: bitsandbytes multiplies on a CPU, with quant_state.dtype set to fp32. Where that is bf16 it rounds level times absmax
in an fp32 pass back, and does not in one forward; so the curves `bfloat16` are those of plain linears of its dequantised weights. In fp64
all are plain.
"""
import torch
import transformers
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import philox
import quantised
import tiny

CURVE = {
    "layouts": ["nf4-nested", "nf4-plain"],
    "seed": 7301,
    "r": 4,
    "alpha": 8,
    "steps": 20,
    "learning_rate": 5e-3,
    "schedule": "linear",
    "warmup_steps": 2,
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "weight_decay": 0.01,
    "max_grad_norm": 2.0,
    "document_lengths": [40, 75, 23, 64, 33],
    "first_document": 100,
}
STD = {"lora_A": 0.1875, "lora_B": 0.0625}
SHOWN = ["self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"]  # whose factors are kept after the last step


def open_model(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu", attn_implementation="eager")
    model.config.use_cache = False
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype = module.weight.quant_state.dtype = torch.float32
    for p in model.parameters():  # the embedding and the norms, which are opened as they are stored
        if p.is_floating_point():
            p.data = p.data.float()
    return model


def dequantised(model, dtype):
    """The same model with plain linears of weights that are rounded to a type."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Linear4bit):
                child.weight.quant_state.dtype = dtype
                values = dequantize_4bit(child.weight.data, child.weight.quant_state).float()
                plain = torch.nn.Linear(child.in_features, child.out_features, bias=False)
                plain.weight = torch.nn.Parameter(values.reshape(plain.weight.shape), requires_grad=False)
                setattr(parent, name, plain)
    return model


def adapted(model):
    config = LoraConfig(task_type="CAUSAL_LM", bias="none", r=CURVE["r"], lora_alpha=CURVE["alpha"], target_modules="all-linear")
    peft = get_peft_model(model, config)
    with torch.no_grad():
        for name, p in peft.named_parameters():
            if p.requires_grad:
                name = tiny.disk_name(name)
                scale = philox.scale_of(STD["lora_A" if ".lora_A." in name else "lora_B"])
                p.copy_(torch.from_numpy(philox.draw(CURVE["seed"], name, tuple(p.shape), 0.0, scale)))
    return peft.train()


def train(peft, documents, plan):
    named = {tiny.disk_name(n): p for n, p in peft.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(named.values(), lr=CURVE["learning_rate"], betas=tuple(CURVE["betas"]), eps=CURVE["eps"],
                                  weight_decay=CURVE["weight_decay"])
    schedule = transformers.get_scheduler(CURVE["schedule"], optimizer, num_warmup_steps=CURVE["warmup_steps"],
                                          num_training_steps=CURVE["steps"])
    rows = []
    for micro_batches in plan:
        trained = tiny.trained_in([documents[d] for m in micro_batches for d in m])
        loss = 0.0
        for micro in micro_batches:
            part = sum(tiny.loss_of(peft, *documents[d], trained) for d in micro)
            part.backward()
            loss += float(part.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(named.values(), CURVE["max_grad_norm"]))
        rows.append({"loss": loss, "grad_norm": norm})
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return rows, {n: p.detach().float().contiguous() for n, p in named.items() if any(module in n for module in SHOWN)}


def make(out, write_json):
    first, lengths = CURVE["first_document"], CURVE["document_lengths"]
    documents = [tiny.document(quantised.MODEL, first + i, n) for i, n in enumerate(lengths)]
    plan = [[[(3 * s) % 5], [(3 * s + 1) % 5, (3 * s + 2) % 5]] for s in range(CURVE["steps"])]
    curves, tensors = {}, {}
    for layout in CURVE["layouts"]:
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            plain = lambda: adapted(dequantised(open_model(out / "quantised" / layout), dtype))
            peft = plain() if dtype == torch.bfloat16 else adapted(open_model(out / "quantised" / layout))
            assert sum(isinstance(m, Linear4bit) for m in peft.modules()) == (0 if dtype == torch.bfloat16 else 7)
            rows, _ = train(peft, documents, plan)
            exact, last = train(tiny.in_double(plain()), documents, plan)
            tensors |= {f"{layout}/{name}/{n}": t for n, t in last.items()}
            worst = {f"worst_{key}_error_fp32_vs_fp64": max(abs(a[key] / b[key] - 1) for a, b in zip(rows, exact)) for key in rows[0]}
            curves.setdefault(layout, {})[name] = {"fp32": rows, "fp64": exact} | worst
    save_file(tensors, out / "quantised_curve.safetensors", metadata={"format": "pt"})
    write_json("quantised_curve.json", CURVE | {
        "std": STD,
        "documents": [{"document": first + i, "tokens": t, "labels": l} for i, (t, l) in enumerate(documents)],
        "plan": plan,
        "curves": curves,
    })
