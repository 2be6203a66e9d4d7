// quant.c: to blocks of small whole numbers with a scale, and back.
//
// A block is brought to fp32 in an array of fixed size; the plain loops over it are what gcc makes vectors of.
#include <float.h>
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

enum { BLOCK = KERNEL_QUANT_BLOCK, HALF = BLOCK / 2 };

// Added to a number of at most 2^22 and taken off again, it leaves the nearest whole number, the even one of two.
#define ROUND_TO_WHOLE 12582912.0f // 1.5 x 2^23

static size_t block_bytes(int bits) { return kernels_quant_bytes(bits, BLOCK); }

VEC_INLINE void load_block(DType dt, float *v, const void *x, int64_t at, int64_t count) {
    int64_t i = 0;
    for (; i < count; i += LANES) vec_store(DS_F32, v, i, vec_load_n(dt, x, at + i, count - i));
    for (; i < BLOCK; i += LANES) vec_store(DS_F32, v, i, vec_set(0.0f));
}

// NaN if any element is not finite. By the bits without the sign, which order as the numbers do, infinity and NaN last.
static float scale_of(const float *v, int bits) {
    const float most = (float)((1 << (bits - 1)) - 1);
    union {
        int32_t u;
        float f;
    } top = {0};
    for (int i = 0; i < BLOCK; i++) {
        int32_t u;
        memcpy(&u, &v[i], sizeof u);
        u &= 0x7fffffff;
        top.u = u > top.u ? u : top.u;
    }
    if (!isfinite(top.f)) return NAN;
    return top.f / most > FLT_MIN ? top.f / most : FLT_MIN;
}

static void write_block(uint8_t *out, const float *v, int bits) {
    const float scale = scale_of(v, bits);
    int8_t q[BLOCK] = {0};
    if (isfinite(scale))
        for (int i = 0; i < BLOCK; i++) q[i] = (int8_t)(int32_t)(v[i] / scale + ROUND_TO_WHOLE - ROUND_TO_WHOLE);
    memcpy(out, &scale, sizeof scale);
    out += sizeof scale;
    if (bits == 8) memcpy(out, q, BLOCK);
    else
        for (int i = 0; i < HALF; i++) out[i] = (uint8_t)((q[i] + 8) | (q[i + HALF] + 8) << 4);
}

static void read_block(float *v, const uint8_t *in, int bits) {
    float scale;
    memcpy(&scale, in, sizeof scale);
    in += sizeof scale;
    if (bits == 8)
        for (int i = 0; i < BLOCK; i++) v[i] = scale * (float)(int8_t)in[i];
    else
        for (int i = 0; i < HALF; i++) {
            v[i] = scale * (float)((in[i] & 15) - 8);
            v[i + HALF] = scale * (float)((in[i] >> 4) - 8);
        }
}

void quantize_cpu(int bits, Dev *packet, DType dt, const Dev *x, int64_t n) {
    uint8_t *to = cpu_ptr(packet);
    const void *from = cpu_ptr(x);
#pragma omp parallel for schedule(static) num_threads(cpu_team(n))
    for (int64_t b = 0; b < ds_ceil_div(n, BLOCK); b++) {
        const int64_t at = b * BLOCK, count = ds_min(BLOCK, n - at);
        float v[BLOCK];
        if (dt == DS_F32) load_block(DS_F32, v, from, at, count);
        else load_block(DS_BF16, v, from, at, count);
        write_block(to + (size_t)b * block_bytes(bits), v, bits);
    }
}

void dequantize_cpu(int bits, DType dt, Dev *x, const Dev *packet, int64_t n) {
    const uint8_t *from = cpu_ptr(packet);
    void *to = cpu_ptr(x);
#pragma omp parallel for schedule(static) num_threads(cpu_team(n))
    for (int64_t b = 0; b < ds_ceil_div(n, BLOCK); b++) {
        const int64_t at = b * BLOCK, count = ds_min(BLOCK, n - at);
        float v[BLOCK];
        read_block(v, from + (size_t)b * block_bytes(bits), bits);
        for (int64_t i = 0; i < count; i += LANES) vec_store_n(dt, to, at + i, vec_load(DS_F32, v, i), count - i);
    }
}
