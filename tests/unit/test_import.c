// test_import.c: foreign models -> HDF5 -> Hugging Face folders: the same bytes, every family, and models that do not
// fit.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "io/export.h"
#include "io/import.h"
#include "io/modelfile.h"
#include "io/safetensors.h"

#define DIR "build/tmp/test_import"
#define FAMILIES "tests/refs/families"

static const char *const families[] = {"opt",   "opt-postnorm", "gpt2",    "bloom", "gpt_neox",
                                       "llama", "llama-tied",   "mistral", "qwen2", "qwen3"};

static int make_scratch(void **state) {
    (void)state;
    h5_init();
    file_remove_tree(DIR);
    return file_make_dirs(DIR);
}

static void must(Err err) {
    if (err) fail_msg("%s", err_text());
}

static void expect(Err got, Err expected, const char *word) {
    if (got != expected) fail_msg("code %d, expected %d (%s)", got, expected, err_text());
    if (!strstr(err_text(), word)) fail_msg("\"%s\" does not say \"%s\"", err_text(), word);
    err_clear();
}

// Both folders hold the same tensors: names, types, shapes, bytes.
static void check_same(const char *a, const char *b) {
    Safetensors x, y;
    must(safetensors_open(a, &x));
    must(safetensors_open(b, &y));
    assert_int_equal(x.n, y.n);
    for (int i = 0; i < x.n; i++) {
        const SafeTensor *s = &x.t[i], *t = &y.t[i];
        assert_string_equal(s->name, t->name);
        assert_string_equal(s->dtype, t->dtype);
        assert_true(s->ndim == t->ndim && s->bytes == t->bytes);
        assert_memory_equal(s->shape, t->shape, sizeof s->shape);
        if (memcmp(s->data, t->data, s->bytes) != 0) fail_msg("%s changed on the way", s->name);
    }
    safetensors_close(&x);
    safetensors_close(&y);
}

static void test_round_trip(void **state) {
    (void)state;
    for (int i = 0; i < DS_COUNT(families); i++) {
        char *src = mem_printf(FAMILIES "/%s", families[i]), *h5 = mem_printf(DIR "/%s.h5", families[i]);
        char *out = mem_printf(DIR "/%s", families[i]), *again = mem_printf(DIR "/%s.again.h5", families[i]);
        must(import_model(src, h5, -1));
        must(export_model(h5, out, 20000)); // in shards
        check_same(src, out);
        must(import_model(out, again, -1)); // our config.json says the same as theirs
        ModelFile *a, *b;
        must(modelfile_open(h5, &a));
        must(modelfile_open(again, &b));
        assert_memory_equal(modelfile_arch(a), modelfile_arch(b), sizeof(Arch));
        modelfile_close(&a);
        modelfile_close(&b);
        expect(export_model(h5, out, 1e9), DS_ERR_IO, "is there already");
        mem_free(src), mem_free(h5), mem_free(out), mem_free(again);
    }
}

// bf16 comes out as it went in, transposed weights (GPT-2) included, whatever the bits (here also NaN and infinities).
static void test_bf16_bytes(void **state) {
    (void)state;
    must(import_model(FAMILIES "/gpt2", DIR "/half.h5", DS_BF16));
    must(export_model(DIR "/half.h5", DIR "/half", 1e9));
    char *data;
    size_t bytes;
    must(file_read_all(DIR "/half/model.safetensors", 1 << 20, &data, &bytes));
    for (size_t i = 0; i < 128; i++) memcpy(data + bytes - 300 + 2 * i, (uint16_t[]){(uint16_t)(0x7f70 + i)}, 2);
    must(file_write_atomic(DIR "/half/model.safetensors", data, bytes));
    must(import_model(DIR "/half", DIR "/half2.h5", -1));
    must(export_model(DIR "/half2.h5", DIR "/half2", 1e9));
    check_same(DIR "/half", DIR "/half2");
    mem_free(data);
}

// A model as llama.cpp's converter writes it gives the weights of the Hugging Face folder it was made from.
static void test_gguf(void **state) {
    (void)state;
    static const char *const names[] = {"llama-tied", "qwen2", "qwen3", "gpt2"};
    for (int i = 0; i < DS_COUNT(names); i++) {
        char *folder = mem_printf(FAMILIES "/%s", names[i]), *file = mem_printf("tests/refs/gguf/%s.gguf", names[i]);
        ImportSource *a, *b;
        must(import_open(folder, &a));
        must(import_open(file, &b));
        const WeightList *list = import_weights(a);
        assert_int_equal(list->n, import_weights(b)->n);
        assert_memory_equal(import_arch(a), import_arch(b), sizeof(Arch));
        for (int k = 0; k < list->n; k++) {
            int64_t n = list->w[k].count;
            float *x = MEM_NEW(float, n), *y = MEM_NEW(float, n);
            must(import_read(a, k, DS_F32, x));
            must(import_read(b, k, DS_F32, y));
            if (memcmp(x, y, (size_t)n * 4) != 0) fail_msg("%s: %s differs", names[i], list->w[k].name);
            must(import_read(b, k, DS_BF16, y));
            for (int64_t e = 0; e < n; e++) assert_int_equal(((uint16_t *)y)[e], f32_to_bf16(x[e]));
            mem_free(x), mem_free(y);
        }
        import_close(&a);
        import_close(&b);
        mem_free(folder), mem_free(file);
    }
    expect(import_model("tests/refs/gguf/types.gguf", DIR "/x.h5", -1), DS_ERR_DATA, "block_count");
}

// ---- variants of a folder: the tensors of llama-tied with changes ----

typedef struct {
    const char *rename_from, *rename_to, *drop;
    const char *extra; // a copy of the embedding under this name
    bool differ;       // ... with one bit changed
    const char *config;
} Change;

static void write_variant(const char *dir, const char *family, const Change *c) {
    Safetensors st;
    SafeSpec specs[64];
    const SafeTensor *data[64];
    SafetensorsWriter *w;
    char *src = mem_printf(FAMILIES "/%s", family), *config = mem_printf("%s/config.json", src), *json;
    char *copy_to = mem_printf("%s/config.json", dir);
    size_t bytes;
    int n = 0;
    file_remove_tree(dir);
    must(file_make_dirs(dir));
    must(safetensors_open(src, &st));
    for (int i = 0; i < st.n; i++) {
        const SafeTensor *t = &st.t[i];
        if (c->drop && !strcmp(t->name, c->drop)) continue;
        bool renamed = c->rename_from && !strcmp(t->name, c->rename_from);
        specs[n] = (SafeSpec){.name = renamed ? c->rename_to : t->name, .ndim = t->ndim};
        memcpy(specs[n].shape, t->shape, sizeof t->shape);
        data[n++] = t;
        if (c->extra && !strcmp(t->name, "model.embed_tokens.weight")) {
            specs[n] = specs[n - 1];
            specs[n].name = c->extra;
            data[n++] = t;
        }
    }
    must(safetensors_create(dir, specs, n, DS_F32, 1 << 30, &w));
    for (int i = 0; i < n; i++) {
        char *copy = mem_strndup(data[i]->data, data[i]->bytes);
        if (c->differ && c->extra && !strcmp(specs[i].name, c->extra)) copy[17] ^= 1;
        must(safetensors_write(w, copy, data[i]->bytes));
        mem_free(copy);
    }
    must(safetensors_finish(w));
    safetensors_destroy(&w);
    must(file_read_all(config, 1 << 20, &json, &bytes));
    must(file_write_atomic(copy_to, c->config ? c->config : json, c->config ? strlen(c->config) : bytes));
    mem_free(json), mem_free(src), mem_free(config), mem_free(copy_to);
    safetensors_close(&st);
}

static void check_variant(const Change *c, Err expected, const char *word, int64_t tied) {
    ImportSource *s;
    write_variant(DIR "/v", "llama-tied", c);
    Err err = import_open(DIR "/v", &s);
    if (err || expected) {
        expect(err, expected, word);
        return;
    }
    assert_int_equal(import_arch(s)->tied, tied);
    import_close(&s);
}

static void test_variants(void **state) {
    (void)state;
    check_variant(&(Change){.extra = "lm_head.weight"}, DS_OK, "", 1);
    check_variant(&(Change){.extra = "lm_head.weight", .differ = true}, DS_OK, "", 0);
    check_variant(&(Change){.extra = "model.rotary_emb.inv_freq"}, DS_OK, "", 1);
    check_variant(&(Change){.extra = "model.rotary_emb.inv_freqs"}, DS_ERR_DATA, "inv_freqs is no weight", 1);
    check_variant(&(Change){.extra = "embed_tokens.weight"}, DS_ERR_DATA, "the same weight", 1);
    check_variant(&(Change){.rename_from = "model.norm.weight", .rename_to = "norm.weight"}, DS_OK, "", 1);
    check_variant(&(Change){.rename_from = "model.norm.weight", .rename_to = "model.morn.weight"}, DS_ERR_DATA,
                  "the closest is model.norm.weight", 1);
    check_variant(&(Change){.drop = "model.norm.weight"}, DS_ERR_DATA, "model.norm.weight is missing", 1);
    check_variant(&(Change){.drop = "model.layers.1.mlp.up_proj.weight"}, DS_ERR_DATA,
                  "closest tensor is model.layers.0.mlp.up_proj", 1);
    check_variant(&(Change){.config = "{\"model_type\":\"llama\"}"}, DS_ERR_DATA, "missing", 1);
    check_variant(
        &(Change){.config = "{\"model_type\":\"llama\",\"hidden_size\":64,\"num_hidden_layers\":2,\"vocab_size\":67,"
                            "\"tie_word_embeddings\":true}"},
        DS_ERR_DATA, "has the shape [67, 32], its config says [67, 64]", 1);
    check_variant(&(Change){.config = "{"}, DS_ERR_DATA, "config.json: line 1", 1);
    write_variant(DIR "/v", "llama-tied", &(Change){0});
    must(file_remove_tree(DIR "/v/config.json"));
    expect(import_model(DIR "/v", DIR "/x.h5", -1), DS_ERR_IO, "config.json");
    assert_false(file_exists(DIR "/x.h5"));
}

// A reward model out and in again: head, score statistics.
static void test_scalar_head(void **state) {
    (void)state;
    ImportSource *s;
    ModelWriter *w;
    ModelFile *m;
    must(import_open(FAMILIES "/opt-postnorm", &s));
    Arch a = *import_arch(s);
    a.head = ARCH_HEAD_SCALAR, a.score_mean = 0.25, a.score_std = 3.7;
    must(modelfile_create(DIR "/rm.h5", &(ModelMeta){.arch = &a}, DS_F32, &w));
    const WeightList *list = import_weights(s);
    for (int i = 0; i < list->n; i++) {
        float *x = MEM_NEW(float, list->w[i].count);
        must(import_read(s, i, DS_F32, x));
        must(modelfile_put(w, i, 0, list->w[i].count, x));
        mem_free(x);
    }
    float head[20];
    for (int i = 0; i < 20; i++) head[i] = (float)i - 7.5f;
    must(modelfile_put(w, list->n, 0, 20, head)); // v_head is the last weight
    must(modelfile_commit(&w));
    import_close(&s);
    must(export_model(DIR "/rm.h5", DIR "/rm", 1e9));
    must(import_model(DIR "/rm", DIR "/rm2.h5", -1));
    must(modelfile_open(DIR "/rm2.h5", &m));
    assert_memory_equal(modelfile_arch(m), &a, sizeof a);
    float got[20];
    must(modelfile_read(m, modelfile_find(m, "v_head.weight"), DS_F32, 0, 20, got));
    assert_memory_equal(got, head, sizeof got);
    modelfile_close(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_bf16_bytes),  cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_variants),   cmocka_unit_test(test_scalar_head),
    };
    return cmocka_run_group_tests_name("import", tests, make_scratch, NULL);
}
