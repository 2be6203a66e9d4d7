// test_act.c: activations and gated activations against PyTorch; sums; odd sizes.
#include "ref.h"

static KernelAct act_of(const json_t *c) {
    static const char *const names[] = {"relu", "gelu", "gelu_tanh", "silu"};
    for (int i = 0; i < DS_COUNT(names); i++)
        if (strcmp(names[i], ref_str(c, "act")) == 0) return (KernelAct)i;
    fail_msg("unknown activation %s", ref_str(c, "act"));
    return KERNEL_ACT_RELU;
}

static void one(const Kernels *k, DType dt, const json_t *c) {
    const int64_t n = ref_int(c, "n");
    const KernelAct act = act_of(c);
    const double limit = dt == DS_F32 ? 8.0 : 1.0;
    Dev *x = dev_ref(k, dt, c, "x"), *dy = dev_ref(k, dt, c, "dy"), *y = dev_new(k, dt, ref_count(c, "y")),
        *dx = dev_new(k, dt, ref_count(c, "x"));
    char what[64];
    if (json_object_get(c, "glu")) {
        const int64_t ffn = ref_int(c, "ffn");
        k->glu_fwd(dt, act, y, x, n, ffn);
        k->glu_bwd(dt, act, dx, dy, x, n, ffn);
        snprintf(what, sizeof what, "glu %s", ref_str(c, "act"));
        expect_dev(k, what, dt, y, c, "y", limit);
        expect_dev(k, what, dt, dx, c, "dx", limit);
    } else {
        k->act_fwd(dt, act, y, x, n);
        k->act_bwd(dt, act, dx, dy, x, n);
        snprintf(what, sizeof what, "act %s", ref_str(c, "act"));
        expect_dev(k, what, dt, y, c, "y", limit);
        expect_dev(k, what, dt, dx, c, "dx", limit);
        k->act_bwd(dt, act, dy, dy, x, n); // in place
        expect_dev(k, what, dt, dy, c, "dx", limit);
        k->act_fwd(dt, act, x, x, n);
        expect_dev(k, what, dt, x, c, "y", limit);
    }
    DEV_FREE(k, x, dy, y, dx);
}

static void against_pytorch(void **state) {
    (void)state;
    const Kernels *k = ref_open(2);
    json_t *cases = ref_load("act");
    for (int d = 0; d < DS_COUNT(ref_dtypes); d++)
        for (size_t i = 0; i < json_array_size(cases); i++) one(k, ref_dtypes[d], json_array_get(cases, i));
    json_decref(cases);
}

// exp (through silu's sigmoid and log-probs) and erf over their whole range, against the C library in double.
static void functions_are_accurate(void **state) {
    (void)state;
    enum { N = 40001 };
    const Kernels *k = ref_open(2);
    float *x = mem_array(N, sizeof *x), *gelu = mem_array(N, sizeof *gelu), *silu = mem_array(N, sizeof *silu);
    double worst_gelu = 0.0, worst_silu = 0.0;
    for (int i = 0; i < N; i++) x[i] = (float)(i - N / 2) * (20.0f / (N / 2));
    Dev *p = dev_floats(k, DS_F32, x, N), *y = dev_new(k, DS_F32, N);
    k->act_fwd(DS_F32, KERNEL_ACT_GELU, y, p, N);
    k->copy_out(gelu, y, N * sizeof *gelu);
    k->act_fwd(DS_F32, KERNEL_ACT_SILU, y, p, N);
    k->copy_out(silu, y, N * sizeof *silu);
    for (int i = 0; i < N; i++) {
        const double g = 0.5 * x[i] * (1.0 + erf(x[i] * sqrt(0.5))), s = x[i] / (1.0 + exp(-(double)x[i]));
        worst_gelu = fmax(worst_gelu, fabs(gelu[i] - g) / fmax(fabs(x[i]), 1e-30));
        worst_silu = fmax(worst_silu, s == 0.0 ? fabs(silu[i]) : fabs(silu[i] - s) / fabs(s));
    }
    printf("  gelu: worst error %.2g of |x|; silu: worst relative error %.2g\n", worst_gelu, worst_silu);
    assert_true(worst_gelu < 1.5e-7);
    assert_true(worst_silu < 4e-7);
    mem_free(x), mem_free(gelu), mem_free(silu);
    DEV_FREE(k, p, y);
}

static void sums(void **state) {
    (void)state;
    const Kernels *k = ref_open(2);
    static const int64_t sizes[] = {1, 15, 16, 17, 20000};
    for (int i = 0; i < DS_COUNT(sizes); i++) {
        const int64_t n = sizes[i];
        float *x = rand_floats(n + 1, 1.0, 71), *y = rand_floats(n + 1, 1.0, 72),
              *want = mem_array(n + 1, sizeof *want);
        for (int64_t j = 0; j <= n; j++) want[j] = j < n ? x[j] + y[j] : y[j]; // the element after the last stays
        for (int d = 0; d < DS_COUNT(ref_dtypes); d++) {
            Dev *px = dev_floats(k, ref_dtypes[d], x, n + 1), *py = dev_floats(k, ref_dtypes[d], y, n + 1);
            k->add(ref_dtypes[d], py, px, n);
            float *got = host_floats(k, ref_dtypes[d], py, n + 1);
            expect_floats("add", ref_dtypes[d], got, want, n + 1, ref_dtypes[d] == DS_F32 ? 0.0 : 1.0);
            assert_true(got[n] == y[n]);
            mem_free(got);
            DEV_FREE(k, px, py);
        }
        mem_free(x), mem_free(y), mem_free(want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_pytorch), cmocka_unit_test(functions_are_accurate),
                                       cmocka_unit_test(sums)};
    return cmocka_run_group_tests_name("act", tests, NULL, NULL);
}
