"""Writes tests/refs/steps: whole jobs (sft, rm, ppo) as PyTorch computes them from the same models, data and params files.

    python tools/refs/golden_steps.py [CASE ...]        needs torch, transformers, h5py, safetensors, xxhash

To be run in the repository's root after a build. Params files (CASE.in), texts and the data set's description (data.in) are written
by hand; bin/dschat-data makes the data set's tokens, which are an input here. Nothing else of the program is used: models
are transformers' in fp64 with autograd, everything else is written here after shared/algorithms.md and the papers, for whole
padded tensors instead of packed rows. Draws follow the documented rule (Philox4x32-10, src/base/rng.h), so that the tokens of
PPO's answers are computed too; the script refuses a case in which a draw lies so near to a bound that rounding could turn it.

  MODEL/config.json, model.safetensors      the models that the jobs begin with (random, fp32)
  CASE.safetensors                          what tests/golden/test_steps.c expects of the job:
      history.stage, history.step [n] int32, history.eval [n] (1: an evaluation's record), history.<name> [n] F64, NaN where it
          does not apply
      rollouts.iteration, .sample, .length [answers], .token_id [answers, positions] int32, rollouts.<name> [answers, positions] F32
      summary.<key> [1] F64, text.<key> U8
      weights.<product>.<name>, moved.<product>.<name> [1]: the norm of what the stage has changed in it, at
          least 0.3 of what all stages have
      score.<product> [2] F64: mean and deviation of the scores kept with a reward model
      data.tokens int32: the data set that all of it belongs to
"""
import json
import math
import os
import sys

import h5py
import numpy as np
import torch
import torch.nn.functional as F
import transformers
import xxhash
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

HERE = "tests/refs/steps"
VOCAB = 416
NAN = float("nan")
INIT, SHUFFLE, SAMPLE, MINIBATCH = 1, 2, 3, 6  # purposes of random numbers
SFT, RM, PPO, PTX = range(4)                   # kinds of records
NEAR = 3e-5                                    # no draw, ratio or score may be nearer to a bound

WIDE = dict(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, bos_token_id=0, eos_token_id=0, pad_token_id=None)
LLAMA = (transformers.LlamaForCausalLM, transformers.LlamaConfig, dict(
    WIDE, intermediate_size=20, num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=False,
    initializer_range=0.5))
MODELS = {
    "llama": LLAMA,
    "other": (LLAMA[0], LLAMA[1], dict(LLAMA[2], tie_word_embeddings=True)),
    "opt": (transformers.OPTForCausalLM, transformers.OPTConfig, dict(
        WIDE, ffn_dim=20, max_position_embeddings=64, do_layer_norm_before=True, init_std=0.4)),
}


# ---- random numbers ----
def philox(seed, purpose, ident, draw):
    key = seed ^ (purpose * 0x9E3779B97F4A7C15 & 2**64 - 1)
    low = 2**32 - 1
    k, c = [key & low, key >> 32], [draw & low, draw >> 32, ident & low, ident >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & low, (a >> 32) ^ c[3] ^ k[1], a & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return c


def unit(high, low):
    return ((high << 32 | low) // 4096 + 0.5) * 2.0**-52


def uniform(seed, purpose, ident, draw):
    w = philox(seed, purpose, ident, draw)
    return unit(w[0], w[1])


def normals(seed, ident, n):
    words = [philox(seed, INIT, ident, i) for i in range(n)]
    return torch.tensor([math.sqrt(-2 * math.log(unit(w[0], w[1]))) * math.cos(2 * math.pi * unit(w[2], w[3])) for w in words])


def permutation(seed, purpose, ident, n):
    order = list(range(n))
    for i in reversed(range(1, n)):
        j = int(uniform(seed, purpose, ident, i) * (i + 1))
        order[i], order[j] = order[j], order[i]
    return order


# ---- params, models, data ----
def read_params(path):
    section, out = None, {}
    for line in open(path):
        line = line.split("#")[0].strip()
        if line.startswith("["):
            section = out.setdefault(line.strip("[]"), {})
        elif line:
            key, value = (x.strip() for x in line.split("=", 1))
            try:
                section[key] = float(value) if any(c in value for c in ".e") else int(value)
            except ValueError:
                section[key] = value
    return out


class Net(torch.nn.Module):
    """A model with one of two heads, from a folder of Hugging Face's or from another one's weights."""

    def __init__(self, folder, head, weights=None, seed=0, lora=None):
        super().__init__()
        config = transformers.AutoConfig.from_pretrained(folder)
        config._attn_implementation = "eager"
        self.folder, self.head, self.lora, self.config = folder, head, {}, config
        self.lm = transformers.AutoModelForCausalLM.from_config(config).double().eval()
        weights = weights or {k: t.double() for k, t in load_file(os.path.join(folder, "model.safetensors")).items()}
        std = config.init_std if config.model_type == "opt" else config.initializer_range
        self.own = {}
        for name, p in self.lm.named_parameters():
            if name == "lm_head.weight" and head == "scalar":
                continue
            p.data.copy_(weights[name])
            self.own[name] = p
        if head == "scalar":
            v = weights.get("v_head.weight")
            if v is None:
                v = (std * normals(seed, xxhash.xxh3_64_intdigest(b"v_head.weight"), config.hidden_size)).float().double()[None]
            self.v_head = torch.nn.Parameter(v.clone())
            self.own["v_head.weight"] = self.v_head
        if lora:
            self.adapt(seed, *lora)

    def adapt(self, seed, rank, alpha, modules, only):
        """y += (alpha / rank) (x A^T) B^T after every adapted map; A Kaiming-uniform with a = sqrt 5, that is within
        1 / sqrt(in), B zero."""
        self.scale = alpha / rank
        parts = {"attention": ["q_proj", "k_proj", "v_proj", "out_proj", "o_proj"], "mlp": ["gate_proj", "up_proj", "down_proj", "fc1", "fc2"]}
        wanted = [x for m in modules for x in parts.get(m, [m])]
        frozen = []
        for path, m in list(self.lm.named_modules()):
            if not isinstance(m, torch.nn.Linear) or ".layers." not in path or not any(x in path for x in wanted):
                continue
            rows, cols = m.weight.shape
            ident = xxhash.xxh3_64_intdigest((path + ".lora_A.weight").encode())
            a = torch.tensor([2 * uniform(seed, INIT, ident, i) - 1 for i in range(rank * cols)]) / math.sqrt(cols)
            m.a = torch.nn.Parameter(a.float().double().reshape(rank, cols))
            m.b = torch.nn.Parameter(torch.zeros(rows, rank))
            m.register_forward_hook(lambda m, x, y: y + self.scale * (x[0] @ m.a.T @ m.b.T))
            self.lora[path + ".weight"] = m
            frozen.append(path + ".weight")
        for name, p in self.own.items():
            p.requires_grad_(not (name in frozen or only and name != "v_head.weight"))

    def trained(self):
        """(parameter, decays?, adapter?)"""
        for name, p in self.own.items():
            if p.requires_grad:
                yield p, p.ndim > 1, False
        for m in self.lora.values():
            yield m.a, True, True
            yield m.b, True, True

    def hidden(self, ids):
        return self.lm.model(input_ids=torch.tensor([ids])).last_hidden_state[0]

    def logits(self, ids):
        return self.lm.lm_head(self.hidden(ids))

    def values(self, ids):
        return self.hidden(ids) @ self.v_head[0]

    def logp(self, ids, temperature=1.0):
        """Log-probs and entropies of ids[1:]"""
        lp = torch.log_softmax(self.logits(ids[:-1]) / temperature, -1)
        return lp.gather(1, torch.tensor(ids[1:])[:, None])[:, 0], -(lp.exp() * lp).sum(-1)

    def weights(self):
        """What a product holds: adapters merged."""
        out = {}
        for name, p in self.own.items():
            m = self.lora.get(name)
            out[name] = (p + self.scale * m.b @ m.a if m else p).detach().clone()
        return out


class Data:
    def __init__(self, path):
        f = h5py.File(path)
        s = {k: f["samples"][k][:] for k in f["samples"]}
        self.all = s["tokens"].astype(np.int32)
        start, span = s["start"], s["span_start"]
        self.ids = [self.all[start[i]:start[i + 1]].tolist() for i in range(len(start) - 1)]
        self.spans = [s["spans"][span[i]:span[i + 1]].tolist() for i in range(len(self.ids))]
        self.prompt = [self.ids[i][:n] for i, n in enumerate(s["prompt"])]
        self.pairs = list(zip(f["pairs"]["chosen"][:].tolist(), f["pairs"]["rejected"][:].tolist()))
        rows = range(len(self.ids))
        self.rows = {(k, e): [i for i in rows if s["stage"][i] >> k & 1 and s["eval"][i] == e] for k in (SFT, PPO, PTX) for e in (0, 1)}
        for e in (0, 1):
            self.rows[RM, e] = [i for i, (c, _) in enumerate(self.pairs) if s["eval"][c] == e]
        self.stop = int(f.attrs["stop_id"])

    def counted(self, row, everything):
        """Which of ids[1:] are in the loss."""
        n = len(self.ids[row])
        return [everything or any(a <= t < b for a, b in self.spans[row]) for t in range(1, n)]


class Loader:
    """Records by epochs, each in an order of its own."""

    def __init__(self, p, kind, rows):
        self.seed, self.kind, self.rows, self.shuffle = p["data"]["order_seed"], kind, rows, p["data"]["shuffle"] == "yes"
        self.epoch, self.left = 0, self.order(0)

    def order(self, epoch):
        n = len(self.rows)
        numbers = permutation(self.seed, SHUFFLE, epoch * 4 + self.kind, n) if self.shuffle else range(n)
        return [self.rows[i] for i in numbers]

    def next(self, count, wrap):
        out = []
        while len(out) < count:
            if not self.left:
                if out and not wrap:
                    break
                self.epoch += 1
                self.left = self.order(self.epoch)
            take = count - len(out)
            out, self.left = out + self.left[:take], self.left[take:]
        return out


# ---- optimizer ----
def schedule(t, peak, total, step):
    form, warmup = t["schedule"], t["warmup_steps"] or math.ceil(t["warmup_ratio"] * total)
    if form == "constant":
        return peak
    if step < warmup:
        return peak * step / warmup
    x = min(1.0, (step - warmup) / max(1, total - warmup))
    cosine = (1 + math.cos(math.pi * x)) / 2
    if form == "cosine_with_restarts":
        return 0.0 if x >= 1 else peak * (1 + math.cos(math.pi * ((t["cycles"] * x) % 1))) / 2
    if form == "polynomial":
        end = min(1e-7, peak)
        return end + (peak - end) * (1 - x) ** t["power"]
    if form == "cosine_with_min_lr":
        return peak * (t["min_lr_ratio"] + (1 - t["min_lr_ratio"]) * cosine)
    return peak * {"constant_with_warmup": 1, "linear": 1 - x, "cosine": cosine}[form]


class AdamW:
    """Loshchilov and Hutter 2019, with bias correction; clipped by the norm of all gradients."""

    def __init__(self, net, t, lr, lora_lr, total, ema=None):
        self.t, self.lr, self.lora_lr, self.total, self.beta = t, lr, lora_lr, total, ema
        self.w = list(net.trained())
        self.m = [torch.zeros_like(p) for p, _, _ in self.w]
        self.v = [torch.zeros_like(p) for p, _, _ in self.w]
        self.ema = [p.detach().clone() for p, _, _ in self.w]
        self.steps = 0
        self.clipped = 0

    def zero(self):
        for p, _, _ in self.w:
            p.grad = None

    def norm(self):
        return math.sqrt(sum(float((p.grad**2).sum()) for p, _, _ in self.w if p.grad is not None))

    @torch.no_grad()
    def step(self):
        t, norm = self.t, self.norm()
        factor = t["clip"] / norm if t["clip"] > 0 and norm > t["clip"] else 1.0
        self.clipped += factor < 1
        rate, adapters = (schedule(t, x, self.total, self.steps) for x in (self.lr, self.lora_lr))
        self.steps += 1
        for i, (p, decays, adapter) in enumerate(self.w):
            lr, g = adapters if adapter else rate, torch.zeros_like(p) if p.grad is None else p.grad * factor
            p.mul_(1 - lr * (t["weight_decay"] if decays else 0))
            self.m[i] = t["beta1"] * self.m[i] + (1 - t["beta1"]) * g
            self.v[i] = t["beta2"] * self.v[i] + (1 - t["beta2"]) * g * g
            mean, square = self.m[i] / (1 - t["beta1"] ** self.steps), self.v[i] / (1 - t["beta2"] ** self.steps)
            p.sub_(lr * mean / (square.sqrt() + t["eps"]))
            if self.beta is not None:
                self.ema[i] = self.beta * self.ema[i] + (1 - self.beta) * p
        return rate

    def averaged(self, net):
        now = [p.detach().clone() for p, _, _ in self.w]
        for x, (p, _, _) in zip(self.ema, self.w):
            p.data.copy_(x)
        out = net.weights()
        for x, (p, _, _) in zip(now, self.w):
            p.data.copy_(x)
        return out


# ---- the job ----
class Job:
    def __init__(self, name):
        self.name, self.p = name, read_params(f"{HERE}/{name}.in")
        self.data = Data("build/tmp/steps/data.h5")
        self.tok = Tokenizer.from_file("inputs/data/demo-tokenizer.json")
        self.seed = self.p["job"]["seed"]
        self.records, self.rollouts, self.summary, self.texts, self.products, self.scores = [], [], {}, {}, {}, {}
        self.near, self.seen = [], {}
        self.made = {}  # by stage: (folder, weights)

    def record(self, stage, step, is_eval, **values):
        self.records.append(dict(values, stage=stage, step=step, eval=int(is_eval)))

    def close(self, what, distance):
        """A comparison that rounding could turn."""
        self.near.append((abs(float(distance if isinstance(distance, float) else distance.detach())), what))

    def count(self, **what):
        for k, n in what.items():
            self.seen[k] = self.seen.get(k, 0) + int(n)

    def lora(self, section):
        s = self.p.get(section, {})
        if not s.get("lora_rank"):
            return None
        return s["lora_rank"], s["lora_alpha"], [x.strip() for x in s["lora_modules"].split(",")], s["only_optimize_lora"] == "yes"

    def folder(self, path):
        return f"{HERE}/{os.path.basename(path)[:-3]}"

    def open(self, section, head, given, made, trained):
        """The role's own model, else what an earlier stage has made, else None."""
        if given:
            return Net(self.folder(given), head, None, self.seed, trained and self.lora(section) or None)
        folder, weights = made
        return Net(folder, head, weights, self.seed, trained and self.lora(section) or None)

    def keep(self, product, net, before, weights=None):
        after, first = weights or net.weights(), Net(net.folder, net.head, None, self.seed).weights()
        moved = {k: max((w - before[k]).norm(), 0.3 * (w - first[k]).norm()) for k, w in after.items()}
        self.products[product] = {k: (w, moved[k]) for k, w in after.items()}

    def steps(self, t, kind):
        steps = t["epochs"] * -(-len(self.data.rows[kind, 0]) // t["global_batch"])
        return min(steps, t["max_steps"]) if t["max_steps"] else steps

    def held_out(self, t, kind, rows=None):
        rows = self.data.rows[kind, 1] if rows is None else rows
        return rows[:t["eval_samples"]] if t["eval_samples"] else rows

    # -- stage 1 --
    def nll(self, net, rows, everything):
        total, count = 0.0, 0
        for row in rows:
            counted = torch.tensor(self.data.counted(row, everything), dtype=torch.bool)
            total = total - net.logp(self.data.ids[row])[0][counted].sum()
            count += int(counted.sum())
        return total, count

    def sft(self):
        t, s = self.p["sft"], self.p["actor"]
        net = self.open("actor", "lm", s["model"], None, True)
        before, total, everything = net.weights(), self.steps(t, SFT), t["loss_on"] == "all"
        opt = AdamW(net, t, t["lr"], s.get("lora_lr", 0), total)
        loader = Loader(self.p, SFT, self.data.rows[SFT, 0])

        def evaluate():
            with torch.no_grad():
                loss, n = self.nll(net, self.held_out(t, SFT), everything)
            return float(loss / n)

        first = evaluate()
        for step in range(1, total + 1):
            rows = loader.next(t["global_batch"], False)
            opt.zero()
            loss, n = self.nll(net, rows, everything)
            (loss / n).backward()
            norm, lr = opt.norm(), None
            self.close("sft: clip", norm - t["clip"])
            lr = opt.step()
            due = t["eval_every"] and step % t["eval_every"] == 0 and step < total
            self.record(1, step, False, loss=float(loss.detach() / n), lr=lr, grad_norm=norm, skipped=0, tokens=sum(len(self.data.ids[r]) for r in rows),
                        **(dict(eval_nll=evaluate()) if due else {}))
        last = evaluate()
        self.record(1, total, True, eval_nll=last)
        self.count(sft_clipped=opt.clipped, sft_steps=total)
        self.summary.update({"sft.perplexity_before": math.exp(first), "sft.perplexity_after": math.exp(last)})
        self.keep("sft", net, before)
        self.made["sft"] = net.folder, net.weights()

    # -- stage 2 --
    def pair_loss(self, net, pairs):
        t, losses, ends = self.p["rm"], [], []
        for pair in pairs:
            c, r = (self.data.ids[x] for x in self.data.pairs[pair])
            cv, rv = net.values(c), net.values(r)
            n = max(len(c), len(r))
            cv, rv = (torch.cat([v, v[-1].expand(n - len(v))]) for v in (cv, rv))  # a row past its end keeps its last score
            d = next(i for i in range(n) if i >= min(len(c), len(r)) or c[i] != r[i])
            from_ = n - 1 if t["loss"] == "last" else d
            loss = -F.logsigmoid(cv[from_:] - rv[from_:] - t["margin"]).mean() + t["center_coef"] * (cv[-1] + rv[-1]) ** 2
            losses.append(loss)
            ends.append(torch.stack([cv[-1], rv[-1]]).detach())
            self.close("rm: right or wrong", cv[-1] - rv[-1])
        return torch.stack(losses), torch.stack(ends)

    def rm(self):
        t, s = self.p["rm"], self.p.get("reward", {})
        net = self.open("reward", "scalar", s.get("model"), self.made.get("sft"), True)
        before, total = net.weights(), self.steps(t, RM)
        opt = AdamW(net, t, t["lr"], s.get("lora_lr", 0), total)
        loader = Loader(self.p, RM, self.data.rows[RM, 0])

        def evaluate():
            with torch.no_grad():
                ends = self.pair_loss(net, self.held_out(t, RM))[1]
            return float((ends[:, 0] > ends[:, 1]).double().mean()), ends

        first, _ = evaluate()
        for step in range(1, total + 1):
            pairs = loader.next(t["global_batch"], False)
            opt.zero()
            losses, ends = self.pair_loss(net, pairs)
            losses.mean().backward()
            norm = opt.norm()
            self.close("rm: clip", norm - t["clip"])
            lr = opt.step()
            due = t["eval_every"] and step % t["eval_every"] == 0 and step < total
            self.record(2, step, False, loss=float(losses.detach().mean()), lr=lr, grad_norm=norm, skipped=0,
                        tokens=sum(len(self.data.ids[r]) for x in pairs for r in self.data.pairs[x]),
                        accuracy=float((ends[:, 0] > ends[:, 1]).double().mean()), chosen_score=float(ends[:, 0].mean()),
                        rejected_score=float(ends[:, 1].mean()), **(dict(eval_accuracy=evaluate()[0]) if due else {}))
        last, ends = evaluate()
        self.record(2, total, True, eval_accuracy=last)
        self.count(rm_clipped=opt.clipped, rm_steps=total)
        n, z = len(ends), 1.959963984540054
        middle, half = last + z * z / (2 * n), z * math.sqrt(last * (1 - last) / n + z * z / (4 * n * n))
        self.summary.update({"rm.accuracy_before": first, "rm.accuracy_after": last,
                             "rm.accuracy_low": max(0, (middle - half) / (1 + z * z / n)),
                             "rm.accuracy_high": min(1, (middle + half) / (1 + z * z / n))})
        self.keep("rm", net, before)
        self.made["rm"] = net.folder, net.weights()
        self.scores["rm"] = (float(ends.mean()), float(ends.std(correction=0))) if t["normalize"] == "yes" else (0.0, 1.0)

    # -- stage 3 --
    def draw(self, logits, u):
        """The token of a uniform u: the top_k likeliest, of them the fewest that hold the share top_p; in the order of ids."""
        g = self.p["generate"]
        w = torch.softmax(logits / g["temperature"], -1)
        order = torch.argsort(logits, descending=True)
        if g["top_k"]:
            self.close("top_k", logits[order[g["top_k"] - 1]] - logits[order[g["top_k"]]])
            order = order[:g["top_k"]]
        if g["top_p"] < 1:
            share = w[order].cumsum(0) / w[order].sum()
            self.close("top_p", (share - g["top_p"]).abs().min())
            order = order[:int((share < g["top_p"]).sum()) + 1]
        kept = order.sort().values
        share = w[kept].cumsum(0) / w[kept].sum()
        self.close("draw", (share[:-1] - u).abs().min() if len(share) > 1 else 1.0)
        self.count(drawn=1, drawn_from=len(kept))
        return int(kept[int((share <= u).sum())])

    @torch.no_grad()
    def answer(self, net, prompt, ident, greedy=False):
        g, out = self.p["generate"], []
        stops = [x.strip().replace("\\s", " ").replace("\\n", "\n") for x in g.get("stop", "").split(",") if x.strip()]
        while True:
            logits = net.logits(prompt + out)[-1]
            if greedy:
                best = logits.sort(descending=True)
                self.close("greedy", best.values[0] - best.values[1])
                out.append(int(best.indices[0]))
            else:
                word = philox(self.seed, SAMPLE, ident, len(out))[0]
                out.append(self.draw(logits, ((word >> 8) + 0.5) * 2.0**-24))
            if out[-1] == self.data.stop:
                self.count(ended_by_eos=1)
                return out, False
            if any(x in self.tok.decode(out) for x in stops):
                self.count(ended_by_string=1)
                return out, False
            if len(out) == g["max_answer"]:
                return out, True

    def truth(self, prompt, answer):
        """The checker "words": the share of positions at which answer and solution have the same word."""
        task, _, words = self.tok.decode(prompt).split("Human:")[-1].split("\n")[0].strip().partition(":")
        want = words.split()
        want = {"Say these words": want, "Say these words backwards": want[::-1], "Say the first of these words": want[:1],
                "Say the last of these words": want[-1:]}[task]
        got = self.tok.decode(answer).split("\n")[0].split()
        return sum(a == b for a, b in zip(want, got)) / max(len(want), len(got))

    @torch.no_grad()
    def experience(self, nets, rows, samples, key):
        out = []
        for i in range(len(rows) * samples):
            prompt = self.data.prompt[rows[i // samples]]
            ids, cut = self.answer(nets["actor"], prompt, key + i)
            a = dict(prompt=prompt, ids=ids, cut=cut, truth=self.truth(prompt, ids))
            all_, n, temperature = prompt + ids, len(prompt), self.p["generate"]["temperature"]
            a["logp"], a["ref"] = (nets[m].logp(all_, temperature)[0][n - 1:] for m in ("actor", "reference"))
            a["values"] = nets["critic"].values(all_)[n - 1:-1]
            a["score"] = float(nets["reward"].values(all_)[-1]) if self.from_model else a["truth"]
            out.append(a)
        return out

    def means(self, answers):
        n, actions = len(answers), sum(len(a["ids"]) for a in answers)
        score = np.array([a["score"] for a in answers])
        kl = sum(float((a["logp"] - a["ref"]).sum()) for a in answers)
        truth = np.mean([a["truth"] for a in answers]) if self.p["ppo"].get("checker") else NAN
        return dict(reward=score.mean(), reward_std=score.std(), true_score=truth, kl_token=kl / actions, kl_sequence=kl / n,
                    answer_length=actions / n, truncated=np.mean([a["cut"] for a in answers]))

    def advantages(self, answers, coef):
        t = self.p["ppo"]
        mean, std = self.scores["rm"] if self.from_model else (0.0, 1.0)
        for a in answers:
            x = a["logp"] - a["ref"]
            kl = {"k1": x, "k2": x * x / 2, "k3": torch.exp(-x) - 1 + x}[t["kl_estimator"]]
            score = a["score"]
            if t["normalize_reward"] == "yes" and self.from_model:
                score = (score - mean) / std
            limit = t["clip_reward"] or math.inf
            self.count(rewards=1, rewards_clipped=abs(score) > limit, truncated=a["cut"])
            score = min(max(score, -limit), limit) - (t["missing_eos_penalty"] if a["cut"] else 0)
            n = len(x)
            a["rewards"] = -coef * kl
            a["rewards"][-1] += score
            # A_t = sum over l of (gamma lam)^l delta_(t+l), delta_t = r_t + gamma V_(t+1) - V_t
            delta = a["rewards"] + t["gamma"] * torch.cat([a["values"][1:], torch.zeros(1)]) - a["values"]
            ahead = torch.arange(n)[None, :] - torch.arange(n)[:, None]
            a["advantages"] = (torch.where(ahead >= 0, (t["gamma"] * t["lam"]) ** ahead.clamp(min=0).double(), 0.0) * delta).sum(1)
            a["returns"] = a["advantages"] + a["values"]
        if t["whiten"] == "global":
            all_ = torch.cat([a["advantages"] for a in answers])
            for a in answers:
                a["advantages"] = (a["advantages"] - all_.mean()) / all_.std(correction=0)

    def actor_loss(self, net, a, s):
        """Sum over the answer's tokens."""
        t, n = self.p["ppo"], len(a["prompt"])
        logp, entropy = (x[n - 1:] for x in net.logp(a["prompt"] + a["ids"], self.p["generate"]["temperature"]))
        ratio, adv = torch.exp(logp - a["logp"]), a["advantages"]
        low, high = 1 - t["eps_low"], 1 + t["eps_high"]
        plain, clipped = -adv * ratio, -adv * ratio.clamp(low, high)
        loss, worse = torch.maximum(plain, clipped), clipped > plain
        for edge in (low, high, t["dual_clip"]):
            self.close("ratio", (ratio - edge).abs().min())
        if t["dual_clip"]:
            self.count(dual_clipped=((adv < 0) & (loss > -adv * t["dual_clip"])).sum())
            loss = torch.where(adv < 0, torch.minimum(loss, -adv * t["dual_clip"]), loss)
        s["ratios"] += ratio.tolist()
        self.count(actions=len(ratio), ratio_clipped=worse.sum())
        for k, v in dict(policy=loss.sum(), entropy=entropy.sum(), clipped=worse.sum(), tokens=len(ratio)).items():
            s[k] = s.get(k, 0) + float(v.detach() if torch.is_tensor(v) else v)
        return (loss - t["entropy_coef"] * entropy).sum()

    def critic_loss(self, net, a, s):
        t, n = self.p["ppo"], len(a["prompt"])
        v = net.values(a["prompt"] + a["ids"])[n - 1:-1]
        square = (v - a["returns"]) ** 2
        if t["eps_value"]:
            near = torch.minimum(torch.maximum(v, a["values"] - t["eps_value"]), a["values"] + t["eps_value"])
            self.count(values_clipped=((near - a["returns"]) ** 2 > square).sum())
            self.close("value", ((v - a["values"]).abs() - t["eps_value"]).abs().min())
            square = torch.maximum(square, (near - a["returns"]) ** 2)
        s["values"] += v.tolist()
        s["returns"] += a["returns"].tolist()
        s["value_loss"] = s.get("value_loss", 0) + float(0.5 * square.detach().sum())
        return 0.5 * square.sum()

    def updates(self, nets, opts, answers, iteration, ptx, train_actor):
        t = self.p["ppo"]
        s = dict(ratios=[], values=[], returns=[])
        norms = dict(actor=[], critic=[])
        for epoch in range(t["ppo_epochs"]):
            order = permutation(self.seed, MINIBATCH, iteration * t["ppo_epochs"] + epoch, len(answers))
            for at in range(0, len(order), t["global_batch"]):
                chosen = [answers[i] for i in order[at:at + t["global_batch"]]]
                actions = sum(len(a["ids"]) for a in chosen)
                for o in opts.values():
                    o.zero()
                if train_actor:
                    sum(self.actor_loss(nets["actor"], a, s) for a in chosen).div(actions).backward()
                    s.setdefault("first", max(abs(x - 1) for x in s["ratios"]))
                    if ptx:
                        loss, n = self.nll(nets["actor"], ptx.next(t["ptx_batch"] or t["global_batch"], True), True)
                        (t["ptx_coef"] * loss / n).backward()
                        s["ptx"], s["ptx_tokens"] = s.get("ptx", 0) + float(loss.detach()), s.get("ptx_tokens", 0) + n
                sum(self.critic_loss(nets["critic"], a, s) for a in chosen).div(actions).backward()
                for m, o in opts.items():
                    if m == "critic" or train_actor:
                        norms[m].append(o.norm())
                        self.close(m + ": clip", norms[m][-1] - t["clip"])
                        s[m + "_lr"] = o.step()
        v, r = np.array(s["values"]), np.array(s["returns"])
        out = dict(value_loss=s["value_loss"] / len(v), explained_variance=1 - (r - v).var() / r.var(), critic_lr=s["critic_lr"],
                   critic_grad_norm=np.mean(norms["critic"]))
        if train_actor:
            n = s["tokens"]
            out.update(loss=(s["policy"] - t["entropy_coef"] * s["entropy"]) / n, entropy=s["entropy"] / n, ratio_mean=np.mean(s["ratios"]),
                       ratio_max=max(s["ratios"]), ratio_first=s["first"], clip_fraction=s["clipped"] / n,
                       grad_norm=np.mean(norms["actor"]), lr=s["actor_lr"])
            if ptx:  # the mean over all of the iteration's tokens
                out.update(ptx_loss=s["ptx"] / s["ptx_tokens"], loss=out["loss"] + t["ptx_coef"] * s["ptx"] / s["ptx_tokens"])
        return out

    def put_rollouts(self, iteration, answers):
        width = self.p["generate"]["max_answer"]
        for i, a in enumerate(answers):
            row = dict(iteration=iteration, sample=i, length=len(a["ids"]), token_id=a["ids"] + [-1] * (width - len(a["ids"])))
            for k, v in dict(logprob="logp", logprob_reference="ref", value="values", reward="rewards", advantage="advantages",
                             **{"return": "returns"}).items():
                row[k] = a[v].tolist() + [NAN] * (width - len(a["ids"]))
            self.rollouts.append(row)

    def ppo(self):
        t, g = self.p["ppo"], self.p["generate"]
        self.from_model = t["reward_source"] == "model"
        given = {m: self.p.get(m, {}).get("model") for m in ("actor", "critic", "reference", "reward")}

        def source(path):
            return (self.folder(path), None) if path else None

        actor = self.made.get("sft") or source(given["actor"])
        reward = self.made.get("rm") or source(given["reward"])
        critic = source(given["critic"]) or reward or actor
        nets = dict(actor=self.open("actor", "lm", None, actor, True), critic=self.open("critic", "scalar", None, critic, True),
                    reference=self.open("reference", "lm", None, source(given["reference"]) or actor, False),
                    reward=self.open("reward", "scalar", None, reward, False))
        before = {m: nets[m].weights() for m in ("actor", "critic")}
        usable = {e: [r for r in self.data.rows[PPO, e] if 0 < len(self.data.prompt[r]) <= g["max_prompt"]] for e in (0, 1)}
        self.count(prompts_left_out=len(self.data.rows[PPO, 0]) - len(usable[0]))
        total = -(-len(usable[0]) * t["epochs"] // t["rollout_batch"])
        total = min(total, t["max_steps"]) if t["max_steps"] else total
        each = t["ppo_epochs"] * -(-t["rollout_batch"] * t["samples_per_prompt"] // t["global_batch"])
        opts = dict(actor=AdamW(nets["actor"], t, t["lr"], self.p["actor"].get("lora_lr", 0), max(0, total - t["critic_warmup"]) * each,
                                t["ema_beta"] if t["ema"] == "yes" else None),
                    critic=AdamW(nets["critic"], t, t["critic_lr"], self.p.get("critic", {}).get("lora_lr", 0), total * each))
        loader = Loader(self.p, PPO, usable[0])
        ptx = Loader(self.p, PTX, self.data.rows[PTX, 0]) if t["ptx_coef"] > 0 else None
        coef, held_out = t["kl_coef"], self.held_out(t, PPO, usable[1])

        def evaluate():
            return self.means(self.experience(nets, held_out, 1, 1 << 60))

        def show(when):
            for i, row in enumerate(held_out[:self.p["job"]["show_prompts"]]):
                self.texts[f"ppo.prompt{i + 1}"] = self.tok.decode(self.data.prompt[row])
                self.texts[f"ppo.{when}{i + 1}"] = self.tok.decode(self.answer(nets["actor"], self.data.prompt[row], 0, True)[0])

        first = evaluate()
        show("before")
        for step in range(1, total + 1):
            rows = loader.next(t["rollout_batch"], True)
            answers = self.experience(nets, rows, t["samples_per_prompt"], (step - 1) << 28)
            self.advantages(answers, coef)
            done = self.updates(nets, opts, answers, step - 1, ptx, step > t["critic_warmup"])
            self.put_rollouts(step - 1, answers)
            m = self.means(answers)
            due = t["eval_every"] and step % t["eval_every"] == 0 and step < total
            evals = evaluate() if due else {}
            self.record(3, step, False, **m, **done, kl_coef=coef, skipped=0, tokens=sum(len(a["prompt"] + a["ids"]) for a in answers),
                        **{"eval_" + k: evals[k] for k in evals if k in ("reward", "true_score")})
            print(f"    iteration {step}: reward {m['reward']:.3f}, KL {m['kl_sequence']:.3f}, coef {coef:.4f}, true {m['true_score']:.3f}")
            if t["kl_control"] == "adaptive":
                error = m["kl_sequence"] / t["kl_target"] - 1
                self.count(kl_error_clipped=abs(error) > 0.2)
                coef *= 1 + min(max(error, -0.2), 0.2) * min(1, len(answers) / t["kl_horizon"])
        last = evaluate()
        self.record(3, total, True, eval_reward=last["reward"], eval_true_score=last["true_score"])
        show("after")
        self.count(actor_clipped=opts["actor"].clipped, actor_steps=opts["actor"].steps, critic_clipped=opts["critic"].clipped)
        for k, v in dict(reward="reward", true_score="true_score").items():
            self.summary.update({f"ppo.{k}_before": first[v], f"ppo.{k}_after": last[v]})
        self.summary["ppo.kl_after"] = last["kl_sequence"]
        for m in ("actor", "critic"):
            self.keep(m, nets[m], before[m])
        if t["ema"] == "yes":
            self.keep("actor_ema", nets["actor"], before["actor"], opts["actor"].averaged(nets["actor"]))

    # -- the results --
    def save(self):
        self.near.sort()
        if self.near[0][0] < NEAR:
            sys.exit(f"{self.name}: {self.near[0][1]} is {self.near[0][0]:.1e} from a bound: rounding could turn it; choose another seed")
        out = {"data.tokens": torch.from_numpy(self.data.all)}
        names = sorted({k for r in self.records for k in r} - {"stage", "step", "eval"})
        for k in ("stage", "step", "eval"):
            out["history." + k] = torch.tensor([r[k] for r in self.records], dtype=torch.int32)
        for k in names:
            out["history." + k] = torch.tensor([float(r.get(k, NAN)) for r in self.records])
        for k in self.rollouts[0] if self.rollouts else []:
            whole = k in ("iteration", "sample", "length", "token_id")
            out["rollouts." + k] = torch.tensor([r[k] for r in self.rollouts], dtype=torch.int32 if whole else torch.float32)
        for k, v in self.summary.items():
            out["summary." + k] = torch.tensor([float(v)])
        for k, v in self.texts.items():
            out["text." + k] = torch.tensor(list(v.encode()), dtype=torch.uint8)
        for k, v in self.scores.items():
            out["score." + k] = torch.tensor(v)
        for product, weights in self.products.items():
            for name, (w, moved) in weights.items():
                out[f"weights.{product}.{name}"] = w.float()
                out[f"moved.{product}.{name}"] = moved.reshape(1).float()
        path = f"{HERE}/{self.name}.safetensors"
        save_file({k: v.contiguous() for k, v in out.items()}, path)
        os.chmod(path, 0o644)
        print(f"{self.name}: {os.path.getsize(path)} bytes; nearest to a bound: {self.near[:3]}")
        print("   ", self.seen)


def write_models():
    for i, (name, (cls, config, keys)) in enumerate(MODELS.items()):
        g = torch.Generator().manual_seed(900 + i)
        model = cls(config(**keys))
        with torch.no_grad():
            for k, p in model.named_parameters():
                noise = torch.randn(p.shape, generator=g, dtype=torch.float32)
                p.copy_(0.25 * noise if p.ndim > 1 else 0.2 * noise if k.endswith("bias") else 1 + 0.2 * noise)
        model.float().save_pretrained(f"{HERE}/{name}")
        os.chmod(f"{HERE}/{name}/model.safetensors", 0o644)
        generation = f"{HERE}/{name}/generation_config.json"
        if os.path.exists(generation):
            os.remove(generation)


def main():
    torch.set_num_threads(1)
    write_models()
    torch.set_default_dtype(torch.float64)
    for name in sys.argv[1:] or ["llama", "opt", "lora"]:
        job = Job(name)
        for stage in job.p["job"]["stages"].split(","):
            getattr(job, stage.strip())()
        job.save()


if __name__ == "__main__":
    main()
