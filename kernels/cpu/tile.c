// tile.c: the register tile, products of any size by it, and the transposing copy that feeds it.
#include "kernels/cpu/tile.h"

#include "kernels/cpu/cpu.h"

VEC_INLINE Vec step(TileMath math, Vec a, Vec b, Vec c) {
#if defined(__AVX512BF16__)
    if (math == TILE_PAIRS) return vec_dot2(a, b, c);
#endif
    (void)math;
    return vec_fma(a, b, c);
}

VEC_INLINE void body(TileMath math, int rows, int nv, float *acc, int64_t ld_acc, const float *x, int64_t x_row,
                     int64_t x_k, const float *w, int64_t ldw, int64_t k) {
    Vec c[TILE_ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) c[r][v] = vec_load(DS_F32, acc, r * ld_acc + v * LANES);
    for (int64_t i = 0; i < k; i++, x += x_k, w += ldw) {
        const Vec b0 = vec_load(DS_F32, w, 0), b1 = nv > 1 ? vec_load(DS_F32, w, LANES) : b0;
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            const Vec a = vec_set(x[r * x_row]);
            c[r][0] = step(math, a, b0, c[r][0]);
            if (nv > 1) c[r][1] = step(math, a, b1, c[r][1]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) vec_store(DS_F32, acc, r * ld_acc + v * LANES, c[r][v]);
}

#define EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#ifdef __AVX512F__
#define MORE_ROWS(X) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
#else
#define MORE_ROWS(X)
#endif

// x_row, x_k: strides of x.
#define BODY_CASE(R)                                                                                                   \
    case R:                                                                                                            \
        if (cols == LANES) body(math, R, 1, acc, ld_acc, x, x_row, x_k, w, ldw, k);                                    \
        else body(math, R, 2, acc, ld_acc, x, x_row, x_k, w, ldw, k);                                                  \
        break;

VEC_INLINE void any_rows(TileMath math, int rows, int cols, float *acc, int64_t ld_acc, const float *x, int64_t x_row,
                         int64_t x_k, const float *w, int64_t ldw, int64_t k) {
    switch (rows) { EACH_ROWS(BODY_CASE) MORE_ROWS(BODY_CASE) }
}

void tile_packed(int rows, int cols, float *acc, int64_t ld_acc, const float *x, int64_t ldx, const float *w,
                 int64_t ldw, int64_t k, TileMath math) {
    if (math == TILE_F32) any_rows(TILE_F32, rows, cols, acc, ld_acc, x, 1, ldx, w, ldw, k);
    else any_rows(TILE_PAIRS, rows, cols, acc, ld_acc, x, 1, ldx, w, ldw, k);
}

void tile_rows(int rows, int cols, float *acc, int64_t ld_acc, const float *x, int64_t ldx, const float *w, int64_t ldw,
               int64_t k, TileMath math) {
    if (math == TILE_F32) any_rows(TILE_F32, rows, cols, acc, ld_acc, x, ldx, 1, w, ldw, k);
    else any_rows(TILE_PAIRS, rows, cols, acc, ld_acc, x, ldx, 1, w, ldw, k);
}

// A panel of w stays in the first cache while all rows pass over it.
void tile_product(const TileProduct *p) {
#ifdef __AMX_BF16__
    if (p->math == TILE_PAIRS) {
        tile_product_amx(p);
        return;
    }
#endif
    const int64_t tiles = ds_ceil_div(p->rows, TILE_ROWS);
    for (int64_t r = 0; !p->add && r < p->rows; r++) memset(p->acc + r * p->ld_acc, 0, (size_t)p->cols * sizeof(float));
    for (int64_t c = 0; c < p->cols; c += TILE_COLS) {
        for (int64_t t = 0; t < tiles; t++) {
            int64_t r0, r1;
            cpu_share(p->rows, tiles, t, &r0, &r1);
            tile_rows((int)(r1 - r0), (int)ds_min(TILE_COLS, p->cols - c), p->acc + r0 * p->ld_acc + c, p->ld_acc,
                      p->x + r0 * p->ldx, p->ldx, p->w + c / TILE_COLS * p->panel, p->ldw, p->k, p->math);
        }
    }
}

// ---- transposing copy ----
#ifdef __AVX512F__
// Four rounds of pairwise exchange: singles, pairs, quads, halves.
VEC_INLINE void transpose(Vec v[LANES]) {
    __m512 a[16], b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_ps((__m512)v[i], (__m512)v[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps((__m512)v[i], (__m512)v[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        b[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512 lo = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88), hi = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
        const __m512 lo2 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88),
                     hi2 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
        v[i] = (Vec)_mm512_shuffle_f32x4(lo, lo2, 0x88);
        v[i + 4] = (Vec)_mm512_shuffle_f32x4(hi, hi2, 0x88);
        v[i + 8] = (Vec)_mm512_shuffle_f32x4(lo, lo2, 0xdd);
        v[i + 12] = (Vec)_mm512_shuffle_f32x4(hi, hi2, 0xdd);
    }
}
#else
VEC_INLINE void transpose(Vec v[LANES]) {
    Vec t[LANES];
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < LANES; j++) t[i][j] = v[j][i];
    for (int i = 0; i < LANES; i++) v[i] = t[i];
}
#endif

VEC_INLINE void pack_block(DType dt, float *dst, int64_t ld, const void *src, int64_t row_stride, int64_t rows,
                           int64_t n, int64_t ahead) {
    Vec v[LANES];
    for (int64_t r = 0; ahead && r < rows; r++) __builtin_prefetch(elem_at(dt, src, r * row_stride + ahead), 0, 2);
    if (rows == LANES && n >= LANES) {
#pragma GCC unroll 16
        for (int r = 0; r < LANES; r++) v[r] = vec_load(dt, src, r * row_stride);
    } else {
        for (int r = 0; r < LANES; r++) v[r] = r < rows ? vec_load_n(dt, src, r * row_stride, n) : (Vec){0};
    }
    transpose(v);
    if (n >= LANES) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) vec_store(DS_F32, dst, i * ld, v[i]);
    } else {
        for (int i = 0; i < n; i++) vec_store(DS_F32, dst, i * ld, v[i]);
    }
}

void tile_pack(DType dt, float *dst, int64_t ld, const void *src, int64_t row_stride, int64_t rows, int64_t k,
               int64_t ahead) {
    for (int64_t i = 0; i < k; i += LANES) {
        if (dt == DS_F32) pack_block(DS_F32, dst + i * ld, ld, elem_at(DS_F32, src, i), row_stride, rows, k - i, ahead);
        else pack_block(DS_BF16, dst + i * ld, ld, elem_at(DS_BF16, src, i), row_stride, rows, k - i, ahead);
    }
}
