// test_norm.c: LayerNorm, RMSNorm and the norm of heads against PyTorch, and row exactness.
#include "ref.h"

static void rows_case(const Kernels *k, DType dt, const json_t *c) {
    const KernelNorm kind = strcmp(ref_str(c, "kind"), "ln") == 0 ? KERNEL_NORM_LN : KERNEL_NORM_RMS;
    const int64_t n = ref_int(c, "n"), width = ref_int(c, "width");
    const float eps = (float)ref_num(c, "eps");
    Dev *x = dev_ref(k, dt, c, "x"), *w = dev_ref(k, dt, c, "w"), *b = dev_ref(k, dt, c, "b"),
        *dy = dev_ref(k, dt, c, "dy");
    Dev *y = dev_new(k, dt, n * width), *stats = dev_new(k, DS_F32, 2 * n), *dx = dev_ref(k, dt, c, "dy");
    Dev *dw = dev_new(k, DS_F32, width), *db = dev_new(k, DS_F32, width), *bias = kind == KERNEL_NORM_LN ? b : NULL;
    k->norm_fwd(dt, kind, y, stats, x, w, bias, n, width, eps);
    expect_dev(k, "norm_fwd", dt, y, c, "y", dt == DS_F32 ? 4.0 : 1.0);
    expect_dev_f32(k, "norm_fwd stats", DS_F32, stats, c, "stats", 4.0);
    // dx is dy's own memory here
    k->norm_bwd(dt, kind, dx, false, dw, kind == KERNEL_NORM_LN ? db : NULL, dx, x, w, stats, n, width);
    expect_dev(k, "norm_bwd dx", dt, dx, c, "dx", dt == DS_F32 ? 8.0 : 1.0);
    expect_dev_f32(k, "norm_bwd dw", DS_F32, dw, c, "dw", 4.0);
    if (kind == KERNEL_NORM_LN) expect_dev_f32(k, "norm_bwd db", DS_F32, db, c, "db", 4.0);
    // accumulating twice is twice
    k->norm_bwd(dt, kind, y, false, dw, NULL, dy, x, w, stats, n, width);
    k->norm_bwd(dt, kind, y, true, dw, NULL, dy, x, w, stats, n, width);
    float *twice = host_floats(k, dt, y, n * width), *want = ref_floats(c, "dx");
    for (int64_t i = 0; i < n * width; i++) twice[i] *= 0.5f;
    expect_floats("norm_bwd dx accumulated", dt, twice, want, n * width, dt == DS_F32 ? 8.0 : 1.0);
    mem_free(twice);
    mem_free(want);
    // in place forward
    k->norm_fwd(dt, kind, x, NULL, x, w, bias, n, width, eps);
    expect_dev(k, "norm_fwd in place", dt, x, c, "y", dt == DS_F32 ? 4.0 : 1.0);
    DEV_FREE(k, x, w, b, dy, y, stats, dx, dw, db);
}

// Heads inside wider rows: 3 elements before each head, 5 after the last.
static void heads_case(const Kernels *k, DType dt, const json_t *c) {
    const int64_t n = ref_int(c, "n"), heads = ref_int(c, "heads"), dim = ref_int(c, "width"),
                  ld = heads * (dim + 3) + 5;
    float *x = ref_floats(c, "x"), *dy = ref_floats(c, "dy"), *wide = mem_array(n * ld, sizeof(float)),
          *wide_dy = mem_array(n * ld, sizeof(float));
    for (int64_t i = 0; i < n * ld; i++) wide[i] = wide_dy[i] = 7.0f;
    for (int64_t r = 0; r < n * heads; r++)
        for (int64_t i = 0; i < dim; i++) {
            wide[r / heads * ld + r % heads * (dim + 3) + 3 + i] = x[r * dim + i];
            wide_dy[r / heads * ld + r % heads * (dim + 3) + 3 + i] = dy[r * dim + i];
        }
    Dev *px = dev_floats(k, dt, wide, n * ld), *pd = dev_floats(k, dt, wide_dy, n * ld), *w = dev_ref(k, dt, c, "w");
    Dev *raw = dev_new(k, dt, n * heads * dim), *rstd = dev_new(k, DS_F32, n * heads), *dw = dev_new(k, DS_F32, dim);
    const HeadView vx = {dev_at(px, 3 * dtype_bytes(dt)), ld, dim + 3, heads},
                   vd = {dev_at(pd, 3 * dtype_bytes(dt)), ld, dim + 3, heads};
    k->head_norm_fwd(dt, vx, raw, rstd, w, n, dim, (float)ref_num(c, "eps"));
    k->head_norm_bwd(dt, vd, dw, raw, rstd, w, n, dim);
    expect_dev(k, "head_norm_fwd raw", dt, raw, c, "x", 0.0);
    expect_dev_f32(k, "head_norm_fwd rstd", DS_F32, rstd, c, "stats", 4.0);
    expect_dev_f32(k, "head_norm_bwd dw", DS_F32, dw, c, "dw", 4.0);
    float *y = host_floats(k, dt, px, n * ld), *d = host_floats(k, dt, pd, n * ld);
    for (int64_t r = 0; r < n * heads; r++)
        for (int64_t i = 0; i < dim; i++) {
            x[r * dim + i] = y[r / heads * ld + r % heads * (dim + 3) + 3 + i];
            dy[r * dim + i] = d[r / heads * ld + r % heads * (dim + 3) + 3 + i];
        }
    float *want_y = ref_floats(c, "y"), *want_dx = ref_floats(c, "dx");
    expect_floats("head_norm_fwd", dt, x, want_y, n * heads * dim, dt == DS_F32 ? 4.0 : 1.0);
    expect_floats("head_norm_bwd dx", dt, dy, want_dx, n * heads * dim, dt == DS_F32 ? 8.0 : 1.0);
    for (int64_t r = 0; r < n; r++)
        assert_true(y[r * ld] == 7.0f && y[r * ld + ld - 1] == 7.0f); // nothing beside the heads was touched
    mem_free(x), mem_free(dy), mem_free(wide), mem_free(wide_dy), mem_free(y), mem_free(d), mem_free(want_y),
        mem_free(want_dx);
    DEV_FREE(k, px, pd, w, raw, rstd, dw);
}

static void against_pytorch(void **state) {
    (void)state;
    const Kernels *k = ref_open(2);
    json_t *cases = ref_load("norm");
    for (int d = 0; d < DS_COUNT(ref_dtypes); d++)
        for (size_t i = 0; i < json_array_size(cases); i++) {
            const json_t *c = json_array_get(cases, i);
            if (strcmp(ref_str(c, "kind"), "head") == 0) heads_case(k, ref_dtypes[d], c);
            else rows_case(k, ref_dtypes[d], c);
        }
    json_decref(cases);
}

static void rows_are_exact(void **state) {
    (void)state;
    enum { N = 60, WIDTH = 575 };
    const Kernels *k = ref_open(2);
    for (int d = 0; d < DS_COUNT(ref_dtypes); d++) {
        const DType dt = ref_dtypes[d];
        Dev *x = dev_rand(k, dt, N * WIDTH, 1.0, 5), *w = dev_rand(k, dt, WIDTH, 1.0, 6),
            *all = dev_new(k, dt, N * WIDTH), *one = dev_new(k, dt, N * WIDTH);
        k->norm_fwd(dt, KERNEL_NORM_LN, all, NULL, x, w, w, N, WIDTH, 1e-5f);
        for (int64_t r = 0; r < N; r++) {
            const size_t at = (size_t)(r * WIDTH) * dtype_bytes(dt);
            k->norm_fwd(dt, KERNEL_NORM_LN, dev_at(one, at), NULL, dev_at(x, at), w, w, 1, WIDTH, 1e-5f);
        }
        expect_same_bits(k, "norm rows", all, one, N * WIDTH * dtype_bytes(dt));
        DEV_FREE(k, x, w, all, one);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_pytorch), cmocka_unit_test(rows_are_exact)};
    return cmocka_run_group_tests_name("norm", tests, NULL, NULL);
}
