// blob.c: a tokenizer as our own files keep it.
#include "token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    Tokenizer *t = NULL;
    if (tok_load_blob((const char *)data, n, "fuzz", &t) == DS_OK) fuzz_tokenizer(t);
    tok_free(&t);
    err_clear();
    return 0;
}
