"""peft_reads.py MODEL_DIR ADAPTER_DIR|- EXPECTED.json: opens a model directory and an adapter with transformers and PEFT, prints logits as JSON.

EXPECTED: {"ids": [...], "positions": [...] (default: the last), "dtype": "fp32"|"bf16"|"fp64" (default fp32),
           "logits": [[...] per position] (optional), "tolerance": 1e-4 (absolute)}. Exit 1 where the given logits differ by more,
where the adapter has a tensor that PEFT does not use, or where it leaves the logits as they are.
"""
import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}


def main():
    model_dir, adapter_dir, expected_file = sys.argv[1:4]
    expected = json.loads(Path(expected_file).read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=DTYPES[expected.get("dtype", "fp32")], attn_implementation="eager").eval()
    ids = torch.tensor([expected["ids"]])
    positions = expected.get("positions", [len(expected["ids"]) - 1])
    answer, problems = {"ids": expected["ids"], "positions": positions}, []
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0][positions].float()
        if adapter_dir != "-":
            plain = logits
            model = PeftModel.from_pretrained(model, adapter_dir).eval()
            used = {n.replace(".default", "") for n, _ in model.named_parameters() if ".lora_" in n}
            with safe_open(Path(adapter_dir) / "adapter_model.safetensors", "pt") as file:
                stored = set(file.keys())
            if used != stored:
                problems.append(f"the adapter's tensors are not those that PEFT expects: {sorted(used ^ stored)[:6]}")
            logits = model(input_ids=ids, use_cache=False).logits[0][positions].float()
            answer["moves_logits_by"] = float((logits - plain).abs().max())
            if answer["moves_logits_by"] == 0:
                problems.append("the adapter does not change the logits")
    answer["logits"] = logits.tolist()
    if "logits" in expected:
        answer["max_abs_difference"] = float((logits - torch.tensor(expected["logits"])).abs().max())
        if not answer["max_abs_difference"] <= expected.get("tolerance", 1e-4):
            problems.append(f"logits differ by {answer['max_abs_difference']:.3g}")
    answer["problems"] = problems
    print(json.dumps(answer))
    sys.exit(1 if problems else 0)


main()
