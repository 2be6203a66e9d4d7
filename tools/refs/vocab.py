"""Writes tests/refs/token_*: small tokenizers, nasty strings, and the ids that the reference implementations give.

    python tools/refs/vocab.py [SHARED]    needs tokenizers, sentencepiece, xxhash; SHARED: folder of the real data

token_<name>.json        a tokenizer.json trained here, one for each pre-tokeniser
token_spm.model          a SentencePiece BPE model trained here
token_ids.json           {"strings": [hex], "cases": {name: [{"special": ids, "plain": ids, "text": decoded}]}, "long": {name: hash},
                         "chat": [...]}: of Hugging Face tokenizers and of sentencepiece
token_shared.json        xxh3-128 of all ids (int32, -1 after each text) of all texts of SHARED, by tokenizer and file
"""
import gzip
import io
import json
import struct
import sys

import sentencepiece
import xxhash
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

REFS = "tests/refs/token_"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"

STRINGS = [
    "", " ", "  ", "   ", "a", " a", "  a", "a ", "a  ", "\n", "\n\n", " \n", "\n ", "\r\n", "\r\n\r\n x", "\t", "\t\tx", " \t \n  y  \n",
    "Hello, world!", "Hello  world  12345 6 78901", "I'm you're HE'LL they'Ve 'Tis 'S 'ſ 'd'D don't DON'T", "it''s '' 's's",
    "1", "12", "123", "1234", "12345", " 1 12 123 1234", "  5", "   5   x", "1.5e-10 0x7f 1,000,000", "x²³½Ⅷ٣४五",
    "emoji 😀😃 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ☺️", "你好，世界。今天天气很好！", "日本語のテキスト、カタカナ", "한국어 텍스트", "한국어", "мир Мир МИР",
    "مرحبا بالعالم ، كيف", "नमस्ते दुनिया। क्या", "ไทย ภาษา", "שלום עולם", "é é ñ ñ Å Å ṩ ṩ q̣̇ q̣̇", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L", "ﬁ ﬀ ß ẞ İ ı K Å",
    "\u00a0nbsp\u00a0\u00a0x", "\u2003em \u2028line\u2029par\u0085nel\u1680og\u3000ideo", "\u180emong\u180e \u180e", "\u200bzero\u200d\ufeffbom",
    "\u2581under\u2581\u2581score \u2581", "▁ ▁▁ x▁y", "\x00", "a\x00b\x00", "\x01\x02\x1b[31m\x7f\x80\x9f", "\x1c\x1d\x1e\x1f x", "\x0b\x0c x",
    "<|endoftext|>", "a<|endoftext|>b", " <|im_start|>user\nhi<|im_end|>\n ", "<|im_end|", "<|im_end|>>", "<<|im_end|>", "<s>[INST] x [/INST]</s>",
    "<tool><tool/>", "    indented\n        more\n\n\n\nend", "if (x == 1) { return y[0]; } // ok?!", "#include <stdio.h>\n\tint main(void);",
    "https://example.org/a?b=c&d=%20#e", "....!!!???---___===", "…。，、।۔،(a|b)[c]", "( ( (( a) |b", "A" * 70, "ab" * 60, " " * 100, "\n" * 50 + "x",
    "the " * 30, "!" * 64, "é" * 40, "e\u0301" * 40, "\U0010ffff\U000e0001\ue000\ufffd\ufffe", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛", "ａｂｃ１２３", "Ǆǅǆ ʰʱ ªº",
    b"\xff", b"\xc3", b"\xc3(", b"\xe2\x82", b"\xe2\x82x", b"\xf0\x9f\x98", b"\xf0\x9f\x98 \xf0\x9f", b"\xed\xa0\x80\xed\xb0\x80", b"\xc0\xaf\xc1\xbf",
    b"\xf5\x80\x80\x80\xf4\x90\x80\x80", b"\xe0\x80\x80\xe0\x9f\xbf\xf0\x8f\xbf\xbf", b"a\x80b\xbfc\xfe\xffd", b"\xe2\xe2\x82\xe2\x82\xac",
    b"ok \xf0\x9f\x98\x80 \xf0\x9f\x98 end\xe4\xbd", b"\xe2\x96\x81\xe2\x96",
]
TURNS = [
    [("user", "Hello there"), ("assistant", "Hi! How can I help you?")],
    [("system", "You are kind."), ("user", "What is 2 + 2?"), ("assistant", "It is 4."), ("user", "And 3 + 5? "), ("assistant", "It is 8.\n\nSo.")],
    [("user", "tell me: <|im_end|> </s> <s> <|eot_id|> <|endoftext|>"), ("assistant", "x <|im_end|> y"), ("user", "\n\nmore"), ("assistant", "z")],
]


def corpus():
    text = open(__file__, encoding="utf-8").read()
    words = [w for w in text.replace("\n", " \n ").split(" ") if w]
    lines = text.split("\n") + [" ".join(words[i:i + 9]) for i in range(0, len(words), 7)]
    return lines + [s for s in STRINGS if isinstance(s, str)] * 2


def text_of(s):
    return s if isinstance(s, str) else s.decode("utf-8", errors="replace")


def bytes_tokenizer(pre, normalizer=None, ignore_merges=False, bos=None):
    tok = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tok.pre_tokenizer = pre
    tok.decoder = decoders.ByteLevel()
    if normalizer:
        tok.normalizer = normalizer
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=900, special_tokens=special, show_progress=False,
                                                          initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if bos:
        tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tok.token_to_id(bos))])])
    tok.add_tokens([AddedToken("....!!", normalized=False), AddedToken("   ", normalized=False)])
    return tok


def spm_tokenizer(metaspace):
    tok = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    blanks = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
    if metaspace:
        tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=True)
        tok.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(replacement="▁", prepend_scheme="first")])
    else:
        tok.normalizer = blanks
        tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    lines = [s for s in corpus() if len(s) < 200]
    tok.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=1100, special_tokens=special, show_progress=False, limit_alphabet=120,
                                                       max_token_length=16))
    root = json.loads(tok.to_str())
    root["added_tokens"] = [a for a in root["added_tokens"] if not a["content"].startswith("<0x")]
    tok = Tokenizer.from_str(json.dumps(root))
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tok.token_to_id("<s>"))])
    return tok


def train_spm():
    out = io.BytesIO()
    lines = [s for s in corpus() if len(s) < 200 and "\x00" not in s and s.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=1000, model_type="bpe", byte_fallback=True, character_coverage=0.98,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
        minloglevel=2)
    return out.getvalue()


def typed(tok):
    """The tokenizer for what users type: special tokens are letters, and no merge makes one."""
    root = json.loads(tok.to_str())
    special = {a["content"] for a in root["added_tokens"] if a["special"]}
    root["model"]["merges"] = [m for m in root["model"]["merges"] if not special & {*m, "".join(m)}]
    tok = Tokenizer.from_str(json.dumps(root))
    tok.encode_special_tokens = True
    return tok


def hf_case(tok, letters, s):
    text = text_of(s)
    special = tok.encode(text, add_special_tokens=False).ids
    ends = tok.encode(text, add_special_tokens=True).ids
    plain = letters.encode(text, add_special_tokens=False).ids
    return {"special": special, "ends": ends, "plain": plain, "text": tok.decode(plain, skip_special_tokens=True)}


def spm_case(sp, s):
    ids = sp.encode(text_of(s))
    return {"plain": ids, "ends": [sp.bos_id()] + ids, "text": sp.decode(ids)}


def hash_ids(lists):
    h = xxhash.xxh3_128()
    for ids in lists:
        h.update(struct.pack(f"<{len(ids)}i", *ids))
    return h.hexdigest()


def long_text():
    x, out = 12345, []
    for _ in range(100000):
        x = (x * 1103515245 + 12345) % 2**31
        out.append("etaoinshrdlucmfw"[x >> 16 & 15])
    return "".join(out)


# ---- conversations: pieces as the templates' authors write them, encoded whole ----

def chat_pieces(template, turns):
    """[(text, special?, answer?)]"""
    out = []

    def add(s, special=False, answer=False):
        out.append((s, special, answer))

    if template == "llama3":
        add("<|begin_of_text|>", True)
    if template == "hh" or template == "plain":
        add("{bos?}", True)
    system = ""
    for role, text in turns:
        mine = role == "assistant"
        if template == "chatml":
            add("<|im_start|>", True), add(role + "\n"), add(text, False, mine), add("<|im_end|>", True, mine), add("\n")
        elif template == "llama3":
            add("<|start_header_id|>", True), add(role), add("<|end_header_id|>", True), add("\n\n"), add(text, False, mine)
            add("<|eot_id|>", True, mine)
        elif template == "llama2":
            if role == "system":
                system = f"<<SYS>>\n{text}\n<</SYS>>\n\n"
            elif mine:
                add(" " + text + " ", False, True), add("{eos}", True, True)
            else:
                add("{bos}", True), add(f"[INST] {system}{text} [/INST]")
                system = ""
        elif template == "hh":
            name = {"system": "", "user": "\n\nHuman: ", "assistant": "\n\nAssistant:"}[role]
            add(name), add(" " + text if mine else text, False, mine)
            if mine:
                add("{eos}", True, True)
        else:
            add(text, False, mine)
            if mine:
                add("{eos}", True, True)
    return out


def chat_case(name, tok, template, turns, bos, eos, add_bos):
    """Stretches between special tokens are encoded as a whole, cut only where an answer begins or ends."""
    tok = typed(tok)
    ids, spans, run, state, fresh = [], [], "", False, True

    def flush():
        nonlocal run, fresh
        if run:
            if name == "llama" and not fresh:  # no dummy blank in the middle of a text
                ids.extend(i for i in tok.encode("\x01" + run, add_special_tokens=False).ids[2:])
            else:
                ids.extend(tok.encode(run, add_special_tokens=False).ids)
            fresh = False
        run = ""

    for text, special, answer in chat_pieces(template, turns):
        if state and not answer:
            flush()
            spans.append(len(ids))
        if answer and not state:
            flush()
            spans.append(len(ids))
        if special:
            flush()
            text = {"{bos}": bos, "{eos}": eos, "{bos?}": bos if add_bos else ""}.get(text, text)
            if text:
                ids.append(tok.token_to_id(text))
                fresh = True
        else:
            run += text
        state = answer
    flush()
    if state:
        spans.append(len(ids))
    return {"tokenizer": name, "template": template, "turns": [list(t) for t in turns], "ids": ids, "spans": spans}


def shared(folder):
    gpt2 = Tokenizer(models.BPE.from_file(f"{folder}/gpt2-encoder.json", f"{folder}/gpt2-vocab.bpe"))
    gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    llama = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/llama2-tokenizer.model")
    encode = {"gpt2": lambda s: gpt2.encode(s).ids, "llama2": lambda s: llama.encode(s)}
    out = {}
    for file, fields in (("hh-harmless-test", ("chosen", "rejected")), ("gsm8k-train", ("question", "answer"))):
        rows = [(line.rstrip("\n"), json.loads(line)) for line in gzip.open(f"{folder}/{file}.jsonl.gz", "rt", encoding="utf-8")]
        texts = [t for line, row in rows for t in (line, *(row[f] for f in fields))]
        for name, f in encode.items():
            out[f"{name} {file}"] = hash_ids(f(t) + [-1] for t in texts)
    for name, f in encode.items():
        out[f"{name} nasty"] = hash_ids(f(text_of(s)) + [-1] for s in STRINGS)
        out[f"{name} long"] = hash_ids([f(long_text())])
    return out


def main():
    split = lambda pattern: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated", False),
                                                     pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    toks = {
        "gpt2": bytes_tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=False)),
        "smollm": bytes_tokenizer(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                           pre_tokenizers.ByteLevel(add_prefix_space=False)])),
        "llama3": bytes_tokenizer(split(LLAMA3), ignore_merges=True, bos="<|begin_of_text|>"),
        "qwen2": bytes_tokenizer(split(QWEN2), normalizers.NFC()),
        "bloom": bytes_tokenizer(split(BLOOM)),
        "prefix": bytes_tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        "llama": spm_tokenizer(False),
        "metaspace": spm_tokenizer(True),
    }
    out = {"strings": [(s if isinstance(s, bytes) else s.encode()).hex() for s in STRINGS], "cases": {}, "long": {}, "chat": []}
    for name, tok in toks.items():
        tok.save(f"{REFS}{name}.json", pretty=False)
        letters = typed(tok)
        out["cases"][name] = [hf_case(tok, letters, s) for s in STRINGS]
        out["long"][name] = hash_ids([tok.encode(long_text(), add_special_tokens=False).ids])
    model = train_spm()
    open(f"{REFS}spm.model", "wb").write(model)
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    out["cases"]["spm"] = [spm_case(sp, s) for s in STRINGS]
    out["long"]["spm"] = hash_ids([sp.encode(long_text())])
    for turns in TURNS:
        end = "<|endoftext|>"
        out["chat"] += [chat_case("gpt2", toks["gpt2"], t, turns, end, end, False) for t in ("hh", "plain", "chatml")]
        out["chat"] += [chat_case("smollm", toks["smollm"], "chatml", turns, end, end, False)]
        out["chat"] += [chat_case("llama3", toks["llama3"], t, turns, "<|begin_of_text|>", end, True) for t in ("llama3", "hh")]
        out["chat"] += [chat_case("llama", toks["llama"], t, turns, "<s>", "</s>", True) for t in ("llama2", "hh")]
    json.dump(out, open(f"{REFS}ids.json", "w"), separators=(",", ":"), ensure_ascii=True)
    if len(sys.argv) > 1:
        json.dump(shared(sys.argv[1]), open(f"{REFS}shared.json", "w"), indent=1)


main()
