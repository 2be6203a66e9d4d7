// import.c: see import.h. A source is a list of tensors with names; arch_names or arch_gguf say which is which weight.
#include "io/import.h"

#include <libgen.h>
#include <string.h>

#include "arch/arch_gguf.h"
#include "arch/arch_hf.h"
#include "arch/arch_names.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/filetype.h"
#include "io/gguf.h"
#include "io/gguf_quant.h"
#include "io/import_meta.h"
#include "io/modelfile.h"
#include "io/safetensors.h"

struct ImportSource {
    char *path;
    bool is_gguf;
    Safetensors st; // one of these two is open
    Gguf gguf;
    Arch arch;
    WeightList list;
    int *tensor; // [list.n] index into st.t or gguf.t
};

// ---- Hugging Face ----

static Err check_shape(const char *path, const Weight *w, const char *name, int ndim, const int64_t *shape) {
    int64_t want[2] = {w->shape[w->hf_transposed], w->shape[!w->hf_transposed]};
    if (ndim == w->ndim && shape[0] == want[0] && (ndim == 1 || shape[1] == want[1])) return DS_OK;
    char *text = ndim == 1 ? mem_printf("%lld", (long long)shape[0])
                           : mem_printf("%lld, %lld%s", (long long)(ndim ? shape[0] : 1),
                                        (long long)(ndim > 1 ? shape[1] : 1), ndim > 2 ? ", ..." : "");
    char *expected = w->ndim == 1 ? mem_printf("%lld", (long long)want[0])
                                  : mem_printf("%lld, %lld", (long long)want[0], (long long)want[1]);
    Err err =
        err_set(DS_ERR_DATA, "%s: tensor %s has the shape [%s], its config says [%s]", path, name, text, expected);
    mem_free(text);
    mem_free(expected);
    return err;
}

static bool same_tensor(const SafeTensor *a, const SafeTensor *b) {
    return a->bytes == b->bytes && a->dtype == b->dtype && !memcmp(a->data, b->data, a->bytes);
}

static Err map_weights(ImportSource *s, const char *const *names) {
    Err err = DS_OK;
    ArchNames map = {0};
    weights_build(&s->arch, &s->list);
    DS_TRY(arch_names_map(&s->arch, &s->list, names, s->st.n, s->path, &map));
    if (map.lm_head >= 0 && !same_tensor(&s->st.t[map.lm_head], &s->st.t[map.source[0]])) {
        log_warn(
            "%s: config says that the LM head is the embedding, but %s differs from it: imported as a head of its own",
            s->path, names[map.lm_head]);
        s->arch.tied = 0;
        weights_free(&s->list);
        arch_names_free(&map);
        weights_build(&s->arch, &s->list);
        DS_TRY(arch_names_map(&s->arch, &s->list, names, s->st.n, s->path, &map));
    }
    s->tensor = map.source;
    for (int i = 0; i < s->list.n; i++) {
        const SafeTensor *t = &s->st.t[s->tensor[i]];
        DType type;
        DS_TRY(check_shape(s->path, &s->list.w[i], t->name, t->ndim, t->shape));
        DS_TRY(safetensors_float_type(&s->st, t, &type));
    }
done:
    return err;
}

static Err open_hf(ImportSource *s) {
    Err err = DS_OK;
    char *json = NULL, *config = import_meta_beside(s->path, "config.json");
    size_t bytes = 0;
    const char **names = NULL;
    DS_TRY(safetensors_open(s->path, &s->st));
    DS_TRY(file_read_all(config, IMPORT_META_MAX, &json, &bytes));
    DS_TRY(arch_hf_parse(json, bytes, config, &s->arch));
    names = MEM_NEW(const char *, s->st.n);
    for (int i = 0; i < s->st.n; i++) names[i] = s->st.t[i].name;
    if (arch_names_have_scalar_head(names, s->st.n)) s->arch.head = ARCH_HEAD_SCALAR;
    DS_TRY(map_weights(s, names));
done:
    mem_free(names);
    mem_free(json);
    mem_free(config);
    return err;
}

static void copy_transposed(const char *src, int64_t rows, int64_t cols, size_t size, char *out) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            const char *from = src + (size_t)(c * rows + r) * size;
            if (size == 4) memcpy(out, from, 4);
            else memcpy(out, from, 2);
            out += size;
        }
}

// Rounds n fp32 in place to the front of their own memory.
static void narrow(void *data, int64_t n) {
    char *p = data;
    for (int64_t i = 0; i < n; i++) {
        float f;
        memcpy(&f, p + 4 * i, 4);
        uint16_t h = f32_to_bf16(f);
        memcpy(p + 2 * i, &h, 2);
    }
}

static Err read_hf(const ImportSource *s, int i, DType as, void *out) {
    Err err = DS_OK;
    const Weight *w = &s->list.w[i];
    const SafeTensor *t = &s->st.t[s->tensor[i]];
    const char *data = t->data;
    char *converted = NULL;
    DType type = DS_F32;
    DS_TRY(safetensors_float_type(&s->st, t, &type));
    if (type != as) { // else the bytes are taken as they are, NaN and all
        converted = mem_array(t->count, sizeof(float));
        DS_TRY(safetensors_read_f32(&s->st, t, 0, t->count, (float *)converted));
        if (as == DS_BF16) narrow(converted, t->count);
        data = converted;
    }
    if (w->hf_transposed) copy_transposed(data, w->shape[0], w->shape[1], dtype_bytes(as), out);
    else memcpy(out, data, (size_t)t->count * dtype_bytes(as));
done:
    mem_free(converted);
    return err;
}

// ---- GGUF ----

static bool meta_number(const void *file, const char *key, double *value) { return gguf_get_number(file, key, value); }
static char *meta_string(const void *file, const char *key) { return gguf_get_string(file, key); }

static bool meta_shape(const void *file, const char *name, int64_t shape[2]) {
    const GgufTensor *t = gguf_find_tensor(file, name);
    if (!t || t->ndim > 2) return false;
    shape[0] = t->shape[0];
    shape[1] = t->ndim == 2 ? t->shape[1] : 1;
    return true;
}

static Err parse_gguf_arch(ImportSource *s) {
    Err err = DS_OK;
    const Gguf *g = &s->gguf;
    float *freqs = NULL;
    const char **keys = MEM_NEW(const char *, g->keys);
    for (int i = 0; i < g->keys; i++) keys[i] = g->kv[i].key;
    ArchGgufMeta meta = {.file = g,
                         .what = s->path,
                         .keys = keys,
                         .n = g->keys,
                         .number = meta_number,
                         .string = meta_string,
                         .shape = meta_shape};
    const GgufTensor *t = gguf_find_tensor(g, "rope_freqs.weight");
    if (t) {
        freqs = MEM_NEW(float, t->count);
        DS_TRY(gguf_read_f32(g, t, 0, t->count, freqs));
        meta.rope_freqs = freqs;
        meta.n_rope_freqs = t->count;
    }
    DS_TRY(arch_gguf_parse(&meta, &s->arch));
done:
    mem_free(freqs);
    mem_free(keys);
    return err;
}

static Err map_gguf_weights(ImportSource *s) {
    Err err = DS_OK;
    bool *used = MEM_NEW(bool, s->gguf.tensors);
    char name[96];
    weights_build(&s->arch, &s->list);
    s->tensor = MEM_NEW(int, s->list.n);
    for (int i = 0; i < s->list.n; i++) {
        Weight w = s->list.w[i];
        DS_TRY(arch_gguf_name(&s->arch, &w, name));
        const GgufTensor *t = gguf_find_tensor(&s->gguf, name);
        DS_CHECK(t, DS_ERR_DATA, "%s: tensor %s is missing", s->path, name);
        w.hf_transposed = false; // GGUF keeps [out, in]
        DS_TRY(check_shape(s->path, &w, name, t->ndim, t->shape));
        s->tensor[i] = (int)(t - s->gguf.t);
        used[s->tensor[i]] = true;
    }
    for (int i = 0; i < s->gguf.tensors; i++)
        DS_CHECK(used[i] || arch_gguf_is_extra(s->gguf.t[i].name), DS_ERR_DATA,
                 "%s: tensor %s is no weight of this %s model", s->path, s->gguf.t[i].name,
                 arch_family_name((ArchFamily)s->arch.family));
done:
    mem_free(used);
    return err;
}

static Err open_gguf(ImportSource *s) {
    Err err = DS_OK;
    DS_TRY(gguf_open(s->path, &s->gguf));
    DS_TRY(parse_gguf_arch(s));
    DS_TRY(map_gguf_weights(s));
done:
    return err;
}

static Err read_gguf(const ImportSource *s, int i, DType as, void *out) {
    const Weight *w = &s->list.w[i];
    const GgufTensor *t = &s->gguf.t[s->tensor[i]];
    int64_t heads = arch_gguf_permuted_heads(&s->arch, w);
    float *plain = MEM_NEW(float, t->count), *ordered = heads ? MEM_NEW(float, t->count) : NULL;
    Err err = gguf_read_f32(&s->gguf, t, 0, t->count, plain);
    if (!err) {
        if (heads) arch_gguf_unpermute(plain, w->shape[0], w->shape[1], heads, ordered);
        float *result = heads ? ordered : plain;
        if (as == DS_BF16) narrow(result, t->count);
        memcpy(out, result, (size_t)t->count * dtype_bytes(as));
    }
    mem_free(plain);
    mem_free(ordered);
    return err;
}

// ---- both ----

Err import_open(const char *path, ImportSource **source) {
    ImportSource *s = *source = MEM_NEW(ImportSource, 1);
    s->path = mem_strdup(path);
    s->is_gguf = filetype_is_gguf(path);
    Err err = filetype_expect(path, FILETYPE_FOREIGN_MODEL);
    if (!err) err = s->is_gguf ? open_gguf(s) : open_hf(s);
    if (err) import_close(source);
    return err;
}

void import_close(ImportSource **source) {
    ImportSource *s = *source;
    if (!s) return;
    safetensors_close(&s->st);
    gguf_close(&s->gguf);
    weights_free(&s->list);
    mem_free(s->tensor);
    mem_free(s->path);
    MEM_FREE(*source);
}

const Arch *import_arch(const ImportSource *source) { return &source->arch; }
const WeightList *import_weights(const ImportSource *source) { return &source->list; }

DType import_dtype(const ImportSource *s) {
    for (int i = 0; i < s->list.n; i++) {
        bool bf16 =
            s->is_gguf ? s->gguf.t[s->tensor[i]].type == GGUF_T_BF16 : !strcmp(s->st.t[s->tensor[i]].dtype, "BF16");
        if (!bf16) return DS_F32;
    }
    return DS_BF16;
}

Err import_read(const ImportSource *source, int i, DType as, void *out) {
    return source->is_gguf ? read_gguf(source, i, as, out) : read_hf(source, i, as, out);
}

static Err copy_weights(const ImportSource *s, ModelWriter *writer, DType dtype) {
    Err err = DS_OK;
    int64_t largest = 0, done_bytes = 0;
    double started = clock_now();
    for (int i = 0; i < s->list.n; i++) largest = ds_max(largest, s->list.w[i].count);
    void *buffer = mem_array(largest, dtype_bytes(dtype));
    for (int i = 0; i < s->list.n; i++) {
        int64_t count = s->list.w[i].count;
        DS_TRY(import_read(s, i, dtype, buffer));
        DS_TRY(modelfile_put(writer, i, 0, count, buffer));
        done_bytes += count * (int64_t)dtype_bytes(dtype);
        double seconds = clock_now() - started;
        if (seconds > 2)
            log_progress("import", i + 1, s->list.n, (double)done_bytes / seconds / 0x1p20, "MiB/s", s->list.w[i].name,
                         false);
    }
done:
    mem_free(buffer);
    return err;
}

Err import_model(const char *path, const char *dst, int dtype) {
    Err err = DS_OK;
    ImportSource *s = NULL;
    ImportMeta extra = {0};
    ModelWriter *writer = NULL;
    DS_TRY(import_open(path, &s));
    DS_TRY(import_meta_read(path, s->is_gguf ? &s->gguf : NULL, &s->st, s->arch.vocab, &extra));
    DType as = dtype < 0 ? import_dtype(s) : (DType)dtype;
    ModelMeta meta = {.arch = &s->arch,
                      .tokenizer = extra.tokenizer,
                      .tokenizer_bytes = extra.tokenizer_bytes,
                      .origin = extra.origin,
                      .n_origin = extra.n_origin,
                      .texts = extra.texts,
                      .n_texts = extra.n_texts};
    DS_TRY(modelfile_create(dst, &meta, as, &writer));
    DS_TRY(copy_weights(s, writer, as));
    DS_TRY(modelfile_commit(&writer));
done:
    modelfile_abandon(&writer);
    import_meta_free(&extra);
    import_close(&s);
    return err;
}
