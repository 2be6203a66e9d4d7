// h5_parts.c: shards, masters over them, and the hashes of both. See h5_parts.h for the layout.
//
// The attribute xxh3_128 of a data set is text, a line a row, piece after piece: "<first> <count> <hash>\n" of a flat
// range, "<first> <count> <hash> <run>\n" of a strip. Readers take the lines in any order.
#include "io/h5_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "io/h5_attr.h"

_Static_assert(sizeof(H5Row) == 80, "rows travel between ranks as bytes");

#define HASHES "xxh3_128"
enum { MAX_TENSORS = 1 << 20, LINE = 128 };

void h5_rows_add(H5Rows *rows, const H5Row *row) {
    if ((rows->n & (rows->n - 1)) == 0) // full at every power of two
        rows->row = mem_grow(rows->row, rows->n, rows->n ? 2 * rows->n : 1, sizeof *rows->row);
    rows->row[rows->n++] = *row;
}

void h5_rows_free(H5Rows *rows) {
    mem_free(rows->row);
    *rows = (H5Rows){0};
}

int64_t h5_tensor_count(const H5Tensor *t) {
    size_t n = 1;
    if (t->ndim < 1 || t->ndim > H5_MAX_NDIM) return -1;
    for (int d = 0; d < t->ndim; d++)
        if (t->shape[d] < 0 || !mem_mul(n, (size_t)t->shape[d], &n) || n > INT64_MAX / 8) return -1;
    return (int64_t)n;
}

Err h5_parts_shard_path(const char *master, int shard, char **path) {
    size_t n = strlen(master);
    *path = NULL;
    if (n < 4 || strcmp(master + n - 3, ".h5") != 0 || shard > 99999)
        return err_set(DS_ERR_DATA, "%s: a model's file name ends in .h5, and it has at most 100000 shards", master);
    char *stem = mem_strndup(master, n - 3);
    *path = shard < 0 ? mem_printf("%s.shards", stem) : mem_printf("%s.shards/%05d.h5", stem, shard);
    mem_free(stem);
    return DS_OK;
}

// A strip as wide as its tensor is a flat range, and is written as one.
static H5Runs piece_runs(const H5Tensor *t, const H5Piece *p) {
    H5Runs r = {p->first, p->count, p->run};
    if (!h5_runs_strided(r) || r.run == h5_runs_cols(t->ndim, t->shape)) r.run = 0;
    return r;
}

H5Runs h5_parts_row(const H5Tensor *t, const H5Piece *p, int64_t at) {
    return h5_runs_part(piece_runs(t, p), h5_runs_cols(t->ndim, t->shape), at, H5_ROW_MAX);
}

static char *source_name(const H5Tensor *t, int64_t first) { return mem_printf("%s@%" PRId64, t->path, first); }

void *h5_parts_staging(const H5Tensor *tensors, int n_tensors) {
    int64_t n = 1;
    for (int i = 0; i < n_tensors; i++) n = ds_max(n, ds_min(H5_ROW_MAX, h5_tensor_count(&tensors[i])));
    return mem_array(n, sizeof(double));
}

// ---- writing a shard ----

typedef struct {
    H5File *file;
    const H5Tensor *tensors;
    H5Fetch fetch;
    void *context;
    void *staging; // for one row, NULL where no piece is fetched
    H5Rows *rows;
} ShardWriter;

static Err write_piece(ShardWriter *w, int shard, int index, const H5Piece *p) {
    Err err = DS_OK;
    const H5Tensor *t = &w->tensors[p->tensor];
    size_t size = dtype_bytes(t->dtype);
    char *name = source_name(t, p->first);
    DS_TRY(h5_dataset_create(w->file, name, t->dtype, 1, &p->count));
    for (int64_t at = 0, n; at < p->count; at += n) {
        H5Runs runs = h5_parts_row(t, p, at);
        n = runs.count;
        const void *data = p->data ? (const char *)p->data + (size_t)at * size : w->staging;
        if (!p->data) DS_TRY(w->fetch(w->context, index, at, n, w->staging));
        DS_TRY(h5_write(w->file, name, at, n, data));
        H5Row row = {.tensor = p->tensor,
                     .shard = shard,
                     .runs = runs,
                     .piece_first = p->first,
                     .hash = hash_xxh128(data, (size_t)n * size)};
        h5_rows_add(w->rows, &row);
    }
done:
    mem_free(name);
    return err;
}

Err h5_parts_check_pieces(const char *path, const H5Tensor *tensors, int n_tensors, const H5Piece *pieces, int n_pieces,
                          bool fetched) {
    for (int i = 0; i < n_pieces; i++) {
        const H5Piece *p = &pieces[i];
        const H5Tensor *t = p->tensor >= 0 && p->tensor < n_tensors ? &tensors[p->tensor] : NULL;
        int64_t total = t ? h5_tensor_count(t) : -1;
        H5Runs r = {p->first, p->count, p->run};
        if (total < 0 || !h5_runs_ok(r, total, h5_runs_cols(t->ndim, t->shape)))
            return err_set(DS_ERR_BUG,
                           "%s: a piece of tensor %d, %lld elements from %lld on in runs of %lld (0: one), lies "
                           "outside it",
                           path, p->tensor, (long long)p->count, (long long)p->first, (long long)p->run);
        if (!p->data && !fetched) return err_set(DS_ERR_BUG, "%s: a piece of tensor %d has no data", path, p->tensor);
    }
    return DS_OK;
}

Err h5_parts_write_shard(const char *master, int shard, const H5Tensor *tensors, int n_tensors, const H5Piece *pieces,
                         int n_pieces, H5Fetch fetch, void *context, H5Rows *rows) {
    Err err = DS_OK;
    char *path = NULL, *folder = NULL;
    int64_t filled = 0;
    ShardWriter w = {.tensors = tensors, .fetch = fetch, .context = context, .rows = rows};
    DS_TRY(h5_parts_check_pieces(master, tensors, n_tensors, pieces, n_pieces, fetch != NULL));
    for (int i = 0; i < n_pieces; i++) filled += pieces[i].count > 0;
    if (!filled) goto done;
    DS_TRY(h5_parts_shard_path(master, shard, &path));
    DS_TRY(h5_parts_shard_path(master, -1, &folder));
    DS_TRY(file_make_dirs(folder));
    if (fetch) w.staging = h5_parts_staging(tensors, n_tensors);
    DS_TRY(h5_create(path, &w.file));
    for (int i = 0; i < n_pieces; i++)
        if (pieces[i].count > 0) DS_TRY(write_piece(&w, shard, i, &pieces[i]));
    DS_TRY(h5_commit(&w.file));
done:
    h5_abandon(&w.file);
    mem_free(w.staging);
    mem_free(folder);
    mem_free(path);
    return err;
}

// ---- rows of all ranks -> one file ----

// Rows of one piece follow each other, also where those of another strip lie between them in the tensor.
static int by_piece(const void *a, const void *b) {
    const H5Row *x = a, *y = b;
    if (x->tensor != y->tensor) return (x->tensor > y->tensor) - (x->tensor < y->tensor);
    if (x->piece_first != y->piece_first) return (x->piece_first > y->piece_first) - (x->piece_first < y->piece_first);
    return (x->runs.first > y->runs.first) - (x->runs.first < y->runs.first);
}

// row[0..n) tile their tensor exactly. `code` with what it is that they do not.
static Err check_tiling(Err code, const char *what, const H5File *file, const H5Tensor *t, const H5Row *row,
                        int64_t n) {
    Err err = DS_OK;
    char words[H5_RUNS_WORDS];
    H5Runs *runs = MEM_NEW(H5Runs, n);
    for (int64_t i = 0; i < n; i++) runs[i] = row[i].runs;
    DS_CHECK(h5_runs_tile(h5_tensor_count(t), h5_runs_cols(t->ndim, t->shape), runs, n, words), code,
             "%s: the %s of %s %s", h5_path(file), what, t->path, words);
done:
    mem_free(runs);
    return err;
}

// Sorts; every tensor is tiled exactly. DS_ERR_BUG.
static Err sort_rows(const H5File *file, const H5Tensor *tensors, int n_tensors, H5Rows *rows) {
    Err err = DS_OK;
    int64_t k = 0;
    if (rows->n) qsort(rows->row, (size_t)rows->n, sizeof *rows->row, by_piece);
    for (int t = 0; t < n_tensors; t++) {
        int64_t n = 0;
        while (k + n < rows->n && rows->row[k + n].tensor == t) n++;
        DS_TRY(check_tiling(DS_ERR_BUG, "rows", file, &tensors[t], rows->row + k, n));
        k += n;
    }
    DS_CHECK(k == rows->n, DS_ERR_BUG, "%s: rows of tensor %d, which there is not", h5_path(file), rows->row[k].tensor);
done:
    return err;
}

// The hashes of row[0..n) as the attribute of their tensor.
static Err write_hashes(H5File *file, const H5Tensor *t, const H5Row *row, int64_t n) {
    char *text = mem_array(n + 1, LINE), *p = text;
    for (int64_t i = 0; i < n; i++) {
        H5Runs r = row[i].runs;
        p += snprintf(p, LINE, "%" PRId64 " %" PRId64 " %s", r.first, r.count, row[i].hash.hex);
        if (h5_runs_strided(r)) p += snprintf(p, LINE, " %" PRId64, r.run);
        *p++ = '\n';
    }
    Err err = h5_attr_put_str(file, t->path, HASHES, text);
    mem_free(text);
    return err;
}

// Rows of one tensor, beginning at k.
static int64_t count_rows(const H5Rows *rows, int64_t k) {
    int64_t n = 0;
    while (k + n < rows->n && rows->row[k + n].tensor == rows->row[k].tensor) n++;
    return n;
}

// Rows that lie one after the other in one piece become one source. Names: owner caller.
static int64_t make_sources(const H5Tensor *t, const H5Row *row, int64_t n, H5Source *out) {
    int64_t made = 0;
    for (int64_t i = 0; i < n; i++) {
        H5Source *last = made ? &out[made - 1] : NULL;
        if (i && row[i].shard == row[i - 1].shard && row[i].piece_first == row[i - 1].piece_first) {
            last->runs.count += row[i].runs.count;
            continue;
        }
        out[made++] = (H5Source){row[i].shard, source_name(t, row[i].piece_first), row[i].runs};
    }
    return made;
}

Err h5_parts_write_virtual(H5File *master, const H5Tensor *tensors, int n_tensors, H5Rows *rows) {
    Err err = DS_OK;
    DS_TRY(sort_rows(master, tensors, n_tensors, rows));
    for (int64_t k = 0, n; k < rows->n; k += n) {
        const H5Tensor *t = &tensors[rows->row[k].tensor];
        n = count_rows(rows, k);
        H5Source *sources = MEM_NEW(H5Source, n);
        int64_t n_sources = make_sources(t, rows->row + k, n, sources);
        err = h5_write_virtual(master, t->path, t->dtype, t->ndim, t->shape, sources, n_sources);
        for (int64_t i = 0; i < n_sources; i++) mem_free((char *)(uintptr_t)sources[i].dataset);
        mem_free(sources);
        DS_TRY(err);
        DS_TRY(write_hashes(master, t, rows->row + k, n));
    }
done:
    return err;
}

Err h5_parts_create(H5File *file, const H5Tensor *tensors, int n_tensors) {
    Err err = DS_OK;
    for (int i = 0; i < n_tensors; i++)
        DS_TRY(h5_dataset_create(file, tensors[i].path, tensors[i].dtype, tensors[i].ndim, tensors[i].shape));
done:
    return err;
}

Err h5_parts_put(H5File *file, const H5Tensor *tensors, const H5Piece *p, H5Rows *rows) {
    Err err = DS_OK;
    const H5Tensor *t = &tensors[p->tensor];
    size_t size = dtype_bytes(t->dtype);
    for (int64_t at = 0, n; at < p->count; at += n) {
        H5Runs runs = h5_parts_row(t, p, at);
        n = runs.count;
        const char *data = (const char *)p->data + (size_t)at * size;
        DS_TRY(h5_write_runs(file, t->path, runs, data));
        H5Row row = {
            .tensor = p->tensor, .runs = runs, .piece_first = p->first, .hash = hash_xxh128(data, (size_t)n * size)};
        h5_rows_add(rows, &row);
    }
done:
    return err;
}

Err h5_parts_finish(H5File *file, const H5Tensor *tensors, int n_tensors, H5Rows *rows) {
    Err err = DS_OK;
    DS_TRY(sort_rows(file, tensors, n_tensors, rows));
    for (int64_t k = 0, n; k < rows->n; k += n) {
        n = count_rows(rows, k);
        DS_TRY(write_hashes(file, &tensors[rows->row[k].tensor], rows->row + k, n));
    }
done:
    return err;
}

// ---- reading ----

Err h5_parts_list(const H5File *file, const char *group, H5Tensor **tensors, int *n_tensors) {
    Err err = DS_OK;
    H5Names names = {0};
    H5Info info;
    *tensors = NULL, *n_tensors = 0;
    DS_TRY(h5_list(file, group, &names));
    DS_CHECK(names.n <= MAX_TENSORS, DS_ERR_DATA, "%s: %s holds %lld tensors, at most %d are accepted", h5_path(file),
             group, (long long)names.n, MAX_TENSORS);
    *tensors = MEM_NEW(H5Tensor, names.n);
    for (int i = 0; i < (int)names.n; i++) {
        H5Tensor *t = &(*tensors)[i];
        snprintf(t->path, sizeof t->path, "%.40s/%.210s", group, names.name[i]);
        DS_TRY(h5_info(file, t->path, &info));
        t->dtype = info.dtype, t->ndim = info.ndim;
        memcpy(t->shape, info.shape, sizeof t->shape);
    }
    *n_tensors = (int)names.n;
done:
    if (err) MEM_FREE(*tensors);
    h5_names_free(&names);
    return err;
}

Err h5_parts_check_shape(const H5File *file, const H5Tensor *t) {
    H5Info info;
    Err err = h5_info(file, t->path, &info);
    if (err) return err;
    bool same = info.ndim == t->ndim;
    for (int d = 0; same && d < t->ndim; d++) same = info.shape[d] == t->shape[d];
    if (same) return DS_OK;
    return err_set(DS_ERR_DATA, "%s: %s has the shape %lld x %lld (%d dimensions), expected %lld x %lld (%d)",
                   h5_path(file), t->path, (long long)info.shape[0], (long long)info.shape[1], info.ndim,
                   (long long)t->shape[0], (long long)(t->ndim > 1 ? t->shape[1] : 1), t->ndim);
}

Err h5_parts_read(const H5File *file, const H5Tensor *tensors, int n_tensors, const H5Piece *pieces, int n_pieces,
                  H5Store store, void *context) {
    Err err = DS_OK;
    void *staging = h5_parts_staging(tensors, n_tensors);
    DS_TRY(h5_parts_check_pieces(h5_path(file), tensors, n_tensors, pieces, n_pieces, true));
    for (int i = 0; i < n_pieces; i++) {
        const H5Piece *p = &pieces[i];
        const H5Tensor *t = &tensors[p->tensor];
        DS_TRY(h5_parts_check_shape(file, t));
        for (int64_t at = 0, n; at < p->count; at += n) {
            H5Runs runs = h5_parts_row(t, p, at);
            n = runs.count;
            DS_TRY(h5_read_runs(file, t->path, t->dtype, runs, staging));
            DS_TRY(store(context, i, at, n, staging));
        }
    }
done:
    mem_free(staging);
    return err;
}

// ---- verification ----

typedef struct {
    int part, parts;
    int64_t seen;
    void *staging;
} Verifier;

// One line of the attribute; *text moves past it. The file is a stranger's: nothing is taken on trust. Whether the
// elements are the tensor's is seen when all rows are there.
static bool parse_row(const char **text, H5Row *row) {
    int used = 0;
    char line[LINE] = "", hash[33] = "";
    size_t n = strcspn(*text, "\n");
    H5Runs *r = &row->runs;
    *row = (H5Row){0};
    if (n >= LINE || !(*text)[n]) return false;
    memcpy(line, *text, n); // sscanf would measure all that follows, at every line
    int got = sscanf(line, "%18" SCNd64 " %18" SCNd64 " %32[0-9a-f]%n %18" SCNd64 "%n", &r->first, &r->count, hash,
                     &used, &r->run, &used);
    if (got < 3 || strlen(hash) != 32 || line[used] || (got == 4 && !h5_runs_strided(*r))) return false;
    memcpy(row->hash.hex, hash, sizeof hash);
    *text += n + 1;
    return r->count > 0 && r->count <= H5_ROW_MAX;
}

// The rows of a tensor, which tile it. Owner: caller, h5_rows_free.
static Err read_rows(const H5File *file, const H5Tensor *t, H5Rows *rows) {
    Err err = DS_OK;
    char *text = NULL;
    H5Row row;
    DS_TRY(h5_attr_get_str(file, t->path, HASHES, &text));
    for (const char *p = text; *p; h5_rows_add(rows, &row))
        DS_CHECK(parse_row(&p, &row), DS_ERR_DATA, "%s: the hashes of %s are damaged", h5_path(file), t->path);
    DS_TRY(check_tiling(DS_ERR_DATA, "hashes", file, t, rows->row, rows->n));
done:
    mem_free(text);
    return err;
}

// "0 to 11", or "3 to 29, 2 of each row of 12".
static const char *row_words(const H5Tensor *t, H5Runs r, char words[H5_RUNS_WORDS]) {
    int64_t cols = h5_runs_cols(t->ndim, t->shape);
    if (h5_runs_strided(r))
        snprintf(words, H5_RUNS_WORDS, "%lld to %lld, %lld of each row of %lld", (long long)r.first,
                 (long long)(r.first + (r.count / r.run - 1) * cols + r.run - 1), (long long)r.run, (long long)cols);
    else snprintf(words, H5_RUNS_WORDS, "%lld to %lld", (long long)r.first, (long long)(r.first + r.count - 1));
    return words;
}

static Err verify_row(const H5File *file, const H5Tensor *t, const H5Row *row, Verifier *v) {
    Err err = DS_OK;
    char words[H5_RUNS_WORDS];
    if (v->seen++ % v->parts != v->part) return DS_OK;
    DS_TRY(h5_read_runs(file, t->path, t->dtype, row->runs, v->staging));
    Xxh128Hex hash = hash_xxh128(v->staging, (size_t)row->runs.count * dtype_bytes(t->dtype));
    DS_CHECK(!strcmp(hash.hex, row->hash.hex), DS_ERR_DATA,
             "%s: %s is damaged: elements %s do not have the hash they were written with", h5_path(file), t->path,
             row_words(t, row->runs, words));
done:
    return err;
}

static Err verify_tensor(const H5File *file, const H5Tensor *t, Verifier *v) {
    Err err = DS_OK;
    H5Rows rows = {0};
    DS_TRY(read_rows(file, t, &rows));
    for (int64_t i = 0; i < rows.n; i++) DS_TRY(verify_row(file, t, &rows.row[i], v));
done:
    h5_rows_free(&rows);
    return err;
}

Err h5_parts_verify(const H5File *file, const H5Tensor *tensors, int n_tensors, int part, int parts) {
    Err err = DS_OK;
    Verifier v = {.part = part, .parts = parts, .staging = h5_parts_staging(tensors, n_tensors)};
    for (int i = 0; i < n_tensors; i++) DS_TRY(verify_tensor(file, &tensors[i], &v));
done:
    mem_free(v.staging);
    return err;
}
