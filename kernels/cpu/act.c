// act.c: element-wise passes: sums, activations, gated activations.
//
// Each is one loop over vectors, in the form range(dt, kind, ..., first, last) where dt and kind are constants in every
// copy that the compiler makes. Threads are started around the choice of the copy: constants do not pass into a
// parallel region.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vmath.h"

#define GELU_C 0.797884561f // sqrt(2 / pi)
#define GELU_A 0.044715f
#define GELU_R2 0.707106781f   // 1 / sqrt(2)
#define GELU_RPI2 0.398942280f // 1 / sqrt(2 pi)

// x sigmoid(2 c (x + a x^3)) is x (1 + tanh(c (x + a x^3))) / 2.
VEC_INLINE Vec gelu_gate(Vec x) { return vec_sigmoid(2.0f * GELU_C * x * vec_fma(GELU_A * x, x, vec_set(1.0f))); }

VEC_INLINE Vec act(KernelAct kind, Vec x) {
    switch (kind) {
    case KERNEL_ACT_RELU: return vec_max(x, vec_set(0.0f));
    case KERNEL_ACT_GELU: return 0.5f * x * (1.0f + vec_erf(GELU_R2 * x));
    case KERNEL_ACT_GELU_TANH: return x * gelu_gate(x);
    case KERNEL_ACT_SILU: return x * vec_sigmoid(x);
    }
    return x;
}

// d act / dx
VEC_INLINE Vec slope(KernelAct kind, Vec x) {
    Vec s;
    switch (kind) {
    case KERNEL_ACT_RELU: return vec_select(vec_less(vec_set(0.0f), x), vec_set(1.0f), vec_set(0.0f));
    case KERNEL_ACT_GELU: return 0.5f * (1.0f + vec_erf(GELU_R2 * x)) + x * GELU_RPI2 * vec_exp(-0.5f * x * x);
    case KERNEL_ACT_GELU_TANH:
        s = gelu_gate(x);
        return s + x * s * (1.0f - s) * (2.0f * GELU_C) * vec_fma(3.0f * GELU_A * x, x, vec_set(1.0f));
    case KERNEL_ACT_SILU: s = vec_sigmoid(x); return s * (1.0f + x * (1.0f - s));
    }
    return x;
}

// Calls F(dt, kind, ...) with constants.
#define DISPATCH_ACT(F, dt, kind, ...)                                                                                 \
    do {                                                                                                               \
        if ((dt) == DS_F32) {                                                                                          \
            DISPATCH_KIND(F, DS_F32, kind, __VA_ARGS__);                                                               \
        } else {                                                                                                       \
            DISPATCH_KIND(F, DS_BF16, kind, __VA_ARGS__);                                                              \
        }                                                                                                              \
    } while (0)
#define DISPATCH_KIND(F, dt, kind, ...)                                                                                \
    switch (kind) {                                                                                                    \
    case KERNEL_ACT_RELU: F(dt, KERNEL_ACT_RELU, __VA_ARGS__); break;                                                  \
    case KERNEL_ACT_GELU: F(dt, KERNEL_ACT_GELU, __VA_ARGS__); break;                                                  \
    case KERNEL_ACT_GELU_TANH: F(dt, KERNEL_ACT_GELU_TANH, __VA_ARGS__); break;                                        \
    case KERNEL_ACT_SILU: F(dt, KERNEL_ACT_SILU, __VA_ARGS__); break;                                                  \
    }

// Runs F(dt, kind, ..., first, last) over the parts of n elements (rows) of `size` each.
#define EACH_PART(F, share, n, size, dt, kind, ...)                                                                    \
    do {                                                                                                               \
        const int team_ = cpu_team((n) * (size));                                                                      \
        _Pragma("omp parallel for schedule(static) num_threads(team_)") for (int part_ = 0; part_ < team_; part_++) {  \
            int64_t first_, last_;                                                                                     \
            share((n), team_, part_, &first_, &last_);                                                                 \
            DISPATCH_ACT(F, dt, kind, __VA_ARGS__, first_, last_);                                                     \
        }                                                                                                              \
    } while (0)

VEC_INLINE void add_range(DType dt, void *y, const void *x, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i += LANES)
        vec_store_n(dt, y, i, vec_load_n(dt, y, i, last - i) + vec_load_n(dt, x, i, last - i), last - i);
}

void add_cpu(DType dt, Dev *y, const Dev *x, int64_t n) {
    const int team = cpu_team(n);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int part = 0; part < team; part++) {
        int64_t first, last;
        cpu_share_flat(n, team, part, &first, &last);
        if (dt == DS_F32) add_range(DS_F32, cpu_ptr(y), cpu_ptr(x), first, last);
        else add_range(DS_BF16, cpu_ptr(y), cpu_ptr(x), first, last);
    }
}

VEC_INLINE void fwd_range(DType dt, KernelAct kind, void *y, const void *x, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i += LANES)
        vec_store_n(dt, y, i, act(kind, vec_load_n(dt, x, i, last - i)), last - i);
}

void act_fwd_cpu(DType dt, KernelAct kind, Dev *y, const Dev *x, int64_t n) {
    EACH_PART(fwd_range, cpu_share_flat, n, 1, dt, kind, cpu_ptr(y), cpu_ptr(x));
}

VEC_INLINE void bwd_range(DType dt, KernelAct kind, void *dx, const void *dy, const void *x, int64_t first,
                          int64_t last) {
    for (int64_t i = first; i < last; i += LANES)
        vec_store_n(dt, dx, i, vec_load_n(dt, dy, i, last - i) * slope(kind, vec_load_n(dt, x, i, last - i)), last - i);
}

void act_bwd_cpu(DType dt, KernelAct kind, Dev *dx, const Dev *dy, const Dev *x, int64_t n) {
    EACH_PART(bwd_range, cpu_share_flat, n, 1, dt, kind, cpu_ptr(dx), cpu_ptr(dy), cpu_ptr(x));
}

VEC_INLINE void glu_fwd_range(DType dt, KernelAct kind, void *y, const void *x, int64_t ffn, int64_t first,
                              int64_t last) {
    for (int64_t r = first; r < last; r++) {
        const void *gate = elem_at(dt, x, r * 2 * ffn), *up = elem_at(dt, gate, ffn);
        void *out = elem_ptr(dt, y, r * ffn);
        for (int64_t i = 0; i < ffn; i += LANES)
            vec_store_n(dt, out, i, act(kind, vec_load_n(dt, gate, i, ffn - i)) * vec_load_n(dt, up, i, ffn - i),
                        ffn - i);
    }
}

void glu_fwd_cpu(DType dt, KernelAct kind, Dev *y, const Dev *x, int64_t n, int64_t ffn) {
    EACH_PART(glu_fwd_range, cpu_share, n, ffn, dt, kind, cpu_ptr(y), cpu_ptr(x), ffn);
}

VEC_INLINE void glu_bwd_range(DType dt, KernelAct kind, void *dx, const void *dy, const void *x, int64_t ffn,
                              int64_t first, int64_t last) {
    for (int64_t r = first; r < last; r++) {
        const void *gate = elem_at(dt, x, r * 2 * ffn), *up = elem_at(dt, gate, ffn), *d = elem_at(dt, dy, r * ffn);
        void *dgate = elem_ptr(dt, dx, r * 2 * ffn), *dup = elem_ptr(dt, dgate, ffn);
        for (int64_t i = 0; i < ffn; i += LANES) {
            const int64_t left = ffn - i;
            const Vec g = vec_load_n(dt, gate, i, left), u = vec_load_n(dt, up, i, left),
                      dv = vec_load_n(dt, d, i, left);
            vec_store_n(dt, dgate, i, dv * u * slope(kind, g), left);
            vec_store_n(dt, dup, i, dv * act(kind, g), left);
        }
    }
}

void glu_bwd_cpu(DType dt, KernelAct kind, Dev *dx, const Dev *dy, const Dev *x, int64_t n, int64_t ffn) {
    EACH_PART(glu_bwd_range, cpu_share, n, ffn, dt, kind, cpu_ptr(dx), cpu_ptr(dy), cpu_ptr(x), ffn);
}
