"""Writes tests/refs/loss.json: random cases of every formula in src/loss and what PyTorch computes for them.

    python tools/refs/loss.py [OUT]        needs torch, numpy

Inputs are fp32 numbers; the arithmetic is fp64 and gradients come from autograd of  scale * sum(losses). The formulas
are written here the padded, batched way (masks, gathers, discount matrices), not as loops over packed rows. OUT is one
object: lists of cases under "lm", "pair", "actor", "critic", "gae", "kl", "control", "interval".
"""
import json
import math
import sys

import numpy
import torch
import torch.nn.functional as F

G = torch.Generator().manual_seed(20261)
FP = torch.float64


def normal(*shape, scale=1.0, shift=0.0):
    return (torch.randn(*shape, generator=G) * scale + shift).float()


def pick(n):
    return int(torch.randint(n, (1,), generator=G))


def flags(n, p=0.5):
    return (torch.rand(n, generator=G) < p).to(torch.uint8)


def leaf(x):
    return x.to(FP).requires_grad_()


def starts_of(lengths):
    return [0] + torch.tensor(lengths).cumsum(0).tolist()


def plain(x):
    if isinstance(x, torch.Tensor):
        return plain(x.detach().tolist())
    if isinstance(x, list):
        return [plain(v) for v in x]
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    return float("%.17g" % x) if isinstance(x, float) else x


def short(x):  # fp32 survives %.9g
    return [float("%.9g" % v) for v in x.tolist()]


def lm_case(n, weighted):
    logp, weight = normal(n, scale=2, shift=-3), (flags(n, 0.6).float() if weighted else torch.ones(n))
    scale, x = 1 / (3.7 * n), leaf(logp)
    loss = -(x * weight.to(FP)).sum()
    (loss * scale).backward()
    return dict(logp=short(logp), weight=short(weight), weighted=weighted, scale=scale, loss=loss, dlogp=x.grad)


# ---- pairs ----
def pair_rows(kind):
    prompt = 1 + pick(6)
    c, r = 1 + pick(9), 1 + pick(9)
    if kind == "one":
        c = r = 1
    if kind == "long":
        c, r = (3, 60) if pick(2) else (60, 3)
    ids = torch.randint(1, 50, (prompt + max(c, r),), generator=G)
    chosen, rejected = ids[:prompt + c].clone(), ids[:prompt + r].clone()
    if kind == "prefix":      # one row begins with the other
        rejected = chosen[:prompt + max(1, c - 2)].clone() if c > 2 else torch.cat([chosen, ids[:2]])
    elif kind == "equal":
        rejected = chosen.clone()
    elif kind == "late":      # the answers begin alike
        c = min(len(chosen), len(rejected))
        rejected[c - 1] += 50
    else:
        rejected[prompt:] = torch.randint(51, 99, (len(rejected) - prompt,), generator=G)
    return chosen, rejected


def pair_case(form, margin, center, kinds, spread):
    rows = [row for kind in kinds for row in pair_rows(kind)]
    starts = starts_of([len(r) for r in rows])
    values = normal(starts[-1], scale=spread)
    for p, kind in enumerate(kinds):
        if kind == "equal":   # the same tokens have the same scores
            n = len(rows[2 * p])
            values[starts[2 * p + 1]:starts[2 * p + 1] + n] = values[starts[2 * p]:starts[2 * p] + n]
    x, scale = leaf(values), 1 / (1.3 * len(kinds))
    losses, ends = [], []
    for p in range(len(kinds)):
        c, r = rows[2 * p], rows[2 * p + 1]
        e = max(len(c), len(r))
        cp, rp = (F.pad(row, (0, e - len(row)), value=-1) for row in (c, r))
        at = torch.arange(e)
        cv = x[starts[2 * p] + at.clamp(max=len(c) - 1)]
        rv = x[starts[2 * p + 1] + at.clamp(max=len(r) - 1)]
        seen = ((cp != rp).cumsum(0) > 0).to(FP)          # from the first difference on
        if seen.sum() == 0:
            seen[-1] = 1
        if form == "last":
            seen = (at == e - 1).to(FP)
        loss = -(F.logsigmoid(cv - rv - margin) * seen).sum() / seen.sum()
        losses.append(loss + center * (cv[-1] + rv[-1]) ** 2)
        ends.append(torch.stack([cv[-1], rv[-1]]))
    loss, ends = torch.stack(losses).sum(), torch.stack(ends).detach()
    (loss * scale).backward()
    return dict(form=form, margin=margin, center_coef=center, starts=starts, ids=torch.cat(rows),
                values=short(values), scale=scale, loss=loss, dvalues=x.grad,
                right=int((ends[:, 0] > ends[:, 1]).sum()), scores=ends.flatten(),
                mean=ends.mean(), deviation=ends.std(correction=0))


# ---- PPO ----
def actor_case(n, low, high, dual, bonus, drift, masked):
    old = normal(n, shift=-3)
    logp, advantages, entropy = old + normal(n, scale=drift), normal(n), normal(n).abs()
    logp[::5] = old[::5]                                  # ratio exactly 1: both sides of the max are equal
    advantages[3::7] = 0
    mask = flags(n, 0.7) if masked else torch.ones(n, dtype=torch.uint8)
    x, h, a, m, scale = leaf(logp), leaf(entropy), advantages.to(FP), mask.to(FP), 1 / (1.9 * n)
    ratio = (x - old.to(FP)).exp()
    plain_side, clip_side = -a * ratio, -a * ratio.clamp(1 - low, 1 + high)
    each = torch.max(plain_side, clip_side)
    if dual > 0:
        each = torch.where(a < 0, torch.min(each, -a * dual), each)
    loss = ((each - bonus * h) * m).sum()
    (loss * scale).backward()
    on = mask.bool()
    return dict(eps_low=low, eps_high=high, dual_clip=dual, entropy_coef=bonus, logp=short(logp),
                entropy=short(entropy), logp_old=short(old), advantages=short(advantages), mask=mask,
                masked=masked, scale=scale, loss=loss, dlogp=x.grad, dentropy=h.grad,
                tokens=int(on.sum()), policy=(each * m).sum(), entropy_sum=(h * m).sum(), ratio=(ratio * m).sum(),
                ratio_max=ratio[on].max(), clipped=int((clip_side > plain_side)[on].sum()),
                kl=((ratio - 1 - ratio.log()) * m).sum())


def critic_case(n, eps, masked):
    old = normal(n)
    values, returns = old + normal(n, scale=0.4), old + normal(n, scale=0.8)
    values[::5] = old[::5]
    old[2::9], values[2::9], returns[2::9] = 0.0, eps + 0.5, eps + 0.25     # |V - R| = |clip(V) - R|: a tie
    mask = flags(n, 0.7) if masked else torch.ones(n, dtype=torch.uint8)
    x, o, r, m, scale = leaf(values), old.to(FP), returns.to(FP), mask.to(FP), 1 / (1.9 * n)
    plain_side, clip_side = (x - r) ** 2, clipped_error(x, o, r, eps)
    loss = (0.5 * torch.max(plain_side, clip_side) * m).sum()
    (loss * scale).backward()
    on = mask.bool()
    error, seen = (r - x)[on].detach(), r[on]
    return dict(eps_value=eps, values=short(values), values_old=short(old), returns=short(returns), mask=mask,
                masked=masked, scale=scale, loss=loss, dvalues=x.grad, tokens=int(on.sum()),
                clipped=int((clip_side > plain_side)[on].sum()),
                explained=1 - error.var(correction=0) / seen.var(correction=0) if len(seen) > 1 else 0.0)


def clipped_error(x, old, target, eps):
    if eps == 0:                                          # no clip: the other side never wins
        return torch.full_like(x, -1.0)
    return (torch.max(torch.min(x, old + eps), old - eps) - target) ** 2


# ---- advantages ----
def gae_case(lengths, gamma, lam, kl_coef, bound, penalty, norm):
    starts, n, answers = starts_of(lengths), sum(lengths), len(lengths)
    kl, values, score = normal(n, scale=0.2), normal(n), normal(answers, scale=4)
    cut, mean, deviation = flags(answers, 0.4), 0.75, 2.5
    s = (score.to(FP) - mean) / deviation if norm else score.to(FP)
    s = s.clamp(-bound, bound) if bound > 0 else s
    s = s - penalty * cut.to(FP)
    rewards = -kl_coef * kl.to(FP)
    rewards[torch.tensor(starts[1:]) - 1] += s
    # The advantages from the rewards as stored (fp32), by the matrix of powers.
    stored, advantages = rewards.float().to(FP), torch.empty(n, dtype=FP)
    for a in range(answers):
        v = values[starts[a]:starts[a + 1]].to(FP)
        delta = stored[starts[a]:starts[a + 1]] + gamma * F.pad(v, (0, 1))[1:] - v
        gap = torch.arange(len(v))[None, :] - torch.arange(len(v))[:, None]
        powers = torch.where(gap >= 0, (gamma * lam) ** gap.clamp(min=0).to(FP), 0.0)
        advantages[starts[a]:starts[a + 1]] = powers @ delta
    returns = advantages + values.to(FP)
    kept = advantages.float().to(FP)
    white = (kept - kept.mean()) * kept.var(correction=0).clamp(min=1e-8).rsqrt()
    return dict(gamma=gamma, lam=lam, kl_coef=kl_coef, clip_reward=bound, missing_eos_penalty=penalty, normalize=norm,
                score_mean=mean, score_deviation=deviation, starts=starts, kl=short(kl), values=short(values),
                score=short(score), truncated=cut, rewards=rewards, advantages=advantages, returns=returns, white=white)


def kl_case(n, spread):
    logp = normal(n, shift=-3)
    ref = logp + normal(n, scale=spread)
    ref[::6] = logp[::6]
    x = (logp.to(FP) - ref.to(FP))
    # exp(-x) - 1 + x as the integral of 1 - exp(-s) over 0 .. x: no cancellation (Gauss-Legendre)
    nodes, weights = map(torch.from_numpy, numpy.polynomial.legendre.leggauss(30))
    s = (nodes[None, :] + 1) / 2 * x[:, None]
    k3 = (-torch.expm1(-s) * weights[None, :]).sum(1) * x / 2
    return dict(logp=short(logp), logp_ref=short(ref), k1=x, k2=x ** 2 / 2, k3=k3)


def control_case(target, horizon, coef):
    kls = (normal(12).abs() * target * 1.5).tolist()
    answers, start, coefs = [1 + pick(horizon) for _ in kls], coef, []
    for kl, n in zip(kls, answers):
        coef *= 1 + max(-0.2, min(0.2, kl / target - 1)) * n / horizon
        coefs.append(coef)
    return dict(target=target, horizon=horizon, coef=start, kl=kls, answers=answers, coefs=coefs)


def interval_case(right, n):
    # the two p with (right/n - p)^2 = z^2 p (1 - p) / n
    z2 = float(torch.special.ndtri(torch.tensor(0.975, dtype=FP))) ** 2
    share = right / n
    a, b, c = 1 + z2 / n, -(2 * share + z2 / n), share * share
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return dict(right=right, n=n, low=(-b - root) / (2 * a), high=(-b + root) / (2 * a))


def main(out):
    kinds = ["any", "one", "long", "prefix", "late", "equal"]
    cases = dict(
        lm=[lm_case(n, w) for n in (1, 17, 200) for w in (False, True)],
        pair=[pair_case(form, margin, center, [k] if single else kinds + kinds[:5], spread)
              for form in ("tokens", "last") for margin, center in ((0.0, 0.0), (0.7, 0.0), (-0.3, 0.01))
              for single, k, spread in ((False, "", 1.0), (False, "", 40.0), (True, "one", 1.0))],
        actor=[actor_case(n, low, high, dual, bonus, drift, masked)
               for n, masked in ((1, False), (150, False), (150, True))
               for low, high, dual, bonus, drift in ((0.2, 0.2, 0, 0, 0.3), (0.2, 0.28, 0, 0.01, 0.5),
                                                     (0.1, 0.3, 3.0, 0.0, 1.5), (0.2, 0.2, 1.2, 0.05, 0.6))],
        critic=[critic_case(n, eps, masked) for n, masked in ((1, False), (150, False), (150, True))
                for eps in (0.25, 0.0, 0.5)],
        gae=[gae_case(lengths, *rest) for lengths in ([1], [5, 1, 12, 1, 40, 3])
             for rest in ((1.0, 0.95, 0.1, 5.0, 0.0, False), (0.97, 0.9, 0.02, 0.0, 1.5, False),
                          (1.0, 1.0, 0.3, 1.0, 2.0, True), (0.5, 0.0, 0.0, 2.0, 0.0, True))],
        kl=[kl_case(1, 0.5), kl_case(90, 0.01), kl_case(90, 2.0)],
        control=[control_case(6.0, 10000, 0.1), control_case(0.1, 40, 0.02)],
        interval=[interval_case(r, n) for r, n in ((0, 1), (1, 1), (0, 10), (203, 312), (312, 312), (5001, 10000))])
    with open(out, "w") as f:
        json.dump(plain(cases), f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tests/refs/loss.json")
