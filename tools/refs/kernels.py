#!/usr/bin/env python3
"""Writes tests/refs/kernels_*.json: inputs and results of every kernel, computed by PyTorch in float64.

Inputs are exact in bf16, so that one reference serves both dtypes. Run from the repository root; needs torch and numpy only.
"""
import json
import math

import numpy as np
import torch
import torch.nn.functional as F


def rand(*shape, scale=1.0):
    """Normal numbers that bf16 holds exactly, as float64."""
    return (torch.randn(*shape) * scale).bfloat16().double()


def flat(x):
    """A tensor as a list of numbers with the nine digits that fix a float32."""
    if isinstance(x, (bool, int, str)):
        return x
    if isinstance(x, float):
        return x
    if not x.dtype.is_floating_point:
        return x.flatten().tolist()
    return [float("%.9g" % v) for v in x.detach().flatten().tolist()]


def write(name, cases):
    with open(f"tests/refs/kernels_{name}.json", "w") as f:
        json.dump([{k: flat(v) for k, v in c.items()} for c in cases], f, separators=(",", ":"))
        f.write("\n")


def grads(y, dy, *inputs):
    return torch.autograd.grad((y * dy).sum(), inputs)


def embed():
    cases = []
    for n, width, rows in [(5, 7, 4), (6, 16, 9), (9, 37, 3)]:
        table, pos_table, dy = rand(rows, width), rand(12, width), rand(n, width)
        ids, pos = torch.randint(rows, (n,)), torch.randint(10, (n,))
        t = table.clone().requires_grad_()
        p = pos_table.clone().requires_grad_()
        y = t[ids] + p[pos + 2]
        dt, dp = grads(y, dy, t, p)
        cases.append(dict(n=n, width=width, rows=rows, offset=2, table=table, pos_table=pos_table, ids=ids, pos=pos, dy=dy, y=y,
                          y_plain=table[ids], dtable=dt, dpos=dp))
    write("embed", cases)


def norm():
    cases = []
    for kind, n, width in [("ln", 3, 7), ("ln", 5, 64), ("ln", 2, 575), ("rms", 3, 7), ("rms", 5, 64), ("rms", 4, 576)]:
        x = (rand(n, width) + 0.5).bfloat16().double().requires_grad_()
        w, b, dy = rand(width).requires_grad_(), rand(width).requires_grad_(), rand(n, width)
        eps = 1e-5
        mean = x.mean(1) if kind == "ln" else torch.zeros(n)
        rstd = ((x - mean[:, None]) ** 2).mean(1).add(eps).rsqrt()
        y = F.layer_norm(x, (width,), w, b, eps) if kind == "ln" else F.rms_norm(x, (width,), w, eps)
        dx, dw = grads(y, dy, x, w)
        db = dy.sum(0)
        cases.append(dict(kind=kind, n=n, width=width, eps=eps, x=x, w=w, b=b, dy=dy, y=y, stats=torch.stack([mean, rstd], 1), dx=dx,
                          dw=dw, db=db))
    for n, heads, dim in [(3, 2, 20), (5, 3, 64)]:
        x, w, dy = rand(n, heads, dim).requires_grad_(), rand(dim).requires_grad_(), rand(n, heads, dim)
        y = F.rms_norm(x, (dim,), w, 1e-6)
        dx, dw = grads(y, dy, x, w)
        cases.append(dict(kind="head", n=n, heads=heads, width=dim, eps=1e-6, x=x, w=w, dy=dy, y=y, dx=dx, dw=dw,
                          stats=(x**2).mean(2).add(1e-6).rsqrt()))
    write("norm", cases)


def linear():
    cases = []
    for m, out, inp in [(1, 1, 1), (3, 7, 5), (17, 40, 33), (5, 33, 100), (30, 65, 48)]:
        x, w, b, dy = rand(m, inp), rand(out, inp, scale=0.2), rand(out), rand(m, out)
        cases.append(dict(m=m, out=out, inp=inp, x=x, w=w, b=b, dy=dy, y=x @ w.T + b, y_plain=x @ w.T, dx=dy @ w, dw=dy.T @ x, db=dy.sum(0)))
    write("linear", cases)


def rope():
    cases = []
    for n, heads, dim, rot in [(4, 2, 20, 8), (6, 3, 64, 64), (3, 1, 40, 34)]:
        x, pos = rand(n, heads, dim), torch.randint(50, (n,))
        freq = 10000.0 ** (-torch.arange(rot // 2) * 2.0 / rot)
        angle = torch.arange(50)[:, None] * freq
        c, s = angle.cos()[pos][:, None], angle.sin()[pos][:, None]
        a, b = x[..., : rot // 2], x[..., rot // 2 : rot]
        y = torch.cat([a * c - b * s, b * c + a * s, x[..., rot:]], -1)
        cases.append(dict(n=n, heads=heads, dim=dim, rot=rot, x=x, pos=pos, y=y, table=torch.cat([angle.cos(), angle.sin()], 1)))
    write("rope", cases)


def attention():
    cases = []
    shapes = [  # lengths, q heads, kv heads, dim, window, alibi
        ([1, 5, 3], 2, 2, 8, 0, False),
        ([37, 2], 4, 2, 20, 0, False),
        ([21], 3, 1, 64, 0, False),
        ([50, 7], 2, 1, 16, 9, False),
        ([35, 6], 4, 4, 12, 0, True),
        ([70], 2, 2, 4, 33, True),
    ]
    for lens, hq, hk, dim, window, alibi in shapes:
        n = sum(lens)
        q, k, v = (rand(n, h, dim).requires_grad_() for h in (hq, hk, hk))
        do = rand(n, hq, dim)
        slopes = torch.tensor([2.0 ** -(h + 1) for h in range(hq)])
        outs, lses, start = [], [], 0
        for length in lens:
            rows = slice(start, start + length)
            qq, kk, vv = (t[rows].transpose(0, 1) for t in (q, k, v))
            kk, vv = kk.repeat_interleave(hq // hk, 0), vv.repeat_interleave(hq // hk, 0)
            s = qq @ kk.transpose(1, 2) / math.sqrt(dim)
            i, j = torch.arange(length)[:, None], torch.arange(length)[None]
            if alibi:
                s = s + slopes[:, None, None] * (j - i)
            hidden = (j > i) | ((j <= i - window) if window else torch.zeros(length, length, dtype=torch.bool))
            s = s.masked_fill(hidden, -math.inf)
            outs.append((s.softmax(-1) @ vv).transpose(0, 1))
            lses.append(s.logsumexp(-1))
            start += length
        o = torch.cat(outs)
        dq, dk, dv = grads(o, do, q, k, v)
        cases.append(dict(starts=torch.tensor([0] + list(np.cumsum(lens))), heads=hq, kv_heads=hk, dim=dim, window=window, alibi=alibi,
                          scale=1 / math.sqrt(dim), slopes=slopes, q=q, k=k, v=v, do=do, o=o, lse=torch.cat(lses, 1), dq=dq, dk=dk, dv=dv))
    write("attn", cases)


def act():
    cases = []
    fns = dict(relu=F.relu, gelu=F.gelu, gelu_tanh=lambda x: F.gelu(x, approximate="tanh"), silu=F.silu)
    for name, fn in fns.items():
        x = torch.cat([rand(60, scale=3.0), torch.tensor([0.0, -20.0, 20.0, -90.0, 90.0, 0.001, -0.001])]).bfloat16().double().requires_grad_()
        dy = rand(x.numel())
        y = fn(x)
        cases.append(dict(act=name, n=x.numel(), x=x, dy=dy, y=y, dx=grads(y, dy, x)[0]))
        n, ffn = 3, 21
        g = rand(n, 2 * ffn, scale=2.0).requires_grad_()
        dg = rand(n, ffn)
        y = fn(g[:, :ffn]) * g[:, ffn:]
        cases.append(dict(act=name, glu=True, n=n, ffn=ffn, x=g, dy=dg, y=y, dx=grads(y, dg, g)[0]))
    write("act", cases)


def logprob():
    cases = []
    for n, vocab, valid, inv_t, scale in [(4, 50, 47, 1.0, 1.0), (3, 9, 9, 1.0, 8.0), (5, 2100, 2099, 1.25, 3.0)]:
        x = rand(n, vocab, scale=scale).requires_grad_()
        target = torch.randint(valid, (n,))
        target[0] = valid - 1
        lp = F.log_softmax(x[:, :valid] * inv_t, 1)
        logp = lp.gather(1, target[:, None])[:, 0]
        h = -(lp.exp() * lp).sum(1)
        dlogp, dh = rand(n), rand(n)
        d1 = torch.autograd.grad((logp * dlogp).sum(), x, retain_graph=True)[0]
        d2 = torch.autograd.grad((logp * dlogp + h * dh).sum(), x)[0]
        cases.append(dict(n=n, vocab=vocab, valid=valid, inv_t=inv_t, x=x, target=target, logp=logp, lse=(x[:, :valid] * inv_t).logsumexp(1),
                          entropy=h, dlogp=dlogp, dentropy=dh, dlogits=d1, dlogits_entropy=d2))
    write("logprob", cases)


def adamw():
    n, steps, lr, wd = 37, 6, 1e-3, 0.1
    w = torch.nn.Parameter(rand(n))
    opt = torch.optim.AdamW([w], lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=wd)
    case = dict(n=n, steps=steps, lr=lr, wd=wd, beta1=0.9, beta2=0.95, eps=1e-8, scale=0.5, w=w.detach().clone())
    g = rand(steps, n)
    for s in range(steps):
        w.grad = g[s] * 0.5
        opt.step()
    state = opt.state[w]
    write("adamw", [dict(case, g=g, w_end=w, m_end=state["exp_avg"], v_end=state["exp_avg_sq"])])


# transformers imports what is called "kernels", which from the scripts beside this one is this file: it must leave torch alone.
if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(20240607)
    for make in (embed, norm, linear, rope, attention, act, logprob, adamw):
        make()
