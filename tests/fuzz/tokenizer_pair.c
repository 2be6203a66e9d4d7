// tokenizer_pair.c: vocab.json and merges.txt, with a tokenizer_config.json: the input's parts between NUL bytes.
#include "token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char *const names[] = {"tokenizer_config.json", "merges.txt", "vocab.json"};
    Tokenizer *t = NULL;
    for (int i = 0; i < 3; i++) {
        const uint8_t *nul = i < 2 ? memchr(data, 0, n) : NULL;
        size_t part = nul ? (size_t)(nul - data) : n;
        fuzz_file(names[i], data, part);
        data += part + (nul != NULL), n -= part + (nul != NULL);
    }
    if (tok_load(fuzz_folder(), &t) == DS_OK) fuzz_tokenizer(t);
    tok_free(&t);
    err_clear();
    return 0;
}
