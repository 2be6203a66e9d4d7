"""Writes tests/refs/adamw.json: 20 steps of torch.optim.AdamW with clipping and transformers' cosine schedule.

usage: python3 tools/refs/adamw.py [OUT]     needs torch, transformers
The parameters are the tensors of tests/unit/test_optim.c's model in order; weights and gradients are formulas of the element's number.
"""
import json
import math
import sys

import torch
import transformers

# (elements, decay) of each tensor, in the order of arch/weights.h
TENSORS = [(20, True), (4, False), (16, True), (16, True), (16, True), (16, True), (4, False), (24, True), (24, True),
           (24, True), (4, False)]
STEPS, WARMUP, LR, DECAY, CLIP = 20, 5, 3e-2, 0.1, 1.0

params, first = [], 0
for count, decay in TENSORS:
    params.append((torch.nn.Parameter(torch.tensor([math.cos(0.3 * (first + i)) for i in range(count)])), decay, first))
    first += count
opt = torch.optim.AdamW([{"params": [p for p, d, _ in params if d], "weight_decay": DECAY},
                         {"params": [p for p, d, _ in params if not d], "weight_decay": 0.0}],
                        lr=LR, betas=(0.9, 0.95), eps=1e-8)
sched = transformers.get_scheduler("cosine", opt, num_warmup_steps=WARMUP, num_training_steps=STEPS)
norms, rates = [], []
for t in range(STEPS):
    for p, _, at in params:
        p.grad = torch.tensor([0.5 * (1 + t % 3) * math.sin(0.7 * (at + i) + 1.3 * t) for i in range(p.numel())])
        if t == 7:
            p.grad *= 1e-3  # one step below the clip
    norms.append(float(torch.nn.utils.clip_grad_norm_([p for p, _, _ in params], CLIP)))
    rates.append(opt.param_groups[0]["lr"])
    opt.step()
    sched.step()
out = {"norms": norms, "rates": rates, "weights": [float(f"{x:.9g}") for p, _, _ in params for x in p.tolist()]}
with open(sys.argv[1] if len(sys.argv) > 1 else "tests/refs/adamw.json", "w") as f:
    json.dump(out, f)
