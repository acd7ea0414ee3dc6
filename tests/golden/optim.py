"""torch's AdamW on a tiny vector and transformers' learning rates."""
import torch
import transformers


def adamw(dtype):
    p = torch.nn.Parameter(torch.tensor([0.5, -1.25, 3.0, 1e-3, -0.75], dtype=dtype))
    settings = {"learning_rate": 0.01, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.1}
    optimizer = torch.optim.AdamW([p], lr=settings["learning_rate"], betas=tuple(settings["betas"]), eps=settings["eps"],
                                  weight_decay=settings["weight_decay"], foreach=False, fused=False)
    gradients = [[0.25, -0.5, 1e-6, 2.0, 0.0], [-0.125, -0.5, 1e-6, 2.0, 0.0], [0.75, 0.25, -3e-6, -1.5, 0.0],
                 [0.0, 4.0, 1e-9, 0.5, 0.0], [0.3125, -0.0625, 0.0, 1e3, 0.0]]
    start, rows = p.tolist(), []
    for g in gradients:
        p.grad = torch.tensor(g, dtype=dtype)
        optimizer.step()
        state = optimizer.state[p]
        rows.append({"gradient": g, "value": p.tolist(), "first_moment": state["exp_avg"].tolist(),
                     "second_moment": state["exp_avg_sq"].tolist()})
    return settings | {"start": start, "steps": rows}


def rates(schedule, warmup, steps=20, learning_rate=2e-3):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=learning_rate)
    scheduler = transformers.get_scheduler(schedule, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    values = []
    for _ in range(steps):
        values.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return {"schedule": schedule, "warmup_steps": warmup, "steps": steps, "learning_rate": learning_rate, "values": values}


def make(write_json):
    kinds = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
    schedules = []
    for name, kind in kinds.items():
        for warmup in (0, 1, 3):
            schedules.append(rates(kind, warmup) | {"schedule": name, "transformers_name": kind})
    write_json("optim.json", {"adamw": {"fp32": adamw(torch.float32), "fp64": adamw(torch.float64)}, "schedules": schedules})
