// norm.c: LayerNorm and RMSNorm of rows and of heads. One row is one thread's; its sums run over vectors in order.
//
// The gradients of the weights are summed over the rows of each thread's share, then over the shares in order: the same
// for equal threads.
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

VEC_INLINE float row_mean(DType dt, const void *x, int64_t width) {
    Vec s = {0};
    for (int64_t i = 0; i < width; i += LANES) s += vec_load_n(dt, x, i, width - i);
    return vec_sum(s) / (float)width;
}

// Mean of (x - mean)^2, then 1 / sqrt(that + eps).
VEC_INLINE float row_rstd(DType dt, const void *x, int64_t width, float mean, float eps) {
    Vec s = {0};
    for (int64_t i = 0; i < width; i += LANES) {
        Vec d = vec_load_n(dt, x, i, width - i) - mean;
        if (width - i < LANES) d = vec_select(vec_first(width - i), d, (Vec){0});
        s = vec_fma(d, d, s);
    }
    return 1.0f / sqrtf(vec_sum(s) / (float)width + eps);
}

VEC_INLINE void fwd_row(DType dt, KernelNorm kind, void *y, float *stats, const void *x, const void *w, const void *b,
                        int64_t width, float eps) {
    const float mean = kind == KERNEL_NORM_LN ? row_mean(dt, x, width) : 0.0f;
    const float rstd = row_rstd(dt, x, width, mean, eps);
    for (int64_t i = 0; i < width; i += LANES) {
        Vec v = (vec_load_n(dt, x, i, width - i) - mean) * rstd * vec_load_n(dt, w, i, width - i);
        if (b) v += vec_load_n(dt, b, i, width - i);
        vec_store_n(dt, y, i, v, width - i);
    }
    if (stats) stats[0] = mean, stats[1] = rstd;
}

void norm_fwd_cpu(DType dt, KernelNorm kind, Dev *y, Dev *stats, const Dev *x, const Dev *w, const Dev *b, int64_t n,
                  int64_t width, float eps) {
    const void *pw = cpu_ptr(w), *pb = cpu_ptr(b);
#pragma omp parallel for schedule(static) num_threads(cpu_team(n *width))
    for (int64_t r = 0; r < n; r++) {
        void *out = elem_ptr(dt, cpu_ptr(y), r * width);
        const void *in = elem_at(dt, cpu_ptr(x), r * width);
        float *kept = stats ? (float *)cpu_ptr(stats) + 2 * r : NULL;
        if (dt == DS_F32) fwd_row(DS_F32, kind, out, kept, in, pw, pb, width, eps);
        else fwd_row(DS_BF16, kind, out, kept, in, pw, pb, width, eps);
    }
}

typedef struct {
    KernelNorm kind;
    bool accumulate;
    void *dx;
    const void *dy, *x, *w;
    const float *stats;
    int64_t width;
} Bwd;

// With h = (x - mean) rstd and g = dy w: dx = rstd (g - mean(g) - h mean(g h)); mean(g) for LN only.
VEC_INLINE void bwd_row(DType dt, const Bwd *a, int64_t r, float *dw, float *db) {
    const int64_t width = a->width;
    const void *dy = elem_at(dt, a->dy, r * width), *x = elem_at(dt, a->x, r * width);
    void *dx = elem_ptr(dt, a->dx, r * width);
    const float mean = a->stats[2 * r], rstd = a->stats[2 * r + 1];
    Vec sum_g = {0}, sum_gh = {0};
    for (int64_t i = 0; i < width; i += LANES) {
        const int64_t left = width - i;
        const Vec d = vec_load_n(dt, dy, i, left), h = (vec_load_n(dt, x, i, left) - mean) * rstd;
        const Vec g = d * vec_load_n(dt, a->w, i, left);
        sum_g += g;
        sum_gh = vec_fma(g, h, sum_gh);
        vec_store(DS_F32, dw, i, vec_fma(d, h, vec_load(DS_F32, dw, i)));
        if (db) vec_store(DS_F32, db, i, d + vec_load(DS_F32, db, i));
    }
    const float mean_g = a->kind == KERNEL_NORM_LN ? vec_sum(sum_g) / (float)width : 0.0f;
    const float mean_gh = vec_sum(sum_gh) / (float)width;
    for (int64_t i = 0; i < width; i += LANES) {
        const int64_t left = width - i;
        const Vec h = (vec_load_n(dt, x, i, left) - mean) * rstd;
        Vec v = (vec_load_n(dt, dy, i, left) * vec_load_n(dt, a->w, i, left) - mean_g - h * mean_gh) * rstd;
        if (a->accumulate) v += vec_load_n(dt, dx, i, left);
        vec_store_n(dt, dx, i, v, left);
    }
}

// dst[width] += the shares' sums [shares][ld], in order.
static void fold(float *dst, const float *sums, int64_t shares, int64_t ld, int64_t width) {
    for (int64_t i = 0; i < width; i += LANES) {
        Vec v = vec_load_n(DS_F32, sums, i, width - i);
        for (int64_t s = 1; s < shares; s++) v += vec_load_n(DS_F32, sums, s * ld + i, width - i);
        vec_store_n(DS_F32, dst, i, vec_load_n(DS_F32, dst, i, width - i) + v, width - i);
    }
}

void norm_bwd_cpu(DType dt, KernelNorm kind, Dev *dx, bool accumulate, Dev *dw, Dev *db, const Dev *dy, const Dev *x,
                  const Dev *w, const Dev *stats, int64_t n, int64_t width) {
    const Bwd a = {kind, accumulate, cpu_ptr(dx), cpu_ptr(dy), cpu_ptr(x), cpu_ptr(w), cpu_ptr(stats), width};
    const int team = cpu_team(n * width);
    const int64_t ld = ds_round_up(width, LANES);
    if (n <= 0) return;
    float *sums = cpu_scratch_f32(SCRATCH_A, 2 * team * ld);
    memset(sums, 0, (size_t)(2 * team * ld) * sizeof(float));
#pragma omp parallel for schedule(static) num_threads(team)
    for (int part = 0; part < team; part++) {
        int64_t first, last;
        float *pw = sums + part * ld, *pb = db ? sums + (team + part) * ld : NULL;
        cpu_share(n, team, part, &first, &last);
        for (int64_t r = first; r < last; r++) {
            if (dt == DS_F32) bwd_row(DS_F32, &a, r, pw, pb);
            else bwd_row(DS_BF16, &a, r, pw, pb);
        }
    }
    if (dw) fold(cpu_ptr(dw), sums, team, ld, width);
    if (db) fold(cpu_ptr(db), sums + team * ld, team, ld, width);
}

// ---- heads ----
void head_norm_fwd_cpu(DType dt, HeadView x, Dev *raw, Dev *rstd, const Dev *w, int64_t n, int64_t head_dim,
                       float eps) {
    const void *pw = cpu_ptr(w);
    float *kept = cpu_ptr(rstd);
#pragma omp parallel for schedule(static) num_threads(cpu_team(n *x.heads *head_dim))
    for (int64_t t = 0; t < n; t++) {
        for (int64_t h = 0; h < x.heads; h++) {
            void *p = elem_ptr(dt, cpu_ptr(x.p), t * x.token_stride + h * x.head_stride);
            const int64_t at = t * x.heads + h;
            float stats[2];
            if (raw) memcpy(elem_ptr(dt, cpu_ptr(raw), at * head_dim), p, (size_t)head_dim * dtype_bytes(dt));
            if (dt == DS_F32) fwd_row(DS_F32, KERNEL_NORM_RMS, p, stats, p, pw, NULL, head_dim, eps);
            else fwd_row(DS_BF16, KERNEL_NORM_RMS, p, stats, p, pw, NULL, head_dim, eps);
            if (kept) kept[at] = stats[1];
        }
    }
}

VEC_INLINE void head_bwd_tokens(DType dt, HeadView dx, float *dw, const void *raw, const float *rstd, const void *w,
                                int64_t first, int64_t last, int64_t dim) {
    for (int64_t t = first; t < last; t++) {
        for (int64_t h = 0; h < dx.heads; h++) {
            void *p = elem_ptr(dt, cpu_ptr(dx.p), t * dx.token_stride + h * dx.head_stride);
            const int64_t at = t * dx.heads + h;
            const float stats[2] = {0.0f, rstd[at]};
            const Bwd a = {KERNEL_NORM_RMS, false, p, p, elem_at(dt, raw, at * dim), w, stats, dim};
            bwd_row(dt, &a, 0, dw, NULL);
        }
    }
}

void head_norm_bwd_cpu(DType dt, HeadView dx, Dev *dw, const Dev *raw, const Dev *rstd, const Dev *w, int64_t n,
                       int64_t head_dim) {
    const int team = cpu_team(n * dx.heads * head_dim);
    const int64_t ld = ds_round_up(head_dim, LANES);
    if (n <= 0) return;
    float *sums = cpu_scratch_f32(SCRATCH_A, team * ld);
    memset(sums, 0, (size_t)(team * ld) * sizeof(float));
#pragma omp parallel for schedule(static) num_threads(team)
    for (int part = 0; part < team; part++) {
        int64_t first, last;
        cpu_share(n, team, part, &first, &last);
        if (dt == DS_F32)
            head_bwd_tokens(DS_F32, dx, sums + part * ld, cpu_ptr(raw), cpu_ptr(rstd), cpu_ptr(w), first, last,
                            head_dim);
        else
            head_bwd_tokens(DS_BF16, dx, sums + part * ld, cpu_ptr(raw), cpu_ptr(rstd), cpu_ptr(w), first, last,
                            head_dim);
    }
    fold(cpu_ptr(dw), sums, team, ld, head_dim);
}
