// tok_export.c: tok_export_hf: a tokenizer as Hugging Face's tokenizer.json and tokenizer_config.json.
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "token/tok_vocab.h"

static bool is_added(const TokPiece *p) {
    return p->n > 0 && (p->type == TOK_CONTROL || p->type == TOK_USER || p->type == TOK_UNKNOWN);
}

// A token as the file spells it. Owner: caller, mem_free.
static char *spell(const Tokenizer *t, int32_t id) {
    const TokPiece *p = &t->piece[id];
    const char *s = piece_text(t, id);
    if (p->type == TOK_BYTE) return mem_printf("<0x%02X>", (unsigned char)s[0]);
    if (p->type == TOK_NORMAL && t->kind == TOK_KIND_BYTES) return vocab_print(s, p->n);
    if (p->type != TOK_NORMAL) return mem_strndup(s, (size_t)p->n);
    char *out = mem_array(3 * (int64_t)p->n + 1, 1), *w = out;
    for (int32_t i = 0; i < p->n; i++) {
        if (s[i] == ' ') memcpy(w, "\xe2\x96\x81", 3), w += 3;
        else *w++ = s[i];
    }
    return out;
}

static json_t *spelt(const Tokenizer *t, int32_t id) {
    char *s = id < 0 ? NULL : spell(t, id);
    json_t *out = s ? json_string(s) : NULL;
    mem_free(s);
    return out ? out : json_null();
}

static json_t *make_vocab(const Tokenizer *t) {
    json_t *vocab = json_object();
    for (int32_t id = 0; id < t->n; id++) {
        if (t->piece[id].type == 0) continue;
        char *s = spell(t, id);
        if (!json_object_get(vocab, s)) json_object_set_new(vocab, s, json_integer(id));
        mem_free(s);
    }
    return vocab;
}

static json_t *make_merges(const Tokenizer *t) {
    json_t *merges = json_array();
    for (int64_t m = 0; m < t->n_merges; m++) {
        char *left = spell(t, t->merge[m].left), *right = spell(t, t->merge[m].right);
        json_array_append_new(merges, json_sprintf("%s %s", left, right));
        mem_free(left);
        mem_free(right);
    }
    return merges;
}

static json_t *make_model(const Tokenizer *t) {
    return json_pack("{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token",
                     spelt(t, t->kind == TOK_KIND_SPM ? t->unk : -1), "continuing_subword_prefix", "end_of_word_suffix",
                     "fuse_unk", t->fuse_unk, "byte_fallback", t->byte_fallback, "ignore_merges", t->ignore_merges,
                     "vocab", make_vocab(t), "merges", make_merges(t));
}

static json_t *make_added(const Tokenizer *t) {
    json_t *list = json_array();
    for (int32_t id = 0; id < t->n; id++) {
        const TokPiece *p = &t->piece[id];
        if (!is_added(p)) continue;
        json_array_append_new(list, json_pack("{s:i, s:o, s:b, s:b, s:b, s:b, s:b}", "id", id, "content", spelt(t, id),
                                              "single_word", 0, "lstrip", p->lstrip, "rstrip", p->rstrip, "normalized",
                                              0, "special", p->type != TOK_USER));
    }
    return list;
}

static json_t *make_normalizer(const Tokenizer *t) {
    if (t->nfc) return json_pack("{s:s}", "type", "NFC");
    if (t->kind != TOK_KIND_SPM || t->prefix_unless_blank) return json_null();
    json_t *replace =
        json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ", "content", "\xe2\x96\x81");
    if (t->prefix == TOK_PREFIX_NONE) return replace;
    json_t *prepend = json_pack("{s:s, s:s}", "type", "Prepend", "prepend", "\xe2\x96\x81");
    return json_pack("{s:s, s:[o, o]}", "type", "Sequence", "normalizers", prepend, replace);
}

static json_t *make_pre_tokenizer(const Tokenizer *t) {
    static const char *const schemes[] = {"never", "first", "always"};
    if (t->kind == TOK_KIND_SPM) {
        if (!t->prefix_unless_blank) return json_null();
        return json_pack("{s:s, s:s, s:s, s:b}", "type", "Metaspace", "replacement", "\xe2\x96\x81", "prepend_scheme",
                         schemes[t->prefix], "split", t->split_blanks);
    }
    const bool own = t->pretoken == PRETOKEN_GPT2 || t->pretoken == PRETOKEN_SMOLLM;
    json_t *bytes = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space",
                              t->prefix != TOK_PREFIX_NONE, "trim_offsets", 1, "use_regex", own);
    if (t->pretoken == PRETOKEN_GPT2 || t->pretoken == PRETOKEN_NONE) return bytes;
    json_t *cut = own ? json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1)
                      : json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                                  pretoken_pattern(t->pretoken), "behavior", "Isolated", "invert", 0);
    return json_pack("{s:s, s:[o, o]}", "type", "Sequence", "pretokenizers", cut, bytes);
}

static json_t *make_post_processor(const Tokenizer *t) {
    if (!t->add_bos && !t->add_eos) return json_null();
    json_t *single = json_array(), *pair = json_array(), *special = json_object();
    const struct {
        int32_t id;
        const char *sequence;
    } steps[] = {{t->add_bos ? t->bos : -1, NULL}, {-1, "A"}, {t->add_eos ? t->eos : -1, NULL}};
    for (int i = 0; i < DS_COUNT(steps); i++) {
        json_t *step = NULL;
        if (steps[i].sequence) step = json_pack("{s:{s:s, s:i}}", "Sequence", "id", steps[i].sequence, "type_id", 0);
        if (steps[i].id >= 0) {
            char *name = spell(t, steps[i].id);
            step = json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", name, "type_id", 0);
            json_object_set_new(special, name,
                                json_pack("{s:s, s:[i], s:[s]}", "id", name, "ids", steps[i].id, "tokens", name));
            mem_free(name);
        }
        if (step) json_array_append_new(single, step);
    }
    json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
    json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "B", "type_id", 1));
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair", pair,
                     "special_tokens", special);
}

static json_t *make_decoder(const Tokenizer *t) {
    if (t->kind == TOK_KIND_BYTES)
        return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 1, "trim_offsets", 1,
                         "use_regex", 1);
    json_t *list = json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern", "String",
                             "\xe2\x96\x81", "content", " ", "type", "ByteFallback", "type", "Fuse");
    if (t->prefix != TOK_PREFIX_NONE)
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", list);
}

// Takes `root`.
static Err write_json(const char *dir, const char *name, json_t *root) {
    char *path = mem_printf("%s/%s", dir, name);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    Err err = text ? file_write_atomic(path, text, strlen(text))
                   : err_set(DS_ERR_DATA, "%s: a token is not UTF-8, so the tokenizer cannot be written as JSON", path);
    free(text); // lint: jansson's memory
    json_decref(root);
    mem_free(path);
    return err;
}

Err tok_export_hf(const Tokenizer *t, const char *dir) {
    Err err = DS_OK;
    DS_TRY(write_json(dir, "tokenizer.json",
                      json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation",
                                "padding", "added_tokens", make_added(t), "normalizer", make_normalizer(t),
                                "pre_tokenizer", make_pre_tokenizer(t), "post_processor", make_post_processor(t),
                                "decoder", make_decoder(t), "model", make_model(t))));
    DS_TRY(write_json(dir, "tokenizer_config.json",
                      json_pack("{s:s, s:b, s:o, s:o, s:o, s:o}", "tokenizer_class", "PreTrainedTokenizerFast",
                                "clean_up_tokenization_spaces", 0, "bos_token", spelt(t, t->bos), "eos_token",
                                spelt(t, t->eos), "pad_token", spelt(t, t->pad), "unk_token", spelt(t, t->unk))));
done:
    return err;
}
