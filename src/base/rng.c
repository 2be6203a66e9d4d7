// rng.c: Philox4x32-10. Counter = (draw, id); key = (seed mixed with purpose).
#include "base/rng.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline)) // into functions for other CPUs too

static inline uint64_t key_of(uint64_t seed, RngPurpose purpose) {
    return seed ^ ((uint64_t)purpose * 0x9E3779B97F4A7C15ull);
}

// 32-bit words in 64-bit variables, as compilers like them that compute several draws at once.
INLINE void words(uint64_t key, uint64_t id, uint64_t draw, uint64_t out[4]) {
    const uint64_t low = 0xFFFFFFFFu;
    uint64_t k0 = key & low, k1 = key >> 32, c0 = draw & low, c1 = draw >> 32, c2 = id & low, c3 = id >> 32;
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = 0xD2511F53u * c0, p1 = 0xCD9E8D57u * c2;
        c0 = p1 >> 32 ^ c1 ^ k0, c1 = p1 & low, c2 = p0 >> 32 ^ c3 ^ k1, c3 = p0 & low;
        k0 = (k0 + 0x9E3779B9u) & low, k1 = (k1 + 0xBB67AE85u) & low;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

void rng_words(uint64_t seed, RngPurpose purpose, uint64_t id, uint64_t draw, uint32_t out[4]) {
    uint64_t w[4];
    words(key_of(seed, purpose), id, draw, w);
    for (int i = 0; i < 4; i++) out[i] = (uint32_t)w[i];
}

static double unit(uint32_t hi, uint32_t lo) {
    uint64_t bits = ((uint64_t)hi << 32 | lo) >> 12; // 52 bits, plus a half: never 0, never 1
    return ((double)bits + 0.5) * 0x1p-52;
}

double rng_uniform(uint64_t seed, RngPurpose purpose, uint64_t id, uint64_t draw) {
    uint32_t w[4];
    rng_words(seed, purpose, id, draw, w);
    return unit(w[0], w[1]);
}

// A double of 52 bits in [1, 2), which needs no conversion from an integer, less all but a half of the last bit.
INLINE double unit_of_bits(uint64_t hi, uint64_t lo) {
    const uint64_t bits = (hi << 32 | lo) >> 12 | 0x3FF0000000000000u;
    double d;
    memcpy(&d, &bits, sizeof d);
    return d - (1 - 0x1p-53);
}

// ln u, 0 < u < 1: u = m 2^e with m in [1/sqrt(2), sqrt(2)), ln m = 2 artanh((m - 1) / (m + 1)). Relative error 1e-15.
INLINE double log_unit(double u) {
    uint64_t bits;
    double m;
    memcpy(&bits, &u, sizeof bits);
    const uint64_t above = bits - 0x3FE6A09E667F3BCDu; // 1 / sqrt(2)
    const int64_t e = (int64_t)above >> 52;
    bits = (above & 0x000FFFFFFFFFFFFFu) + 0x3FE6A09E667F3BCDu;
    memcpy(&m, &bits, sizeof m);
    const double s = (m - 1) / (m + 1), q = s * s;
    double p = 1.0 / 21;
    p = p * q + 1.0 / 19, p = p * q + 1.0 / 17, p = p * q + 1.0 / 15, p = p * q + 1.0 / 13, p = p * q + 1.0 / 11;
    p = p * q + 1.0 / 9, p = p * q + 1.0 / 7, p = p * q + 1.0 / 5, p = p * q + 1.0 / 3, p = p * q + 1;
    return (double)(int32_t)e * 0.693147180559945309417232 + 2 * s * p;
}

// cos(2 pi v), 0 < v < 1, as the sine of the distance from the nearest zero, v = 1/4 or 3/4.
INLINE double cos_turn(double v) {
    const double x = 6.283185307179586476925 * (fabs(v - 0.5) - 0.25), q = x * x;
    double p = 1 / 51090942171709440000.0;
    p = p * q - 1 / 121645100408832000.0, p = p * q + 1 / 355687428096000.0, p = p * q - 1 / 1307674368000.0;
    p = p * q + 1 / 6227020800.0, p = p * q - 1 / 39916800.0, p = p * q + 1 / 362880.0, p = p * q - 1 / 5040.0;
    p = p * q + 1 / 120.0, p = p * q - 1 / 6.0, p = p * q + 1;
    return x * p;
}

// sqrt(x), 0 < x < 100, without a branch for errno, which would keep compilers from taking several at once: Newton's
// iteration for 1 / sqrt(x), begun within 4 %. Relative error 1e-15.
INLINE double root(double x) {
    uint64_t bits;
    double y;
    memcpy(&bits, &x, sizeof bits);
    bits = 0x5FE6EB50C7B537A9u - (bits >> 1);
    memcpy(&y, &bits, sizeof y);
    for (int i = 0; i < 4; i++) y *= 1.5 - 0.5 * x * y * y;
    return x * y;
}

INLINE double normal(uint64_t key, uint64_t id, uint64_t draw) {
    uint64_t w[4];
    words(key, id, draw, w);
    return root(-2 * log_unit(unit_of_bits(w[0], w[1]))) * cos_turn(unit_of_bits(w[2], w[3]));
}

double rng_normal(uint64_t seed, RngPurpose purpose, uint64_t id, uint64_t draw) {
    return normal(key_of(seed, purpose), id, draw);
}

// Several draws are one instruction's work where the CPU has wide registers: the arithmetic is that of one draw, so
// the bits do not depend on it. What chooses a clone runs before a sanitizer is there.
#ifndef DS_SANITIZED
__attribute__((optimize("O3"), target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
void rng_normals(uint64_t seed, RngPurpose purpose, uint64_t id, uint64_t first, int64_t n, double scale, float *out) {
    const uint64_t key = key_of(seed, purpose);
    for (int64_t i = 0; i < n; i++) out[i] = (float)(scale * normal(key, id, first + (uint64_t)i));
}

void rng_permutation(uint64_t seed, RngPurpose purpose, uint64_t id, int64_t n, int64_t *perm) {
    for (int64_t i = 0; i < n; i++) perm[i] = i;
    for (int64_t i = n - 1; i > 0; i--) { // Fisher-Yates
        int64_t j = (int64_t)(rng_uniform(seed, purpose, id, (uint64_t)i) * (double)(i + 1));
        int64_t t = perm[i];
        perm[i] = perm[j], perm[j] = t;
    }
}
