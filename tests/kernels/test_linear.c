// test_linear.c: linear maps against PyTorch and finite differences; row exactness: the same bits for every number of
// rows, every place of a row, 1 and 2 threads; and that nothing past an operand's end is touched.
#include "ref.h"

static void one(const Kernels *k, DType dt, const json_t *c) {
    const int64_t m = ref_int(c, "m"), out = ref_int(c, "out"), in = ref_int(c, "inp");
    Dev *x = dev_ref(k, dt, c, "x"), *w = dev_ref(k, dt, c, "w"), *b = dev_ref(k, dt, c, "b"),
        *dy = dev_ref(k, dt, c, "dy");
    Dev *y = dev_new(k, dt, m * out), *y32 = dev_new(k, DS_F32, m * out), *dx = dev_new(k, dt, m * in);
    Dev *dw = dev_new(k, DS_F32, out * in), *db = dev_new(k, DS_F32, out);
    const double f32 = 4.0, own = dt == DS_F32 ? f32 : 1.0;
    k->linear_fwd(dt, dt, y, x, w, b, m, out, in);
    expect_dev(k, "linear_fwd", dt, y, c, "y", own);
    k->linear_fwd(dt, DS_F32, y32, x, w, NULL, m, out, in);
    expect_dev_f32(k, "linear_fwd to fp32", DS_F32, y32, c, "y_plain", f32);
    k->linear_bwd_x(dt, dx, false, dy, w, m, out, in);
    expect_dev(k, "linear_bwd_x", dt, dx, c, "dx", own);
    k->linear_bwd_x(dt, dx, true, dy, w, m, out, in);
    float *twice = host_floats(k, dt, dx, m * in), *want = ref_floats(c, "dx");
    for (int64_t i = 0; i < m * in; i++) twice[i] *= 0.5f;
    expect_floats("linear_bwd_x accumulated", dt, twice, want, m * in, own);
    mem_free(twice);
    mem_free(want);
    k->linear_bwd_w(dt, dw, db, dy, x, m, out, in);
    expect_dev_f32(k, "linear_bwd_w dw", DS_F32, dw, c, "dw", f32);
    expect_dev_f32(k, "linear_bwd_w dbias", DS_F32, db, c, "db", f32);
    // += : taking the same once more doubles it
    k->linear_bwd_w(dt, dw, NULL, dy, x, m, out, in);
    k->scale(dw, 0.5f, out * in);
    expect_dev_f32(k, "linear_bwd_w accumulated", DS_F32, dw, c, "dw", f32);
    DEV_FREE(k, x, w, b, dy, y, y32, dx, dw);
    k->mem_destroy(db);
}

static void against_pytorch(void **state) {
    (void)state;
    for (int threads = 1; threads <= 2; threads++) {
        const Kernels *k = ref_open(threads);
        json_t *cases = ref_load("linear");
        for (int d = 0; d < DS_COUNT(ref_dtypes); d++)
            for (size_t i = 0; i < json_array_size(cases); i++) one(k, ref_dtypes[d], json_array_get(cases, i));
        json_decref(cases);
    }
}

// Column sums of many rows, which are taken block by block: each is counted once.
static void bias_of_many_rows(void **state) {
    (void)state;
    static const int64_t rows[] = {1, 63, 64, 65, 127, 128, 129, 200}, columns[] = {1, 7, 16, 33};
    const Kernels *k = ref_open(2);
    for (int i = 0; i < DS_COUNT(rows) * DS_COUNT(columns) * DS_COUNT(ref_dtypes); i++) {
        const int64_t m = rows[i % DS_COUNT(rows)], out = columns[i / DS_COUNT(rows) % DS_COUNT(columns)];
        const DType dt = ref_dtypes[i / (DS_COUNT(rows) * DS_COUNT(columns))];
        float *dy = rand_floats(m * out, 1.0, (uint64_t)i), *before = rand_floats(out, 1.0, 1000 + (uint64_t)i);
        if (dt == DS_BF16)
            for (int64_t e = 0; e < m * out; e++) dy[e] = bf16_to_f32(f32_to_bf16(dy[e]));
        Dev *pdy = dev_floats(k, dt, dy, m * out), *db = dev_floats(k, DS_F32, before, out);
        k->linear_bwd_w(dt, NULL, db, pdy, NULL, m, out, 1);
        float *got = host_floats(k, DS_F32, db, out);
        for (int64_t c = 0; c < out; c++) {
            double want = before[c];
            for (int64_t r = 0; r < m; r++) want += dy[r * out + c];
            if (fabs(got[c] - want) > 1e-5 * (1 + sqrt((double)m)))
                fail_msg("%lld rows, column %lld of %lld: %.7g, expected %.7g", (long long)m, (long long)c,
                         (long long)out, (double)got[c], want);
        }
        DEV_FREE(k, pdy, db);
        mem_free(dy), mem_free(before), mem_free(got);
    }
}

// The backward products into what is there already; the second round finds made what the first one left.
static void bwd_bf16_accumulates(void **state) {
    (void)state;
    const Kernels *k = ref_open(2);
    json_t *cases = ref_load("linear");
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < json_array_size(cases); i++) {
            const json_t *c = json_array_get(cases, i);
            const int64_t m = ref_int(c, "m"), out = ref_int(c, "out"), in = ref_int(c, "inp");
            Dev *x = dev_ref(k, DS_BF16, c, "x"), *w = dev_ref(k, DS_BF16, c, "w"), *dy = dev_ref(k, DS_BF16, c, "dy");
            Dev *dx = dev_new(k, DS_BF16, m * in), *dw = dev_new(k, DS_F32, out * in);
            k->linear_bwd_x(DS_BF16, dx, false, dy, w, m, out, in);
            expect_dev(k, "bf16 dx", DS_BF16, dx, c, "dx", 1.0);
            k->linear_bwd_x(DS_BF16, dx, true, dy, w, m, out, in);
            float *twice = host_floats(k, DS_BF16, dx, m * in), *want = ref_floats(c, "dx");
            for (int64_t j = 0; j < m * in; j++) twice[j] *= 0.5f;
            expect_floats("bf16 dx accumulated", DS_BF16, twice, want, m * in, 1.0);
            mem_free(twice), mem_free(want);
            for (int j = 0; j < 2; j++) k->linear_bwd_w(DS_BF16, dw, NULL, dy, x, m, out, in);
            k->scale(dw, 0.5f, out * in);
            expect_dev_f32(k, "bf16 dw", DS_F32, dw, c, "dw", 4.0);
            DEV_FREE(k, x, w, dy, dx, dw);
        }
    }
    json_decref(cases);
}

// ---- row exactness ----
enum { ROWS = 2057, BASE_ROWS = 71 }; // no whole number of tiles

static void row_by_row(const Kernels *k, DType dt, Dev *y, const Dev *x, const Dev *w, const Dev *b, int64_t m,
                       int64_t out, int64_t in) {
    const size_t e = dtype_bytes(dt);
    for (int64_t r = 0; r < m; r++)
        k->linear_fwd(dt, dt, dev_at(y, (size_t)(r * out) * e), dev_cat(x, (size_t)(r * in) * e), w, b, 1, out, in);
}

static void exact_shape(DType dt, int64_t out, int64_t in) {
    const size_t e = dtype_bytes(dt);
    const Kernels *k = ref_open(1);
    Dev *x = dev_rand(k, dt, BASE_ROWS * in, 1.0, 11), *w = dev_rand(k, dt, out * in, 0.05, 12),
        *b = dev_rand(k, dt, out, 1.0, 13);
    Dev *want = dev_new(k, dt, BASE_ROWS * out), *y = dev_new(k, dt, BASE_ROWS * out);
    row_by_row(k, dt, want, x, w, b, BASE_ROWS, out, in);
    for (int threads = 1; threads <= 2; threads++) {
        k = ref_open(threads);
        for (int64_t m = 1; m <= 70; m++) {
            // the rows also change their place: from row `skip` on
            const int64_t skip = m % 2;
            k->linear_fwd(dt, dt, y, dev_at(x, (size_t)(skip * in) * e), w, b, m, out, in);
            expect_same_bits(k, "linear rows", y, dev_at(want, (size_t)(skip * out) * e), (size_t)(m * out) * e);
        }
    }
    DEV_FREE(k, x, w, b, want, y);
}

static void rows_are_exact(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 7, 33, 575, 576};
    // just below, at and above what a tile takes: 16 outputs, 32 inputs
    static const int64_t edges[][2] = {{1, 2}, {5, 4}, {15, 30}, {16, 32}, {17, 34}, {32, 64}, {96, 96}, {200, 130}};
    for (int d = 0; d < DS_COUNT(ref_dtypes); d++) {
        for (int i = 0; i < DS_COUNT(sizes); i++)
            for (int j = 0; j < DS_COUNT(sizes); j++) exact_shape(ref_dtypes[d], sizes[i], sizes[j]);
        for (int i = 0; i < DS_COUNT(edges); i++) exact_shape(ref_dtypes[d], edges[i][0], edges[i][1]);
        exact_shape(ref_dtypes[d], 3072, 64);
        exact_shape(ref_dtypes[d], 40, 3072);
    }
}

static void many_rows_are_exact(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{7, 65}, {100, 576}, {576, 33}, {1, 576}, {17, 34}, {200, 130}, {48, 64}};
    for (int d = 0; d < DS_COUNT(ref_dtypes); d++) {
        for (int i = 0; i < DS_COUNT(shapes); i++) {
            const int64_t out = shapes[i][0], in = shapes[i][1];
            const DType dt = ref_dtypes[d];
            const Kernels *k = ref_open(2);
            Dev *x = dev_rand(k, dt, ROWS * in, 1.0, 21), *w = dev_rand(k, dt, out * in, 0.05, 22);
            Dev *all = dev_new(k, dt, ROWS * out), *one = dev_new(k, dt, ROWS * out);
            k->linear_fwd(dt, dt, all, x, w, NULL, ROWS, out, in);
            row_by_row(k, dt, one, x, w, NULL, ROWS, out, in);
            expect_same_bits(k, "linear, many rows", all, one, (size_t)(ROWS * out) * dtype_bytes(dt));
            DEV_FREE(k, x, w, all, one);
        }
    }
}

// ---- bounds ----
static void edge_shape(const Kernels *k, DType dt, int64_t m, int64_t out, int64_t in) {
    const size_t e = dtype_bytes(dt);
    Dev *x = dev_rand(k, dt, m * in, 1.0, 41), *w = dev_rand(k, dt, out * in, 0.05, 42),
        *b = dev_rand(k, dt, out, 1.0, 43);
    Dev *want = dev_new(k, dt, m * out);
    Edge ex = edge_copy(k, x, (size_t)(m * in) * e), ew = edge_copy(k, w, (size_t)(out * in) * e),
         eb = edge_copy(k, b, (size_t)out * e), ey = edge_create(k, (size_t)(m * out) * e);
    k->linear_fwd(dt, dt, want, x, w, b, m, out, in);
    k->linear_fwd(dt, dt, ey.p, ex.p, ew.p, eb.p, m, out, in);
    expect_same_bits(k, "linear at a page's end", ey.p, want, ey.bytes);
    for (size_t i = 0; i < ey.room - ey.bytes; i++) assert_int_equal(ey.map[i], 0);
    edge_destroy(&ex), edge_destroy(&ew), edge_destroy(&eb), edge_destroy(&ey);
    DEV_FREE(k, x, w, b, want);
}

static void stays_inside(void **state) {
    (void)state;
    static const int64_t rows[] = {1, 5, 16, 17, 33, 48, 100, 300}, outs[] = {1, 16, 17, 33, 48},
                         ins[] = {2, 33, 34, 64, 130};
    const Kernels *k = ref_open(2);
    for (int d = 0; d < DS_COUNT(ref_dtypes); d++)
        for (int i = 0; i < DS_COUNT(rows); i++)
            for (int j = 0; j < DS_COUNT(outs); j++)
                for (int l = 0; l < DS_COUNT(ins); l++) edge_shape(k, ref_dtypes[d], rows[i], outs[j], ins[l]);
}

// ---- finite differences: loss = <c, y> ----
typedef struct {
    const Kernels *k;
    const float *other; // w when x moves, x when w moves
    const float *c;
    bool moves_w;
} Loss;
enum { M = 9, OUT = 21, IN = 35 };

static double loss_of(void *state, const float *moving) {
    const Loss *l = state;
    const Kernels *k = l->k;
    Dev *a = dev_floats(k, DS_F32, moving, l->moves_w ? OUT * IN : M * IN),
        *o = dev_floats(k, DS_F32, l->other, l->moves_w ? M * IN : OUT * IN);
    Dev *y = dev_new(k, DS_F32, M * OUT);
    k->linear_fwd(DS_F32, DS_F32, y, l->moves_w ? o : a, l->moves_w ? a : o, NULL, M, OUT, IN);
    float *h = host_floats(k, DS_F32, y, M * OUT);
    double sum = 0.0;
    for (int i = 0; i < M * OUT; i++) sum += (double)h[i] * l->c[i];
    mem_free(h);
    DEV_FREE(k, a, o, y);
    return sum;
}

static void against_differences(void **state) {
    (void)state;
    const Kernels *k = ref_open(2);
    float *x = rand_floats(M * IN, 1.0, 31), *w = rand_floats(OUT * IN, 1.0, 32), *c = rand_floats(M * OUT, 1.0, 33);
    Dev *px = dev_floats(k, DS_F32, x, M * IN), *pw = dev_floats(k, DS_F32, w, OUT * IN),
        *pc = dev_floats(k, DS_F32, c, M * OUT);
    Dev *dx = dev_new(k, DS_F32, M * IN), *dw = dev_new(k, DS_F32, OUT * IN);
    k->linear_bwd_x(DS_F32, dx, false, pc, pw, M, OUT, IN);
    k->linear_bwd_w(DS_F32, dw, NULL, pc, px, M, OUT, IN);
    float *hx = host_floats(k, DS_F32, dx, M * IN), *hw = host_floats(k, DS_F32, dw, OUT * IN);
    expect_slope("linear x", loss_of, &(Loss){k, w, c, false}, x, hx, M * IN, 0.01, 1e-5);
    expect_slope("linear w", loss_of, &(Loss){k, x, c, true}, w, hw, OUT * IN, 0.01, 1e-5);
    mem_free(x), mem_free(w), mem_free(c), mem_free(hx), mem_free(hw);
    DEV_FREE(k, px, pw, pc, dx, dw);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_pytorch),      cmocka_unit_test(bias_of_many_rows),
                                       cmocka_unit_test(bwd_bf16_accumulates), cmocka_unit_test(rows_are_exact),
                                       cmocka_unit_test(many_rows_are_exact),  cmocka_unit_test(stays_inside),
                                       cmocka_unit_test(against_differences)};
    return cmocka_run_group_tests_name("linear", tests, NULL, NULL);
}
