// params.c: params files. What is accepted is echoed, and the echo says the same.
#include "fuzz.h"
#include "params/params.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    Params *p = NULL, *again = NULL;
    char *text = NULL;
    size_t bytes = 0;
    if (params_parse("fuzz.in", (const char *)data, n, 0, NULL, &p) == DS_OK) {
        FILE *f = open_memstream(&text, &bytes);
        params_echo(p, f);
        fclose(f);
        FUZZ_HOLDS(params_parse("echo.in", text, bytes, 0, NULL, &again) == DS_OK);
        char *one = params_hash(p), *two = params_hash(again);
        FUZZ_HOLDS(!strcmp(one, two));
        mem_free(one), mem_free(two);
        free(text); // lint: open_memstream's memory
    } else FUZZ_HOLDS(!p && err_text()[0]);
    params_free(&p);
    params_free(&again);
    err_clear();
    return 0;
}
