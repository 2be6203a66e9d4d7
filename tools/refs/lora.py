"""Writes tests/refs/lora: what PyTorch computes with the models of tests/refs/families and low-rank adapters.

    python tools/refs/lora.py [OUT]        needs torch, transformers, safetensors

Adapters act on activations here, y += (alpha / rank) (x A^T) B^T after every adapted linear map; nothing is merged. For each
case F of CASES, OUT/F.safetensors:
      ids, starts, logits, nll, loss   as families.py writes them
      <w>.lora_A.weight [rank, in], <w>.lora_B.weight [out, rank]   for every adapted weight <w>.weight
      grad.<name>                      d loss / d weight, for every adapter and every weight without adapters
"""
import os
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

from families import LENGTHS, language_model, sequences

# family: rank, alpha, parts of the names of what is adapted (tests/golden/test_lora.c has the same)
CASES = {
    "llama": (3, 7.0, ["self_attn."]),
    "opt": (5, 4.0, ["self_attn.", "fc1", "fc2"]),
    "gpt2": (4, 6.0, ["attn.", "mlp."]),
    "gpt_neox": (2, 5.0, ["attention."]),
    "llama-tied": (1, 3.0, ["q_proj", "v_proj", "down_proj"]),
    "bloom": (3, 2.0, ["self_attention.", "mlp."]),
}


def adapt(linear, rank, scale, g):
    """Numbers about as large as the weights': with N(0, 0.3) PyTorch's own fp32 gradients are off by 3e-6."""
    rows, cols = linear.weight.T.shape if isinstance(linear, Conv1D) else linear.weight.shape
    linear.lora_A = torch.nn.Linear(cols, rank, bias=False)
    linear.lora_B = torch.nn.Linear(rank, rows, bias=False)
    with torch.no_grad():
        for adapter in (linear.lora_A, linear.lora_B):
            adapter.weight.copy_(0.2 * torch.randn(adapter.weight.shape, generator=g))
    linear.weight.requires_grad_(False)
    linear.register_forward_hook(lambda self, args, y: y + scale * self.lora_B(self.lora_A(args[0])))


def reference(model, seqs):
    return {k: t.detach().clone().contiguous() for k, t in language_model(model, seqs).items() if t is not None}


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "tests/refs/lora"
    os.makedirs(out, exist_ok=True)
    torch.set_num_threads(1)
    for i, (name, (rank, alpha, parts)) in enumerate(CASES.items()):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            os.path.join("tests/refs/families", name), attn_implementation="eager", dtype=torch.float32).eval()
        g = torch.Generator().manual_seed(400 + i)
        for path, module in list(model.named_modules()):
            if isinstance(module, (torch.nn.Linear, Conv1D)) and any(part in path for part in parts):
                adapt(module, rank, alpha / rank, g)
        seqs = sequences(500 + i)
        ref = reference(model, seqs)
        ref.update({k: p.detach().clone() for k, p in model.named_parameters() if ".lora_" in k})
        ref["ids"] = torch.cat(seqs).to(torch.int32)
        ref["starts"] = torch.tensor([0] + LENGTHS).cumsum(0).to(torch.int32)
        save_file(ref, os.path.join(out, name + ".safetensors"))
        os.chmod(os.path.join(out, name + ".safetensors"), 0o644)
        exact = reference(model.double(), seqs)
        worst = max((float((ref[k] - e).norm() / e.norm()), k) for k, e in exact.items() if e.norm() > 1e-9)
        print(f"{name:14s} loss {float(ref['loss']):.5f}  fp32 against fp64: worst {worst[0]:.1e} in {worst[1]}")


if __name__ == "__main__":
    main()
