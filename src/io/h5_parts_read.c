// h5_parts_read.c: reading what h5_parts.c wrote: a row as a whole, from its shard by pread or from the one data set
// that a tensor is, and no element of a row that has not its hash. The row read last is kept: who reads a tensor in
// order reads each row once.
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "io/h5_rows.h"

struct H5Parts {
    const H5File *file;
    const H5Tensor *tensors;
    H5Table *table; // [n], info in any case
    int n;
    void *row, *converted; // room for one row each
    int row_tensor;        // which row it is; -1: none
    int64_t row_index;
    char *folder;  // of the shards
    int shard, fd; // the one that is open; fd -1: none
    int64_t shard_bytes;
};

// ---- tables and shards ----

static Err check_shape(const H5File *file, const H5Tensor *t, const H5Info *info) {
    bool same = info->ndim == t->ndim;
    for (int d = 0; same && d < t->ndim; d++) same = info->shape[d] == t->shape[d];
    if (same) return DS_OK;
    return err_set(DS_ERR_DATA, "%s: %s has the shape %lld x %lld (%d dimensions), expected %lld x %lld (%d)",
                   h5_path(file), t->path, (long long)info->shape[0], (long long)info->shape[1], info->ndim,
                   (long long)t->shape[0], (long long)(t->ndim > 1 ? t->shape[1] : 1), t->ndim);
}

// A table over shards counts only where the data set is virtual: h5repack made one file of others, with the same table.
static Err open_table(const H5File *file, const H5Tensor *t, H5Table *table) {
    Err err = DS_OK;
    DType dtype = DS_U8;
    bool virtual = h5_is_virtual(file, t->path, &dtype);
    DS_TRY(h5_rows_read(file, t->path, table));
    DS_CHECK(!virtual || table->sharded, DS_ERR_DATA,
             "%s: %s is a virtual data set without a table of its shards, as another version of this program wrote it; "
             "h5repack -l CONTI FILE NEW makes one file of it, which loads",
             h5_path(file), t->path);
    DS_CHECK(!virtual || table->info.dtype == dtype, DS_ERR_DATA, "%s: %s holds %s, its table of shards says %s",
             h5_path(file), t->path, dtype_name(dtype), dtype_name(table->info.dtype));
    table->sharded = virtual;
    if (!virtual) DS_TRY(h5_info(file, t->path, &table->info));
    DS_TRY(check_shape(file, t, &table->info));
    if (table->rows.n || virtual)
        DS_TRY(
            h5_rows_check_tiling(DS_ERR_DATA, "hashes", file, t->path, &table->info, table->rows.row, table->rows.n));
done:
    return err;
}

static Err open_shard(H5Parts *p, int shard) {
    Err err = DS_OK;
    struct stat st;
    char name[32], *path = NULL;
    if (p->fd >= 0 && p->shard == shard) return DS_OK;
    if (p->fd >= 0) close(p->fd);
    p->fd = -1;
    if (!p->folder) DS_TRY(h5_parts_shard_path(h5_path(p->file), -1, &p->folder));
    DS_TRY(h5_parts_shard_path(h5_path(p->file), shard, &path));
    const int error = lstat(p->folder, &st) == 0 ? 0 : errno;
    DS_CHECK(!error, error == ENOENT ? DS_ERR_DATA : DS_ERR_IO, "%s: its folder of shards %s %s", h5_path(p->file),
             p->folder, error == ENOENT ? "is missing" : strerror(error));
    DS_CHECK(S_ISDIR(st.st_mode), DS_ERR_DATA, "%s: %s is not a folder (symbolic links are not followed)",
             h5_path(p->file), p->folder);
    DS_CHECK(!file_absent(path), DS_ERR_DATA, "%s: its shard %s is missing", h5_path(p->file), path);
    snprintf(name, sizeof name, "%05d.h5", shard);
    DS_TRY(file_open_inside(p->folder, name, &p->fd, &p->shard_bytes));
    p->shard = shard;
done:
    mem_free(path);
    return err;
}

static size_t row_bytes(const H5Table *t, const H5Row *row) {
    return (size_t)row->runs.count * dtype_bytes(t->info.dtype);
}

// Every shard is there, and none ends before its last row.
static Err check_shards(H5Parts *p) {
    Err err = DS_OK;
    int64_t *end = NULL, n = 0;
    for (int i = 0; i < p->n; i++)
        for (int64_t k = 0; p->table[i].sharded && k < p->table[i].rows.n; k++) {
            const H5Row *row = &p->table[i].rows.row[k];
            if (row->shard >= n) end = mem_grow(end, n, row->shard + 1, sizeof *end), n = row->shard + 1;
            end[row->shard] = ds_max(end[row->shard], row->offset + (int64_t)row_bytes(&p->table[i], row));
        }
    for (int s = 0; s < n; s++) {
        if (!end[s]) continue;
        DS_TRY(open_shard(p, s));
        DS_CHECK(p->shard_bytes >= end[s], DS_ERR_DATA, "%s/%05d.h5: is too short: it has %lld bytes, %s needs %lld",
                 p->folder, s, (long long)p->shard_bytes, h5_path(p->file), (long long)end[s]);
    }
done:
    mem_free(end);
    return err;
}

Err h5_parts_open(const H5File *file, const H5Tensor *tensors, int n_tensors, H5Parts **parts) {
    Err err = DS_OK;
    H5Parts *p = *parts = MEM_NEW(H5Parts, 1);
    *p = (H5Parts){.file = file, .tensors = tensors, .n = n_tensors, .row_tensor = -1, .fd = -1};
    p->table = MEM_NEW(H5Table, n_tensors);
    for (int i = 0; i < n_tensors; i++) DS_TRY(open_table(file, &tensors[i], &p->table[i]));
    DS_TRY(check_shards(p));
    p->row = h5_parts_staging(tensors, n_tensors);
    p->converted = h5_parts_staging(tensors, n_tensors);
done:
    if (err) h5_parts_close(parts);
    return err;
}

void h5_parts_close(H5Parts **parts) {
    H5Parts *p = *parts;
    if (!p) return;
    for (int i = 0; i < p->n; i++) h5_rows_free(&p->table[i].rows);
    if (p->fd >= 0) close(p->fd);
    mem_free(p->table);
    mem_free(p->row);
    mem_free(p->converted);
    mem_free(p->folder);
    MEM_FREE(*parts);
}

DType h5_parts_stored(const H5Parts *p, int tensor) { return p->table[tensor].info.dtype; }

// ---- rows ----

// Row k of tensor i into p->row.
static Err load_row(H5Parts *p, int i, int64_t k) {
    Err err = DS_OK;
    const H5Table *t = &p->table[i];
    const H5Row *row = &t->rows.row[k];
    char words[H5_RUNS_WORDS], *path = NULL;
    if (p->row_tensor == i && p->row_index == k) return DS_OK;
    p->row_tensor = -1;
    if (t->sharded) {
        DS_TRY(open_shard(p, row->shard));
        DS_TRY(h5_parts_shard_path(h5_path(p->file), row->shard, &path));
        DS_TRY(file_pread(p->fd, path, p->row, row_bytes(t, row), row->offset));
    } else DS_TRY(h5_read_runs(p->file, p->tensors[i].path, t->info.dtype, row->runs, p->row));
    DS_CHECK(!strcmp(hash_xxh128(p->row, row_bytes(t, row)).hex, row->hash.hex), DS_ERR_DATA,
             "%s: %s is damaged: elements %s do not have the hash they were written with%s",
             path ? path : h5_path(p->file), p->tensors[i].path,
             h5_rows_words(h5_runs_cols(t->info.ndim, t->info.shape), row->runs, words),
             path ? ", or this is another model's shard" : "");
    p->row_tensor = i, p->row_index = k;
done:
    mem_free(path);
    return err;
}

// Elements of runs of at most H5_ROW_MAX as they are stored. The row that is there already goes first.
static Err get_stored(H5Parts *p, int i, H5Runs runs, void *out) {
    Err err = DS_OK;
    const H5Table *t = &p->table[i];
    const int64_t total = t->info.count, cols = h5_runs_cols(t->info.ndim, t->info.shape), n = t->rows.n;
    const size_t size = dtype_bytes(t->info.dtype);
    if (!n) return h5_read_runs(p->file, p->tensors[i].path, t->info.dtype, runs, out);
    int64_t first = p->row_tensor == i ? p->row_index : 0, got = 0;
    for (int64_t at = 0; at < n && got < runs.count; at++) {
        int64_t k = (first + at) % n;
        if (!h5_runs_copy(total, cols, t->rows.row[k].runs, NULL, runs, NULL, size)) continue;
        DS_TRY(load_row(p, i, k));
        got += h5_runs_copy(total, cols, t->rows.row[k].runs, p->row, runs, out, size);
    }
done:
    return err;
}

Err h5_parts_get(H5Parts *p, int i, DType as, H5Runs runs, void *out) {
    Err err = DS_OK;
    const H5Info *info = &p->table[i].info;
    const char *name = p->tensors[i].path;
    const int64_t cols = h5_runs_cols(info->ndim, info->shape);
    DS_TRY(h5_check_range(p->file, name, info, runs, DS_ERR_DATA));
    DS_CHECK(h5_can_convert(info->dtype, as), DS_ERR_DATA, "%s: %s holds %s, expected %s", h5_path(p->file), name,
             dtype_name(info->dtype), dtype_name(as));
    for (int64_t at = 0, n; at < runs.count; at += n) {
        char *to = (char *)out + (size_t)at * dtype_bytes(as);
        H5Runs part = h5_runs_part(runs, cols, at, H5_ROW_MAX);
        n = part.count;
        DS_TRY(get_stored(p, i, part, as == info->dtype ? to : p->converted));
        if (as != info->dtype) h5_convert(info->dtype, p->converted, as, to, n);
    }
done:
    return err;
}

// ---- pieces, verification ----

Err h5_parts_read(const H5File *file, const H5Tensor *tensors, int n_tensors, const H5Piece *pieces, int n_pieces,
                  H5Store store, void *context) {
    Err err = DS_OK;
    H5Parts *p = NULL;
    void *staging = h5_parts_staging(tensors, n_tensors);
    DS_TRY(h5_parts_check_pieces(h5_path(file), tensors, n_tensors, pieces, n_pieces, true));
    DS_TRY(h5_parts_open(file, tensors, n_tensors, &p));
    for (int i = 0; i < n_pieces; i++) {
        const H5Tensor *t = &tensors[pieces[i].tensor];
        for (int64_t at = 0, n; at < pieces[i].count; at += n) {
            H5Runs runs = h5_parts_row(t, &pieces[i], at);
            n = runs.count;
            DS_TRY(h5_parts_get(p, pieces[i].tensor, t->dtype, runs, staging));
            DS_TRY(store(context, i, at, n, staging));
        }
    }
done:
    h5_parts_close(&p);
    mem_free(staging);
    return err;
}

static Err verify_table(H5Parts *p, int i, int part, int parts, int64_t *seen, H5Verified *v) {
    Err err = DS_OK;
    const H5Table *t = &p->table[i];
    if (!t->rows.n && part == 0) v->without += t->info.count * (int64_t)dtype_bytes(t->info.dtype);
    for (int64_t k = 0; k < t->rows.n; k++) {
        if ((*seen)++ % parts != part) continue;
        const int64_t bytes = (int64_t)row_bytes(t, &t->rows.row[k]);
        v->bytes += bytes;
        if (clock_now() >= v->until) continue;
        DS_TRY(load_row(p, i, k));
        v->verified += bytes;
    }
done:
    return err;
}

// v NULL: all of it, and every tensor has hashes.
static Err verify(const H5File *file, const H5Tensor *tensors, int n_tensors, int part, int parts, H5Verified *v) {
    Err err = DS_OK;
    H5Parts *p = NULL;
    int64_t seen = 0;
    H5Verified whole = {.until = INFINITY};
    DS_TRY(h5_parts_open(file, tensors, n_tensors, &p));
    for (int i = 0; i < n_tensors; i++) {
        DS_CHECK(v || p->table[i].rows.n || !p->table[i].info.count, DS_ERR_DATA,
                 "%s: %s has no hashes (attribute " H5_ROWS_HASHES ")", h5_path(file), tensors[i].path);
        DS_TRY(verify_table(p, i, part, parts, &seen, v ? v : &whole));
    }
done:
    h5_parts_close(&p);
    return err;
}

Err h5_parts_verify(const H5File *file, const H5Tensor *tensors, int n_tensors, int part, int parts) {
    return verify(file, tensors, n_tensors, part, parts, NULL);
}

Err h5_parts_verify_until(const H5File *file, const H5Tensor *tensors, int n_tensors, int part, int parts,
                          H5Verified *v) {
    return verify(file, tensors, n_tensors, part, parts, v);
}
