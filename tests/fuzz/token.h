// token.h: what must hold for any tokenizer that was accepted: it encodes and decodes, and its stored form is itself.
#ifndef DS_FUZZ_TOKEN_H
#define DS_FUZZ_TOKEN_H

#include "fuzz.h"
#include "token/bpe.h"

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
    FUZZ_HOLDS(tok_save(t, &blob, &bytes) == DS_OK);
    FUZZ_HOLDS(tok_load_blob(blob, bytes, "saved", &again) == DS_OK);
    FUZZ_HOLDS(tok_save(again, &again_blob, &again_bytes) == DS_OK);
    FUZZ_HOLDS(bytes == again_bytes && !memcmp(blob, again_blob, bytes));
    described = tok_describe(t);
    mem_free(described), mem_free(blob), mem_free(again_blob);
    tok_free(&again);
}

#endif
