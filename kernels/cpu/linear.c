// linear.c: y = x w^T + bias, exact by row: what is computed how, by which thread, and how sums become y.
//
// Each output element is one chain over `in` in order, whatever the number of rows and whichever operand the lanes run
// over. linear_vec.c makes the chain of fused multiply-adds (tile.h), linear_amx.c of the steps of AMX's tiles.
//
// Threads share out a grid of (columns, rows); they do not exchange anything.
#include "kernels/cpu/linear.h"

#include "kernels/cpu/cpu.h"

void linear_store(const Linear *a, const float *acc, int64_t row, int64_t rows, int64_t panel) {
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

void linear_store_turned(const Linear *a, const float *acc, int64_t row, int64_t rows, int64_t o, int64_t n) {
    _Alignas(64) float turned[TILE_COLS * LANES];
    const Vec b = a->bias ? vec_load_n(a->dt, a->bias, o, n) : (Vec){0};
    tile_pack(DS_F32, turned, LANES, acc, TILE_COLS, n, rows, 0);
    for (int64_t r = 0; r < rows; r++) {
        Vec v = vec_load(DS_F32, turned, r * LANES);
        if (a->bias) v += b;
        vec_store_n(a->y_dt, a->y, (row + r) * a->out + o, v, n);
    }
}

static int64_t panels(const Linear *a) { return ds_ceil_div(a->out, TILE_COLS); }

// The number of threads along the columns that gives the smallest largest share; the other threads divide the rows.
static int64_t choose_columns(const Linear *a, int64_t threads) {
    int64_t best = 1, best_cost = INT64_MAX;
    for (int64_t c = 1; c <= threads; c++) {
        const int64_t cost = ds_ceil_div(panels(a), c) * ds_ceil_div(linear_tiles(a), threads / c);
        if (cost <= best_cost) best = c, best_cost = cost;
    }
    return best;
}

void linear_fwd_cpu(DType dt, DType y_dt, Dev *y, const Dev *x, const Dev *w, const Dev *bias, int64_t m, int64_t out,
                    int64_t in) {
    const bool pairs = TILE_HAS_PAIRS && dt == DS_BF16 && in % 2 == 0;
    Linear a = {.dt = dt,
                .y_dt = y_dt,
                .math = pairs ? TILE_PAIRS : TILE_F32,
                .unit = pairs ? DS_F32 : dt,
                .y = cpu_ptr(y),
                .x = cpu_ptr(x),
                .w = cpu_ptr(w),
                .bias = cpu_ptr(bias),
                .m = m,
                .out = out,
                .in = pairs ? in / 2 : in,
                .tile_rows = TILE_ROWS,
                .run = linear_vec_run};
#ifdef __AMX_BF16__
    if (pairs) a.tile_rows = LINEAR_AMX_ROWS, a.run = linear_amx_run;
#endif
    if (m <= 0 || out <= 0) return;
    const int64_t team = cpu_team(m * out * in), columns = choose_columns(&a, team), rows = team / columns;
#pragma omp parallel for schedule(static) num_threads((int)team)
    for (int64_t i = 0; i < columns * rows; i++) {
        Part p;
        cpu_share(panels(&a), columns, i % columns, &p.panel0, &p.panel1);
        cpu_share(linear_tiles(&a), rows, i / columns, &p.tile0, &p.tile1);
        a.run(&a, p);
    }
}
