"""What golden_steps.py is made of: random numbers, models, data, the optimizer. Nothing of the program but its data set's tokens."""
import math
import os

import h5py
import numpy as np
import torch
import transformers
import xxhash
from safetensors.torch import load_file

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
