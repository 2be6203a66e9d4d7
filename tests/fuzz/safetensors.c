// safetensors.c: one file, or (the input begins with '{') an index beside a small file model.safetensors.
#include "fuzz.h"
#include "io/safetensors.h"

static void look(const Safetensors *st) {
    for (int i = 0; i < st->n; i++) {
        const SafeTensor *t = &st->t[i];
        DType type;
        bool inside = false;
        for (int f = 0; f < st->files; f++)
            inside |= t->data >= st->maps[f].data && t->bytes <= st->maps[f].bytes &&
                      t->data + t->bytes <= st->maps[f].data + st->maps[f].bytes;
        FUZZ_HOLDS(inside && safetensors_find(st, t->name) == t);
        if (safetensors_float_type(st, t, &type) == DS_OK && t->count <= 1 << 16) {
            float *x = MEM_NEW(float, t->count);
            FUZZ_HOLDS(safetensors_read_f32(st, t, 0, t->count, x) == DS_OK);
            mem_free(x);
        }
        err_clear();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char shard[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                                "\"b\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[8,12]}}  ";
    Safetensors st = {0};
    if (n && data[0] == '{') {
        uint8_t file[8 + sizeof shard - 1 + 12] = {sizeof shard - 1};
        memcpy(file + 8, shard, sizeof shard - 1);
        fuzz_file("model-1.safetensors", file, sizeof file);
        fuzz_file("model.safetensors.index.json", data, n);
        if (safetensors_open(fuzz_folder(), &st) == DS_OK) look(&st);
    } else if (safetensors_open(fuzz_file("one.safetensors", data, n), &st) == DS_OK) look(&st);
    safetensors_close(&st);
    err_clear();
    return 0;
}
