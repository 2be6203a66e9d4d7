"""Writes inputs/data/demo-tokenizer.json: a byte-level BPE (GPT-2's pre-tokeniser) that knows the demo's words. Needs `tokenizers`.

usage: python3 tools/refs/demo_tokenizer.py  (from the repository root)
"""
import json
import subprocess

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

lines = subprocess.run(["awk", "-v", "kind=pairs", "-v", "n=4000", "-v", "seed=1", "-f", "inputs/data/demo.awk"],
                       capture_output=True, text=True, check=True).stdout.splitlines()
texts = []
for line in lines:
    row = json.loads(line)
    texts.append(f"\n\nHuman: {row['prompt']}\n\nAssistant: {row['chosen']}")

tok = Tokenizer(models.BPE())
tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tok.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=["<|endoftext|>"], show_progress=False,
                              initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
tok.train_from_iterator(texts, trainer)
tok.save("inputs/data/demo-tokenizer.json")
print(tok.get_vocab_size(), tok.encode(texts[0]).tokens)
