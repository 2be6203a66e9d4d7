// test_update.c: AdamW against PyTorch's, on whole master weights and on those in halves; sums of squares, moving
// averages and the other passes over flat buffers.
#include "ref.h"

// dt: of the weights; bf16 ones have the rest of the master weights beside them.
static void against_pytorch_as(DType dt) {
    const Kernels *k = ref_open(2);
    json_t *cases = ref_load("adamw");
    const json_t *c = json_array_get(cases, 0);
    const int64_t n = ref_int(c, "n"), steps = ref_int(c, "steps");
    Dev *w = dev_ref(k, DS_F32, c, "w"), *m = dev_new(k, DS_F32, n), *v = dev_new(k, DS_F32, n),
        *g = dev_ref(k, DS_F32, c, "g"), *h = dev_new(k, DS_BF16, n), *rest = dev_new(k, DS_BF16, n);
    k->master_split(h, rest, w, n);
    AdamwArgs a = {.lr = ref_num(c, "lr"),
                   .beta1 = ref_num(c, "beta1"),
                   .beta2 = ref_num(c, "beta2"),
                   .eps = ref_num(c, "eps"),
                   .weight_decay = ref_num(c, "wd"),
                   .grad_scale = ref_num(c, "scale")};
    for (int64_t s = 0; s < steps; s++) {
        a.correction1 = 1.0 - pow(a.beta1, (double)(s + 1));
        a.correction2 = 1.0 - pow(a.beta2, (double)(s + 1));
        k->adamw(dt, dt == DS_F32 ? w : h, dt == DS_F32 ? NULL : rest, m, v, dev_at(g, (size_t)(s * n) * 4), n, a);
    }
    if (dt != DS_F32) k->master_join(w, h, rest, n);
    expect_dev(k, "adamw w", DS_F32, w, c, "w_end", 4.0);
    expect_dev(k, "adamw m", DS_F32, m, c, "m_end", 8.0);
    expect_dev(k, "adamw v", DS_F32, v, c, "v_end", 8.0);
    json_decref(cases);
    DEV_FREE(k, w, m, v, g, h, rest);
}

static void against_pytorch(void **state) {
    (void)state;
    against_pytorch_as(DS_F32);
    against_pytorch_as(DS_BF16);
}

static uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

// Every upper half with the lower halves around 0, the middle and the end: what comes back is what went in, but one
// place of fp32 less in the middle above an even bf16; and its bf16 is what it rounds to.
static void halves(void **state) {
    (void)state;
    static const uint32_t low[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    enum { N = 65536 * 6 };
    const Kernels *k = ref_open(2);
    float *x = mem_array(N, sizeof *x);
    for (uint32_t i = 0; i < N; i++) {
        const uint32_t u = i / 6 << 16 | low[i % 6];
        memcpy(&x[i], &u, sizeof u);
    }
    for (int64_t n = N; n > N - 3; n--) { // whole vectors and not
        Dev *p = dev_new(k, DS_F32, n), *w = dev_new(k, DS_BF16, n), *rest = dev_new(k, DS_BF16, n),
            *back = dev_new(k, DS_F32, n);
        float *got = mem_array((size_t)n, sizeof *got);
        uint16_t *rounded = mem_array((size_t)n, sizeof *rounded);
        k->copy_in(p, x, (size_t)n * sizeof *x);
        k->master_split(w, rest, p, n);
        k->master_join(back, w, rest, n);
        k->copy_out(got, back, (size_t)n * sizeof *got);
        k->copy_out(rounded, w, (size_t)n * sizeof *rounded);
        for (int64_t i = 0; i < n; i++) {
            const bool middle = (bits_of(x[i]) & 0x1ffff) == 0x8000;
            if (isnan(x[i])) assert_true(isnan(got[i]) && isnan(bf16_to_f32(rounded[i])));
            else assert_int_equal(bits_of(got[i]), bits_of(x[i]) - middle);
            if (!isnan(x[i])) assert_int_equal(rounded[i], f32_to_bf16(got[i]));
            if (!isnan(x[i])) assert_int_equal(rounded[i], f32_to_bf16(x[i]));
        }
        mem_free(got), mem_free(rounded);
        DEV_FREE(k, p, w, rest, back);
    }
    mem_free(x);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_pytorch), cmocka_unit_test(halves),
                                       cmocka_unit_test(sums_of_squares), cmocka_unit_test(flat_passes)};
    return cmocka_run_group_tests_name("update", tests, NULL, NULL);
}
