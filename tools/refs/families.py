"""Writes tests/refs/families: a tiny random model of every family and what PyTorch computes with it.

    python tools/refs/families.py [OUT]        needs torch, transformers, safetensors

For each family F:
  OUT/F/               config.json and model.safetensors, as save_pretrained writes them (fp32)
  OUT/F.safetensors    the reference for a packed batch of sequences (no padding, eager attention, fp32, one by one):
      ids     [N] int32        the sequences end to end
      starts  [S+1] int32      where each begins; starts[S] = N
      logits  [N, vocab]
      nll     [N]              -ln p(ids[t+1] | its own sequence up to t); 0 at the last token of each sequence
      loss    [1]              sum(nll) / count, count = N - S (the tokens that have a successor)
      grad.<name>              d loss / d weight, for every parameter, shaped as Hugging Face keeps it. (OPT's k_proj.bias
                               shifts every score of a row alike, so its true gradient is 0: what stands here is rounding.)
      values  [N], grad_values.<name>   one value a token through a scalar head, and the gradient of mean(values^2) with the
                                        head "v_head.weight" (stored under that name) instead of the language model's;
                                        families named in WITH_VALUES only, and only the weights at both ends
"""
import os
import sys

import torch
import transformers
from safetensors.torch import save_file

LENGTHS = [7, 1, 12]
VOCAB = 67
COMMON = dict(vocab_size=VOCAB, use_cache=False, pad_token_id=None, bos_token_id=0, eos_token_id=2)
WIDE = dict(COMMON, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=28,
            max_position_embeddings=64)
WITH_VALUES = ("opt-postnorm",)

FAMILIES = {
    "opt": (transformers.OPTForCausalLM, transformers.OPTConfig(
        **COMMON, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=28, max_position_embeddings=24,
        do_layer_norm_before=True)),
    "opt-postnorm": (transformers.OPTForCausalLM, transformers.OPTConfig(
        **COMMON, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=28, max_position_embeddings=24,
        do_layer_norm_before=False, word_embed_proj_dim=20)),
    "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Config(
        **COMMON, n_embd=32, n_layer=2, n_head=4, n_inner=28, n_positions=24)),
    # 6 heads: the ALiBi slopes of a count that is not a power of two
    "bloom": (transformers.BloomForCausalLM, transformers.BloomConfig(**COMMON, hidden_size=24, n_layer=2, n_head=6)),
    # 2 heads of 16, of which 4 dims rotate
    "gpt_neox": (transformers.GPTNeoXForCausalLM, transformers.GPTNeoXConfig(
        **dict(WIDE, num_attention_heads=2), use_parallel_residual=True, tie_word_embeddings=False,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.25))),
    # wavelengths 6, 30, 140, 660 of 64: one dim is kept, one interpolated, two divided
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig(
        **dict(WIDE, max_position_embeddings=128), num_key_value_heads=2, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters=dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0,
                             high_freq_factor=4.0, original_max_position_embeddings=64))),
    "llama-tied": (transformers.LlamaForCausalLM, transformers.LlamaConfig(
        **WIDE, num_key_value_heads=2, rms_norm_eps=1e-5, tie_word_embeddings=True)),
    "mistral": (transformers.MistralForCausalLM, transformers.MistralConfig(
        **WIDE, num_key_value_heads=2, sliding_window=5)),
    "qwen2": (transformers.Qwen2ForCausalLM, transformers.Qwen2Config(
        **WIDE, num_key_value_heads=2, tie_word_embeddings=True)),
    "qwen3": (transformers.Qwen3ForCausalLM, transformers.Qwen3Config(
        **WIDE, num_key_value_heads=2, head_dim=12, tie_word_embeddings=False)),
}


def randomise(model, seed):
    """Weights N(0, 0.2), biases N(0, 0.3), norm weights 1 + N(0, 0.3): nothing is 0 or 1, no gradient is trivial."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if p.ndim > 1:
                p.copy_(0.2 * noise)
            elif name.endswith(".bias"):
                p.copy_(0.3 * noise)
            else:
                p.copy_(1 + 0.3 * noise)


def sequences(seed):
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCAB, (n,), generator=g) for n in LENGTHS]


def language_model(model, seqs):
    logits, nll = [], []
    for s in seqs:
        out = model(input_ids=s[None]).logits[0]
        logp = torch.log_softmax(out, -1)
        logits.append(out)
        nll.append(torch.cat([-logp[:-1].gather(1, s[1:, None])[:, 0], torch.zeros(1, dtype=out.dtype)]))
    logits, nll = torch.cat(logits), torch.cat(nll)
    loss = nll.sum() / (nll.numel() - len(seqs))
    model.zero_grad()
    loss.backward()
    ref = dict(logits=logits, nll=nll, loss=loss.reshape(1))
    for name, p in model.named_parameters():
        ref["grad." + name] = p.grad
    return ref


def scalar_head(model, seqs, seed):
    """The head reads what the language model's head would read (after project_out, where there is one)."""
    head = model.get_output_embeddings()
    g = torch.Generator().manual_seed(seed)
    v = (0.2 * torch.randn(1, head.weight.shape[1], generator=g)).requires_grad_()
    seen = []
    hook = head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for s in seqs:
        model(input_ids=s[None])
    hook.remove()
    values = torch.cat([h[0] @ v[0] for h in seen])
    model.zero_grad()
    (values**2).mean().backward()
    ref = {"values": values, "v_head.weight": v, "grad_values.v_head.weight": v.grad}
    for name, p in model.named_parameters():
        if name.split(".")[2] in ("project_out", "embed_tokens", "embed_positions"):
            ref["grad_values." + name] = p.grad
    return ref


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "tests/refs/families"
    torch.set_num_threads(1)
    for i, (name, (cls, config)) in enumerate(FAMILIES.items()):
        config._attn_implementation = "eager"
        model = cls(config).eval()
        randomise(model, 100 + i)
        model.save_pretrained(os.path.join(out, name))
        seqs = sequences(200 + i)
        ref = language_model(model, seqs)
        if name in WITH_VALUES:
            ref.update(scalar_head(model, seqs, 300 + i))
        ref["ids"] = torch.cat(seqs).to(torch.int32)
        ref["starts"] = torch.tensor([0] + LENGTHS).cumsum(0).to(torch.int32)
        ref = {k: t.detach().clone().contiguous() for k, t in ref.items()}
        save_file(ref, os.path.join(out, name + ".safetensors"))
        for path in (name + ".safetensors", os.path.join(name, "model.safetensors")):
            os.chmod(os.path.join(out, path), 0o644)
        generation = os.path.join(out, name, "generation_config.json")
        if os.path.exists(generation):
            os.remove(generation)
        exact = language_model(model.double(), seqs)
        exact = {k: t.detach() for k, t in exact.items()}
        worst = max((float((ref[k] - e).norm() / e.norm()), k) for k, e in exact.items() if e.norm() > 1e-9)
        print(f"{name:14s} loss {float(ref['loss']):.5f}  fp32 against fp64: worst {worst[0]:.1e} in {worst[1]}")


if __name__ == "__main__":
    main()
