// tile_amx.c: products of pairs of bf16 by the tiles of AMX.
//
// One instruction adds to 16 x 16 fp32 sums (C) the products of 16 rows of 16 pairs (A) and 16 pairs of 16 columns (B):
// of each element two chains of fused multiply-adds, over the first and over the second of the pairs, which are then
// added to its sum. So an element is one chain over steps of 16 pairs, in order; steps of zeros change nothing.
//
//             B 6   B 7
//       A 4 | C 0 | C 1 |
//       A 5 | C 2 | C 3 |
#include "kernels/cpu/tile.h"

#ifdef __AMX_BF16__
enum { SIDE = 16 };

// Every tile is 16 rows of 64 bytes.
static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} config = {.palette = 1,
            .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
            .rows = {SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE}};

void tile_open(void) { _tile_loadconfig(&config); }
void tile_close(void) { _tile_release(); }

VEC_INLINE void sums_load(bool add, bool two_rows, bool two_cols, const float *acc, int64_t ld) {
    const int64_t bytes = ld * (int64_t)sizeof(float);
    if (add) {
        _tile_loadd(0, acc, bytes);
        if (two_cols) _tile_loadd(1, acc + SIDE, bytes);
        if (two_rows) _tile_loadd(2, acc + SIDE * ld, bytes);
        if (two_rows && two_cols) _tile_loadd(3, acc + SIDE * ld + SIDE, bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
}

VEC_INLINE void sums_store(bool two_rows, bool two_cols, float *acc, int64_t ld) {
    const int64_t bytes = ld * (int64_t)sizeof(float);
    _tile_stored(0, acc, bytes);
    if (two_cols) _tile_stored(1, acc + SIDE, bytes);
    if (two_rows) _tile_stored(2, acc + SIDE * ld, bytes);
    if (two_rows && two_cols) _tile_stored(3, acc + SIDE * ld + SIDE, bytes);
}

// Up to TILE_BLOCK rows from `row` on and TILE_COLS columns from `col` on; of the second tile of rows or columns
// nothing is read or stored if it is not wanted.
VEC_INLINE void multiply(bool two_rows, bool two_cols, const TileProduct *p, int64_t row, int64_t col) {
    const int64_t lda = p->ldx * (int64_t)sizeof(float), ldb = p->ldw * (int64_t)sizeof(float);
    const float *x = p->x + row * p->ldx, *w = p->w + col / TILE_COLS * p->panel;
    float *acc = p->acc + row * p->ld_acc + col;
    __asm__ volatile("" ::: "memory"); // the compiler does not know that tiles are read from memory
    sums_load(p->add, two_rows, two_cols, acc, p->ld_acc);
    for (int64_t i = 0; i < p->k; i += TILE_STEP, x += TILE_STEP, w += TILE_STEP * p->ldw) {
        _tile_loadd(6, w, ldb);
        _tile_loadd(4, x, lda);
        _tile_dpbf16ps(0, 4, 6);
        if (two_cols) {
            _tile_loadd(7, w + SIDE, ldb);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (two_rows) {
            _tile_loadd(5, x + SIDE * p->ldx, lda);
            _tile_dpbf16ps(2, 5, 6);
            if (two_cols) _tile_dpbf16ps(3, 5, 7);
        }
    }
    sums_store(two_rows, two_cols, acc, p->ld_acc);
}

void tile_product_amx(const TileProduct *p) {
    for (int64_t c = 0; c < p->cols; c += TILE_COLS) {
        for (int64_t r = 0; r < p->rows; r += TILE_BLOCK) {
            const bool two_rows = p->rows - r > SIDE, two_cols = p->cols - c > SIDE;
            if (two_rows && two_cols) multiply(true, true, p, r, c);
            else if (two_rows) multiply(true, false, p, r, c);
            else if (two_cols) multiply(false, true, p, r, c);
            else multiply(false, false, p, r, c);
        }
    }
}
#else
void tile_open(void) {}
void tile_close(void) {}
#endif
