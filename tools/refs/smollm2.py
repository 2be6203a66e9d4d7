"""Writes tests/refs/smollm2_logprobs.jsonl: log-probs of SmolLM2-135M-Instruct by transformers (fp32) on 50 HH transcripts.

usage: python3 tools/refs/smollm2.py MODEL_DIR HH.jsonl.gz [OUT]      needs torch, transformers
MODEL_DIR: the weights of the GGUF that tools/smollm2.sh fetches, as a Hugging Face folder (bin/dschat-model export makes one).
"""
import gzip
import json
import sys

import torch
import transformers

model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
tok = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
rows = []
with gzip.open(sys.argv[2], "rt") as f, torch.no_grad():
    for line in f:
        ids = tok(json.loads(line)["chosen"], add_special_tokens=False)["input_ids"]
        if not 60 <= len(ids) <= 320:
            continue
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
        logp = torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        rows.append({"ids": ids, "logprobs": [float(f"{x:.6f}") for x in logp.tolist()]})
        if len(rows) == 50:
            break
with open(sys.argv[3] if len(sys.argv) > 3 else "tests/refs/smollm2_logprobs.jsonl", "w") as f:
    for row in rows:
        f.write(json.dumps(row) + "\n")
