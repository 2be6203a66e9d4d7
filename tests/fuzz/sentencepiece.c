// sentencepiece.c: SentencePiece's tokenizer.model.
#include "token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    Tokenizer *t = NULL;
    if (tok_load(fuzz_file("tokenizer.model", data, n), &t) == DS_OK) fuzz_tokenizer(t);
    tok_free(&t);
    err_clear();
    return 0;
}
