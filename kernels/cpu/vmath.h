// vmath.h: exp, erf and sigmoid on vectors. One exp for every kernel, so that the same score is the same probability
// everywhere. Polynomials are minimax fits made for this file (error of the fit in brackets, relative to the function).
#ifndef DS_CPU_VMATH_H
#define DS_CPU_VMATH_H

#include "kernels/cpu/vec.h"

// e^x, at most 1 ulp off; 0 below -87.336, where it would be denormal (the hardware takes a hundred cycles for those),
// inf above 88.73, exp(0) = 1 exactly, NaN stays. x = n ln 2 + r; e^r = 1 + r + r^2 P(r) [3e-9]; scaled by 2^n.
VEC_INLINE Vec vec_exp(Vec x) {
    const Vec magic = vec_set(12582912.0f); // 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits
    const Vec low = vec_set(-87.336f);
    const VecMask zero = vec_less(x, low);
    x = vec_min(x, vec_set(89.0f));
#ifndef __AVX512F__
    x = vec_max(x, low);
#endif
    const Vec shifted = vec_fma(x, vec_set(1.44269504f), magic), n = shifted - magic;
    Vec r = vec_fma(n, vec_set(-0.693359375f), x);
    r = vec_fma(n, vec_set(2.12194440e-4f), r);
    Vec p = vec_set(1.3950491e-3f);
    p = vec_fma(p, r, vec_set(8.3688894e-3f));
    p = vec_fma(p, r, vec_set(4.16662058e-2f));
    p = vec_fma(p, r, vec_set(1.666651884e-1f));
    p = vec_fma(p, r, vec_set(0.5f));
    p = vec_fma(p * r, r, r) + 1.0f;
#ifdef __AVX512F__
    return (Vec)_mm512_maskz_scalef_ps((__mmask16)~zero, (__m512)p, (__m512)n);
#else
    // in two steps: n reaches beyond a float's exponents
    const VecI e = (VecI)shifted - (VecI)magic, half = e >> 1, rest = e - half;
    return vec_select(zero, (Vec){0}, p * (Vec)((half + 127) << 23) * (Vec)((rest + 127) << 23));
#endif
}

// 1 / x for normal x: 1 ulp off at most with AVX-512 (an estimate of 14 bits and two steps of Newton's: half the time
// of a division).
VEC_INLINE Vec vec_reciprocal(Vec x) {
#ifdef __AVX512F__
    Vec r = (Vec)_mm512_rcp14_ps((__m512)x);
    r = vec_fma(r, vec_fma(-x, r, vec_set(1.0f)), r);
    return vec_fma(r, vec_fma(-x, r, vec_set(1.0f)), r);
#else
    return 1.0f / x;
#endif
}

// 1 / (1 + e^-x); below -87, where it is smaller than 2e-38, the value at -87.
VEC_INLINE Vec vec_sigmoid(Vec x) { return vec_reciprocal(1.0f + vec_exp(vec_min(-x, vec_set(87.0f)))); }

// |x| < 1: x + x P(x^2) [3e-11]; beyond: 1 - e^(-t Q(t)), t = min(|x|, 4) [1e-10].
VEC_INLINE Vec vec_erf(Vec x) {
    static const float small[] = {-9.68014072e-6f, 1.12705460e-4f, -8.48471166e-4f, 5.22107489e-3f,
                                  -2.68654458e-2f, 1.12837827e-1f, -3.76126385e-1f, 1.28379167e-1f};
    static const float large[] = {3.55704996e-6f,  -2.84359096e-5f, -1.38746871e-4f, 3.18200767e-3f,
                                  -2.30916290e-2f, 1.05669048e-1f,  6.35410125e-1f,  1.12859958f};
    const Vec s = x * x, t = vec_min(vec_abs(x), vec_set(4.0f));
    Vec p = vec_set(small[0]), q = vec_set(large[0]);
#pragma GCC unroll 8
    for (int i = 1; i < 8; i++) p = vec_fma(p, s, vec_set(small[i])), q = vec_fma(q, t, vec_set(large[i]));
    const Vec big = 1.0f - vec_exp(-t * q);
    const VecI sign = (VecI)x & (int32_t)0x80000000;
    return vec_select(vec_less(t, vec_set(1.0f)), vec_fma(p, x, x), (Vec)((VecI)big | sign));
}

#endif
