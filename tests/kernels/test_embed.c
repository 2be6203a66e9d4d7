// test_embed.c: embedding, gather and scatter against PyTorch.
#include "ref.h"

static void one(const Kernels *k, DType dt, const json_t *c) {
    const int64_t n = ref_int(c, "n"), width = ref_int(c, "width"), rows = ref_int(c, "rows"),
                  offset = ref_int(c, "offset");
    Dev *table = dev_ref(k, dt, c, "table"), *pos_table = dev_ref(k, dt, c, "pos_table"),
        *ids = dev_ref_ints(k, c, "ids");
    Dev *pos = dev_ref_ints(k, c, "pos"), *y = dev_new(k, dt, n * width), *dy = dev_ref(k, dt, c, "dy");
    Dev *dtable = dev_new(k, DS_F32, rows * width), *dpos = dev_new(k, DS_F32, 12 * width),
        *sums = dev_new(k, dt, rows * width);
    k->embed_fwd(dt, y, table, 0, rows, ids, pos_table, pos, offset, n, width);
    expect_dev(k, "embed_fwd", dt, y, c, "y", 1.0);
    k->embed_fwd(dt, y, table, 0, rows, ids, NULL, NULL, 0, n, width);
    expect_dev(k, "embed_fwd, no positions", dt, y, c, "y_plain", 0.0);
    k->gather_rows(dt, y, table, ids, n, width);
    expect_dev(k, "gather_rows", dt, y, c, "y_plain", 0.0);
    k->embed_bwd(dt, dtable, rows, dy, ids, 0, n, width);
    expect_dev_f32(k, "embed_bwd", DS_F32, dtable, c, "dtable", 4.0);
    k->embed_bwd(dt, dpos, 12, dy, pos, offset, n, width);
    expect_dev_f32(k, "embed_bwd, positions", DS_F32, dpos, c, "dpos", 4.0);
    // Two halves of the table, as two tensor ranks have them: their rows add up to all.
    const int64_t half = rows / 2;
    const size_t e = dtype_bytes(dt);
    Dev *upper = dev_new(k, dt, n * width), *sum = dev_new(k, DS_F32, rows * width);
    k->embed_fwd(dt, y, table, 0, half, ids, pos_table, pos, offset, n, width);
    k->embed_fwd(dt, upper, dev_at(table, (size_t)(half * width) * e), half, rows - half, ids, NULL, NULL, 0, n, width);
    k->add(dt, y, upper, n * width);
    expect_dev(k, "embed_fwd, two parts", dt, y, c, "y", 1.0);
    k->embed_bwd(dt, sum, half, dy, ids, 0, n, width);
    k->embed_bwd(dt, dev_at(sum, (size_t)(half * width) * sizeof(float)), rows - half, dy, ids, -half, n, width);
    expect_dev_f32(k, "embed_bwd, two parts", DS_F32, sum, c, "dtable", 4.0);
    DEV_FREE(k, upper, sum);
    k->scatter_rows(dt, sums, dy, ids, n, width);
    expect_dev(k, "scatter_rows", dt, sums, c, "dtable", 4.0);
    DEV_FREE(k, table, pos_table, ids, pos, y, dy, dtable, dpos, sums);
}

static void against_pytorch(void **state) {
    (void)state;
    const Kernels *k = ref_open(2);
    json_t *cases = ref_load("embed");
    for (int d = 0; d < DS_COUNT(ref_dtypes); d++)
        for (size_t i = 0; i < json_array_size(cases); i++) one(k, ref_dtypes[d], json_array_get(cases, i));
    json_decref(cases);
}

// Enough rows for several threads: the sums are the same bits for 1 and 2, because each row of the table is summed in
// order.
static void scatter_is_the_same_for_any_threads(void **state) {
    (void)state;
    enum { N = 300, WIDTH = 70, ROWS = 5 };
    const Kernels *k = ref_open(1);
    int32_t ids[N];
    for (int i = 0; i < N; i++) ids[i] = i * 7 % ROWS;
    Dev *dy = dev_rand(k, DS_F32, N * WIDTH, 1.0, 1), *dev_id = dev_ints(k, ids, N);
    Dev *a = dev_new(k, DS_F32, ROWS * WIDTH), *b = dev_new(k, DS_F32, ROWS * WIDTH);
    k->embed_bwd(DS_F32, a, ROWS, dy, dev_id, 0, N, WIDTH);
    k = ref_open(2);
    k->embed_bwd(DS_F32, b, ROWS, dy, dev_id, 0, N, WIDTH);
    expect_same_bits(k, "embed_bwd at 1 and 2 threads", a, b, ROWS * WIDTH * sizeof(float));
    DEV_FREE(k, dy, dev_id, a, b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_pytorch),
                                       cmocka_unit_test(scatter_is_the_same_for_any_threads)};
    return cmocka_run_group_tests_name("embed", tests, NULL, NULL);
}
