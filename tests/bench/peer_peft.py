"""The same step in transformers + PEFT: base in bf16 or fp32, adapters fp32, AdamW. Usage: peer_peft.py MODEL ROWS
LENGTH STEPS bf16|fp32"""

import resource
import statistics
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

model_path, rows, length, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
dtype = sys.argv[5]
torch.set_num_threads(2)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(model_path, dtype={"bf16": torch.bfloat16, "fp32": torch.float32}[dtype])
targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM"))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
times = []
for step in range(steps + 1):
    ids = torch.randint(0, 49152, (rows, length))
    begin = time.time()
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    times.append(time.time() - begin)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(
    f"peft   {dtype}  {f'{rows}x{length}':>7}  "
    f"{rows * length / statistics.median(times[1:]):8.1f} tok/s  {peak:6.2f} GiB",
    flush=True,
)
