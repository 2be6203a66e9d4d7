// attn.h: what forward and backward attention share: where rows lie, and tiles of rows made contiguous.
//
// Work is cut by (sequence, key head). The query heads of one key head are taken together, as rows (query, head in the
// group): row r is query r / group, head r % group; so each key and value is read once for the group, in decoding too.
#ifndef DS_CPU_ATTN_H
#define DS_CPU_ATTN_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/tile.h"

static inline void *head_at(DType dt, HeadView x, int64_t token, int64_t head) {
    return elem_ptr(dt, cpu_ptr(x.p), token * x.token_stride + head * x.head_stride);
}

// dst fp32 [pad] = src dt [dim], then zeros.
static inline void widen_row(DType dt, float *dst, const void *src, int64_t dim, int64_t pad) {
    for (int64_t i = 0; i < pad; i += LANES) {
        const Vec v = i >= dim       ? (Vec){0}
                      : dt == DS_F32 ? vec_load_n(DS_F32, src, i, dim - i)
                                     : vec_load_n(DS_BF16, src, i, dim - i);
        vec_store(DS_F32, dst, i, v);
    }
}

static inline void narrow_row(DType dt, void *dst, const float *src, int64_t dim) {
    for (int64_t i = 0; i < dim; i += LANES) {
        if (dt == DS_F32) vec_store_n(DS_F32, dst, i, vec_load(DS_F32, src, i), dim - i);
        else vec_store_n(DS_BF16, dst, i, vec_load(DS_F32, src, i), dim - i);
    }
}

// How the products of bf16 or fp32 rows are summed. Where the CPU multiplies pairs of bf16 (tile.h), the rows of the
// first products (q k^T, dO v^T) are `dim` pairs as they stand, moved as fp32; in the second ones (P v, dS k, dS^T q,
// P^T dO) pairs run across rows, and P and dS are rounded to bf16. Sums are fp32.
typedef struct {
    TileMath math;
    DType unit;         // an element of a row, or a pair
    int64_t dim, steps; // units of a row; with the zeros that fill up the last step
} AttnDot;

static inline AttnDot attn_dot(DType dt, int64_t head_dim, int64_t token_stride) {
    if (TILE_HAS_PAIRS && dt == DS_BF16 && head_dim % 2 == 0 && token_stride % 2 == 0)
        return (AttnDot){TILE_PAIRS, DS_F32, head_dim / 2, tile_steps(TILE_PAIRS, head_dim)};
    return (AttnDot){TILE_F32, dt, head_dim, head_dim};
}

// A stride of elements in units.
static inline int64_t attn_units(AttnDot d, int64_t stride) { return d.math == TILE_PAIRS ? stride / 2 : stride; }

// dst [pad] = the row src dt [dim], then zeros, as fp32 or as pairs.
static inline void dot_row(AttnDot d, DType dt, float *dst, const void *src, int64_t dim, int64_t pad) {
    if (d.math == TILE_F32) {
        widen_row(dt, dst, src, dim, pad);
    } else {
        memcpy(dst, src, (size_t)d.dim * sizeof(float));
        memset(dst + d.dim, 0, (size_t)(pad - d.dim) * sizeof(float));
    }
}

// Columns of a panel [steps][TILE_COLS] at dst = n <= LANES rows from src on, `stride` units apart.
static inline void pack_rows(AttnDot d, float *dst, const void *src, int64_t stride, int64_t n) {
    tile_pack(d.unit, dst, TILE_COLS, src, stride, n, d.dim, 0);
    for (int64_t i = d.dim; i < d.steps; i++) vec_store(DS_F32, dst, i * TILE_COLS, (Vec){0});
}

VEC_INLINE Vec round_lanes(Vec v) { return vec_from_bf16(vec_to_bf16(v)); }

// Pairs (a, b) of lanes that bf16 holds.
VEC_INLINE Vec pair_lanes(Vec a, Vec b) { return (Vec)((VecU)a >> 16 | (VecU)b); }

// dst [pad] = pairs of the elements of bf16 rows a and b [dim] (NULL: zeros), then zeros.
static inline void pair_rows(float *dst, const void *a, const void *b, int64_t dim, int64_t pad) {
    for (int64_t i = 0; i < pad; i += LANES) {
        const int64_t n = dim - i;
        const Vec lo = a ? vec_load_n(DS_BF16, a, i, n) : (Vec){0}, hi = b ? vec_load_n(DS_BF16, b, i, n) : (Vec){0};
        vec_store(DS_F32, dst, i, pair_lanes(lo, hi));
    }
}

// Scores of lanes at positions j0 .. for the query at position i: dot * scale + slope * (j - i), and -inf where the
// query does not see.
VEC_INLINE Vec attn_score(Vec dot, float scale, float slope, int64_t j0, int64_t i, int64_t window) {
    const Vec d = vec_iota() + (float)(j0 - i), hidden = vec_set(-__builtin_inff());
    Vec s = vec_fma(dot, vec_set(scale), slope * d);
    s = vec_select(vec_less((Vec){0}, d), hidden, s);
    return window ? vec_select(vec_less(vec_set(-(float)window), d), s, hidden) : s;
}

// The first key that a query at position i needs, at the start of a panel.
static inline int64_t attn_first_key(int64_t i, int64_t window) {
    return window && i + 1 > window ? (i + 1 - window) / TILE_COLS * TILE_COLS : 0;
}

#endif
