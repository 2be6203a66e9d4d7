// h5_parts.c: writing shards, masters over them, and the hashes of both. See h5_parts.h for the layout.
#include "io/h5_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "io/h5_rows.h"

_Static_assert(sizeof(H5Row) == 88, "rows travel between ranks as bytes");

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
        return err_set(DS_ERR_DATA, "%s: expected the name of a model, which ends in .h5 (and at most 100000 shards)",
                       master);
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
    int64_t offset;
    DS_TRY(h5_dataset_create(w->file, name, t->dtype, 1, &p->count));
    DS_TRY(h5_offset(w->file, name, &offset));
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
                     .offset = offset + at * (int64_t)size,
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
    DS_TRY(h5_commit_shard(&w.file));
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

static H5Info tensor_info(const H5Tensor *t) {
    H5Info info = {.dtype = t->dtype, .ndim = t->ndim, .count = h5_tensor_count(t)};
    memcpy(info.shape, t->shape, sizeof info.shape);
    return info;
}

// Sorts; every tensor is tiled exactly. DS_ERR_BUG.
static Err sort_rows(const H5File *file, const H5Tensor *tensors, int n_tensors, H5Rows *rows) {
    Err err = DS_OK;
    int64_t k = 0;
    if (rows->n) qsort(rows->row, (size_t)rows->n, sizeof *rows->row, by_piece);
    for (int t = 0; t < n_tensors; t++) {
        int64_t n = 0;
        while (k + n < rows->n && rows->row[k + n].tensor == t) n++;
        const H5Info info = tensor_info(&tensors[t]);
        DS_TRY(h5_rows_check_tiling(DS_ERR_BUG, "rows", file, tensors[t].path, &info, rows->row + k, n));
        k += n;
    }
    DS_CHECK(k == rows->n, DS_ERR_BUG, "%s: rows of tensor %d, which there is not", h5_path(file), rows->row[k].tensor);
done:
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
        DS_TRY(h5_rows_write(master, t, rows->row + k, n, true));
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
        DS_TRY(h5_rows_write(file, &tensors[rows->row[k].tensor], rows->row + k, n, false));
    }
done:
    return err;
}
