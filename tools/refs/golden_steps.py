"""Writes tests/refs/steps: whole jobs (sft, rm, ppo) as PyTorch computes them from the same models, data and params files.

    python tools/refs/golden_steps.py [CASE ...]        needs torch, transformers, h5py, safetensors, xxhash

To be run in the repository's root after a build. Params files (CASE.in), texts and the data set's description (data.in) are written
by hand; bin/dschat-data makes the data set's tokens, which are an input here. Nothing else of the program is used: models
are transformers' in fp64 with autograd, everything else is written here after the papers, sequence by sequence
instead of in packed rows. Draws follow the documented rule (Philox4x32-10, src/base/rng.h), so that the tokens of
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
import math
import os
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer

from golden_parts import HERE, NAN, NEAR, RM, SFT, AdamW, Data, Loader, Net, read_params, write_models
from golden_ppo import Ppo


class Job(Ppo):
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
        self.record(1, 0, True, eval_nll=first)
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
        self.record(2, 0, True, eval_accuracy=first)
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
