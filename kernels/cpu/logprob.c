// logprob.c: log-softmax, the log-prob of a target, entropy, and their gradient, a row at a time.
//
// A row passes twice: its largest logit, then sums of e = exp((l - max) / T) and e (l - max) / T. Sums run in fp32
// lanes inside blocks of BLOCK columns and in double over the blocks, in order.
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vmath.h"

enum { BLOCK = 64 * LANES };

typedef struct {
    double e, ez;
} Sums;

static float row_max(const float *x, int64_t n) {
    Vec m = vec_set(-INFINITY);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) m = vec_max(vec_load(DS_F32, x, i), m);
    float best = vec_max_lane(m);
    for (; i < n; i++) best = x[i] > best ? x[i] : best;
    return best;
}

VEC_INLINE Sums block_sums(const float *x, int64_t n, float max, float inv_t, bool with_z) {
    Vec se = {0}, sz = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        const Vec z = (vec_load_n(DS_F32, x, i, n - i) - max) * inv_t;
        Vec e = vec_exp(z);
        if (n - i < LANES) e = vec_select(vec_first(n - i), e, (Vec){0});
        se += e;
        // e = 0 at z = -inf counts as 0, as p ln p does
        if (with_z) sz += vec_select(vec_less((Vec){0}, e), e * z, (Vec){0});
    }
    return (Sums){vec_sum(se), with_z ? vec_sum(sz) : 0.0f};
}

static Sums row_sums(const float *x, int64_t n, float max, float inv_t, bool with_z) {
    Sums s = {0.0, 0.0};
    for (int64_t i = 0; i < n; i += BLOCK) {
        const Sums b = with_z ? block_sums(x + i, ds_min(BLOCK, n - i), max, inv_t, true)
                              : block_sums(x + i, ds_min(BLOCK, n - i), max, inv_t, false);
        s.e += b.e;
        s.ez += b.ez;
    }
    return s;
}

void logprob_fwd_cpu(Dev *logp, Dev *lse, Dev *entropy, const Dev *logits, const Dev *target, int64_t n, int64_t vocab,
                     int64_t valid, float inv_temperature) {
    float *p = cpu_ptr(logp), *l = cpu_ptr(lse), *h = cpu_ptr(entropy);
    const float *x = cpu_ptr(logits);
    const int32_t *t = cpu_ptr(target);
#pragma omp parallel for schedule(static) num_threads(cpu_team(n *vocab))
    for (int64_t r = 0; r < n; r++) {
        const float *row = x + r * vocab, max = row_max(row, valid);
        const Sums s = row_sums(row, valid, max, inv_temperature, h != NULL);
        const double log_sum = log(s.e);
        l[r] = (float)((double)max * inv_temperature + log_sum);
        p[r] = t[r] >= 0 && t[r] < valid ? (float)(((double)row[t[r]] - max) * inv_temperature - log_sum) : -INFINITY;
        if (h) h[r] = (float)(log_sum - s.ez / s.e);
    }
}

typedef struct {
    float lse, inv_t, dlogp, dent, entropy;
} BwdRow;

// The term without the target: inv_t * (-dlogp p - dentropy p (ln p + H)).
VEC_INLINE void bwd_row(DType dt, void *dx, const float *x, int64_t vocab, int64_t valid, const BwdRow *a) {
    for (int64_t i = 0; i < vocab; i += LANES) {
        const Vec ln_p = vec_fma(vec_load_n(DS_F32, x, i, vocab - i), vec_set(a->inv_t), vec_set(-a->lse)),
                  p = vec_exp(ln_p);
        Vec d = -a->dlogp * p;
        if (a->dent != 0.0f) d -= vec_select(vec_less((Vec){0}, p), a->dent * p * (ln_p + a->entropy), (Vec){0});
        if (valid - i < LANES) d = vec_select(vec_first(ds_max(0, valid - i)), d, (Vec){0});
        vec_store_n(dt, dx, i, a->inv_t * d, vocab - i);
    }
}

void logprob_bwd_cpu(DType dt, Dev *dlogits, const Dev *logits, const Dev *lse, const Dev *target, const Dev *dlogp,
                     const Dev *dentropy, const Dev *entropy, int64_t n, int64_t vocab, int64_t valid,
                     float inv_temperature) {
    const float *x = cpu_ptr(logits), *l = cpu_ptr(lse), *dp = cpu_ptr(dlogp), *dh = cpu_ptr(dentropy),
                *h = cpu_ptr(entropy);
    const int32_t *t = cpu_ptr(target);
    void *out = cpu_ptr(dlogits);
#pragma omp parallel for schedule(static) num_threads(cpu_team(n *vocab))
    for (int64_t r = 0; r < n; r++) {
        const BwdRow a = {l[r], inv_temperature, dp[r], dh ? dh[r] : 0.0f, h ? h[r] : 0.0f};
        const float *row = x + r * vocab;
        void *d = elem_ptr(dt, out, r * vocab);
        // The target's own gradient in one rounding: d may be the row itself, so it is read first.
        const bool inside = t[r] >= 0 && t[r] < valid;
        const float ln_p = inside ? row[t[r]] * a.inv_t - a.lse : 0.0f;
        const double p = exp((double)ln_p),
                     term = a.dlogp * (1.0 - p) - (double)a.dent * p * (ln_p + (double)a.entropy);
        if (dt == DS_F32) bwd_row(DS_F32, d, row, vocab, valid, &a);
        else bwd_row(DS_BF16, d, row, vocab, valid, &a);
        if (inside) elem_store(dt, d, t[r], (float)(a.inv_t * term));
    }
}
