// vec.h: one vector type for the CPU kernels: 16 fp32 lanes with AVX-512, 8 elsewhere (GCC's vector extension).
//
// Every operation has one defined rounding: products are fused only in vec_fma, which is the hardware's fused
// multiply-add where there is one and a multiply and an add elsewhere (C11 mode turns the compiler's own contraction
// off). Sums across lanes use one fixed tree. So a row's bits depend on the build, never on where the row lies.
#ifndef DS_CPU_VEC_H
#define DS_CPU_VEC_H

#include <string.h>

#include "base/types.h"

#ifdef __AVX512F__
#include <immintrin.h>
enum { LANES = 16 };
#else
#ifdef __AVX2__
#include <immintrin.h>
#endif
enum { LANES = 8 };
#endif
#define VEC_BYTES (4 * LANES)
#define VEC_INLINE static inline __attribute__((always_inline, unused))

typedef float Vec __attribute__((vector_size(VEC_BYTES)));
typedef float VecLoose __attribute__((vector_size(VEC_BYTES), aligned(2), may_alias));
typedef int32_t VecI __attribute__((vector_size(VEC_BYTES)));
typedef uint32_t VecU __attribute__((vector_size(VEC_BYTES)));
typedef uint16_t VecH __attribute__((vector_size(VEC_BYTES / 2)));
typedef uint16_t VecHLoose __attribute__((vector_size(VEC_BYTES / 2), aligned(2), may_alias));

VEC_INLINE Vec vec_set(float x) { return x - (Vec){0}; }

VEC_INLINE Vec vec_fma(Vec a, Vec b, Vec c) {
#ifdef __AVX512F__
    return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

// ---- masks: one truth value a lane ----
#ifdef __AVX512F__
typedef __mmask16 VecMask;
VEC_INLINE VecMask vec_less(Vec a, Vec b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ); }
VEC_INLINE VecMask vec_equal(Vec a, Vec b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ); }
// mask ? a : b
VEC_INLINE Vec vec_select(VecMask mask, Vec a, Vec b) { return (Vec)_mm512_mask_blend_ps(mask, (__m512)b, (__m512)a); }
// The larger; NaN in `a` stays, NaN in `b` does not.
VEC_INLINE Vec vec_max(Vec a, Vec b) { return (Vec)_mm512_max_ps((__m512)b, (__m512)a); }
VEC_INLINE Vec vec_min(Vec a, Vec b) { return (Vec)_mm512_min_ps((__m512)b, (__m512)a); }
// The first n lanes.
VEC_INLINE VecMask vec_first(int64_t n) { return (VecMask)(n >= LANES ? 0xffffu : n > 0 ? (1u << n) - 1u : 0u); }
#else
typedef VecI VecMask; // all ones or all zeros
VEC_INLINE VecMask vec_less(Vec a, Vec b) { return (VecMask)(a < b); }
VEC_INLINE VecMask vec_equal(Vec a, Vec b) { return (VecMask)(a == b); }
VEC_INLINE Vec vec_select(VecMask mask, Vec a, Vec b) { return (Vec)((mask & (VecI)a) | (~mask & (VecI)b)); }
VEC_INLINE Vec vec_max(Vec a, Vec b) { return vec_select(vec_less(a, b), b, a); }
VEC_INLINE Vec vec_min(Vec a, Vec b) { return vec_select(vec_less(b, a), b, a); }
VEC_INLINE VecMask vec_first(int64_t n) {
    VecI lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    return (VecMask)(lane < (int32_t)(n < LANES ? n : LANES));
}
#endif

#ifdef __AVX512BF16__
// c + a1 b1 + a0 b0 of the bf16 pairs that the lanes of a and b hold: two fused multiply-adds, denormals count as zero.
VEC_INLINE Vec vec_dot2(Vec a, Vec b, Vec c) {
    return (Vec)_mm512_dpbf16_ps((__m512)c, (__m512bh)(__m512)a, (__m512bh)(__m512)b);
}
#endif

VEC_INLINE Vec vec_abs(Vec a) { return (Vec)((VecI)a & 0x7fffffff); }

// Lanes 0, 1, ... as numbers.
VEC_INLINE Vec vec_iota(void) {
    Vec v;
    for (int i = 0; i < LANES; i++) v[i] = (float)i;
    return v;
}

VEC_INLINE float vec_sum(Vec v) {
#ifdef __AVX512F__
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
    const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
#else
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
#endif
}

VEC_INLINE float vec_max_lane(Vec v) {
    float m = v[0];
    for (int i = 1; i < LANES; i++) m = v[i] > m ? v[i] : m;
    return m;
}

// ---- memory: element i of a row of dtype dt (DS_F32 or DS_BF16, a constant where these are inlined) ----
VEC_INLINE Vec vec_from_bf16(VecH h) { return (Vec)(__builtin_convertvector(h, VecU) << 16); }

// To nearest even, NaN made quiet: what f32_to_bf16 gives.
VEC_INLINE VecH vec_round_bf16(Vec v) {
    const VecU u = (VecU)v;
    const VecU rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, nan = (u >> 16) | 0x40u;
    const VecU is_nan = (VecU)((u & 0x7fffffffu) > 0x7f800000u);
    return __builtin_convertvector((is_nan & nan) | (~is_nan & rounded), VecH);
}

// The instruction takes denormals for zero: a vector with one goes the long way.
VEC_INLINE VecH vec_to_bf16(Vec v) {
#ifdef __AVX512BF16__
    enum { DENORMAL = 0x20 };
    if (__builtin_expect(!_mm512_fpclass_ps_mask((__m512)v, DENORMAL), 1)) return (VecH)_mm512_cvtneps_pbh((__m512)v);
#endif
    return vec_round_bf16(v);
}

VEC_INLINE Vec vec_load(DType dt, const void *p, int64_t i) {
    if (dt == DS_F32) return (Vec) * (const VecLoose *)((const float *)p + i);
    return vec_from_bf16((VecH) * (const VecHLoose *)((const uint16_t *)p + i));
}

VEC_INLINE void vec_store(DType dt, void *p, int64_t i, Vec v) {
    if (dt == DS_F32) *(VecLoose *)((float *)p + i) = (VecLoose)v;
    else *(VecHLoose *)((uint16_t *)p + i) = (VecHLoose)vec_to_bf16(v);
}

// The first n lanes (n >= LANES: all); the others are 0, and are not read or written.
VEC_INLINE Vec vec_load_n(DType dt, const void *p, int64_t i, int64_t n) {
    if (n >= LANES) return vec_load(dt, p, i);
#ifdef __AVX512F__
    if (dt == DS_F32) return (Vec)_mm512_maskz_loadu_ps(vec_first(n), (const float *)p + i);
#endif
    if (dt == DS_F32) {
        Vec v = {0};
        memcpy(&v, (const float *)p + i, (size_t)n * sizeof(float));
        return v;
    }
    VecH h = {0};
    memcpy(&h, (const uint16_t *)p + i, (size_t)n * sizeof(uint16_t));
    return vec_from_bf16(h);
}

VEC_INLINE void vec_store_n(DType dt, void *p, int64_t i, Vec v, int64_t n) {
    if (n >= LANES) {
        vec_store(dt, p, i, v);
    } else if (dt == DS_F32) {
        memcpy((float *)p + i, &v, (size_t)n * sizeof(float));
    } else {
        const VecH h = vec_to_bf16(v);
        memcpy((uint16_t *)p + i, &h, (size_t)n * sizeof(uint16_t));
    }
}

// One element.
VEC_INLINE float elem_load(DType dt, const void *p, int64_t i) {
    return dt == DS_F32 ? ((const float *)p)[i] : bf16_to_f32(((const uint16_t *)p)[i]);
}
VEC_INLINE void elem_store(DType dt, void *p, int64_t i, float x) {
    if (dt == DS_F32) ((float *)p)[i] = x;
    else ((uint16_t *)p)[i] = f32_to_bf16(x);
}
VEC_INLINE const void *elem_at(DType dt, const void *p, int64_t i) {
    return (const char *)p + i * (dt == DS_F32 ? 4 : 2);
}
VEC_INLINE void *elem_ptr(DType dt, void *p, int64_t i) { return (char *)p + i * (dt == DS_F32 ? 4 : 2); }

#endif
