// kv.c: see kv.h. A short list searched from its start: tens of keys, looked up a few times a run.
#include "io/kv.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum { MAX_KEY = 100, MAX_KEYS = 100000 };
#define GROUP "/state"

typedef struct {
    char key[MAX_KEY + 1];
    DType dtype;
    int64_t count;
    void *data;
} Entry;

struct Kv {
    Entry *entry; // [n]
    int64_t n;
    char *from; // the file it was read from, for messages
};

Kv *kv_create(void) {
    Kv *kv = MEM_NEW(Kv, 1);
    kv->from = mem_strdup("training state");
    return kv;
}

void kv_destroy(Kv **kv) {
    if (!*kv) return;
    for (int64_t i = 0; i < (*kv)->n; i++) mem_free((*kv)->entry[i].data);
    mem_free((*kv)->entry);
    mem_free((*kv)->from);
    MEM_FREE(*kv);
}

static bool key_ok(const char *key) {
    size_t n = strlen(key);
    if (n < 1 || n > MAX_KEY || key[0] == '.') return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)key[i]) && !strchr("_-.", key[i])) return false;
    return true;
}

static Entry *find(const Kv *kv, const char *key) {
    for (int64_t i = 0; i < kv->n; i++)
        if (!strcmp(kv->entry[i].key, key)) return &kv->entry[i];
    return NULL;
}

// An empty entry of that key.
static Entry *place(Kv *kv, const char *key) {
    if (!key_ok(key)) err_fatal("\"%s\" is not a legal key", key);
    Entry *e = find(kv, key);
    if (!e) {
        kv->entry = mem_grow(kv->entry, kv->n, kv->n + 1, sizeof *kv->entry);
        e = &kv->entry[kv->n++];
        snprintf(e->key, sizeof e->key, "%s", key);
    }
    MEM_FREE(e->data);
    return e;
}

void kv_put_array(Kv *kv, const char *key, DType dtype, int64_t count, const void *data) {
    Entry *e = place(kv, key);
    e->dtype = dtype, e->count = count;
    e->data = mem_array(count, dtype_bytes(dtype));
    if (count) memcpy(e->data, data, (size_t)count * dtype_bytes(dtype));
}

void kv_put_i64(Kv *kv, const char *key, int64_t value) { kv_put_array(kv, key, DS_I64, 1, &value); }
void kv_put_f64(Kv *kv, const char *key, double value) { kv_put_array(kv, key, DS_F64, 1, &value); }

bool kv_has(const Kv *kv, const char *key) { return find(kv, key) != NULL; }

Err kv_get_array(const Kv *kv, const char *key, DType dtype, int64_t *count, const void **data) {
    const Entry *e = find(kv, key);
    *count = 0, *data = NULL;
    if (!e) return err_set(DS_ERR_DATA, "%s: has no entry \"%s\"", kv->from, key);
    if (e->dtype != dtype)
        return err_set(DS_ERR_DATA, "%s: entry \"%s\" holds %s, expected %s", kv->from, key, dtype_name(e->dtype),
                       dtype_name(dtype));
    *count = e->count, *data = e->data;
    return DS_OK;
}

Err kv_copy_array(const Kv *kv, const char *key, DType dtype, int64_t count, void *out) {
    int64_t n;
    const void *data;
    Err err = kv_get_array(kv, key, dtype, &n, &data);
    if (err) return err;
    if (n != count)
        return err_set(DS_ERR_DATA, "%s: entry \"%s\" has %lld elements, expected %lld", kv->from, key, (long long)n,
                       (long long)count);
    if (n) memcpy(out, data, (size_t)n * dtype_bytes(dtype));
    return DS_OK;
}

Err kv_get_i64(const Kv *kv, const char *key, int64_t *value) { return kv_copy_array(kv, key, DS_I64, 1, value); }
Err kv_get_f64(const Kv *kv, const char *key, double *value) { return kv_copy_array(kv, key, DS_F64, 1, value); }

int64_t kv_bytes(const Kv *kv) {
    int64_t bytes = 0;
    for (int64_t i = 0; i < kv->n; i++) bytes += kv->entry[i].count * (int64_t)dtype_bytes(kv->entry[i].dtype);
    return bytes;
}

Err kv_write(const Kv *kv, H5File *file) {
    Err err = DS_OK;
    DS_TRY(h5_make_group(file, GROUP));
    for (int64_t i = 0; !err && i < kv->n; i++) {
        const Entry *e = &kv->entry[i];
        char object[MAX_KEY + 16];
        snprintf(object, sizeof object, GROUP "/%s", e->key);
        DS_TRY(h5_write_new(file, object, e->dtype, 1, &e->count, e->data));
    }
done:
    return err;
}

static Err read_entry(const H5File *file, const char *key, Kv *kv) {
    Err err = DS_OK;
    H5Info info;
    char object[MAX_KEY + 16];
    DS_CHECK(key_ok(key), DS_ERR_DATA, "%s: \"%.100s\" is not a legal entry of " GROUP, h5_path(file), key);
    snprintf(object, sizeof object, GROUP "/%s", key);
    DS_TRY(h5_info(file, object, &info));
    DS_CHECK(info.ndim == 1, DS_ERR_DATA, "%s: %s has %d dimensions, expected one", h5_path(file), object, info.ndim);
    Entry *e = place(kv, key);
    e->dtype = info.dtype, e->count = info.count;
    e->data = mem_array(info.count, dtype_bytes(info.dtype));
    DS_TRY(h5_read(file, object, info.dtype, 0, info.count, e->data));
done:
    return err;
}

Err kv_read(const H5File *file, Kv **kv) {
    Err err = DS_OK;
    H5Names names = {0};
    *kv = kv_create();
    mem_free((*kv)->from);
    (*kv)->from = mem_strdup(h5_path(file));
    DS_TRY(h5_list(file, GROUP, &names));
    DS_CHECK(names.n <= MAX_KEYS, DS_ERR_DATA, "%s: " GROUP " has %lld entries, at most %d are accepted", h5_path(file),
             (long long)names.n, MAX_KEYS);
    for (int64_t i = 0; i < names.n; i++) DS_TRY(read_entry(file, names.name[i], *kv));
done:
    h5_names_free(&names);
    if (err) kv_destroy(kv);
    return err;
}
