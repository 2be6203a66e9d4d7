// linear_vec.c: a share of linear_fwd by the register tile (tile.h): each element is one chain of fused multiply-adds.
//
//   few rows:  the rows are turned into panels [in][TILE_COLS rows], lanes run over them, and the weights are read
//              once, where they stand; bound by memory. One or two rows: see run_fewest.
//   many rows: the weights are turned into panels [in][TILE_COLS outputs] of fp32 or pairs of bf16, lanes run over the
//              outputs: a group of panels as large as the second cache bears, then all rows pass over it, TILE_ROWS at
//              a time.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/linear.h"

// CUT, FEWEST_CUT: inputs between two fetches, which are so few that what is computed does not wait behind them.
enum { CUT = 32, FEWEST_CUT = 16, FEWEST_ROWS = 2, FEW_TILES = 8 };

static int panel_cols(const Linear *a, int64_t panel) { return a->out - panel * TILE_COLS > LANES ? TILE_COLS : LANES; }

// One panel of weights; the next one is fetched meanwhile (packing reads many short rows side by side, which the
// hardware does not see coming).
static void pack_panel(const Linear *a, float *dst, int64_t panel) {
    const int64_t ahead = (panel + 2) * TILE_COLS <= a->out ? TILE_COLS * a->in : 0;
    for (int64_t c = 0; c < TILE_COLS; c += LANES) {
        const int64_t first = panel * TILE_COLS + c;
        if (first < a->out)
            tile_pack(a->unit, dst + c, TILE_COLS, elem_at(a->unit, a->w, first * a->in), a->in,
                      ds_min(LANES, a->out - first), a->in, ahead);
    }
}

// One row tile, packed as x, times a panel that is packed already.
static void run_tile(const Linear *a, const float *x, const float *w, int64_t row, int64_t rows, int64_t panel) {
    _Alignas(64) float acc[TILE_ROWS * TILE_COLS] = {0};
    tile_packed((int)rows, panel_cols(a, panel), acc, TILE_COLS, x, TILE_LD, w, TILE_COLS, a->in, a->math);
    linear_store(a, acc, row, rows, panel);
}

// Rows o .. o + n of w as fp32 or pairs: where they are, or widened into scratch.
static const float *weight_rows(const Linear *a, int64_t o, int64_t n) {
    const void *from = elem_at(a->unit, a->w, o * a->in);
    if (a->unit == DS_F32) return from;
    float *w = cpu_scratch_f32(SCRATCH_W, n * a->in);
    for (int64_t i = 0; i < n * a->in; i += LANES)
        vec_store_n(DS_F32, w, i, vec_load_n(DS_BF16, from, i, n * a->in - i), n * a->in - i);
    return w;
}

// Asks for inputs i .. i + k of n outputs from o on, counted together in the order of memory: the hardware sees one
// stream, and reads further ahead than a core can ask for.
static void fetch(const Linear *a, int64_t o, int64_t n, int64_t i, int64_t k) {
    const char *from = elem_at(a->unit, a->w, o * a->in + i * n),
               *end = elem_at(a->unit, a->w, o * a->in + (i + k) * n);
    for (; from < end; from += LINE_BYTES) __builtin_prefetch(from, 0, 3);
}

// Rows [row, row + rows), turned as x, times outputs o .. o + n (w). The `ahead` outputs that follow are fetched
// meanwhile. Two vectors of rows a tile leave registers for half of LANES outputs.
static void run_turned(const Linear *a, const float *x, int64_t row, int64_t rows, const float *w, int64_t o, int64_t n,
                       int64_t ahead) {
    _Alignas(64) float acc[LANES * TILE_COLS] = {0};
    const int cols = rows > LANES ? TILE_COLS : LANES;
    const int64_t step = rows > LANES ? LANES / 2 : TILE_ROWS;
    for (int64_t i = 0; i < a->in; i += CUT) {
        const int64_t k = ds_min(CUT, a->in - i);
        fetch(a, o + n, ahead, i, k);
        for (int64_t c = 0; c < n; c += step)
            tile_rows((int)ds_min(step, n - c), cols, acc + c * TILE_COLS, TILE_COLS, w + c * a->in + i, a->in,
                      x + i * TILE_COLS, TILE_COLS, k, a->math);
    }
    linear_store_turned(a, acc, row, rows, o, n);
}

// One or two rows: lanes that run over rows would be idle. A panel's next FEWEST_CUT inputs are turned into the first
// cache, then multiplied with the rows where they stand.
static void run_fewest(const Linear *a, Part p) {
    _Alignas(64) float w[FEWEST_CUT * TILE_COLS];
    for (int64_t panel = p.panel0; panel < p.panel1; panel++) {
        _Alignas(64) float acc[FEWEST_ROWS * TILE_COLS] = {0};
        const int64_t o = panel * TILE_COLS, n = ds_min(TILE_COLS, a->out - o), ahead = ds_min(n, a->out - o - n);
        for (int64_t i = 0; i < a->in; i += FEWEST_CUT) {
            const int64_t k = ds_min(FEWEST_CUT, a->in - i);
            fetch(a, o + n, ahead, i, k);
            for (int64_t c = 0; c < n; c += LANES)
                tile_pack(DS_F32, w + c, TILE_COLS, elem_at(DS_F32, a->w, (o + c) * a->in + i), a->in,
                          ds_min(LANES, n - c), k, 0);
            tile_rows((int)a->m, panel_cols(a, panel), acc, TILE_COLS, elem_at(DS_F32, a->x, i), a->in, w, TILE_COLS, k,
                      a->math);
        }
        linear_store(a, acc, 0, a->m, panel);
    }
}

static void run_few(const Linear *a, Part p) {
    int64_t row0, row1, unused;
    cpu_share(a->m, linear_tiles(a), p.tile0, &row0, &unused);
    cpu_share(a->m, linear_tiles(a), p.tile1 - 1, &unused, &row1);
    const int64_t rows = row1 - row0, last = ds_min(p.panel1 * TILE_COLS, a->out);
    float *x = cpu_scratch_f32(SCRATCH_X, ds_round_up(rows, TILE_COLS) * a->in);
    for (int64_t r = 0; r < rows; r += LANES)
        tile_pack(a->unit, x + r / TILE_COLS * TILE_COLS * a->in + r % TILE_COLS, TILE_COLS,
                  elem_at(a->unit, a->x, (row0 + r) * a->in), a->in, ds_min(LANES, rows - r), a->in, 0);
    const int64_t step = rows > LANES ? LANES : TILE_ROWS;
    for (int64_t o = p.panel0 * TILE_COLS; o < last; o += step) {
        const int64_t n = ds_min(step, last - o);
        const float *w = weight_rows(a, o, n);
        for (int64_t r = 0; r < rows; r += TILE_COLS)
            run_turned(a, x + r * a->in, row0 + r, ds_min(TILE_COLS, rows - r), w, o, n,
                       r == 0 ? ds_min(n, a->out - o - n) : 0);
    }
}

static void run_many(const Linear *a, Part p) {
    const int64_t panel_size = a->in * TILE_COLS;
    const int64_t group = ds_max(1, LINEAR_GROUP_BYTES / (panel_size * (int64_t)sizeof(float)));
    float *x = cpu_scratch_f32(SCRATCH_X, a->in * TILE_LD), *w = cpu_scratch_f32(SCRATCH_W, group * panel_size);
    for (int64_t g = p.panel0; g < p.panel1; g += group) {
        const int64_t g_end = ds_min(g + group, p.panel1);
        for (int64_t i = g; i < g_end; i++) pack_panel(a, w + (i - g) * panel_size, i);
        for (int64_t t = p.tile0; t < p.tile1; t++) {
            int64_t row, end;
            cpu_share(a->m, linear_tiles(a), t, &row, &end);
            tile_pack(a->unit, x, TILE_LD, elem_at(a->unit, a->x, row * a->in), a->in, end - row, a->in, 0);
            for (int64_t i = g; i < g_end; i++) run_tile(a, x, w + (i - g) * panel_size, row, end - row, i);
        }
    }
}

void linear_vec_run(const Linear *a, Part p) {
    if (a->m <= FEWEST_ROWS && a->unit == DS_F32) run_fewest(a, p);
    else if (p.tile1 - p.tile0 <= FEW_TILES) run_few(a, p);
    else run_many(a, p);
}
