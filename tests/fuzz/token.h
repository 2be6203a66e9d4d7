// token.h: what must hold for any tokenizer that was accepted: it encodes and decodes, and its stored form is itself.
#ifndef DS_FUZZ_TOKEN_H
#define DS_FUZZ_TOKEN_H

#include "fuzz.h"
#include "token/bpe.h"

// What users type gives no special token: but unk, for a character that has no token.
static inline void fuzz_typed(const Tokenizer *t, const char *text, int64_t n) {
    TokIds ids = {0};
    FUZZ_HOLDS(tok_encode(t, text, n, n & 1 ? TOK_NO_PREFIX : 0, &ids) == DS_OK);
    for (int64_t i = 0; i < ids.n; i++) FUZZ_HOLDS(!tok_is_special(t, ids.id[i]) || ids.id[i] == tok_unk(t));
    tok_ids_free(&ids);
}

static inline void fuzz_tokenizer(Tokenizer *t) {
    static const char text[] = "Hello  World's 42\n\n<s> \xc3\xa9\xe4\xb8\xad \xff [INST]";
    char *blob, *again_blob, *words, *described;
    size_t bytes, again_bytes, n_words;
    Tokenizer *again;
    for (int flags = 0; flags < 8; flags++) {
        TokIds ids = {0};
        FUZZ_HOLDS(tok_encode(t, text, sizeof text - 1, flags, &ids) == DS_OK);
        for (int64_t i = 0; i < ids.n; i++) FUZZ_HOLDS(ids.id[i] >= 0 && ids.id[i] < tok_vocab_size(t));
        tok_decode(t, ids.id, ids.n, &words, &n_words);
        mem_free(words);
        tok_ids_free(&ids);
    }
    for (int32_t id = 0; id < tok_vocab_size(t) && id < 300; id++) {
        const TokStr piece = tok_piece(t, id);
        if (tok_is_special(t, id) && piece.n < 100) fuzz_typed(t, piece.s, piece.n);
    }
    FUZZ_HOLDS(tok_save(t, &blob, &bytes) == DS_OK);
    FUZZ_HOLDS(tok_load_blob(blob, bytes, "saved", &again) == DS_OK);
    FUZZ_HOLDS(tok_save(again, &again_blob, &again_bytes) == DS_OK);
    FUZZ_HOLDS(bytes == again_bytes && !memcmp(blob, again_blob, bytes));
    described = tok_describe(t);
    mem_free(described), mem_free(blob), mem_free(again_blob);
    tok_free(&again);
}

#endif
