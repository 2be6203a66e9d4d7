// rng.c: Philox4x32-10. Counter = (draw, id); key = (seed mixed with purpose).
#include "base/rng.h"

#include <math.h>

void rng_words(uint64_t seed, RngPurpose purpose, uint64_t id, uint64_t draw, uint32_t out[4]) {
    uint64_t key = seed ^ ((uint64_t)purpose * 0x9E3779B97F4A7C15ull);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)draw, c1 = (uint32_t)(draw >> 32), c2 = (uint32_t)id, c3 = (uint32_t)(id >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1, c3 = (uint32_t)p0, c0 = n0, c2 = n2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
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

double rng_normal(uint64_t seed, RngPurpose purpose, uint64_t id, uint64_t draw) {
    uint32_t w[4];
    rng_words(seed, purpose, id, draw, w);
    return sqrt(-2 * log(unit(w[0], w[1]))) * cos(6.283185307179586476925 * unit(w[2], w[3]));
}

void rng_permutation(uint64_t seed, RngPurpose purpose, uint64_t id, int64_t n, int64_t *perm) {
    for (int64_t i = 0; i < n; i++) perm[i] = i;
    for (int64_t i = n - 1; i > 0; i--) { // Fisher-Yates
        int64_t j = (int64_t)(rng_uniform(seed, purpose, id, (uint64_t)i) * (double)(i + 1));
        int64_t t = perm[i];
        perm[i] = perm[j], perm[j] = t;
    }
}
