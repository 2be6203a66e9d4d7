// gguf.c: see gguf.h. One cursor walks the header; it cannot leave the file, and every count is bounded by the bytes
// left before anything is allocated for it.
#include "io/gguf.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "io/gguf_quant.h"

typedef struct {
    const char *path;
    const char *base, *p, *end;
} Cursor;

static const char *const type_names[GGUF_TYPES] = {"uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
                                                   "bool",  "string", "array",  "uint64", "int64",  "float64"};

// Bytes of a value; a string or array: the least it takes.
static const size_t type_bytes[GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};

static Err cut_short(const Cursor *c, const char *what) {
    return err_set(DS_ERR_DATA, "%s: GGUF header ends at byte %zu (of %zu) inside %s", c->path,
                   (size_t)(c->p - c->base), (size_t)(c->end - c->base), what);
}

static Err take(Cursor *c, void *out, size_t bytes, const char *what) {
    if ((size_t)(c->end - c->p) < bytes) return cut_short(c, what);
    memcpy(out, c->p, bytes);
    c->p += bytes;
    return DS_OK;
}

static Err take_string(Cursor *c, GgufString *s, const char *what) {
    uint64_t n = 0;
    Err err = take(c, &n, 8, what);
    if (err) return err;
    if (n > (uint64_t)(c->end - c->p))
        return err_set(DS_ERR_DATA, "%s: %s at byte %zu says %llu bytes, the file has %zu left", c->path, what,
                       (size_t)(c->p - c->base) - 8, (unsigned long long)n, (size_t)(c->end - c->p));
    *s = (GgufString){c->p, (int64_t)n};
    c->p += n;
    return DS_OK;
}

static Err take_name(Cursor *c, char **name, const char *what) {
    GgufString s;
    Err err = take_string(c, &s, what);
    if (err) return err;
    if (s.n < 1 || s.n > GGUF_MAX_NAME || memchr(s.s, 0, (size_t)s.n))
        return err_set(DS_ERR_DATA, "%s: %s at byte %zu has %lld bytes or a NUL in it, expected 1 to %d bytes", c->path,
                       what, (size_t)(s.s - c->base), (long long)s.n, GGUF_MAX_NAME);
    *name = mem_strndup(s.s, (size_t)s.n);
    return DS_OK;
}

static Err take_type(Cursor *c, const char *key, GgufType *type) {
    uint32_t t = 0;
    Err err = take(c, &t, 4, "a value's type");
    if (err) return err;
    if (t >= GGUF_TYPES)
        return err_set(DS_ERR_DATA, "%s: key %s has type %u, expected 0 to %d", c->path, key, t, GGUF_TYPES - 1);
    *type = (GgufType)t;
    return DS_OK;
}

static Err skip_items(Cursor *c, const char *key, GgufType type, int64_t count, int nesting);

// The head of an array: item type and count, the count checked against the bytes left.
static Err take_array_head(Cursor *c, const char *key, GgufType *type, int64_t *count) {
    uint64_t n = 0;
    Err err = take_type(c, key, type);
    if (!err) err = take(c, &n, 8, "an array's length");
    if (err) return err;
    if (n > (uint64_t)(c->end - c->p) / type_bytes[*type])
        return err_set(DS_ERR_DATA, "%s: key %s says it has %llu items of %s, the file has %zu bytes left", c->path,
                       key, (unsigned long long)n, type_names[*type], (size_t)(c->end - c->p));
    *count = (int64_t)n;
    return DS_OK;
}

static Err skip_array(Cursor *c, const char *key, int nesting) {
    GgufType type;
    int64_t count;
    if (nesting > GGUF_MAX_NESTING)
        return err_set(DS_ERR_DATA, "%s: key %s nests arrays deeper than %d", c->path, key, GGUF_MAX_NESTING);
    Err err = take_array_head(c, key, &type, &count);
    return err ? err : skip_items(c, key, type, count, nesting);
}

static Err skip_items(Cursor *c, const char *key, GgufType type, int64_t count, int nesting) {
    if (type != GGUF_STRING && type != GGUF_ARRAY) {
        size_t bytes;
        if (!mem_mul((size_t)count, type_bytes[type], &bytes) || bytes > (size_t)(c->end - c->p))
            return cut_short(c, key);
        c->p += bytes;
        return DS_OK;
    }
    for (int64_t i = 0; i < count; i++) {
        GgufString s;
        Err err = type == GGUF_STRING ? take_string(c, &s, key) : skip_array(c, key, nesting + 1);
        if (err) return err;
    }
    return DS_OK;
}

static Err parse_value(Cursor *c, GgufValue *v) {
    Err err = DS_OK;
    v->count = 1;
    DS_TRY(take_name(c, &v->key, "the name of a key"));
    DS_TRY(take_type(c, v->key, &v->type));
    if (v->type == GGUF_ARRAY) {
        v->array = true;
        DS_TRY(take_array_head(c, v->key, &v->type, &v->count));
    }
    v->data = c->p;
    DS_TRY(skip_items(c, v->key, v->type, v->count, 1));
done:
    return err;
}

// Sizes of a tensor from its type and shape; t->data still unknown.
static Err size_tensor(const Cursor *c, GgufTensor *t) {
    Err err = DS_OK;
    int64_t elements;
    size_t block_bytes, count = 1;
    DS_CHECK(gguf_quant_block(t->type, &elements, &block_bytes), DS_ERR_DATA,
             "%s: tensor %s has the type %s (%u), which is not read; these are: F32, F16, BF16, Q8_0, Q4_0, Q4_1, "
             "Q4_K, Q6_K",
             c->path, t->name, gguf_quant_name(t->type) ? gguf_quant_name(t->type) : "unknown", t->type);
    for (int i = 0; i < t->ndim; i++)
        DS_CHECK(t->shape[i] > 0 && mem_mul(count, (size_t)t->shape[i], &count) && count <= INT64_MAX, DS_ERR_DATA,
                 "%s: tensor %s has %lld as a dimension; the product of its shape must be from 1 to 2^63 - 1", c->path,
                 t->name, (long long)t->shape[i]);
    DS_CHECK(t->shape[t->ndim - 1] % elements == 0, DS_ERR_DATA,
             "%s: tensor %s: rows of %lld elements are not whole blocks of %lld (%s)", c->path, t->name,
             (long long)t->shape[t->ndim - 1], (long long)elements, gguf_quant_name(t->type));
    t->count = (int64_t)count;
    DS_CHECK(mem_mul(count / (size_t)elements, block_bytes, &t->bytes), DS_ERR_DATA,
             "%s: tensor %s: its size overflows", c->path, t->name);
done:
    return err;
}

// One tensor info; its offset goes to *offset.
static Err parse_tensor(Cursor *c, GgufTensor *t, uint64_t *offset) {
    Err err = DS_OK;
    uint32_t ndim;
    uint64_t dims[GGUF_MAX_DIMS];
    DS_TRY(take_name(c, &t->name, "the name of a tensor"));
    DS_TRY(take(c, &ndim, 4, "a tensor's number of dimensions"));
    DS_CHECK(ndim >= 1 && ndim <= GGUF_MAX_DIMS, DS_ERR_DATA, "%s: tensor %s has %u dimensions, expected 1 to %d",
             c->path, t->name, ndim, GGUF_MAX_DIMS);
    DS_TRY(take(c, dims, 8 * ndim, "a tensor's shape"));
    DS_TRY(take(c, &t->type, 4, "a tensor's type"));
    DS_TRY(take(c, offset, 8, "a tensor's offset"));
    t->ndim = (int)ndim;
    for (uint32_t i = 0; i < ndim; i++) t->shape[i] = (int64_t)dims[ndim - 1 - i]; // 2^63 and above becomes negative
    DS_TRY(size_tensor(c, t));
done:
    return err;
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static Err check_unique(const char *path, char **names, int n, const char *what) {
    qsort(names, (size_t)n, sizeof *names, compare_names);
    for (int i = 1; i < n; i++)
        if (!strcmp(names[i - 1], names[i]))
            return err_set(DS_ERR_DATA, "%s: the %s %s is there twice", path, what, names[i]);
    return DS_OK;
}

static int compare_data(const void *a, const void *b) {
    const GgufTensor *x = *(const GgufTensor *const *)a, *y = *(const GgufTensor *const *)b;
    return x->data < y->data ? -1 : x->data > y->data;
}

static Err check_overlaps(const Gguf *g) {
    Err err = DS_OK;
    const GgufTensor **order = MEM_NEW(const GgufTensor *, g->tensors);
    for (int i = 0; i < g->tensors; i++) order[i] = &g->t[i];
    qsort(order, (size_t)g->tensors, sizeof *order, compare_data);
    for (int i = 1; i < g->tensors; i++)
        DS_CHECK(order[i - 1]->data + order[i - 1]->bytes <= order[i]->data, DS_ERR_DATA,
                 "%s: the tensors %s and %s overlap", g->path, order[i - 1]->name, order[i]->name);
done:
    mem_free(order);
    return err;
}

// Turns offsets into addresses inside the data section, which begins at the next multiple of the alignment.
static Err place_tensors(Gguf *g, const Cursor *c, const uint64_t *offsets) {
    Err err = DS_OK;
    double align_value = 32;
    const GgufValue *v = gguf_find(g, "general.alignment");
    DS_CHECK(!v || (v->type == GGUF_U32 && !v->array && gguf_get_number(g, v->key, &align_value)), DS_ERR_DATA,
             "%s: general.alignment is not a uint32", g->path);
    size_t align = (size_t)align_value, header = (size_t)(c->p - c->base);
    DS_CHECK(align >= 8 && align <= 65536 && (align & (align - 1)) == 0, DS_ERR_DATA,
             "%s: general.alignment = %zu, expected a power of two from 8 to 65536", g->path, align);
    size_t start = (header + align - 1) / align * align, left = g->map.bytes > start ? g->map.bytes - start : 0;
    for (int i = 0; i < g->tensors; i++) {
        GgufTensor *t = &g->t[i];
        DS_CHECK(offsets[i] % align == 0, DS_ERR_DATA, "%s: tensor %s lies at offset %llu, which is no multiple of %zu",
                 g->path, t->name, (unsigned long long)offsets[i], align);
        DS_CHECK(offsets[i] <= left && t->bytes <= left - offsets[i], DS_ERR_DATA,
                 "%s: tensor %s (%zu bytes at offset %llu) reaches past the file's %zu bytes of data", g->path, t->name,
                 t->bytes, (unsigned long long)offsets[i], left);
        t->data = c->base + start + offsets[i];
    }
    DS_TRY(check_overlaps(g));
done:
    return err;
}

static Err parse_head(Gguf *g, Cursor *c) {
    Err err = DS_OK;
    char magic[4];
    uint64_t n_tensors, n_keys;
    DS_TRY(take(c, magic, 4, "the magic bytes"));
    DS_CHECK(!memcmp(magic, "GGUF", 4), DS_ERR_DATA, "%s: does not begin with \"GGUF\"", g->path);
    DS_TRY(take(c, &g->version, 4, "the version"));
    DS_CHECK(g->version & 0xffffu, DS_ERR_DATA, "%s: is a big-endian GGUF file, only little-endian ones are read",
             g->path);
    DS_CHECK(g->version == 2 || g->version == 3, DS_ERR_DATA, "%s: GGUF version %u, expected 2 or 3", g->path,
             g->version);
    DS_TRY(take(c, &n_tensors, 8, "the number of tensors"));
    DS_TRY(take(c, &n_keys, 8, "the number of keys"));
    DS_CHECK(n_tensors <= GGUF_MAX_TENSORS && n_keys <= GGUF_MAX_KEYS, DS_ERR_DATA,
             "%s: says it has %llu tensors and %llu keys, at most %d and %d are read", g->path,
             (unsigned long long)n_tensors, (unsigned long long)n_keys, GGUF_MAX_TENSORS, GGUF_MAX_KEYS);
    g->kv = MEM_NEW(GgufValue, (int64_t)n_keys);
    g->t = MEM_NEW(GgufTensor, (int64_t)n_tensors);
    g->keys = (int)n_keys;
    g->tensors = (int)n_tensors;
done:
    return err;
}

static Err parse(Gguf *g) {
    Err err = DS_OK;
    Cursor c = {g->path, g->map.data, g->map.data, g->map.data + g->map.bytes};
    uint64_t *offsets = NULL;
    char **names = NULL;
    DS_TRY(parse_head(g, &c));
    offsets = MEM_NEW(uint64_t, g->tensors);
    names = MEM_NEW(char *, ds_max(g->keys, g->tensors));
    for (int i = 0; i < g->keys; i++) DS_TRY(parse_value(&c, &g->kv[i]));
    for (int i = 0; i < g->tensors; i++) DS_TRY(parse_tensor(&c, &g->t[i], &offsets[i]));
    for (int i = 0; i < g->keys; i++) names[i] = g->kv[i].key;
    DS_TRY(check_unique(g->path, names, g->keys, "key"));
    for (int i = 0; i < g->tensors; i++) names[i] = g->t[i].name;
    DS_TRY(check_unique(g->path, names, g->tensors, "tensor"));
    DS_TRY(place_tensors(g, &c, offsets));
done:
    mem_free(offsets);
    mem_free(names);
    return err;
}

Err gguf_open(const char *path, Gguf *g) {
    Err err = DS_OK;
    *g = (Gguf){.path = mem_strdup(path)};
    DS_TRY(file_map(path, &g->map));
    DS_TRY(parse(g));
done:
    if (err) gguf_close(g);
    return err;
}

void gguf_close(Gguf *g) {
    for (int i = 0; i < g->keys && g->kv; i++) mem_free(g->kv[i].key);
    for (int i = 0; i < g->tensors && g->t; i++) mem_free(g->t[i].name);
    mem_free(g->kv);
    mem_free(g->t);
    mem_free(g->path);
    file_unmap(&g->map);
    *g = (Gguf){0};
}

const GgufValue *gguf_find(const Gguf *g, const char *key) {
    for (int i = 0; i < g->keys; i++)
        if (!strcmp(g->kv[i].key, key)) return &g->kv[i];
    return NULL;
}

const GgufTensor *gguf_find_tensor(const Gguf *g, const char *name) {
    for (int i = 0; i < g->tensors; i++)
        if (!strcmp(g->t[i].name, name)) return &g->t[i];
    return NULL;
}

// Item i of an integer or bool value; load_real: of any number.
static int64_t load_int(const GgufValue *v, int64_t i) {
    const char *p = v->data + (size_t)i * type_bytes[v->type];
    union {
        int8_t i8;
        int16_t i16;
        uint16_t u16;
        int32_t i32;
        uint32_t u32;
        int64_t i64;
    } u;
    memcpy(&u, p, type_bytes[v->type]);
    switch (v->type) {
    case GGUF_I8: return u.i8;
    case GGUF_I16: return u.i16;
    case GGUF_U16: return u.u16;
    case GGUF_I32: return u.i32;
    case GGUF_U32: return u.u32;
    case GGUF_I64:
    case GGUF_U64: return u.i64;
    default: return (uint8_t)u.i8; // u8, bool
    }
}

static double load_real(const GgufValue *v, int64_t i) {
    float f;
    double d;
    uint64_t n = 0;
    const char *p = v->data + (size_t)i * type_bytes[v->type];
    switch (v->type) {
    case GGUF_F32: return memcpy(&f, p, 4), (double)f;
    case GGUF_F64: return memcpy(&d, p, 8), d;
    case GGUF_U64: return memcpy(&n, p, 8), (double)n;
    default: return (double)load_int(v, i);
    }
}

bool gguf_get_number(const Gguf *g, const char *key, double *value) {
    const GgufValue *v = gguf_find(g, key);
    if (!v || v->array || v->type == GGUF_STRING) return false;
    *value = load_real(v, 0);
    return true;
}

char *gguf_get_string(const Gguf *g, const char *key) {
    const GgufValue *v = gguf_find(g, key);
    uint64_t n = 0;
    if (!v || v->array || v->type != GGUF_STRING) return NULL;
    memcpy(&n, v->data, 8);
    return memchr(v->data + 8, 0, n) ? NULL : mem_strndup(v->data + 8, n);
}

// Sets of types, one bit each.
enum {
    STRINGS = 1 << GGUF_STRING,
    FLOATS = 1 << GGUF_F32 | 1 << GGUF_F64,
    INTEGERS = 1 << GGUF_U8 | 1 << GGUF_I8 | 1 << GGUF_U16 | 1 << GGUF_I16 | 1 << GGUF_U32 | 1 << GGUF_I32 |
               1 << GGUF_BOOL | 1 << GGUF_U64 | 1 << GGUF_I64
};

static Err find_array(const Gguf *g, const char *key, int set, const char *expected, const GgufValue **value) {
    const GgufValue *v = *value = gguf_find(g, key);
    if (!v) return err_set(DS_ERR_DATA, "%s: has no key %s (expected an array of %s)", g->path, key, expected);
    if (!v->array || !(set >> v->type & 1))
        return err_set(DS_ERR_DATA, "%s: key %s is %s%s, expected an array of %s", g->path, key,
                       v->array ? "an array of " : "one ", type_names[v->type], expected);
    return DS_OK;
}

Err gguf_get_strings(const Gguf *g, const char *key, GgufString **out, int64_t *n) {
    const GgufValue *v;
    *out = NULL;
    Err err = find_array(g, key, STRINGS, "strings", &v);
    if (err) return err;
    const char *p = v->data;
    *out = MEM_NEW(GgufString, v->count);
    *n = v->count;
    for (int64_t i = 0; i < v->count; i++) { // lengths were checked by skip_items
        uint64_t bytes;
        memcpy(&bytes, p, 8);
        (*out)[i] = (GgufString){p + 8, (int64_t)bytes};
        p += 8 + bytes;
    }
    return DS_OK;
}

Err gguf_get_ints(const Gguf *g, const char *key, int64_t **out, int64_t *n) {
    const GgufValue *v;
    *out = NULL;
    Err err = find_array(g, key, INTEGERS, "integers", &v);
    if (err) return err;
    *out = MEM_NEW(int64_t, v->count);
    *n = v->count;
    for (int64_t i = 0; i < v->count; i++) (*out)[i] = load_int(v, i);
    return DS_OK;
}

Err gguf_get_floats(const Gguf *g, const char *key, float **out, int64_t *n) {
    const GgufValue *v;
    *out = NULL;
    Err err = find_array(g, key, FLOATS, "floats", &v);
    if (err) return err;
    *out = MEM_NEW(float, v->count);
    *n = v->count;
    for (int64_t i = 0; i < v->count; i++) (*out)[i] = (float)load_real(v, i);
    return DS_OK;
}

Err gguf_read_f32(const Gguf *g, const GgufTensor *t, int64_t first, int64_t n, float *out) {
    int64_t elements;
    size_t bytes;
    if (!gguf_quant_block(t->type, &elements, &bytes))
        return err_set(DS_ERR_DATA, "%s: tensor %s has a type that is not read", g->path, t->name);
    if (first < 0 || n < 0 || first > t->count || n > t->count - first || first % elements || n % elements)
        err_fatal("%s: range [%lld, +%lld) of tensor %s with %lld elements in blocks of %lld", g->path,
                  (long long)first, (long long)n, t->name, (long long)t->count, (long long)elements);
    gguf_quant_to_f32(t->type, t->data + (size_t)(first / elements) * bytes, n / elements, out);
    return DS_OK;
}
