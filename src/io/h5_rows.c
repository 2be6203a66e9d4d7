// h5_rows.c: see h5_rows.h.
#include "io/h5_rows.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "io/h5_attr.h"

enum { LINE = 128, MAX_SHARD = 99999, DTYPES = DS_U32 + 1 };

void h5_rows_add(H5Rows *rows, const H5Row *row) {
    if ((rows->n & (rows->n - 1)) == 0) // full at every power of two
        rows->row = mem_grow(rows->row, rows->n, rows->n ? 2 * rows->n : 1, sizeof *rows->row);
    rows->row[rows->n++] = *row;
}

void h5_rows_free(H5Rows *rows) {
    mem_free(rows->row);
    *rows = (H5Rows){0};
}

Err h5_rows_check_tiling(Err code, const char *what, const H5File *file, const char *object, const H5Info *info,
                         const H5Row *row, int64_t n) {
    Err err = DS_OK;
    char words[H5_RUNS_WORDS];
    H5Runs *runs = MEM_NEW(H5Runs, n);
    for (int64_t i = 0; i < n; i++) runs[i] = row[i].runs;
    DS_CHECK(h5_runs_tile(info->count, h5_runs_cols(info->ndim, info->shape), runs, n, words), code,
             "%s: the %s of %s %s", h5_path(file), what, object, words);
done:
    mem_free(runs);
    return err;
}

const char *h5_rows_words(int64_t cols, H5Runs r, char words[H5_RUNS_WORDS]) {
    if (h5_runs_strided(r))
        snprintf(words, H5_RUNS_WORDS, "%lld to %lld, %lld of each row of %lld", (long long)r.first,
                 (long long)(r.first + (r.count / r.run - 1) * cols + r.run - 1), (long long)r.run, (long long)cols);
    else snprintf(words, H5_RUNS_WORDS, "%lld to %lld", (long long)r.first, (long long)(r.first + r.count - 1));
    return words;
}

// ---- writing ----

static char *hash_lines(const H5Row *row, int64_t n) {
    char *text = mem_array(n + 1, LINE), *p = text;
    for (int64_t i = 0; i < n; i++) {
        H5Runs r = row[i].runs;
        p += snprintf(p, LINE, "%" PRId64 " %" PRId64 " %s", r.first, r.count, row[i].hash.hex);
        if (h5_runs_strided(r)) p += snprintf(p, LINE, " %" PRId64, r.run);
        *p++ = '\n';
    }
    return text;
}

static char *shard_lines(const H5Tensor *t, const H5Row *row, int64_t n) {
    char *text = mem_array(n + 2, LINE), *p = text;
    p += snprintf(p, LINE, "%s", dtype_name(t->dtype));
    for (int d = 0; d < t->ndim; d++) p += snprintf(p, LINE, " %" PRId64, t->shape[d]);
    *p++ = '\n';
    for (int64_t i = 0; i < n; i++) p += snprintf(p, LINE, "%d %" PRId64 "\n", row[i].shard, row[i].offset);
    return text;
}

Err h5_rows_write(H5File *file, const H5Tensor *t, const H5Row *row, int64_t n, bool sharded) {
    char *hashes = hash_lines(row, n), *shards = sharded ? shard_lines(t, row, n) : NULL;
    Err err = h5_attr_put_str(file, t->path, H5_ROWS_HASHES, hashes);
    if (!err && shards) err = h5_make_group(file, H5_ROWS_SHARDS);
    if (!err && shards) err = h5_attr_put_str(file, H5_ROWS_SHARDS, t->path, shards);
    mem_free(hashes);
    mem_free(shards);
    return err;
}

// ---- reading ----

// The line at *text, which moves past it; sscanf would measure all that follows, at every line.
static bool take_line(const char **text, char line[LINE]) {
    size_t n = strcspn(*text, "\n");
    if (n >= LINE || !(*text)[n]) return false;
    memcpy(line, *text, n);
    line[n] = 0;
    *text += n + 1;
    return true;
}

// Whether the elements are the tensor's is seen when all rows are there.
static bool parse_hashes(const char *p, H5Rows *rows) {
    while (*p) {
        int used = 0;
        char line[LINE], hash[33] = "";
        H5Row row = {0};
        H5Runs *r = &row.runs;
        if (!take_line(&p, line)) return false;
        int got = sscanf(line, "%18" SCNd64 " %18" SCNd64 " %32[0-9a-f]%n %18" SCNd64 "%n", &r->first, &r->count, hash,
                         &used, &r->run, &used);
        if (got < 3 || strlen(hash) != 32 || line[used] || (got == 4 && !h5_runs_strided(*r))) return false;
        if (r->count < 1 || r->count > H5_ROW_MAX) return false;
        memcpy(row.hash.hex, hash, sizeof hash);
        h5_rows_add(rows, &row);
    }
    return true;
}

static bool parse_head(const char *line, H5Info *info) {
    char name[8] = "";
    int used = 0;
    *info = (H5Info){.shape = {1, 1, 1, 1}, .count = 1, .dtype = (DType)DTYPES};
    if (sscanf(line, "%7[a-z0-9]%n", name, &used) != 1) return false;
    for (int i = 0; i < DTYPES; i++)
        if (!strcmp(name, dtype_name((DType)i))) info->dtype = (DType)i;
    for (int n = 0; line[used] && info->ndim < H5_MAX_NDIM; used += n) {
        int64_t *along = &info->shape[info->ndim++];
        size_t count = (size_t)info->count;
        if (sscanf(line + used, " %18" SCNd64 "%n", along, &n) != 1 || *along < 0) return false;
        if (!mem_mul(count, (size_t)*along, &count) || count > INT64_MAX / 8) return false;
        info->count = (int64_t)count;
    }
    return info->dtype != (DType)DTYPES && info->ndim > 0 && !line[used];
}

static bool parse_shards(const char *p, H5Table *table) {
    char line[LINE];
    if (!take_line(&p, line) || !parse_head(line, &table->info)) return false;
    for (int64_t i = 0; i < table->rows.n; i++) {
        H5Row *row = &table->rows.row[i];
        int used = 0;
        if (!take_line(&p, line)) return false;
        if (sscanf(line, "%6d %18" SCNd64 "%n", &row->shard, &row->offset, &used) != 2 || line[used]) return false;
        if (row->shard < 0 || row->shard > MAX_SHARD || row->offset < 0) return false;
    }
    return !*p;
}

Err h5_rows_read(const H5File *file, const char *object, H5Table *table) {
    Err err = DS_OK;
    char *hashes = NULL, *shards = NULL;
    *table = (H5Table){0};
    if (h5_attr_exists(file, object, H5_ROWS_HASHES)) DS_TRY(h5_attr_get_str(file, object, H5_ROWS_HASHES, &hashes));
    if (h5_attr_exists(file, H5_ROWS_SHARDS, object)) DS_TRY(h5_attr_get_str(file, H5_ROWS_SHARDS, object, &shards));
    DS_TRY(h5_trouble(file)); // one that seemed not to be there
    table->sharded = shards != NULL;
    DS_CHECK(!hashes || parse_hashes(hashes, &table->rows), DS_ERR_DATA, "%s: the hashes of %s are damaged",
             h5_path(file), object);
    DS_CHECK(!shards || parse_shards(shards, table), DS_ERR_DATA, "%s: the table of shards of %s is damaged",
             h5_path(file), object);
done:
    if (err) h5_rows_free(&table->rows);
    mem_free(hashes);
    mem_free(shards);
    return err;
}
