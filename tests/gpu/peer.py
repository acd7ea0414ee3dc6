"""PyTorch + PEFT on a model of the same shape: LoRA r 16 on all seven linears, bf16 by autocast as Hugging Face's
Trainer runs it, SDPA, AdamW, clipping, a new batch every step. Where PEFT is missing, the same adapters by hand.
`compiled`: each decoder layer, and the head with its loss, by torch.compile. Prints a line of JSON with every step's
seconds.
Usage: peer.py speed MODEL ROWS LENGTH STEPS eager|compiled
       peer.py gradients MODEL ADAPTER IDS_JSON fp64|fp32|bf16 OUT.safetensors
           (the loss and the adapter's gradients of one batch)
       peer.py models OUT [NAME…]
           (writes the made-up models that tests/gpu/run needs)"""

import json
import pathlib
import statistics
import sys
import time

import torch
from torch import nn

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Lora(nn.Module):
    """y = base(x) + (alpha / r)·x·Aᵀ·Bᵀ, as PEFT computes it under bf16: fp32 adapters, x cast to them."""

    def __init__(self, base, r, alpha, dtype=torch.float32):
        super().__init__()
        self.base, self.scale = base, alpha / r
        device = base.weight.device
        self.lora_A = nn.Linear(base.in_features, r, bias=False, device=device, dtype=dtype)
        self.lora_B = nn.Linear(r, base.out_features, bias=False, device=device, dtype=dtype)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x):
        return self.base(x) + (self.lora_B(self.lora_A(x.to(self.lora_A.weight.dtype))) * self.scale).to(x.dtype)


def adapted(model, r, alpha, by_hand=False, dtype=torch.float32):
    if not by_hand:
        try:
            from peft import LoraConfig, get_peft_model

            return (
                get_peft_model(model, LoraConfig(r=r, lora_alpha=alpha, target_modules=TARGETS, task_type="CAUSAL_LM")),
                "peft",
            )
        except ImportError:
            pass
    for p in model.parameters():
        p.requires_grad_(False)
    for layer in model.model.layers:
        for block in (layer.self_attn, layer.mlp):
            for name, module in list(block.named_children()):
                if name in TARGETS:
                    setattr(block, name, Lora(module, r, alpha, dtype))
    return model, "by hand"


def load(path, dtype):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="sdpa").to(DEVICE)


def synchronise():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def made_up(path, dtype):
    """The directory's model with weights drawn where it runs: a speed does not need the files' own."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device(DEVICE):
        return AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(path), dtype=dtype, attn_implementation="sdpa"
        )


def head_loss(hidden, weight, labels):
    logits = nn.functional.linear(hidden, weight)
    return nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten())


def speed(path, rows, length, steps, mode):
    rows, length, steps = int(rows), int(length), int(steps)
    torch.manual_seed(0)
    begun = time.perf_counter()
    say = lambda what: print(f"{time.perf_counter() - begun:6.1f} s  {what}", file=sys.stderr, flush=True)
    model, how = adapted(made_up(path, torch.bfloat16), 16, 32)
    say(f"model made, adapters {how}")
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, fused=DEVICE == "cuda")
    causal = model.get_base_model() if how == "peft" else model
    loss_of = head_loss
    if mode == "compiled":
        for layer in causal.model.layers:
            layer.compile()
        loss_of = torch.compile(head_loss)
    seconds, value = [], None
    for step in range(steps + 5):
        ids = torch.randint(0, model.config.vocab_size, (rows, length)).to(DEVICE)
        synchronise()
        begin = time.perf_counter()
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = loss_of(causal.model(input_ids=ids, use_cache=False).last_hidden_state, causal.lm_head.weight, ids)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        synchronise()
        if step >= 5:
            seconds.append(time.perf_counter() - begin)
        else:
            say(f"step {step + 1}, loss {value:.4f}")
    peak = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 0
    print(
        json.dumps(
            {
                "adapters": how,
                "mode": mode,
                "torch": torch.__version__,
                "rows": rows,
                "length": length,
                "loss": value,
                "peak_bytes": peak,
                "step_seconds": seconds,
                "tokens_per_second": rows * length / statistics.median(seconds),
            }
        )
    )


def gradients(path, adapter, ids, dtype, out):
    """In bf16 the adapters are fp32, as PEFT keeps them."""
    from safetensors.torch import load_file, save_file

    exact = dtype == "fp64"
    config = json.loads((pathlib.Path(adapter) / "adapter_config.json").read_text())
    model, _ = adapted(
        load(path, {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16}[dtype]),
        config["r"],
        config["lora_alpha"],
        by_hand=True,
        dtype=torch.float64 if exact else torch.float32,
    )
    parameters = {f"base_model.model.{n}": p for n, p in model.named_parameters() if "lora_" in n}
    stored = load_file(pathlib.Path(adapter) / "adapter_model.safetensors")
    assert stored.keys() == parameters.keys(), sorted(stored.keys() ^ parameters.keys())[:4]
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(stored[name])
    documents = [torch.tensor([d], device=DEVICE) for d in json.loads(pathlib.Path(ids).read_text())]
    count = sum(d.shape[1] - 1 for d in documents)
    total = 0.0
    for d in documents:
        logits = model(input_ids=d, use_cache=False).logits
        loss = (
            nn.functional.cross_entropy(
                logits[0, :-1].to(torch.float64 if exact else torch.float32), d[0, 1:], reduction="sum"
            )
            / count
        )
        loss.backward()
        total += loss.item()
    save_file({n: p.grad.to(torch.float32).cpu().contiguous() for n, p in parameters.items()}, out)
    print(json.dumps({"loss": total}))


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "max_position_embeddings": 131072,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}
# hidden, heads, kv_heads, head_dim, ffn, layers, vocabulary
SHAPES = {
    "8b": (4096, 32, 8, 128, 14336, 32, 128256),
    "8b-2-layers": (4096, 32, 8, 128, 14336, 2, 128256),
    "70b-8-layers": (8192, 64, 8, 128, 28672, 8, 128256),
    "405b-tp8-shard": (16384, 16, 1, 128, 6656, 1, 16032),
    "tiny": (64, 4, 2, 16, 96, 2, 300),
}


def models(out, *names):
    """Weights drawn on the device as an initialised model has them, written as sharded safetensors with an index: a
    layer a file."""
    from safetensors.torch import save_file

    for name in names or SHAPES:
        hidden, heads, kv, head_dim, ffn, layers, vocabulary = SHAPES[name]
        folder = pathlib.Path(out) / name
        folder.mkdir(parents=True, exist_ok=True)
        config = dict(
            LLAMA,
            hidden_size=hidden,
            num_attention_heads=heads,
            num_key_value_heads=kv,
            head_dim=head_dim,
            intermediate_size=ffn,
            num_hidden_layers=layers,
            vocab_size=vocabulary,
        )
        (folder / "config.json").write_text(json.dumps(config))
        generator = torch.Generator(DEVICE).manual_seed(1)
        draw = (
            lambda *shape: (torch.randn(*shape, generator=generator, device=DEVICE, dtype=torch.float32) * 0.02)
            .to(torch.bfloat16)
            .cpu()
        )
        one = lambda n: torch.ones(n, dtype=torch.bfloat16)
        index, total = {}, 0

        def save(file, tensors):
            nonlocal total
            save_file(tensors, folder / file, metadata={"format": "pt"})
            index.update({n: file for n in tensors})
            total += sum(t.numel() * 2 for t in tensors.values())

        for i in range(layers):
            p = f"model.layers.{i}."
            save(
                f"layer-{i:03d}.safetensors",
                {
                    p + "self_attn.q_proj.weight": draw(heads * head_dim, hidden),
                    p + "self_attn.k_proj.weight": draw(kv * head_dim, hidden),
                    p + "self_attn.v_proj.weight": draw(kv * head_dim, hidden),
                    p + "self_attn.o_proj.weight": draw(hidden, heads * head_dim),
                    p + "mlp.gate_proj.weight": draw(ffn, hidden),
                    p + "mlp.up_proj.weight": draw(ffn, hidden),
                    p + "mlp.down_proj.weight": draw(hidden, ffn),
                    p + "input_layernorm.weight": one(hidden),
                    p + "post_attention_layernorm.weight": one(hidden),
                },
            )
        save(
            "ends.safetensors",
            {
                "model.embed_tokens.weight": draw(vocabulary, hidden),
                "lm_head.weight": draw(vocabulary, hidden),
                "model.norm.weight": one(hidden),
            },
        )
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": total}, "weight_map": index})
        )


if __name__ == "__main__":
    {"speed": speed, "gradients": gradients, "models": models}[sys.argv[1]](*sys.argv[2:])
