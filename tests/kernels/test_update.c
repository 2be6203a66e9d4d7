// test_update.c: AdamW against PyTorch's; sums of squares, moving averages and the other passes over flat buffers.
#include "ref.h"

static void against_pytorch(void **state) {
    (void)state;
    const Kernels *k = ref_open(2);
    json_t *cases = ref_load("adamw");
    const json_t *c = json_array_get(cases, 0);
    const int64_t n = ref_int(c, "n"), steps = ref_int(c, "steps");
    Dev *w = dev_ref(k, DS_F32, c, "w"), *m = dev_new(k, DS_F32, n), *v = dev_new(k, DS_F32, n),
        *g = dev_ref(k, DS_F32, c, "g"), *h = dev_new(k, DS_BF16, n);
    AdamwArgs a = {.lr = ref_num(c, "lr"),
                   .beta1 = ref_num(c, "beta1"),
                   .beta2 = ref_num(c, "beta2"),
                   .eps = ref_num(c, "eps"),
                   .weight_decay = ref_num(c, "wd"),
                   .grad_scale = ref_num(c, "scale")};
    for (int64_t s = 0; s < steps; s++) {
        a.correction1 = 1.0 - pow(a.beta1, (double)(s + 1));
        a.correction2 = 1.0 - pow(a.beta2, (double)(s + 1));
        k->adamw(s % 2 ? DS_F32 : DS_BF16, s % 2 ? NULL : h, w, m, v, dev_at(g, (size_t)(s * n) * 4), n, a);
    }
    expect_dev(k, "adamw w", DS_F32, w, c, "w_end", 4.0);
    expect_dev(k, "adamw m", DS_F32, m, c, "m_end", 8.0);
    expect_dev(k, "adamw v", DS_F32, v, c, "v_end", 8.0);
    k->adamw(DS_BF16, h, w, m, v, g, n, a);
    float *w32 = host_floats(k, DS_F32, w, n), *w16 = host_floats(k, DS_BF16, h, n);
    for (int64_t i = 0; i < n; i++) assert_true(w16[i] == bf16_to_f32(f32_to_bf16(w32[i])));
    mem_free(w32), mem_free(w16);
    json_decref(cases);
    DEV_FREE(k, w, m, v, g, h);
}

static void sums_of_squares(void **state) {
    (void)state;
    enum { N = 70001, CHUNK = 4096, CHUNKS = (N + CHUNK - 1) / CHUNK };
    float *x = rand_floats(N, 3.0, 101);
    double want[CHUNKS] = {0}, got[2][CHUNKS];
    for (int i = 0; i < N; i++) want[i / CHUNK] += (double)x[i] * x[i];
    for (int threads = 1; threads <= 2; threads++) {
        const Kernels *k = ref_open(threads);
        Dev *p = dev_floats(k, DS_F32, x, N);
        k->sumsq(got[threads - 1], p, N, CHUNK);
        for (int i = 0; i < CHUNKS; i++) assert_true(fabs(got[threads - 1][i] - want[i]) <= 1e-13 * want[i]);
        k->mem_destroy(p);
    }
    assert_memory_equal(got[0], got[1], sizeof got[0]);
    const Kernels *k = ref_open(1);
    x[CHUNK + 3] = NAN, x[3 * CHUNK] = -INFINITY;
    Dev *p = dev_floats(k, DS_F32, x, N);
    k->sumsq(got[0], p, N, CHUNK);
    assert_true(isfinite(got[0][0]) && isnan(got[0][1]) && isfinite(got[0][2]) && isinf(got[0][3]));
    k->mem_destroy(p);
    mem_free(x);
}

static void flat_passes(void **state) {
    (void)state;
    enum { N = 20003 };
    const Kernels *k = ref_open(2);
    float *x = rand_floats(N, 1.0, 111), *y = rand_floats(N, 1.0, 112), *want = mem_array(N, sizeof *want);
    Dev *px = dev_floats(k, DS_F32, x, N), *py = dev_floats(k, DS_F32, y, N);
    k->axpy(py, 0.3f, px, N);
    k->scale(py, -2.0f, N);
    k->ema(py, px, N, 0.992f);
    for (int i = 0; i < N; i++) want[i] = (float)(0.992 * -2.0 * (y[i] + 0.3 * x[i]) + 0.008 * x[i]);
    float *got = host_floats(k, DS_F32, py, N);
    expect_floats("axpy, scale, ema", DS_F32, got, want, N, 4.0);
    mem_free(x), mem_free(y), mem_free(want), mem_free(got);
    DEV_FREE(k, px, py);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_pytorch), cmocka_unit_test(sums_of_squares),
                                       cmocka_unit_test(flat_passes)};
    return cmocka_run_group_tests_name("update", tests, NULL, NULL);
}
