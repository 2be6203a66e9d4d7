// linear.c: y = x w^T + bias, exact by row.
//
// Each output element is one chain of fused multiply-adds over `in` in order (tile.h), whatever the number of rows and
// whichever operand the lanes run over:
//
//   few rows:  the rows are turned into panels [in][TILE_COLS rows], lanes run over them, and the weights are read
//   once,
//              where they stand; bound by memory.
//   many rows: the weights are turned into panels [in][TILE_COLS outputs] of fp32 or pairs of bf16, lanes run over the
//              outputs: a group of panels as large as the second cache bears, then all rows pass over it, TILE_ROWS at
//              a time.
//
// Threads share out a grid of (columns, rows); they do not exchange anything.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/tile.h"

enum { CUT = 64, FEW_TILES = 8, GROUP_BYTES = 1 << 20, LINE_BYTES = 64 };

// Elements of x and w: fp32, bf16 that are widened, or pairs of bf16 (tile.h), which are as wide as fp32 and are moved
// as such; `in` counts them.
typedef struct {
    DType dt, y_dt; // of bias and y
    TileMath math;
    DType unit; // of x and w
    void *y;
    const void *x, *w, *bias;
    int64_t m, out, in;
} Linear;

// What one thread computes: panels [panel0, panel1), row tiles [tile0, tile1).
typedef struct {
    int64_t panel0, panel1, tile0, tile1;
} Part;

static int64_t count_panels(const Linear *a) { return ds_ceil_div(a->out, TILE_COLS); }
static int64_t count_tiles(const Linear *a) { return ds_ceil_div(a->m, TILE_ROWS); }
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

static void store_tile(const Linear *a, const float *acc, int64_t row, int64_t rows, int64_t panel) {
    for (int64_t c = panel * TILE_COLS; c < ds_min((panel + 1) * TILE_COLS, a->out); c += LANES) {
        const int64_t n = a->out - c;
        const Vec b = a->bias ? vec_load_n(a->dt, a->bias, c, n) : (Vec){0};
        for (int64_t r = 0; r < rows; r++) {
            Vec v = vec_load(DS_F32, acc, r * TILE_COLS + (c - panel * TILE_COLS));
            if (a->bias) v += b;
            vec_store_n(a->y_dt, a->y, (row + r) * a->out + c, v, n);
        }
    }
}

// One row tile, packed as x, times a panel that is packed already.
static void run_tile(const Linear *a, const float *x, const float *w, int64_t row, int64_t rows, int64_t panel) {
    _Alignas(64) float acc[TILE_ROWS * TILE_COLS] = {0};
    tile_packed((int)rows, panel_cols(a, panel), acc, TILE_COLS, x, TILE_LD, w, TILE_COLS, a->in, a->math);
    store_tile(a, acc, row, rows, panel);
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

// y of `rows` rows and n <= LANES outputs from o on, which stand in acc as [outputs][TILE_COLS rows].
static void store_turned(const Linear *a, const float *acc, int64_t row, int64_t rows, int64_t o, int64_t n) {
    _Alignas(64) float turned[TILE_COLS * LANES];
    const Vec b = a->bias ? vec_load_n(a->dt, a->bias, o, n) : (Vec){0};
    tile_pack(DS_F32, turned, LANES, acc, TILE_COLS, n, rows, 0);
    for (int64_t r = 0; r < rows; r++) {
        Vec v = vec_load(DS_F32, turned, r * LANES);
        if (a->bias) v += b;
        vec_store_n(a->y_dt, a->y, (row + r) * a->out + o, v, n);
    }
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
    store_turned(a, acc, row, rows, o, n);
}

static void run_few(const Linear *a, Part p) {
    int64_t row0, row1, unused;
    cpu_share(a->m, count_tiles(a), p.tile0, &row0, &unused);
    cpu_share(a->m, count_tiles(a), p.tile1 - 1, &unused, &row1);
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
    const int64_t group = ds_max(1, GROUP_BYTES / (panel_size * (int64_t)sizeof(float)));
    float *x = cpu_scratch_f32(SCRATCH_X, a->in * TILE_LD), *w = cpu_scratch_f32(SCRATCH_W, group * panel_size);
    for (int64_t g = p.panel0; g < p.panel1; g += group) {
        const int64_t g_end = ds_min(g + group, p.panel1);
        for (int64_t i = g; i < g_end; i++) pack_panel(a, w + (i - g) * panel_size, i);
        for (int64_t t = p.tile0; t < p.tile1; t++) {
            int64_t row, end;
            cpu_share(a->m, count_tiles(a), t, &row, &end);
            tile_pack(a->unit, x, TILE_LD, elem_at(a->unit, a->x, row * a->in), a->in, end - row, a->in, 0);
            for (int64_t i = g; i < g_end; i++) run_tile(a, x, w + (i - g) * panel_size, row, end - row, i);
        }
    }
}

// The number of threads along the columns that gives the smallest largest share; the other threads divide the rows.
static int64_t choose_columns(const Linear *a, int64_t threads) {
    int64_t best = 1, best_cost = INT64_MAX;
    for (int64_t c = 1; c <= threads; c++) {
        const int64_t cost = ds_ceil_div(count_panels(a), c) * ds_ceil_div(count_tiles(a), threads / c);
        if (cost <= best_cost) best = c, best_cost = cost;
    }
    return best;
}

void linear_fwd_cpu(DType dt, DType y_dt, Dev *y, const Dev *x, const Dev *w, const Dev *bias, int64_t m, int64_t out,
                    int64_t in) {
    const bool pairs = TILE_HAS_PAIRS && dt == DS_BF16 && in % 2 == 0;
    const Linear a = {.dt = dt,
                      .y_dt = y_dt,
                      .math = pairs ? TILE_PAIRS : TILE_F32,
                      .unit = pairs ? DS_F32 : dt,
                      .y = cpu_ptr(y),
                      .x = cpu_ptr(x),
                      .w = cpu_ptr(w),
                      .bias = cpu_ptr(bias),
                      .m = m,
                      .out = out,
                      .in = pairs ? in / 2 : in};
    if (m <= 0 || out <= 0) return;
    const int64_t team = cpu_team(m * out * in), columns = choose_columns(&a, team), rows = team / columns;
#pragma omp parallel for schedule(static) num_threads((int)team)
    for (int64_t i = 0; i < columns * rows; i++) {
        Part p;
        cpu_share(count_panels(&a), columns, i % columns, &p.panel0, &p.panel1);
        cpu_share(count_tiles(&a), rows, i / columns, &p.tile0, &p.tile1);
        if (p.tile1 - p.tile0 <= FEW_TILES) run_few(&a, p);
        else run_many(&a, p);
    }
}
