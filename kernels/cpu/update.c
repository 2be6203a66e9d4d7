// update.c: the optimizer's passes over flat buffers.
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

VEC_INLINE Vec vec_sqrt(Vec v) {
#ifdef __AVX512F__
    return (Vec)_mm512_sqrt_ps((__m512)v);
#else
    for (int i = 0; i < LANES; i++) v[i] = sqrtf(v[i]);
    return v;
#endif
}

typedef struct {
    float keep, b1, b2, rest1, rest2, step, root, eps, scale;
} Factors;

// ---- master weights in halves (kernels.h) ----

typedef int16_t VecS __attribute__((vector_size(VEC_BYTES / 2)));

VEC_INLINE Vec load_master(DType dt, const void *w, const uint16_t *rest, int64_t i, int64_t n) {
    if (dt == DS_F32) return vec_load_n(DS_F32, w, i, n);
    VecS low = {0};
    if (n >= LANES) low = (VecS) * (const VecHLoose *)(rest + i);
    else memcpy(&low, rest + i, (size_t)n * sizeof *rest);
    return (Vec)((VecI)vec_load_n(DS_BF16, w, i, n) + __builtin_convertvector(low, VecI));
}

VEC_INLINE void store_master(DType dt, void *w, uint16_t *rest, int64_t i, Vec x, int64_t n) {
    if (dt == DS_F32) {
        vec_store_n(DS_F32, w, i, x, n);
        return;
    }
    const VecU u = (VecU)x, below = u + (VecU)((u & 0x1ffffu) == 0x8000u); // a comparison that holds is -1
    const VecH low = __builtin_convertvector(below, VecH);
    vec_store_n(DS_BF16, w, i, (Vec)below, n);
    if (n >= LANES) *(VecHLoose *)(rest + i) = (VecHLoose)low;
    else memcpy(rest + i, &low, (size_t)n * sizeof *rest);
}

void master_split_cpu(Dev *w, Dev *rest, const Dev *x, int64_t n) {
#pragma omp parallel for schedule(static) num_threads(cpu_team(n))
    for (int64_t i = 0; i < n; i += LANES)
        store_master(DS_BF16, cpu_ptr(w), cpu_ptr(rest), i, vec_load_n(DS_F32, cpu_ptr(x), i, n - i), n - i);
}

void master_join_cpu(Dev *x, const Dev *w, const Dev *rest, int64_t n) {
#pragma omp parallel for schedule(static) num_threads(cpu_team(n))
    for (int64_t i = 0; i < n; i += LANES)
        vec_store_n(DS_F32, cpu_ptr(x), i, load_master(DS_BF16, cpu_ptr(w), cpu_ptr(rest), i, n - i), n - i);
}

// ---- AdamW ----

// PyTorch's order: decay, moments, then w -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps).
VEC_INLINE void adamw_range(DType dt, void *w, uint16_t *rest, float *m, float *v, const float *grad, const Factors *f,
                            int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i += LANES) {
        const int64_t left = last - i;
        const Vec g = vec_load_n(DS_F32, grad, i, left) * f->scale;
        const Vec mi = vec_fma(vec_set(f->rest1), g, f->b1 * vec_load_n(DS_F32, m, i, left));
        const Vec vi = vec_fma(f->rest2 * g, g, f->b2 * vec_load_n(DS_F32, v, i, left));
        const Vec wi = load_master(dt, w, rest, i, left) * f->keep - f->step * mi / (vec_sqrt(vi) * f->root + f->eps);
        vec_store_n(DS_F32, m, i, mi, left);
        vec_store_n(DS_F32, v, i, vi, left);
        store_master(dt, w, rest, i, wi, left);
    }
}

void adamw_cpu(DType dt, Dev *w, Dev *rest, Dev *m, Dev *v, const Dev *grad, int64_t n, AdamwArgs a) {
    // 1 - beta and the corrections in double: in fp32 they would be off by more than the result may be
    const Factors f = {.keep = (float)(1.0 - a.lr * a.weight_decay),
                       .b1 = (float)a.beta1,
                       .b2 = (float)a.beta2,
                       .rest1 = (float)(1.0 - a.beta1),
                       .rest2 = (float)(1.0 - a.beta2),
                       .step = (float)(a.lr / a.correction1),
                       .root = (float)(1.0 / sqrt(a.correction2)),
                       .eps = (float)a.eps,
                       .scale = (float)a.grad_scale};
    const int team = cpu_team(n);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int part = 0; part < team; part++) {
        int64_t first, last;
        cpu_share_flat(n, team, part, &first, &last);
        if (dt == DS_F32) adamw_range(DS_F32, cpu_ptr(w), NULL, cpu_ptr(m), cpu_ptr(v), cpu_ptr(grad), &f, first, last);
        else adamw_range(DS_BF16, cpu_ptr(w), cpu_ptr(rest), cpu_ptr(m), cpu_ptr(v), cpu_ptr(grad), &f, first, last);
    }
}

void ema_cpu(Dev *ema, const Dev *w, int64_t n, float beta) {
    float *e = cpu_ptr(ema);
    const float *p = cpu_ptr(w), rest = (float)(1.0 - (double)beta);
#pragma omp parallel for schedule(static) num_threads(cpu_team(n))
    for (int64_t i = 0; i < n; i += LANES)
        vec_store_n(DS_F32, e, i,
                    vec_fma(vec_set(beta), vec_load_n(DS_F32, e, i, n - i), rest * vec_load_n(DS_F32, p, i, n - i)),
                    n - i);
}

void axpy_cpu(Dev *y, float a, const Dev *x, int64_t n) {
    float *py = cpu_ptr(y);
    const float *px = cpu_ptr(x);
#pragma omp parallel for schedule(static) num_threads(cpu_team(n))
    for (int64_t i = 0; i < n; i += LANES)
        vec_store_n(DS_F32, py, i,
                    vec_fma(vec_set(a), vec_load_n(DS_F32, px, i, n - i), vec_load_n(DS_F32, py, i, n - i)), n - i);
}

void scale_cpu(Dev *y, float a, int64_t n) {
    float *p = cpu_ptr(y);
#pragma omp parallel for schedule(static) num_threads(cpu_team(n))
    for (int64_t i = 0; i < n; i += LANES) vec_store_n(DS_F32, p, i, a * vec_load_n(DS_F32, p, i, n - i), n - i);
}
