"""Does transformers load what `drover quantize MODEL DIR` wrote, and does it mean MODEL?

NF4: the weights are those that bitsandbytes makes of MODEL itself, but for a few absmax codes: its CPU kernel does not always take
the nearest level. fp8: where all blocks are whole, transformers dequantises them to code · scale on a CPU.
With --as: DIR is any directory in fp8 or NF4, and DENSE holds in plain numbers what Drover reads of it; does transformers read the same
bits?
Usage: quantised_reads.py MODEL DIR
       quantised_reads.py --as DENSE DIR
"""

import json
import sys
import tempfile
from pathlib import Path

import bitsandbytes
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

BLOCK = 128
NEAR = 1e-6  # of the largest absmax


def tensors_of(directory):
    return {name: tensor for file in sorted(Path(directory).glob("*.safetensors")) for name, tensor in load_file(file).items()}


def distances(name, dense, stored):
    """Of each absmax from the level that stands for it."""
    weight = name.removesuffix(".absmax")
    offset = json.loads(bytes(stored[weight + ".quant_state.bitsandbytes__nf4"].numpy()))["nested_offset"]
    absmax = dense[weight].float().reshape(-1, 64).abs().amax(1)
    largest = stored[weight + ".nested_absmax"].repeat_interleave(256)[: len(absmax)]
    return ((absmax - offset) / largest - stored[weight + ".nested_quant_map"][stored[name].int()]).abs()


def check_fp8(model, ours):
    linears = 0
    for name, weight in model.state_dict().items():
        if name + "_scale_inv" not in ours:
            continue
        scale = ours[name + "_scale_inv"].repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
        assert torch.equal((ours[name].float() * scale).to(weight.dtype), weight), name
        linears += 1
    return linears


def check_nf4(model, ours, source):
    linears = [name for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    with tempfile.TemporaryDirectory() as scratch:
        AutoModelForCausalLM.from_pretrained(source, quantization_config=config, device_map="cpu").save_pretrained(scratch)
        theirs = tensors_of(scratch)
    dense = tensors_of(source)
    assert set(ours) == set(theirs), sorted(set(ours) ^ set(theirs))
    for name, tensor in ours.items():
        if name.endswith(".quant_state.bitsandbytes__nf4"):
            assert json.loads(bytes(tensor.numpy())) == json.loads(bytes(theirs[name].numpy())), name
        elif name.endswith(".weight.absmax"):
            assert torch.all(distances(name, dense, ours) <= distances(name, dense, theirs) + NEAR), name
        else:
            assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name
    return len(linears)


def dense_linears(model):
    """What transformers computes with, by name."""
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            yield name + ".weight", bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
        elif isinstance(module, torch.nn.Linear) and name != "lm_head":
            yield name + ".weight", module.weight.data


def check_as(model, dense):
    linears = 0
    for name, weight in dense_linears(model):
        assert weight.dtype == dense[name].dtype and torch.equal(weight, dense[name]), name
        linears += 1
    return linears


def main(*arguments):
    as_dense = arguments[0] == "--as"
    source, directory = arguments[1:] if as_dense else arguments
    transformers.utils.logging.set_verbosity_error()
    ours = tensors_of(directory)
    method = json.loads((Path(directory) / "config.json").read_text())["quantization_config"]["quant_method"]
    model, said = AutoModelForCausalLM.from_pretrained(directory, device_map="cpu", output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"], said
    if as_dense:
        linears = check_as(model, tensors_of(source))
    else:
        linears = check_fp8(model, ours) if method == "fp8" else check_nf4(model, ours, source)
    assert linears == 7 * model.config.num_hidden_layers, linears
    print(f"{linears} linears, {method}: as transformers reads them")


main(*sys.argv[1:])
