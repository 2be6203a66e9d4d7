// state.c: a checkpoint's trainer.h5, as if a stranger had written it.
#include "fuzz.h"
#include "io/kv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char *const keys[] = {"loop.step", "history.records", "kl.coef", "rng"};
    H5File *f = NULL;
    Kv *kv = NULL;
    if (h5_open_checked(fuzz_file("trainer.h5", data, n), &f) == DS_OK && kv_read(f, &kv) == DS_OK)
        for (int i = 0; i < DS_COUNT(keys); i++) {
            int64_t integer, count;
            double real;
            const void *array;
            kv_get_i64(kv, keys[i], &integer);
            kv_get_f64(kv, keys[i], &real);
            if (kv_get_array(kv, keys[i], DS_I64, &count, &array) == DS_OK && count > 0)
                FUZZ_HOLDS(count * 8 <= kv_bytes(kv));
            err_clear();
        }
    kv_destroy(&kv);
    h5_close(&f);
    err_clear();
    return 0;
}
