// tables.c: angles in double, kept in fp32.
#include "model/tables.h"

#include <math.h>

#include "base/mem.h"

static double frequency(const Arch *a, int64_t d) {
    const double pi = 3.14159265358979323846;
    double f = pow(a->rope_theta, -2.0 * (double)d / (double)a->rotary_dim);
    if (a->rope_scaling == ARCH_ROPE_LINEAR) return f / a->rope_factor;
    if (a->rope_scaling != ARCH_ROPE_LLAMA3) return f;
    double wave = 2 * pi / f, original = (double)a->rope_original_positions;
    if (wave < original / a->rope_high_freq) return f;
    if (wave > original / a->rope_low_freq) return f / a->rope_factor;
    double smooth = (original / wave - a->rope_low_freq) / (a->rope_high_freq - a->rope_low_freq);
    return (1 - smooth) * f / a->rope_factor + smooth * f;
}

Dev *tables_rope(const Kernels *k, const Arch *a) {
    if (a->pos != ARCH_POS_ROPE) return NULL;
    const int64_t half = a->rotary_dim / 2, n = a->max_positions * a->rotary_dim;
    float *t = MEM_NEW(float, n);
    for (int64_t d = 0; d < half; d++) {
        float f = (float)frequency(a, d);
        for (int64_t p = 0; p < a->max_positions; p++) {
            float angle = (float)p * f;
            t[p * a->rotary_dim + d] = (float)cos((double)angle);
            t[p * a->rotary_dim + half + d] = (float)sin((double)angle);
        }
    }
    Dev *dev = k->mem_create((size_t)n * sizeof *t, MEM_WEIGHTS);
    k->copy_in(dev, t, (size_t)n * sizeof *t);
    mem_free(t);
    return dev;
}

Dev *tables_alibi(const Kernels *k, const Arch *a, const ArchPart *part) {
    if (a->pos != ARCH_POS_ALIBI) return NULL;
    const int64_t own = part->own.heads;
    int64_t power = 1;
    while (power * 2 <= a->heads) power *= 2;
    float *t = MEM_NEW(float, own);
    for (int64_t i = 0; i < own; i++) {
        const int64_t h = part->head_first + i;
        double exponent =
            h < power ? 8.0 * (double)(h + 1) / (double)power : 4.0 * (double)(2 * (h - power) + 1) / (double)power;
        t[i] = (float)pow(2.0, -exponent);
    }
    Dev *dev = k->mem_create((size_t)own * sizeof *t, MEM_WEIGHTS);
    k->copy_in(dev, t, (size_t)own * sizeof *t);
    mem_free(t);
    return dev;
}
