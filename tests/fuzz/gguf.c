// gguf.c: GGUF files: every key in every way, every tensor, the tokenizer in it.
#include "fuzz.h"
#include "io/gguf.h"
#include "io/gguf_quant.h"
#include "io/import_meta.h"

static void look(const Gguf *g) {
    for (int i = 0; i < g->keys; i++) {
        const char *key = g->kv[i].key;
        double number;
        int64_t n, *ints = NULL;
        float *floats = NULL;
        GgufString *strings = NULL;
        gguf_get_number(g, key, &number);
        mem_free(gguf_get_string(g, key));
        if (gguf_get_strings(g, key, &strings, &n) == DS_OK) mem_free(strings);
        if (gguf_get_ints(g, key, &ints, &n) == DS_OK) mem_free(ints);
        if (gguf_get_floats(g, key, &floats, &n) == DS_OK) mem_free(floats);
        FUZZ_HOLDS(gguf_find(g, key) == &g->kv[i]);
        err_clear();
    }
    for (int i = 0; i < g->tensors; i++) {
        const GgufTensor *t = &g->t[i];
        FUZZ_HOLDS(t->data >= g->map.data && t->bytes <= g->map.bytes &&
                   t->data + t->bytes <= g->map.data + g->map.bytes);
        if (t->count > 1 << 16) continue;
        float *x = MEM_NEW(float, t->count);
        gguf_read_f32(g, t, 0, t->count, x);
        mem_free(x);
        err_clear();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    Gguf g = {0};
    const char *path = fuzz_file("model.gguf", data, n);
    if (gguf_open(path, &g) == DS_OK) {
        ImportMeta meta = {0};
        look(&g);
        import_meta_read(path, &g, NULL, 64, &meta);
        import_meta_free(&meta);
    }
    gguf_close(&g);
    err_clear();
    return 0;
}
