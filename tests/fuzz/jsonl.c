// jsonl.c: JSON lines, plain or gzip, and what each form makes of every record.
#include "data/build_form.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    Jsonl *j = NULL;
    BuildRecord record = {0};
    const JsonValue *object = NULL;
    if (jsonl_open(fuzz_file("lines.jsonl", data, n), &j) == DS_OK) {
        for (Err err = DS_OK; err == DS_OK || err == DS_ERR_DATA;) {
            err_clear();
            err = jsonl_next(j, &object);
            if (!err && !object) break;
            for (int form = 0; !err && form < FORM_KINDS; form++) {
                char keys[128];
                bool empty;
                if (build_form_parse(object, (BuildForm)form, "here", &record) == DS_OK && !record.is_text) {
                    build_form_ends_well(&record.chosen, &empty);
                    if (record.has_pair) build_form_identical(&record);
                }
                jsonl_key_list(object, keys, sizeof keys);
                err_clear();
            }
        }
        FUZZ_HOLDS(jsonl_bytes_read(j) <= jsonl_bytes(j));
    }
    build_form_free(&record);
    jsonl_close(&j);
    err_clear();
    return 0;
}
