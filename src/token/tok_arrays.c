// tok_arrays.c: a tokenizer out of the arrays of a GGUF file; a SentencePiece model comes this way too.
#include <string.h>

#include "base/mem.h"
#include "token/tok_load.h"

static Err check_end(int64_t id, const TokArrays *a, const char *name, const char *what) {
    if (id >= -1 && id < a->n_tokens) return DS_OK;
    return err_set(DS_ERR_DATA, "%s: %s is token %lld, expected 0 .. %lld", what, name, (long long)id,
                   (long long)a->n_tokens - 1);
}

static Err set_tokens(Tokenizer *t, const TokArrays *a, const char *what) {
    Err err = DS_OK;
    for (int64_t i = 0; i < a->n_tokens; i++) {
        const int64_t type = a->types ? a->types[i] : TOK_NORMAL;
        const TokStr s = a->tokens[i];
        DS_CHECK(type >= TOK_NORMAL && type <= TOK_BYTE, DS_ERR_DATA, "%s: token %lld is of type %lld, expected 1 .. 6",
                 what, (long long)i, (long long)type);
        if (t->kind == TOK_KIND_SPM) DS_TRY(vocab_set_spm(t, i, a->n_tokens, (TokType)type, s.s, s.n, what));
        else if (type == TOK_NORMAL) DS_TRY(vocab_set_printed(t, i, a->n_tokens, s.s, s.n, what));
        else DS_TRY(vocab_set(t, i, a->n_tokens, type == TOK_BYTE ? TOK_UNUSED : (TokType)type, s.s, s.n, what));
    }
done:
    return err;
}

static Err set_options(Tokenizer *t, const TokArrays *a, const char *what) {
    Err err = DS_OK;
    DS_TRY(check_end(a->bos, a, "bos", what));
    DS_TRY(check_end(a->eos, a, "eos", what));
    DS_TRY(check_end(a->pad, a, "pad", what));
    DS_TRY(check_end(a->unk, a, "unk", what));
    t->bos = (int32_t)a->bos, t->eos = (int32_t)a->eos, t->pad = (int32_t)a->pad, t->unk = (int32_t)a->unk;
    bool adds = t->kind == TOK_KIND_SPM;
    if (t->kind == TOK_KIND_BYTES) {
        DS_CHECK(a->pre, DS_ERR_DATA, "%s: does not say its pre-tokeniser (tokenizer.ggml.pre)", what);
        DS_TRY(pretoken_by_gguf(a->pre, what, &t->pretoken));
        t->nfc = t->pretoken == PRETOKEN_QWEN2;
        adds = t->ignore_merges = t->pretoken == PRETOKEN_LLAMA3;
    } else {
        t->fuse_unk = true;
        int bytes = 0;
        for (int64_t i = 0; i < t->n; i++) bytes += t->piece[i].type == TOK_BYTE;
        t->byte_fallback = bytes == 256;
    }
    if (a->add_space_prefix < 0 ? t->kind == TOK_KIND_SPM : a->add_space_prefix) t->prefix = TOK_PREFIX_ALWAYS;
    t->prefix_unless_blank = t->kind == TOK_KIND_BYTES && t->prefix != TOK_PREFIX_NONE;
    t->add_bos = a->add_bos < 0 ? adds && t->bos >= 0 : a->add_bos;
    t->add_eos = a->add_eos > 0;
done:
    return err;
}

Err load_arrays(const TokArrays *a, const json_t *config, const char *what, Tokenizer **out) {
    Err err = DS_OK;
    Tokenizer *t = NULL;
    *out = NULL;
    const bool spm = a->model && !strcmp(a->model, "llama");
    DS_CHECK(
        spm || (a->model && !strcmp(a->model, "gpt2")), DS_ERR_DATA,
        "%s: tokenizer of kind \"%.40s\" is not known; known are gpt2 (byte-level BPE) and llama (SentencePiece BPE)",
        what, a->model ? a->model : "");
    DS_CHECK(!spm || a->scores, DS_ERR_DATA, "%s: has no scores of tokens", what);
    t = vocab_create(spm ? TOK_KIND_SPM : TOK_KIND_BYTES);
    DS_TRY(set_tokens(t, a, what));
    DS_TRY(set_options(t, a, what));
    if (config) DS_TRY(load_ends(t, config, true, true, what));
    DS_TRY(vocab_index(t, what));
    if (spm) DS_TRY(vocab_merges_by_score(t, a->scores, a->n_tokens, what));
    for (int64_t i = 0; i < a->n_merges && !spm; i++) DS_TRY(load_merge(t, a->merges[i].s, a->merges[i].n, i, what));
    DS_TRY(vocab_finish(&t, what));
    *out = t;
    t = NULL;
done:
    tok_free(&t);
    return err;
}

Err tok_load_arrays(const TokArrays *a, const char *what, Tokenizer **out) { return load_arrays(a, NULL, what, out); }
