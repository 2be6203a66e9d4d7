// test_logprob.c: log-probs, entropy and their gradient against PyTorch and finite differences; row exactness.
#include "ref.h"

static void one(const Kernels *k, const json_t *c) {
    const int64_t n = ref_int(c, "n"), vocab = ref_int(c, "vocab"), valid = ref_int(c, "valid");
    const float inv_t = (float)ref_num(c, "inv_t");
    Dev *x = dev_ref(k, DS_F32, c, "x"), *target = dev_ref_ints(k, c, "target"), *logp = dev_new(k, DS_F32, n),
        *lse = dev_new(k, DS_F32, n);
    Dev *h = dev_new(k, DS_F32, n), *dlogp = dev_ref(k, DS_F32, c, "dlogp"), *dh = dev_ref(k, DS_F32, c, "dentropy");
    k->logprob_fwd(logp, lse, h, x, target, n, vocab, valid, inv_t);
    expect_dev(k, "logp", DS_F32, logp, c, "logp", 4.0);
    expect_dev(k, "lse", DS_F32, lse, c, "lse", 2.0);
    expect_dev(k, "entropy", DS_F32, h, c, "entropy", 8.0);
    for (int d = 0; d < DS_COUNT(ref_dtypes); d++) {
        const DType dt = ref_dtypes[d];
        const double limit = dt == DS_F32 ? 24.0 : 1.0;
        Dev *dx = dev_new(k, dt, n * vocab);
        k->logprob_bwd(dt, dx, x, lse, target, dlogp, NULL, NULL, n, vocab, valid, inv_t);
        expect_dev(k, "dlogits", dt, dx, c, "dlogits", limit);
        k->logprob_bwd(dt, dx, x, lse, target, dlogp, dh, h, n, vocab, valid, inv_t);
        expect_dev(k, "dlogits with entropy", dt, dx, c, "dlogits_entropy", limit);
        k->mem_destroy(dx);
    }
    k->logprob_fwd(logp, lse, NULL, x, target, n, vocab, valid, inv_t);
    expect_dev(k, "logp without entropy", DS_F32, logp, c, "logp", 4.0);
    k->logprob_bwd(DS_F32, x, x, lse, target, dlogp, NULL, NULL, n, vocab, valid, inv_t); // in place
    expect_dev(k, "dlogits in place", DS_F32, x, c, "dlogits", 24.0);
    DEV_FREE(k, x, target, logp, lse, h, dlogp, dh);
}

static void against_pytorch(void **state) {
    (void)state;
    const Kernels *k = ref_open(2);
    json_t *cases = ref_load("logprob");
    for (size_t i = 0; i < json_array_size(cases); i++) one(k, json_array_get(cases, i));
    json_decref(cases);
}

// Padding columns may hold anything; very large and very small logits stay finite; a certain row has entropy 0.
static void extremes(void **state) {
    (void)state;
    enum { N = 3, VOCAB = 20, VALID = 18 };
    const Kernels *k = ref_open(1);
    float x[N * VOCAB];
    const int32_t target[N] = {0, 17, 3};
    for (int i = 0; i < N * VOCAB; i++)
        x[i] = i / VOCAB == 0 ? 1000.0f : i / VOCAB == 1 ? -1000.0f : i == 2 * VOCAB + 3 ? 500.0f : -INFINITY;
    for (int r = 0; r < N; r++) x[r * VOCAB + 18] = NAN, x[r * VOCAB + 19] = INFINITY;
    Dev *px = dev_floats(k, DS_F32, x, N * VOCAB), *t = dev_ints(k, target, N), *p = dev_new(k, DS_F32, N),
        *l = dev_new(k, DS_F32, N), *h = dev_new(k, DS_F32, N);
    k->logprob_fwd(p, l, h, px, t, N, VOCAB, VALID, 1.0f);
    float *logp = host_floats(k, DS_F32, p, N), *ent = host_floats(k, DS_F32, h, N);
    assert_float_equal(logp[0], -logf(VALID), 1e-6f);
    assert_float_equal(logp[1], -logf(VALID), 1e-6f);
    assert_float_equal(ent[1], logf(VALID), 1e-6f);
    assert_true(logp[2] == 0.0f && ent[2] == 0.0f);
    Dev *none = dev_ints(k, (const int32_t[N]){18, 19, -1}, N), *q = dev_new(k, DS_F32, N); // no tokens
    k->logprob_fwd(q, l, NULL, px, none, N, VOCAB, VALID, 1.0f);
    float *outside = host_floats(k, DS_F32, q, N);
    for (int r = 0; r < N; r++) assert_true(outside[r] == -INFINITY);
    mem_free(outside);
    DEV_FREE(k, none, q);
    k->logprob_bwd(DS_F32, px, px, l, t, p, p, h, N, VOCAB, VALID, 1.0f);
    float *d = host_floats(k, DS_F32, px, N * VOCAB);
    for (int i = 0; i < N * VOCAB; i++) assert_true(isfinite(d[i]) && (i % VOCAB < VALID || d[i] == 0.0f));
    mem_free(logp), mem_free(ent), mem_free(d);
    DEV_FREE(k, px, t, p, l, h);
}

static void rows_are_exact(void **state) {
    (void)state;
    enum { N = 40, VOCAB = 3001 };
    const Kernels *k = ref_open(2);
    int32_t target[N];
    for (int i = 0; i < N; i++) target[i] = i * 71 % VOCAB;
    Dev *x = dev_rand(k, DS_F32, N * VOCAB, 3.0, 81), *t = dev_ints(k, target, N), *all = dev_new(k, DS_F32, 3 * N),
        *one = dev_new(k, DS_F32, 3 * N);
    k->logprob_fwd(all, dev_at(all, N * 4), dev_at(all, 2 * N * 4), x, t, N, VOCAB, VOCAB, 0.9f);
    for (size_t r = 0; r < N; r++)
        k->logprob_fwd(dev_at(one, r * 4), dev_at(one, (N + r) * 4), dev_at(one, (2 * N + r) * 4),
                       dev_at(x, r * VOCAB * 4), dev_at(t, r * 4), 1, VOCAB, VOCAB, 0.9f);
    expect_same_bits(k, "log-prob rows", all, one, 3 * N * 4);
    // log-probs do not depend on whether entropy is wanted
    k->logprob_fwd(one, dev_at(one, N * 4), NULL, x, t, N, VOCAB, VOCAB, 0.9f);
    expect_same_bits(k, "log-prob without entropy", all, one, 2 * N * 4);
    DEV_FREE(k, x, t, all, one);
}

// ---- finite differences: loss = sum dlogp logp + dentropy entropy ----
enum { FD_N = 4, FD_VOCAB = 33 };
typedef struct {
    const Kernels *k;
    const float *dlogp, *dent;
    const int32_t *target;
} Loss;

static double loss_of(void *state, const float *x) {
    const Loss *l = state;
    const Kernels *k = l->k;
    Dev *px = dev_floats(k, DS_F32, x, FD_N * FD_VOCAB), *t = dev_ints(k, l->target, FD_N);
    Dev *p = dev_new(k, DS_F32, FD_N), *s = dev_new(k, DS_F32, FD_N), *h = dev_new(k, DS_F32, FD_N);
    k->logprob_fwd(p, s, h, px, t, FD_N, FD_VOCAB, FD_VOCAB, 0.8f);
    float *hp = host_floats(k, DS_F32, p, FD_N), *hh = host_floats(k, DS_F32, h, FD_N);
    double sum = 0.0;
    for (int i = 0; i < FD_N; i++) sum += (double)hp[i] * l->dlogp[i] + (double)hh[i] * l->dent[i];
    mem_free(hp), mem_free(hh);
    DEV_FREE(k, px, t, p, s, h);
    return sum;
}

static void against_differences(void **state) {
    (void)state;
    const Kernels *k = ref_open(1);
    const int32_t target[FD_N] = {0, 5, 32, 16};
    float *x = rand_floats(FD_N * FD_VOCAB, 2.0, 91), *dp = rand_floats(FD_N, 1.0, 92),
          *dh = rand_floats(FD_N, 1.0, 93);
    Dev *px = dev_floats(k, DS_F32, x, FD_N * FD_VOCAB), *t = dev_ints(k, target, FD_N), *p = dev_new(k, DS_F32, FD_N),
        *l = dev_new(k, DS_F32, FD_N);
    Dev *h = dev_new(k, DS_F32, FD_N), *pp = dev_floats(k, DS_F32, dp, FD_N), *ph = dev_floats(k, DS_F32, dh, FD_N),
        *dx = dev_new(k, DS_F32, FD_N * FD_VOCAB);
    k->logprob_fwd(p, l, h, px, t, FD_N, FD_VOCAB, FD_VOCAB, 0.8f);
    k->logprob_bwd(DS_F32, dx, px, l, t, pp, ph, h, FD_N, FD_VOCAB, FD_VOCAB, 0.8f);
    float *g = host_floats(k, DS_F32, dx, FD_N * FD_VOCAB);
    expect_slope("log-prob and entropy", loss_of, &(Loss){k, dp, dh, target}, x, g, FD_N * FD_VOCAB, 0.005, 1e-4);
    mem_free(x), mem_free(dp), mem_free(dh), mem_free(g);
    DEV_FREE(k, px, t, p, l, h, pp, ph, dx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_pytorch), cmocka_unit_test(extremes),
                                       cmocka_unit_test(rows_are_exact), cmocka_unit_test(against_differences)};
    return cmocka_run_group_tests_name("logprob", tests, NULL, NULL);
}
