// h5_runs.c: see h5_runs.h. Whether they tile: plain ranges alone are followed from end to end. With strips among them
// each becomes boxes (a plain range three at most: the rest of a row, whole rows, the start of a row), all boxes' edges
// cut the columns into strips, and each strip keeps the row up to which it is full. Boxes are taken in the order of
// (row, column): then each must begin exactly where every strip under it ends, since what comes later begins no higher.
#include "io/h5_runs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { MAX_STEPS = 1 << 26 };

int64_t h5_runs_cols(int ndim, const int64_t *shape) { return ndim == 2 ? shape[1] : 0; }

bool h5_runs_strided(H5Runs r) { return r.run > 0 && r.run < r.count; }

bool h5_runs_ok(H5Runs r, int64_t total, int64_t cols) {
    if (r.first < 0 || r.count < 0 || r.run < 0 || r.first > total || r.count > total - r.first) return false;
    if (!h5_runs_strided(r)) return true;
    if (cols < 1 || r.count % r.run != 0 || r.run > cols - r.first % cols) return false;
    return r.count / r.run <= total / cols - r.first / cols;
}

H5Runs h5_runs_part(H5Runs r, int64_t cols, int64_t at, int64_t most) {
    if (!h5_runs_strided(r)) return (H5Runs){r.first + at, ds_min(most, r.count - at), r.run};
    int64_t into = at % r.run; // the run was longer than `most` before
    int64_t n = into || r.run > most ? ds_min(most, r.run - into) : most / r.run * r.run;
    return (H5Runs){r.first + at / r.run * cols + into, ds_min(n, r.count - at), r.run};
}

// ---- tiling ----

static bool say(char *words, const char *what, int64_t at, int64_t total) {
    snprintf(words, H5_RUNS_WORDS, "%s at element %lld of %lld", what, (long long)at, (long long)total);
    return false;
}

// What is expected at `next` begins at `begins`.
static bool say_gap(char *words, int64_t next, int64_t begins, int64_t total) {
    return begins > next ? say(words, "leave a hole", next, total) : say(words, "overlap", begins, total);
}

static int by_first(const void *a, const void *b) {
    const H5Runs *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

static bool tile_plain(int64_t total, H5Runs *runs, int64_t n, char *words) {
    int64_t next = 0;
    if (n) qsort(runs, (size_t)n, sizeof *runs, by_first);
    for (int64_t i = 0; i < n; next += runs[i++].count)
        if (runs[i].first != next) return say_gap(words, next, runs[i].first, total);
    return next == total || say_gap(words, next, total, total);
}

typedef struct {
    int64_t row, rows, col, cols;
} Tile;

static int by_corner(const void *a, const void *b) {
    const Tile *x = a, *y = b;
    if (x->row != y->row) return (x->row > y->row) - (x->row < y->row);
    return (x->col > y->col) - (x->col < y->col);
}

static int by_value(const void *a, const void *b) {
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

// The boxes of r, at most three. Returns how many.
static int split(H5Runs r, int64_t cols, Tile *out) {
    int n = 0;
    if (h5_runs_strided(r)) {
        *out = (Tile){r.first / cols, r.count / r.run, r.first % cols, r.run};
        return 1;
    }
    for (int64_t at = r.first, end = r.first + r.count; at < end; at += out[n].rows * out[n].cols, n++) {
        int64_t col = at % cols, left = end - at;
        if (col || left < cols) out[n] = (Tile){at / cols, 1, col, ds_min(left, cols - col)};
        else out[n] = (Tile){at / cols, left / cols, 0, cols};
    }
    return n;
}

// All columns at which a tile begins or ends, ascending. Owner: caller, mem_free.
static int64_t *find_edges(const Tile *tile, int64_t n, int64_t cols, int64_t *n_edges) {
    int64_t *edge = MEM_NEW(int64_t, 2 * n + 2), kept = 0;
    for (int64_t i = 0; i < n; i++) edge[2 * i] = tile[i].col, edge[2 * i + 1] = tile[i].col + tile[i].cols;
    edge[2 * n] = 0, edge[2 * n + 1] = cols;
    qsort(edge, (size_t)(2 * n + 2), sizeof *edge, by_value);
    for (int64_t i = 0; i < 2 * n + 2; i++)
        if (!kept || edge[i] != edge[kept - 1]) edge[kept++] = edge[i];
    *n_edges = kept;
    return edge;
}

// full[s]: the row up to which the strip from edge[s] on is full.
static bool lay(int64_t total, int64_t cols, const Tile *tile, int64_t n, const int64_t *edge, int64_t n_edges,
                int64_t *full, char *words) {
    int64_t steps = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t *from = bsearch(&tile[i].col, edge, (size_t)n_edges, sizeof *edge, by_value);
        for (int64_t s = from - edge; edge[s] < tile[i].col + tile[i].cols; full[s++] += tile[i].rows) {
            if (full[s] != tile[i].row)
                return say_gap(words, full[s] * cols + edge[s], tile[i].row * cols + edge[s], total);
            if (++steps > MAX_STEPS) return say(words, "are cut too finely to be checked", tile[i].row * cols, total);
        }
    }
    for (int64_t s = 0; s < n_edges - 1; s++)
        if (full[s] * cols != total) return say_gap(words, full[s] * cols + edge[s], total, total);
    return true;
}

static bool tile_boxes(int64_t total, int64_t cols, const H5Runs *runs, int64_t n, char *words) {
    Tile *tile = MEM_NEW(Tile, 3 * n);
    int64_t n_tiles = 0, n_edges;
    for (int64_t i = 0; i < n; i++) n_tiles += split(runs[i], cols, tile + n_tiles);
    qsort(tile, (size_t)n_tiles, sizeof *tile, by_corner);
    int64_t *edge = find_edges(tile, n_tiles, cols, &n_edges), *full = MEM_NEW(int64_t, n_edges);
    bool exact = lay(total, cols, tile, n_tiles, edge, n_edges, full, words);
    mem_free(full);
    mem_free(edge);
    mem_free(tile);
    return exact;
}

bool h5_runs_tile(int64_t total, int64_t cols, H5Runs *runs, int64_t n, char words[H5_RUNS_WORDS]) {
    bool strided = false;
    for (int64_t i = 0; i < n; i++) {
        if (runs[i].count < 1 || !h5_runs_ok(runs[i], total, cols))
            return say(words, "are not legal", runs[i].first, total);
        strided = strided || h5_runs_strided(runs[i]);
    }
    return strided ? tile_boxes(total, cols, runs, n, words) : tile_plain(total, runs, n, words);
}

// ---- copying ----

// Where element (row, col) lies in r.
static int64_t place(H5Runs r, int64_t cols, int64_t row, int64_t col) {
    if (h5_runs_strided(r)) return (row - r.first / cols) * r.run + col - r.first % cols;
    return row * cols + col - r.first;
}

static Tile common(Tile a, Tile b) {
    Tile t = {.row = ds_max(a.row, b.row), .col = ds_max(a.col, b.col)};
    t.rows = ds_max(0, ds_min(a.row + a.rows, b.row + b.rows) - t.row);
    t.cols = ds_max(0, ds_min(a.col + a.cols, b.col + b.cols) - t.col);
    return t;
}

int64_t h5_runs_copy(int64_t total, int64_t cols, H5Runs from, const void *src, H5Runs to, void *dst, size_t size) {
    Tile a[3], b[3];
    int64_t copied = 0, width = cols && (h5_runs_strided(from) || h5_runs_strided(to)) ? cols : ds_max(total, 1);
    int n_a = split(from, width, a), n_b = split(to, width, b);
    for (int i = 0; i < n_a * n_b; i++) {
        Tile t = common(a[i / n_b], b[i % n_b]);
        copied += t.rows * t.cols;
        for (int64_t row = t.row; src && t.cols && row < t.row + t.rows; row++)
            memcpy((char *)dst + (size_t)place(to, width, row, t.col) * size,
                   (const char *)src + (size_t)place(from, width, row, t.col) * size, (size_t)t.cols * size);
    }
    return copied;
}
