// linear.h: what linear.c, which shares out the work, and the ways to compute a share have in common.
//
// A panel is TILE_COLS outputs, a row tile at most tile_rows rows.
#ifndef DS_CPU_LINEAR_H
#define DS_CPU_LINEAR_H

#include "kernels/cpu/tile.h"

// Bytes of packed panels that the second cache bears beside what passes over them.
enum { LINEAR_GROUP_BYTES = 1 << 20 };

// What one thread computes: panels [panel0, panel1), row tiles [tile0, tile1).
typedef struct {
    int64_t panel0, panel1, tile0, tile1;
} Part;

// Elements of x and w: fp32, bf16 that are widened, or pairs of bf16 (tile.h), which are as wide as fp32 and are moved
// as such; `in` counts them.
typedef struct Linear {
    DType dt, y_dt; // of bias and y
    TileMath math;
    DType unit; // of x and w
    void *y;
    const void *x, *w, *bias;
    int64_t m, out, in;
    int64_t tile_rows;
    void (*run)(const struct Linear *a, Part p); // one thread's part
} Linear;

static inline int64_t linear_tiles(const Linear *a) { return ds_ceil_div(a->m, a->tile_rows); }

// y (+ bias) of rows [row, row + rows) and a panel's outputs = acc [rows][TILE_COLS].
void linear_store(const Linear *a, const float *acc, int64_t row, int64_t rows, int64_t panel);

// y (+ bias) of rows [row, row + rows), at most TILE_COLS, and outputs [o, o + n), n <= LANES, which stand in acc as
// [outputs][TILE_COLS rows].
void linear_store_turned(const Linear *a, const float *acc, int64_t row, int64_t rows, int64_t o, int64_t n);

void linear_vec_run(const Linear *a, Part p);

#ifdef __AMX_BF16__
enum { LINEAR_AMX_ROWS = 32 }; // its tile_rows
void linear_amx_run(const Linear *a, Part p);
#endif

#endif
