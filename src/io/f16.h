// f16.h: IEEE half precision <-> fp32, bit by bit (the build must not depend on F16C instructions). Not collective.
#ifndef DS_F16_H
#define DS_F16_H

#include "base/types.h"

// Exact.
static inline float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, fraction = h & 1023u;
    union {
        uint32_t u;
        float f;
    } v;
    if (exponent == 31) v.u = sign | 0x7f800000u | fraction << 13;
    else if (exponent) v.u = sign | (exponent + 112) << 23 | fraction << 13;
    else { // zero and subnormals: fraction * 2^-24
        v.f = (float)fraction * 0x1p-24f;
        v.u |= sign;
    }
    return v.f;
}

#endif
