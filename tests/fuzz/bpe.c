// bpe.c: any text through a byte-level and a SentencePiece tokenizer and back; any ids to text, at once and token by
// token.
#include "token.h"
#include "token/tok_norm.h"

enum { TOKENIZERS = 8 };
static Tokenizer *tokenizers[TOKENIZERS];

static void load(void) {
    static const char *const paths[TOKENIZERS] = {"inputs/data/demo-tokenizer.json", "tests/refs/token_smollm.json",
                                                  "tests/refs/token_llama3.json",    "tests/refs/token_bloom.json",
                                                  "tests/refs/token_metaspace.json", "tests/refs/token_spm.model",
                                                  "tests/refs/token_qwen2.json",     "tests/refs/token_prefix.json"};
    for (int i = 0; i < TOKENIZERS; i++)
        if (tok_load(paths[i], &tokenizers[i])) {
            fprintf(stderr, "%s\n", err_text());
            abort();
        }
}

// What is decoded at once is what is decoded token by token.
static void decode(const Tokenizer *t, const int32_t *ids, int64_t n) {
    char *whole = tok_text(t, ids, n), *parts = NULL;
    size_t bytes = 0;
    TokStream s = {0};
    for (int64_t i = 0; i < n; i++) tok_stream_next(t, &s, ids[i], &parts, &bytes);
    tok_stream_end(&s, &parts, &bytes);
    FUZZ_HOLDS(!strcmp(whole, parts ? parts : ""));
    mem_free(whole), mem_free(parts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!tokenizers[0]) load();
    if (n < 2) return 0;
    const Tokenizer *t = tokenizers[data[0] % TOKENIZERS];
    const bool bytes_kept = data[0] % TOKENIZERS < 3; // byte-level and no normaliser: nothing is lost
    const char *text = (const char *)data + 2;
    const int64_t length = (int64_t)n - 2;
    TokIds ids = {0};
    FUZZ_HOLDS(tok_encode(t, text, length, data[1] & 7, &ids) == DS_OK);
    fuzz_typed(t, text, length);
    if (bytes_kept && !(data[1] & (TOK_SPECIAL | TOK_ENDS))) {
        char *fixed, *back;
        int64_t m;
        size_t bytes;
        norm_utf8(text, length, &fixed, &m);
        tok_decode(t, ids.id, ids.n, &back, &bytes);
        FUZZ_HOLDS(fixed ? bytes == (size_t)m && !memcmp(back, fixed, bytes)
                         : bytes == (size_t)length && !memcmp(back, text, bytes));
        mem_free(fixed), mem_free(back);
    }
    tok_ids_free(&ids);
    int32_t *any = MEM_NEW(int32_t, length / 2);
    for (int64_t i = 0; i < length / 2; i++)
        any[i] = (int32_t)(data[2 + 2 * i] | data[3 + 2 * i] << 8) % (int32_t)(tok_vocab_size(t) + 5) - 2;
    decode(t, any, length / 2);
    mem_free(any);
    err_clear();
    return 0;
}
