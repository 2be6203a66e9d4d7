"""Stage 3 of golden_steps.py: an iteration is answers, scores, advantages, updates (Schulman et al. 2016, 2017; Ziegler et al. 2019)."""
import math

import numpy as np
import torch

from golden_parts import MINIBATCH, NAN, PPO, PTX, SAMPLE, AdamW, Loader, permutation, philox


class Ppo:
    """Methods of golden_steps.Job."""

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
        self.record(3, 0, True, eval_reward=first["reward"], eval_true_score=first["true_score"])
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
