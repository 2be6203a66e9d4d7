"""Writes tests/refs/sched.json: learning rates of transformers.get_scheduler, and loss scales after overflows.

    python tools/refs/sched.py [OUT]        needs torch, transformers

"lr": cases {form, peak, warmup, total, <options>, lr[total + 1]}: lr[i] is what the step after i accepted ones uses.
"warmup": {steps, ratio, total, expect}, by the rule of TrainingArguments.get_warmup_steps.
"scale": {window, hysteresis, floor, start, overflow[], scale[]}: the scale after each step, by DeepSpeed's bookkeeping
(an iteration counter, the iteration of the last overflow, a store of hysteresis that a doubling refills).
"""
import json
import math
import random
import sys

import torch
from transformers import get_scheduler


def lr_case(form, peak, warmup, total, options, ours):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = get_scheduler(form, optimizer, num_warmup_steps=warmup, num_training_steps=total,
                              scheduler_specific_kwargs=options)
    rates = []
    for _ in range(total + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return dict(form=form, peak=peak, warmup=warmup, total=total, lr=rates, **ours)


def lr_cases():
    for peak, warmup, total in ((9.65e-6, 100, 260), (5e-4, 0, 40), (1e-3, 7, 53), (5e-8, 3, 20), (1e-5, 5, 6)):
        for form in ("linear", "cosine", "constant_with_warmup"):
            yield lr_case(form, peak, warmup, total, {}, {})
        yield lr_case("constant", peak, 0, total, {}, {})
        for cycles in (1, 3):
            yield lr_case("cosine_with_restarts", peak, warmup, total, dict(num_cycles=cycles), dict(cycles=cycles))
        for power in (1.0, 2.5):
            if peak > 1e-7:     # transformers refuses a peak below its end
                yield lr_case("polynomial", peak, warmup, total, dict(power=power), dict(power=power))
        for ratio in (0.1, 0.0):
            yield lr_case("cosine_with_min_lr", peak, warmup, total, dict(min_lr_rate=ratio), dict(min_lr_ratio=ratio))


def warmup_cases():
    cases = (10, 0.5, 100), (0, 0.03, 100), (0, 0.07, 100), (0, 0.1, 96), (0, 0.0, 50), (0, 1.0, 7), (0, 0.001, 30)
    for steps, ratio, total in cases:
        expect = steps if steps > 0 else math.ceil(total * ratio)
        yield dict(steps=steps, ratio=ratio, total=total, expect=expect)


def scale_case(window, hysteresis, floor, start, overflow):
    scale, store, last, scales = start, hysteresis, -1, []
    for i, bad in enumerate(overflow):
        if bad:
            if hysteresis == 1 or store == 1:
                scale = max(scale / 2, floor)
            else:
                store -= 1
            last = i
        elif (i - last) % window == 0:
            store, scale = hysteresis, scale * 2
        scales.append(scale)
    return dict(window=window, hysteresis=hysteresis, floor=floor, start=start, overflow=overflow, scale=scales)


def main(out):
    draw = random.Random(7)
    flips = lambda n, p: [int(draw.random() < p) for _ in range(n)]
    cases = dict(lr=list(lr_cases()), warmup=list(warmup_cases()),
                 scale=[scale_case(100, 2, 1.0, 65536.0, flips(1000, 0.01)),
                        scale_case(4, 2, 1.0, 64.0, flips(300, 0.2)), scale_case(3, 1, 1.0, 8.0, flips(200, 0.4)),
                        scale_case(5, 3, 0.5, 4.0, [1] * 20 + [0] * 30)])
    with open(out, "w") as f:
        json.dump(cases, f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tests/refs/sched.json")
