// config.c: Hugging Face's config.json. What is accepted is printed, and what is printed says the same.
#include "arch/arch_hf.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    Arch a, again;
    char *json = NULL;
    if (arch_hf_parse((const char *)data, n, "config.json", &a) == DS_OK &&
        arch_hf_print(&a, DS_BF16, 1, 2, &json) == DS_OK) {
        FUZZ_HOLDS(arch_hf_parse(json, strlen(json), "printed", &again) == DS_OK);
        for (int i = 0; i < arch_field_count(); i++) FUZZ_HOLDS(arch_field_get(&a, i) == arch_field_get(&again, i));
    }
    mem_free(json);
    err_clear();
    return 0;
}
