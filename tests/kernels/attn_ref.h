// attn_ref.h: attention in double, and by how much each result may be off when it is computed in bf16.
#ifndef DS_TEST_ATTN_REF_H
#define DS_TEST_ATTN_REF_H

#include "ref.h"

#define ATTN_U 0x1p-8 // bf16 has 8 bits

typedef struct {
    int64_t hq, hk, dim, window, n_seq;
    double scale;
    const int32_t *starts;
    const float *slopes;          // NULL: none
    const float *q, *k, *v, *do_; // rows [n][heads][dim], exact in bf16
} Problem;

typedef struct {
    int64_t n;
    double *x, *off; // values, and the bound of their error
} Bounded;

typedef struct {
    Bounded o, dq, dk, dv;
} Attention;

REF_INLINE double square(double x) { return x * x; }
REF_INLINE Bounded bounded(int64_t n) {
    return (Bounded){n, mem_array(n, sizeof(double)), mem_array(n, sizeof(double))};
}
REF_INLINE void bounded_free(Bounded *b) { mem_free(b->x), mem_free(b->off); }

// One query, of row `row` and position i in its sequence, whose first row is `first`. Of `off` it makes variances, in
// units of ATTN_U^2 / 3, what an even spread over +-ATTN_U has.
//
// Rounded are, if anything, P (and the output is divided by the sum of the rounded: of their errors only what weighs
// v - o counts), o, of which delta = <dO, o> is made, dS, P again, and every result; the inputs are exact. Each errs by
// itself, but what a row's delta is off by all its dS share.
REF_INLINE void attention_row(const Problem *p, Attention *a, int64_t first, int64_t i, int64_t head) {
    const int64_t dim = p->dim, row = first + i, at = (row * p->hq + head) * dim, kv = head / (p->hq / p->hk);
    const int64_t j0 = p->window ? ds_max(0, i + 1 - p->window) : 0, step = p->hk * dim;
    const float *q = p->q + at, *go = p->do_ + at, *k = p->k + (first * p->hk + kv) * dim,
                *v = p->v + (first * p->hk + kv) * dim;
    double *w = mem_array(i + 1, sizeof *w), *o = a->o.x + at, *o_off = a->o.off + at, max = -INFINITY, sum = 0.0;
    for (int64_t j = j0; j <= i; j++) {
        for (int64_t d = 0; d < dim; d++) w[j] += (double)q[d] * k[j * step + d] * p->scale;
        w[j] += p->slopes ? p->slopes[head] * (double)(j - i) : 0.0;
        max = w[j] > max ? w[j] : max;
    }
    for (int64_t j = j0; j <= i; j++) sum += w[j] = exp(w[j] - max);
    for (int64_t j = j0; j <= i; j++) w[j] /= sum;
    double delta = 0.0, delta_off = 0.0;
    for (int64_t d = 0; d < dim; d++) {
        for (int64_t j = j0; j <= i; j++) o[d] += w[j] * v[j * step + d];
        for (int64_t j = j0; j <= i; j++) o_off[d] += square(w[j] * (v[j * step + d] - o[d]));
        delta += go[d] * o[d], delta_off += square(go[d]) * (o_off[d] + square(o[d]));
    }
    for (int64_t d = 0; d < dim; d++) {
        double mean = 0.0;
        for (int64_t j = j0; j <= i; j++) mean += w[j] * k[j * step + d];
        a->dq.off[at + d] += delta_off * square(p->scale * mean);
    }
    for (int64_t j = j0; j <= i; j++) {
        const int64_t to = ((first + j) * p->hk + kv) * dim;
        double s = -delta;
        for (int64_t d = 0; d < dim; d++) s += (double)go[d] * v[j * step + d];
        s *= w[j] * p->scale;
        for (int64_t d = 0; d < dim; d++) {
            a->dq.x[at + d] += s * k[j * step + d], a->dq.off[at + d] += square(s * k[j * step + d]);
            a->dk.x[to + d] += s * q[d];
            a->dk.off[to + d] += (square(s) + delta_off * square(w[j] * p->scale)) * square(q[d]);
            a->dv.x[to + d] += w[j] * go[d], a->dv.off[to + d] += square(w[j] * go[d]);
        }
    }
    mem_free(w);
}

// At most four deviations, and the rounding of the result.
REF_INLINE void bound(Bounded *b) {
    for (int64_t i = 0; i < b->n; i++) b->off[i] = ATTN_U * (4.0 * sqrt(b->off[i] / 3.0) + fabs(b->x[i]));
}

// Owner: caller, attention_free.
REF_INLINE Attention attention(const Problem *p) {
    const int64_t n = p->starts[p->n_seq], nq = n * p->hq * p->dim, nk = n * p->hk * p->dim;
    Attention a = {bounded(nq), bounded(nq), bounded(nk), bounded(nk)};
    for (int64_t s = 0; s < p->n_seq; s++)
        for (int64_t i = 0; i < p->starts[s + 1] - p->starts[s]; i++)
            for (int64_t h = 0; h < p->hq; h++) attention_row(p, &a, p->starts[s], i, h);
    bound(&a.o), bound(&a.dq), bound(&a.dk), bound(&a.dv);
    return a;
}

REF_INLINE void attention_free(Attention *a) {
    bounded_free(&a->o), bounded_free(&a->dq), bounded_free(&a->dk), bounded_free(&a->dv);
}

// bf16: each element within its bound, and a little of the tensor's rms for what fp32 rounds. fp32: as expect_floats.
REF_INLINE void expect_bounded(const char *what, DType dt, const float *got, const float *want, const Bounded *b,
                               double limit_f32) {
    if (dt == DS_F32) {
        expect_floats(what, dt, got, want, b->n, limit_f32);
        return;
    }
    double rms = 0.0, worst = 0.0, mean = 0.0;
    for (int64_t i = 0; i < b->n; i++) rms += b->x[i] * b->x[i], mean += b->off[i];
    rms = sqrt(rms / (double)b->n);
    for (int64_t i = 0; i < b->n; i++) {
        const double e = fabs((double)got[i] - want[i]) / (1.01 * b->off[i] + 1e-5 * rms);
        if (!(e <= worst)) worst = e;
        if (e != e) break;
    }
    printf("  %-28s bf16 worst %7.2f of the bound, which is %.2f eps of the rms on average\n", what, worst,
           mean / (double)b->n / rms * 256.0);
    if (!(worst <= 1.0)) fail_msg("%s: %.2f of the bound", what, worst);
}

#endif
