// test_rope.c: rotary positions against PyTorch, their inverse, and row exactness.
#include "ref.h"

static void one(const Kernels *k, DType dt, const json_t *c) {
    const int64_t n = ref_int(c, "n"), heads = ref_int(c, "heads"), dim = ref_int(c, "dim"), rot = ref_int(c, "rot");
    Dev *x = dev_ref(k, dt, c, "x"), *pos = dev_ref_ints(k, c, "pos"), *table = dev_ref(k, DS_F32, c, "table");
    const HeadView v = {x, heads * dim, dim, heads};
    k->rope(dt, v, table, pos, n, rot, 1);
    expect_dev(k, "rope", dt, x, c, "y", dt == DS_F32 ? 4.0 : 1.0);
    k->rope(dt, v, table, pos, n, rot, -1);
    expect_dev(k, "rope there and back", dt, x, c, "x", dt == DS_F32 ? 4.0 : 3.0);
    DEV_FREE(k, x, pos, table);
}

static void against_pytorch(void **state) {
    (void)state;
    const Kernels *k = ref_open(2);
    json_t *cases = ref_load("rope");
    for (int d = 0; d < DS_COUNT(ref_dtypes); d++)
        for (size_t i = 0; i < json_array_size(cases); i++) one(k, ref_dtypes[d], json_array_get(cases, i));
    json_decref(cases);
}

// Many tokens at once (more than one thread) and one at a time; what lies beside the heads stays.
static void rows_are_exact(void **state) {
    (void)state;
    enum { N = 400, HEADS = 3, DIM = 40, ROT = 24, LD = HEADS * DIM + 8, POSITIONS = 30 };
    const Kernels *k = ref_open(2);
    int32_t pos[N];
    for (int i = 0; i < N; i++) pos[i] = i % POSITIONS;
    for (int d = 0; d < DS_COUNT(ref_dtypes); d++) {
        const DType dt = ref_dtypes[d];
        const size_t e = dtype_bytes(dt);
        Dev *a = dev_rand(k, dt, N * LD, 1.0, 61), *b = dev_rand(k, dt, N * LD, 1.0, 61),
            *before = dev_rand(k, dt, N * LD, 1.0, 61);
        Dev *table = dev_rand(k, DS_F32, POSITIONS * ROT, 1.0, 62), *p = dev_ints(k, pos, N);
        k->rope(dt, (HeadView){a, LD, DIM, HEADS}, table, p, N, ROT, 1);
        for (int i = 0; i < N; i++) {
            const size_t row = (size_t)(i * LD) * e;
            k->rope(dt, (HeadView){dev_at(b, row), LD, DIM, HEADS}, table, dev_at(p, (size_t)i * 4), 1, ROT, 1);
            expect_same_bits(k, "beside the heads", dev_at(a, row + HEADS * DIM * e),
                             dev_at(before, row + HEADS * DIM * e), 8 * e);
            expect_same_bits(k, "unrotated dims", dev_at(a, row + ROT * e), dev_at(before, row + ROT * e),
                             (DIM - ROT) * e);
        }
        expect_same_bits(k, "rope rows", a, b, N * LD * e);
        DEV_FREE(k, a, b, before, table, p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_pytorch), cmocka_unit_test(rows_are_exact)};
    return cmocka_run_group_tests_name("rope", tests, NULL, NULL);
}
