// params.c: params files. What is accepted is echoed, and the echo says the same.
#include "fuzz.h"
#include "params/params.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    Params *p = NULL, *again = NULL;
    if (params_parse("fuzz.in", (const char *)data, n, 0, NULL, &p) == DS_OK) {
        char *text = params_text(p, true);
        FUZZ_HOLDS(params_parse("echo.in", text, strlen(text), 0, NULL, &again) == DS_OK);
        char *one = params_hash(p), *two = params_hash(again);
        FUZZ_HOLDS(!strcmp(one, two));
        mem_free(one), mem_free(two);
        mem_free(text);
    } else FUZZ_HOLDS(!p && err_text()[0]);
    params_free(&p);
    params_free(&again);
    err_clear();
    return 0;
}
