// safetensors.c: see safetensors.h. Reading maps the files; writing streams to temporary names.
#include "io/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/filetype.h"
#include "io/f16.h"

typedef struct {
    const char *name;
    size_t bytes;
} TypeInfo;
static const TypeInfo types[] = {
    {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},  {"I32", 4}, {"I16", 2},     {"I8", 1},
    {"U64", 8}, {"U32", 4}, {"U16", 2}, {"U8", 1},   {"BOOL", 1}, {"C64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
};

// ---- reading ----

static const TypeInfo *find_type(const char *name) {
    for (int i = 0; i < DS_COUNT(types); i++)
        if (!strcmp(types[i].name, name)) return &types[i];
    return NULL;
}

// Element j of an array as a count: an integer that is not negative.
static bool get_count(const json_t *array, size_t j, int64_t *out) {
    const json_t *v = json_array_get(array, j);
    if (!json_is_integer(v) || json_integer_value(v) < 0) return false;
    *out = (int64_t)json_integer_value(v);
    return true;
}

static Err parse_shape(const char *path, const json_t *entry, SafeTensor *t) {
    Err err = DS_OK;
    const json_t *shape = json_object_get(entry, "shape");
    size_t count = 1;
    DS_CHECK(json_is_array(shape) && json_array_size(shape) <= SAFETENSORS_MAX_DIMS, DS_ERR_DATA,
             "%s: tensor %s: \"shape\" is not an array of at most %d numbers", path, t->name, SAFETENSORS_MAX_DIMS);
    t->ndim = (int)json_array_size(shape);
    for (int i = 0; i < t->ndim; i++)
        DS_CHECK(get_count(shape, (size_t)i, &t->shape[i]) && mem_mul(count, (size_t)t->shape[i], &count) &&
                     count <= INT64_MAX,
                 DS_ERR_DATA, "%s: tensor %s: dimension %d of \"shape\" is no count, or the product overflows", path,
                 t->name, i);
    t->count = (int64_t)count;
done:
    return err;
}

// One entry of the header; the data section is data[data_bytes].
static Err parse_entry(const char *path, const char *name, const json_t *entry, const char *data, size_t data_bytes,
                       SafeTensor *t) {
    Err err = DS_OK;
    t->name = mem_strdup(name);
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *offsets = json_object_get(entry, "data_offsets");
    DS_CHECK(json_is_object(entry) && json_object_size(entry) == 3 && dtype && json_is_array(offsets), DS_ERR_DATA,
             "%s: tensor %s: expected the fields \"dtype\", \"shape\", \"data_offsets\" and no other", path, name);
    const TypeInfo *type = find_type(dtype);
    DS_CHECK(type, DS_ERR_DATA, "%s: tensor %s has the unknown dtype \"%.40s\"", path, name, dtype);
    t->dtype = type->name;
    DS_TRY(parse_shape(path, entry, t));
    int64_t begin = 0, end = 0;
    DS_CHECK(json_array_size(offsets) == 2 && get_count(offsets, 0, &begin) && get_count(offsets, 1, &end) &&
                 begin <= end && (uint64_t)end <= data_bytes,
             DS_ERR_DATA, "%s: tensor %s: \"data_offsets\" is no range inside the %zu bytes of data", path, name,
             data_bytes);
    DS_CHECK(mem_mul((size_t)t->count, type->bytes, &t->bytes) && t->bytes == (size_t)(end - begin), DS_ERR_DATA,
             "%s: tensor %s: %lld elements of %s do not take the %lld bytes of its \"data_offsets\"", path, name,
             (long long)t->count, dtype, (long long)(end - begin));
    t->data = data + begin;
done:
    return err;
}

static int compare_data(const void *a, const void *b) {
    const SafeTensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const SafeTensor *)a)->name, ((const SafeTensor *)b)->name);
}

// Together the tensors must cover the data section exactly, as the format demands.
static Err check_cover(const char *path, SafeTensor *t, int n, const char *data, size_t data_bytes) {
    Err err = DS_OK;
    const char *at = data;
    qsort(t, (size_t)n, sizeof *t, compare_data);
    for (int i = 0; i < n; i++) {
        DS_CHECK(t[i].data >= at, DS_ERR_DATA, "%s: tensor %s overlaps the tensor before it (%s)", path, t[i].name,
                 i ? t[i - 1].name : "none");
        DS_CHECK(t[i].data == at, DS_ERR_DATA, "%s: %zu bytes before tensor %s belong to no tensor", path,
                 (size_t)(t[i].data - at), t[i].name);
        at += t[i].bytes;
    }
    DS_CHECK(at == data + data_bytes, DS_ERR_DATA, "%s: %zu bytes after the last tensor belong to no tensor", path,
             (size_t)(data + data_bytes - at));
done:
    return err;
}

static Err parse_header(const char *path, const FileMap *map, json_t **root, size_t *header) {
    Err err = DS_OK;
    json_error_t at;
    uint64_t n;
    DS_CHECK(map->bytes >= 8, DS_ERR_DATA, "%s: has %zu bytes, a safetensors file begins with 8 bytes of header length",
             path, map->bytes);
    memcpy(&n, map->data, 8);
    DS_CHECK(n <= SAFETENSORS_MAX_HEADER, DS_ERR_DATA, "%s: says its header has %llu bytes, at most %zu are read", path,
             (unsigned long long)n, SAFETENSORS_MAX_HEADER);
    DS_CHECK(n <= map->bytes - 8, DS_ERR_DATA, "%s: says its header has %llu bytes, the file has %zu", path,
             (unsigned long long)n, map->bytes);
    DS_CHECK(n >= 2 && map->data[8] == '{', DS_ERR_DATA, "%s: the header does not begin with '{'", path);
    *root = json_loadb(map->data + 8, n, JSON_REJECT_DUPLICATES, &at);
    DS_CHECK(*root, DS_ERR_DATA, "%s: header: %s (near byte %d)", path, at.text, at.position + 8);
    *header = 8 + (size_t)n;
done:
    return err;
}

// Appends the tensors of one mapped file to st.
static Err parse_file(Safetensors *st, const char *path, const FileMap *map) {
    Err err = DS_OK;
    json_t *root = NULL, *entry;
    const char *name;
    size_t header;
    DS_TRY(parse_header(path, map, &root, &header));
    int first = st->n, n = (int)json_object_size(root); // below 2^31: the header is bounded
    st->t = mem_grow(st->t, st->n, st->n + n, sizeof *st->t);
    json_object_foreach(root, name, entry) {
        if (!strcmp(name, "__metadata__")) continue;
        DS_TRY(parse_entry(path, name, entry, map->data + header, map->bytes - header, &st->t[st->n++]));
    }
    DS_TRY(check_cover(path, st->t + first, st->n - first, map->data + header, map->bytes - header));
done:
    json_decref(root);
    return err;
}

static FileMap *add_map(Safetensors *st) {
    st->maps = mem_grow(st->maps, st->files, st->files + 1, sizeof *st->maps);
    return &st->maps[st->files++];
}

static Err open_single(Safetensors *st, const char *path) {
    Err err = DS_OK;
    FileMap *map = add_map(st);
    DS_TRY(file_map(path, map));
    DS_TRY(parse_file(st, path, map));
done:
    return err;
}

static int compare_strings(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// The distinct file names of a weight_map, sorted. Names stay owned by the JSON.
static Err list_files(const char *path, json_t *weights, const char ***files, int *n_files) {
    Err err = DS_OK;
    json_t *file;
    const char *tensor;
    int n = 0;
    *files = MEM_NEW(const char *, (int64_t)json_object_size(weights));
    json_object_foreach(weights, tensor, file) {
        DS_CHECK(json_is_string(file), DS_ERR_DATA, "%s: weight_map: the file of %s is not a string", path, tensor);
        (*files)[n++] = json_string_value(file);
    }
    qsort(*files, (size_t)n, sizeof **files, compare_strings);
    int distinct = 0;
    for (int i = 0; i < n; i++)
        if (!distinct || strcmp((*files)[distinct - 1], (*files)[i]) != 0) (*files)[distinct++] = (*files)[i];
    DS_CHECK(distinct >= 1 && distinct <= SAFETENSORS_MAX_FILES, DS_ERR_DATA,
             "%s: weight_map names %d files, expected 1 to %d", path, distinct, SAFETENSORS_MAX_FILES);
    *n_files = distinct;
done:
    return err;
}

static Err open_shard(Safetensors *st, const char *dir, const char *name, const json_t *weights) {
    Err err = DS_OK;
    int first = st->n;
    char *path = mem_printf("%s/%s", dir, name);
    FileMap *map = add_map(st);
    DS_TRY(file_map_inside(dir, name, map));
    DS_TRY(parse_file(st, path, map));
    for (int i = first; i < st->n; i++) {
        const char *where = json_string_value(json_object_get(weights, st->t[i].name));
        DS_CHECK(where && !strcmp(where, name), DS_ERR_DATA, "%s: holds tensor %s, which the index says is in %s", path,
                 st->t[i].name, where ? where : "no file");
    }
done:
    mem_free(path);
    return err;
}

static Err open_index(Safetensors *st, const char *path) {
    Err err = DS_OK;
    json_t *root = NULL;
    json_error_t at;
    FileMap map = {0};
    const char **files = NULL;
    int n_files = 0;
    char *copy = mem_strdup(path), *dir = dirname(copy);
    DS_TRY(file_map(path, &map));
    DS_CHECK(map.bytes <= SAFETENSORS_MAX_HEADER, DS_ERR_DATA, "%s: has %zu bytes, at most %zu are read", path,
             map.bytes, SAFETENSORS_MAX_HEADER);
    root = json_loadb(map.data, map.bytes, JSON_REJECT_DUPLICATES, &at);
    DS_CHECK(root, DS_ERR_DATA, "%s: line %d: %s", path, at.line, at.text);
    json_t *weights = json_object_get(root, "weight_map");
    DS_CHECK(json_is_object(weights), DS_ERR_DATA, "%s: has no object \"weight_map\"", path);
    DS_TRY(list_files(path, weights, &files, &n_files));
    for (int i = 0; i < n_files; i++) DS_TRY(open_shard(st, dir, files[i], weights));
    DS_CHECK(st->n == (int)json_object_size(weights), DS_ERR_DATA, "%s: names %zu tensors, its files hold %d", path,
             json_object_size(weights), st->n);
done:
    mem_free(files);
    json_decref(root);
    file_unmap(&map);
    mem_free(copy);
    return err;
}

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

static bool has_pickles(const char *folder) {
    static const char *const names[] = {"pytorch_model.bin", "pytorch_model.bin.index.json",
                                        "pytorch_model-00001-of-00002.bin"};
    bool found = false;
    for (int i = 0; i < DS_COUNT(names) && !found; i++) {
        char *path = mem_printf("%s/%s", folder, names[i]);
        found = file_exists(path);
        mem_free(path);
    }
    return found;
}

static Err open_folder(Safetensors *st, const char *path) {
    char *single = mem_printf("%s/model.safetensors", path),
         *index = mem_printf("%s/model.safetensors.index.json", path);
    Err err;
    if (file_exists(single)) err = open_single(st, single);
    else if (file_exists(index)) err = open_index(st, index);
    else
        err = err_set(DS_ERR_IO, "%s: holds neither model.safetensors nor model.safetensors.index.json%s%s", path,
                      has_pickles(path) ? " but pickles (pytorch_model.bin): " : "",
                      has_pickles(path) ? filetype_pickle_advice() : "");
    mem_free(single);
    mem_free(index);
    return err;
}

Err safetensors_open(const char *path, Safetensors *st) {
    Err err = DS_OK;
    *st = (Safetensors){.path = mem_strdup(path)};
    if (file_is_dir(path)) DS_TRY(open_folder(st, path));
    else if (ends_with(path, ".json")) DS_TRY(open_index(st, path));
    else DS_TRY(open_single(st, path));
    qsort(st->t, (size_t)st->n, sizeof *st->t, compare_names);
done:
    if (err) safetensors_close(st);
    return err;
}

void safetensors_close(Safetensors *st) {
    for (int i = 0; i < st->n; i++) mem_free(st->t[i].name);
    for (int i = 0; i < st->files; i++) file_unmap(&st->maps[i]);
    mem_free(st->t);
    mem_free(st->maps);
    mem_free(st->path);
    *st = (Safetensors){0};
}

const SafeTensor *safetensors_find(const Safetensors *st, const char *name) {
    SafeTensor key = {.name = (char *)name};
    return st->n ? bsearch(&key, st->t, (size_t)st->n, sizeof *st->t, compare_names) : NULL;
}

Err safetensors_float_type(const Safetensors *st, const SafeTensor *t, DType *type) {
    if (!strcmp(t->dtype, "F32")) *type = DS_F32;
    else if (!strcmp(t->dtype, "F16")) *type = DS_F16;
    else if (!strcmp(t->dtype, "BF16")) *type = DS_BF16;
    else
        return err_set(DS_ERR_DATA, "%s: tensor %s has dtype %s, expected F32, F16 or BF16", st->path, t->name,
                       t->dtype);
    return DS_OK;
}

Err safetensors_read_f32(const Safetensors *st, const SafeTensor *t, int64_t first, int64_t n, float *out) {
    DType type = DS_F32;
    Err err = safetensors_float_type(st, t, &type);
    if (err) return err;
    if (first < 0 || n < 0 || first > t->count || n > t->count - first)
        err_fatal("range [%lld, +%lld) of tensor %s with %lld elements", (long long)first, (long long)n, t->name,
                  (long long)t->count);
    const char *p = t->data + (size_t)first * dtype_bytes(type);
    if (type == DS_F32) {
        memcpy(out, p, (size_t)n * 4);
        return DS_OK;
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, 2);
        out[i] = type == DS_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
    }
    return DS_OK;
}

// ---- writing ----

typedef struct {
    int first, n; // specs in it
    size_t bytes; // of data
    char *tmp;    // temporary path, NULL once renamed
    char *name;   // final basename
} Part;

struct SafetensorsWriter {
    char *dir;
    const SafeSpec *specs;
    int n;
    DType dtype;
    Part *parts;
    int n_parts, part; // part: the one being written
    FILE *file;
    size_t left; // bytes of data that the current part still lacks
};

static size_t spec_bytes(const SafetensorsWriter *w, int i) {
    size_t bytes = dtype_bytes(w->dtype);
    for (int d = 0; d < w->specs[i].ndim; d++)
        if (!mem_mul(bytes, (size_t)w->specs[i].shape[d], &bytes))
            err_fatal("size of tensor %s overflows", w->specs[i].name);
    return bytes;
}

// Cuts the specs into parts of at most max_bytes (a larger tensor is a part of its own) and names them.
static void plan_parts(SafetensorsWriter *w, size_t max_bytes) {
    w->parts = MEM_NEW(Part, ds_max(w->n, 1));
    w->n_parts = 1;
    for (int i = 0; i < w->n; i++) {
        Part *p = &w->parts[w->n_parts - 1];
        size_t bytes = spec_bytes(w, i);
        if (p->n && (bytes > max_bytes || p->bytes > max_bytes - bytes)) {
            p = &w->parts[w->n_parts++];
            p->first = i;
        }
        p->n++;
        p->bytes += bytes;
    }
    for (int i = 0; i < w->n_parts; i++) {
        Part *p = &w->parts[i];
        p->name = w->n_parts == 1 ? mem_strdup("model.safetensors")
                                  : mem_printf("model-%05d-of-%05d.safetensors", i + 1, w->n_parts);
        p->tmp = mem_printf("%s/.%s.tmp-%ld", w->dir, p->name, (long)getpid());
    }
}

// The header of a part, padded with blanks so that the data begin at a multiple of 8. Owner: caller, mem_free.
static char *print_header(const SafetensorsWriter *w, const Part *p, size_t *bytes) {
    static const char *const names[] = {[DS_F32] = "F32", [DS_BF16] = "BF16", [DS_F16] = "F16"};
    json_t *root = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    size_t at = 0;
    for (int i = p->first; i < p->first + p->n; i++) {
        json_t *shape = json_array();
        for (int d = 0; d < w->specs[i].ndim; d++) json_array_append_new(shape, json_integer(w->specs[i].shape[d]));
        size_t end = at + spec_bytes(w, i);
        json_object_set_new(root, w->specs[i].name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", names[w->dtype], "shape", shape, "data_offsets",
                                      (json_int_t)at, (json_int_t)end));
        at = end;
    }
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (!text) err_fatal("out of memory for a safetensors header");
    size_t n = strlen(text), padded = (n + 7) / 8 * 8;
    char *header = mem_alloc(padded);
    memset(header, ' ', padded);
    memcpy(header, text, n);
    free(text); // lint: jansson's
    *bytes = padded;
    return header;
}

static Err put_bytes(SafetensorsWriter *w, const void *data, size_t bytes) {
    if (fwrite(data, 1, bytes, w->file) == bytes) return DS_OK;
    return err_set(DS_ERR_IO, "%s: cannot write: %s", w->parts[w->part].tmp, strerror(errno));
}

static Err begin_part(SafetensorsWriter *w) {
    Err err = DS_OK;
    Part *p = &w->parts[w->part];
    size_t bytes = 0;
    char *header = print_header(w, p, &bytes);
    uint64_t length = bytes;
    w->left = p->bytes;
    int fd = open(p->tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    w->file = fd >= 0 ? fdopen(fd, "w") : NULL;
    DS_CHECK(w->file, DS_ERR_IO, "%s: cannot create: %s", p->tmp, strerror(errno));
    DS_TRY(put_bytes(w, &length, 8));
    DS_TRY(put_bytes(w, header, bytes));
done:
    mem_free(header);
    return err;
}

static Err end_part(SafetensorsWriter *w) {
    Err err = DS_OK;
    Part *p = &w->parts[w->part];
    DS_CHECK(fflush(w->file) == 0 && fsync(fileno(w->file)) == 0, DS_ERR_IO, "%s: cannot write: %s", p->tmp,
             strerror(errno));
done:
    if (fclose(w->file) != 0 && !err) err = err_set(DS_ERR_IO, "%s: cannot close: %s", p->tmp, strerror(errno));
    w->file = NULL;
    return err;
}

Err safetensors_create(const char *dir, const SafeSpec *specs, int n, DType dtype, size_t max_bytes,
                       SafetensorsWriter **w) {
    if (dtype != DS_F32 && dtype != DS_BF16 && dtype != DS_F16)
        err_fatal("safetensors_create: dtype %s", dtype_name(dtype));
    *w = MEM_NEW(SafetensorsWriter, 1);
    **w = (SafetensorsWriter){.dir = mem_strdup(dir), .specs = specs, .n = n, .dtype = dtype};
    plan_parts(*w, max_bytes);
    Err err = begin_part(*w);
    if (err) safetensors_destroy(w);
    return err;
}

Err safetensors_write(SafetensorsWriter *w, const void *data, size_t bytes) {
    Err err = DS_OK;
    const char *p = data;
    while (bytes) {
        if (!w->left) {
            if (w->part + 1 >= w->n_parts) err_fatal("%s: more data than tensors", w->dir);
            DS_TRY(end_part(w));
            w->part++;
            DS_TRY(begin_part(w));
        }
        size_t n = bytes < w->left ? bytes : w->left;
        DS_TRY(put_bytes(w, p, n));
        p += n;
        bytes -= n;
        w->left -= n;
    }
done:
    return err;
}

static Err write_index(const SafetensorsWriter *w) {
    json_t *map = json_object();
    size_t total = 0;
    for (int k = 0; k < w->n_parts; k++) {
        const Part *p = &w->parts[k];
        total += p->bytes;
        for (int i = p->first; i < p->first + p->n; i++)
            json_object_set_new(map, w->specs[i].name, json_string(p->name));
    }
    json_t *root = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    char *text = json_dumps(root, JSON_INDENT(2)), *path = mem_printf("%s/model.safetensors.index.json", w->dir);
    Err err = text ? file_write_atomic(path, text, strlen(text)) : err_set(DS_ERR_BUG, "%s: cannot print JSON", path);
    mem_free(path);
    free(text); // lint: jansson's
    json_decref(root);
    return err;
}

Err safetensors_finish(SafetensorsWriter *w) {
    Err err = DS_OK;
    if (w->left || w->part + 1 != w->n_parts) err_fatal("%s: less data than tensors", w->dir);
    DS_TRY(end_part(w));
    for (int i = 0; i < w->n_parts; i++) {
        char *path = mem_printf("%s/%s", w->dir, w->parts[i].name);
        err = file_rename_durable(w->parts[i].tmp, path);
        mem_free(path);
        if (err) goto done;
        MEM_FREE(w->parts[i].tmp);
    }
    if (w->n_parts > 1) DS_TRY(write_index(w));
done:
    return err;
}

void safetensors_destroy(SafetensorsWriter **writer) {
    SafetensorsWriter *w = *writer;
    if (!w) return;
    if (w->file) fclose(w->file);
    for (int i = 0; i < w->n_parts; i++) {
        if (w->parts[i].tmp && i <= w->part) unlink(w->parts[i].tmp);
        mem_free(w->parts[i].tmp);
        mem_free(w->parts[i].name);
    }
    mem_free(w->parts);
    mem_free(w->dir);
    mem_free(w);
    *writer = NULL;
}
