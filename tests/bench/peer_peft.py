"""The same step in transformers + PEFT: LoRA r 16 on all seven linears, adapters in fp32, AdamW, SDPA. The frozen model
is in bf16 or fp32; with autocast it is fp32 and computes in bf16. A line of JSON. Usage:
  peer_peft.py MODEL ROWS.jsonl THREADS STEPS fp32|bf16|autocast eager|compiled

Every step has all rows of the file ({"input_ids"}, all of one length). Speed is the median of the steps behind the
first; with `compiled` behind the second, since the first ones compile."""

import json
import pathlib
import resource
import statistics
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

model_path, file, (threads, steps) = sys.argv[1], pathlib.Path(sys.argv[2]), map(int, sys.argv[3:5])
dtype, mode = sys.argv[5:7]
torch.set_num_threads(threads)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(
    model_path, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32, attn_implementation="sdpa"
)
model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=TARGETS, task_type="CAUSAL_LM"))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
ids = torch.tensor([json.loads(line)["input_ids"] for line in file.read_text().splitlines()])
if mode == "compiled":  # layer by layer: they share what is compiled once
    for layer in model.get_base_model().model.layers:
        layer.compile()
warm_up = 2 if mode == "compiled" else 1
times, losses = [], []
for step in range(warm_up + steps):
    begin = time.time()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "autocast"):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(loss.item())
    times.append(time.time() - begin)
print(
    json.dumps(
        {
            "tokens_per_second": ids.numel() / statistics.median(times[warm_up:]),
            "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "loss": losses[0],
            "torch": torch.__version__,
        }
    )
)
