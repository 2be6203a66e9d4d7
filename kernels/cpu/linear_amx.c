// linear_amx.c: a share of linear_fwd, bf16 with an even `in`, by the tiles of AMX.
//
// One instruction adds to 16 x 16 fp32 sums (C) the products of 16 rows of 32 inputs (A) and 16 pairs of inputs of 16
// columns (B): of each element two chains of fused multiply-adds, over the even and over the odd inputs, which are then
// added to its sum. So an element is one chain over steps of 32 inputs, in order; where `in` ends inside a step, zeros
// fill up both sides. It is the same whichever operand is A: rows keep their bits in both ways,
//
//   few rows:  A = weights where they stand, B = rows turned into panels;    C = [outputs][rows], turned when stored
//   many rows: A = rows where they stand,    B = weights turned into panels; C = [rows][outputs]
//
// with panels of pairs [in][TILE_COLS] and blocks of BLOCK x TILE_COLS sums in four tiles.
//
//             B 6   B 7
//       A 4 | C 0 | C 1 |
//       A 5 | C 2 | C 3 |
//
// Tiles are read whole, but never past an operand's end: what is no whole number of tiles is copied beside zeros.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/linear.h"

#ifdef __AMX_BF16__
#include <string.h>

enum { TILE = 16, STEP = 16, BLOCK = LINEAR_AMX_ROWS, FEW_BLOCKS = 4 }; // a step: in pairs

// Up to BLOCK rows of x or w as tiles A. The rows that follow in memory are asked for while these are multiplied, a
// line a row and step, in the order of memory: one stream, which the hardware sees.
typedef struct {
    const float *p; // pairs [rows, rounded up to TILE][ld]
    int64_t rows, ld;
    const float *next; // pairs [ahead][in]
    int64_t ahead;
} Strip;

// acc [BLOCK][TILE_COLS] = s times panel; of the second tile of rows or columns nothing is read or stored if it is not
// wanted. Four products take 64 cycles, the four tile reads 32 (from the first cache): what asks for `next` is hidden.
VEC_INLINE void multiply(bool two_rows, bool two_cols, float *acc, Strip s, const float *panel, int64_t in) {
    const int64_t lda = s.ld * (int64_t)sizeof(float), ldb = TILE_COLS * (int64_t)sizeof(float);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    __asm__ volatile("" ::: "memory"); // the compiler does not know that tiles are read from memory
    for (int64_t i = 0; i < in; i += STEP, panel += STEP * TILE_COLS) {
        _tile_loadd(6, panel, ldb);
        _tile_loadd(4, s.p + i, lda);
        _tile_dpbf16ps(0, 4, 6);
        if (two_cols) {
            _tile_loadd(7, panel + TILE, ldb);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (two_rows) {
            _tile_loadd(5, s.p + TILE * s.ld + i, lda);
            _tile_dpbf16ps(2, 5, 6);
            if (two_cols) _tile_dpbf16ps(3, 5, 7);
        }
        for (int64_t r = 0; r < s.ahead; r++) __builtin_prefetch(s.next + i * s.ahead + r * STEP, 0, 2);
    }
    _tile_stored(0, acc, ldb);
    if (two_cols) _tile_stored(1, acc + TILE, ldb);
    if (two_rows) _tile_stored(2, acc + TILE * TILE_COLS, ldb);
    if (two_rows && two_cols) _tile_stored(3, acc + TILE * TILE_COLS + TILE, ldb);
}

static void run_block(float *acc, Strip s, const float *panel, int64_t cols, int64_t in) {
    if (s.rows > TILE && cols > TILE) multiply(true, true, acc, s, panel, in);
    else if (s.rows > TILE) multiply(true, false, acc, s, panel, in);
    else if (cols > TILE) multiply(false, true, acc, s, panel, in);
    else multiply(false, false, acc, s, panel, in);
}

// Rows [row, row + BLOCK) of the `all` rows at p: where they stand if they are whole tiles, else copied.
static Strip take_strip(const float *p, int64_t row, int64_t all, int64_t in, Scratch slot) {
    Strip s = {.p = p + row * in, .rows = ds_min(BLOCK, all - row), .ld = in, .next = p + row * in};
    s.next += s.rows * in;
    s.ahead = ds_min(BLOCK, all - row - s.rows);
    if (s.rows % TILE == 0 && in % STEP == 0) return s;
    s.ld = ds_round_up(in, STEP);
    float *copy = cpu_scratch_f32(slot, BLOCK * s.ld);
    memset(copy, 0, (size_t)(BLOCK * s.ld) * sizeof(float));
    for (int64_t r = 0; r < s.rows; r++) memcpy(copy + r * s.ld, s.p + r * in, (size_t)in * sizeof(float));
    s.p = copy;
    return s;
}

static int64_t panel_size(const Linear *a) { return ds_round_up(a->in, STEP) * TILE_COLS; }

// Rows [row, row + TILE_COLS) of the `all` rows at p as a panel.
static void pack_panel(const Linear *a, float *panel, const float *p, int64_t row, int64_t all) {
    const int64_t n = ds_min(TILE_COLS, all - row), ahead = row + n + TILE_COLS <= all ? TILE_COLS * a->in : 0;
    for (int64_t c = 0; c < n; c += LANES)
        tile_pack(DS_F32, panel + c, TILE_COLS, p + (row + c) * a->in, a->in, ds_min(LANES, n - c), a->in, ahead);
    memset(panel + a->in * TILE_COLS, 0, (size_t)(panel_size(a) - a->in * TILE_COLS) * sizeof(float));
}

static void run_few(const Linear *a, Part p) {
    _Alignas(64) float acc[BLOCK * TILE_COLS];
    const int64_t row0 = p.tile0 * BLOCK, row1 = ds_min(p.tile1 * BLOCK, a->m);
    const int64_t last = ds_min(p.panel1 * TILE_COLS, a->out), ld = ds_round_up(a->in, STEP);
    float *x = cpu_scratch_f32(SCRATCH_X, (p.tile1 - p.tile0) * panel_size(a));
    for (int64_t r = row0; r < row1; r += TILE_COLS) pack_panel(a, x + (r - row0) * ld, a->x, r, row1);
    for (int64_t o = p.panel0 * TILE_COLS; o < last; o += BLOCK) {
        Strip w = take_strip(a->w, o, a->out, a->in, SCRATCH_W);
        for (int64_t r = row0; r < row1; r += TILE_COLS, w.ahead = 0) {
            const int64_t rows = ds_min(TILE_COLS, row1 - r);
            run_block(acc, w, x + (r - row0) * ld, rows, a->in);
            for (int64_t c = 0; c < w.rows; c += LANES)
                linear_store_turned(a, acc + c * TILE_COLS, r, rows, o + c, ds_min(LANES, w.rows - c));
        }
    }
}

static void run_many(const Linear *a, Part p, int64_t group) {
    _Alignas(64) float acc[BLOCK * TILE_COLS];
    float *w = cpu_scratch_f32(SCRATCH_W, group * panel_size(a));
    for (int64_t g = p.panel0; g < p.panel1; g += group) {
        const int64_t g_end = ds_min(g + group, p.panel1);
        for (int64_t i = g; i < g_end; i++) pack_panel(a, w + (i - g) * panel_size(a), a->w, i * TILE_COLS, a->out);
        for (int64_t t = p.tile0; t < p.tile1; t++) {
            Strip x = take_strip(a->x, t * BLOCK, a->m, a->in, SCRATCH_X);
            for (int64_t i = g; i < g_end; i++, x.ahead = 0) {
                run_block(acc, x, w + (i - g) * panel_size(a), a->out - i * TILE_COLS, a->in);
                linear_store(a, acc, t * BLOCK, x.rows, i);
            }
        }
    }
}

void linear_amx_run(const Linear *a, Part p) {
    const int64_t group = ds_max(1, LINEAR_GROUP_BYTES / (panel_size(a) * (int64_t)sizeof(float)));
    tile_open();
    if (p.tile1 - p.tile0 <= ds_min(FEW_BLOCKS, group)) run_few(a, p);
    else run_many(a, p, group);
    tile_close();
}

#endif
