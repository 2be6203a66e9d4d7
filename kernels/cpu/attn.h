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

// How the products of bf16 or fp32 rows are summed: `dim` elements of type `unit` a row, which are pairs of bf16 where
// the CPU multiplies those (tile.h), and are then moved as fp32.
typedef struct {
    TileMath math;
    DType unit;
    int64_t dim;
} AttnDot;

static inline AttnDot attn_dot(DType dt, int64_t head_dim, int64_t token_stride) {
    if (TILE_HAS_PAIRS && dt == DS_BF16 && head_dim % 2 == 0 && token_stride % 2 == 0)
        return (AttnDot){TILE_PAIRS, DS_F32, head_dim / 2};
    return (AttnDot){TILE_F32, dt, head_dim};
}

// A stride of elements in units.
static inline int64_t attn_units(AttnDot d, int64_t stride) { return d.math == TILE_PAIRS ? stride / 2 : stride; }

// dst [pad] = the row src dt [dim], as fp32 or as pairs.
static inline void dot_row(AttnDot d, DType dt, float *dst, const void *src, int64_t dim, int64_t pad) {
    if (d.math == TILE_PAIRS) memcpy(dst, src, (size_t)dim * sizeof(uint16_t));
    else widen_row(dt, dst, src, dim, pad);
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
