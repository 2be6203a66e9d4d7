// test_low_rank.c: products of low rank added to a weight, and their gradients, against the same sums in double,
// element by element.
#include "ref.h"

typedef struct {
    int64_t out, rank, in;
} Shape;

static const Shape shapes[] = {{1, 1, 1},    {7, 1, 5}, {33, 3, 17},   {1, 4, 9},
                               {9, 4, 1},    {5, 8, 3}, {65, 16, 129}, // more rank than rows; a rank of full lanes
                               {1100, 5, 33}};                         // more rows than a bf16 weight is cut to
static const float scale = 1.75f;

enum { THREADS = 2 };

// c [m, n] = beta c + scale a b in double: element (i, j) of a is a[i * a_row + j * a_col], b alike.
static void product(float *c, float beta, const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t b_row,
                    int64_t b_col, int64_t m, int64_t n, int64_t k) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++) sum += (double)a[i * a_row + l * a_col] * b[l * b_row + j * b_col];
            c[i * n + j] = (float)((double)beta * c[i * n + j] + scale * sum);
        }
}

static void forward(const Kernels *k, DType dt, Shape s) {
    const int64_t n = s.out * s.in;
    float *want = rand_floats(n, 1, 1), *b = rand_floats(s.out * s.rank, 1, 2), *a = rand_floats(s.rank * s.in, 1, 3);
    Dev *w = dev_floats(k, dt, want, n), *kept = dev_floats(k, dt, want, n), *y = dev_new(k, dt, n);
    Dev *pb = dev_floats(k, dt, b, s.out * s.rank), *pa = dev_floats(k, dt, a, s.rank * s.in);
    product(want, 1, b, s.rank, 1, a, s.in, 1, s.out, s.in, s.rank);
    k->low_rank_fwd(dt, y, w, pb, pa, scale, s.out, s.rank, s.in);
    float *got = host_floats(k, dt, y, n);
    expect_floats("low_rank_fwd", dt, got, want, n, dt == DS_F32 ? 4 : 1);
    expect_same_bits(k, "low_rank_fwd: w", w, kept, (size_t)n * dtype_bytes(dt));
    k->low_rank_fwd(dt, w, w, pb, pa, scale, s.out, s.rank, s.in);
    expect_same_bits(k, "low_rank_fwd in place", w, y, (size_t)n * dtype_bytes(dt));
    mem_free(want), mem_free(b), mem_free(a), mem_free(got);
    DEV_FREE(k, w, kept, y, pb, pa);
}

// Gradients are added to what is there.
static void backward(const Kernels *k, DType dt, Shape s) {
    const int64_t n_b = s.out * s.rank, n_a = s.rank * s.in;
    float *dy = rand_floats(s.out * s.in, 1, 4), *b = rand_floats(n_b, 1, 2), *a = rand_floats(n_a, 1, 3);
    float *db = rand_floats(n_b, 1, 5), *da = rand_floats(n_a, 1, 6);
    Dev *pdy = dev_floats(k, DS_F32, dy, s.out * s.in), *pb = dev_floats(k, dt, b, n_b),
        *pa = dev_floats(k, dt, a, n_a);
    Dev *pdb = dev_floats(k, DS_F32, db, n_b), *pda = dev_floats(k, DS_F32, da, n_a);
    product(db, 1, dy, s.in, 1, a, 1, s.in, s.out, s.rank, s.in);
    product(da, 1, b, 1, s.rank, dy, s.in, 1, s.rank, s.in, s.out);
    k->low_rank_bwd(dt, pdb, pda, pdy, pb, pa, scale, s.out, s.rank, s.in);
    float *got_b = host_floats(k, DS_F32, pdb, n_b), *got_a = host_floats(k, DS_F32, pda, n_a);
    expect_floats("low_rank_bwd db", DS_F32, got_b, db, n_b, 8);
    expect_floats("low_rank_bwd da", DS_F32, got_a, da, n_a, 8);
    mem_free(dy), mem_free(b), mem_free(a), mem_free(db), mem_free(da), mem_free(got_b), mem_free(got_a);
    DEV_FREE(k, pdy, pb, pa, pdb, pda);
}

typedef void (*Check)(const Kernels *k, DType dt, Shape s);
static void everywhere(Check check) {
    for (int threads = 1; threads <= THREADS; threads++)
        for (int d = 0; d < DS_COUNT(ref_dtypes); d++)
            for (int i = 0; i < DS_COUNT(shapes); i++) check(ref_open(threads), ref_dtypes[d], shapes[i]);
}

static void effective_weights(void **state) {
    (void)state;
    everywhere(forward);
}

static void gradients(void **state) {
    (void)state;
    everywhere(backward);
}

// A tensor rank may keep no rows or no columns of a weight: nothing is written, what it shares stays as it is.
static void nothing_to_do(void **state) {
    (void)state;
    static const Shape empty[] = {{0, 3, 5}, {5, 3, 0}, {0, 1, 0}};
    const Kernels *k = ref_open(1);
    for (int d = 0; d < DS_COUNT(ref_dtypes); d++)
        for (int i = 0; i < DS_COUNT(empty); i++) {
            const DType dt = ref_dtypes[d];
            const Shape s = empty[i];
            Dev *y = dev_rand(k, dt, 16, 1, 1), *y_kept = dev_rand(k, dt, 16, 1, 1), *x = dev_rand(k, dt, 16, 1, 2);
            Dev *g = dev_rand(k, DS_F32, 16, 1, 3), *g_kept = dev_rand(k, DS_F32, 16, 1, 3);
            k->low_rank_fwd(dt, y, y, x, x, scale, s.out, s.rank, s.in);
            k->low_rank_bwd(dt, g, g, g_kept, x, x, scale, s.out, s.rank, s.in);
            expect_same_bits(k, "low_rank_fwd of nothing", y, y_kept, 16 * dtype_bytes(dt));
            expect_same_bits(k, "low_rank_bwd of nothing", g, g_kept, 16 * sizeof(float));
            DEV_FREE(k, y, y_kept, x, g, g_kept);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(effective_weights), cmocka_unit_test(gradients),
                                       cmocka_unit_test(nothing_to_do)};
    return cmocka_run_group_tests_name("low_rank", tests, NULL, NULL);
}
