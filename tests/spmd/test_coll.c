// test_coll.c: every exchange against what one process computes from all ranks' numbers; odd sizes and empty ones.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "comm/agree.h"
#include "comm/coll.h"
#include "comm/world.h"
#include "kernels/kernels.h"

static const Kernels *kernels;

static float element(int rank, int64_t i) { return (float)sin(1.7 * rank + 0.31 * (double)i) * (float)(1 + i % 7); }

// The sum in the documented tree: neighbours first.
static float tree(int size, int64_t i) {
    float slot[64];
    for (int r = 0; r < size; r++) slot[r] = element(r, i);
    for (int step = 1; step < size; step *= 2)
        for (int r = 0; r + step < size; r += 2 * step) slot[r] += slot[r + step];
    return slot[0];
}

static void allreduce(void **state) {
    (void)state;
    const Group *g = group_world();
    const int64_t sizes[] = {0, 1, 3, 1000, 65537, (1 << 21) + 5};
    for (int s = 0; s < DS_COUNT(sizes); s++) {
        const int64_t n = sizes[s];
        float *x = MEM_NEW(float, n);
        Dev *d = kernels->mem_create((size_t)(n + 1) * sizeof *x, MEM_WEIGHTS);
        for (int64_t i = 0; i < n; i++) x[i] = element(group_rank(g), i);
        kernels->copy_in(d, x, (size_t)n * sizeof *x);
        coll_allreduce(g, kernels, DS_F32, d, n);
        kernels->copy_out(x, d, (size_t)n * sizeof *x);
        for (int64_t i = 0; i < n; i++)
            if (x[i] != tree(group_size(g), i))
                fail_msg("n = %lld: element %lld is not the tree's sum", (long long)n, (long long)i);
        kernels->mem_destroy(d);
        mem_free(x);
    }
}

static void reduce_scatter_and_gather(void **state) {
    (void)state;
    const Group *g = group_world();
    const int64_t part = 12345, n = part * group_size(g);
    float *x = MEM_NEW(float, n);
    Dev *d = kernels->mem_create((size_t)n * sizeof *x, MEM_WEIGHTS);
    for (int64_t i = 0; i < n; i++) x[i] = element(group_rank(g), i);
    kernels->copy_in(d, x, (size_t)n * sizeof *x);
    int64_t before = coll_bytes_sent();
    coll_reduce_scatter(g, kernels, d, n);
    assert_int_equal(coll_bytes_sent() - before,
                     part * (group_size(g) - 1) * (int64_t)sizeof *x); // (d-1)/d of the buffer
    coll_allgather_dev(g, d, part, sizeof *x);
    kernels->copy_out(x, d, (size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) assert_true(x[i] == tree(group_size(g), i));
    kernels->mem_destroy(d);
    mem_free(x);
}

// Each rank gets what every other has for it, and nothing in its own place; what it sends is counted as it was told.
static void exchange(void **state) {
    (void)state;
    const Group *g = group_world();
    const int size = group_size(g), rank = group_rank(g);
    enum { SLOT = 17 };
    float *x = MEM_NEW(float, SLOT *size);
    Dev *out = kernels->mem_create((size_t)(SLOT * size) * sizeof *x, MEM_COMM),
        *in = kernels->mem_create((size_t)(SLOT * size) * sizeof *x, MEM_COMM);
    for (int i = 0; i < SLOT * size; i++) x[i] = (float)(10000 * rank + i);
    kernels->copy_in(out, x, (size_t)(SLOT * size) * sizeof *x);
    for (int i = 0; i < SLOT * size; i++) x[i] = -1;
    kernels->copy_in(in, x, (size_t)(SLOT * size) * sizeof *x);
    const int64_t all = coll_bytes_sent(), before = coll_bytes_sent_as(COLL_REDUCE_SCATTER);
    coll_exchange_dev(g, COLL_REDUCE_SCATTER, out, in, SLOT * sizeof *x);
    const int64_t want = (size - 1) * SLOT * (int64_t)sizeof *x;
    assert_int_equal(coll_bytes_sent() - all, want);
    assert_int_equal(coll_bytes_sent_as(COLL_REDUCE_SCATTER) - before, want);
    kernels->copy_out(x, in, (size_t)(SLOT * size) * sizeof *x);
    for (int r = 0; r < size; r++)
        for (int i = 0; i < SLOT; i++)
            assert_true(x[SLOT * r + i] == (r == rank ? -1 : (float)(10000 * r + SLOT * rank + i)));
    kernels->mem_destroy(out);
    kernels->mem_destroy(in);
    mem_free(x);
}

static void host_sums(void **state) {
    (void)state;
    const Group *g = group_world();
    const int size = group_size(g), rank = group_rank(g);
    double x[2] = {1.0 / (rank + 1), rank}, want = 0, top = rank, last = rank == 0 ? 1e16 : 1;
    int64_t n = rank + 1, high = 10 - rank;
    for (int r = 0; r < size; r++) want += 1.0 / (r + 1);
    coll_sum_f64(g, x, 2);
    coll_sum_f64(g, &last, 1);
    coll_sum_i64(g, &n, 1);
    coll_max_i64(g, &high, 1);
    coll_max_f64(g, &top, 1);
    assert_true(x[0] == want);
    assert_true(last == 1e16); // rank 0 comes first, to which each 1 is less than half a place
    assert_int_equal(n, size * (size + 1) / 2);
    assert_int_equal(high, 10);
    assert_true(top == size - 1);
}

// Ragged pieces, some empty.
static void ragged(void **state) {
    (void)state;
    const Group *g = group_world();
    const int size = group_size(g), rank = group_rank(g);
    char mine[64];
    memset(mine, 'a' + rank, sizeof mine);
    void *all = NULL;
    size_t *offset = MEM_NEW(size_t, size + 1), at = 0;
    coll_allgatherv(g, mine, (size_t)(rank % 3) * 20, &all, offset);
    for (int r = 0; r < size; r++) {
        assert_int_equal(offset[r], at);
        for (int i = 0; i < r % 3 * 20; i++) assert_int_equal(((char *)all)[at++], 'a' + r);
    }
    assert_int_equal(offset[size], at);
    mem_free(all);
    mem_free(offset);
}

// One rank fails: all get its code and its words.
static void one_error(void **state) {
    (void)state;
    const Group *g = group_world();
    const int last = group_size(g) - 1;
    Err err = group_rank(g) == last ? err_set(DS_ERR_DATA, "x.h5: short") : DS_OK;
    assert_int_equal(agree_err(g, err), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "x.h5: short"));
    if (last > 0) assert_non_null(strstr(err_text(), "rank "));
    err_clear();
    assert_int_equal(agree_err(g, DS_OK), DS_OK);
    assert_true(agree_any(g, group_rank(g) == last));
    assert_false(agree_any(g, false));
}

static void split(void **state) {
    (void)state;
    const Group *g = group_world();
    Group *part = group_split(g, group_rank(g) % 2, -group_rank(g));
    int64_t n = 1;
    coll_sum_i64(part, &n, 1);
    assert_int_equal(n, group_size(part));
    assert_int_equal(group_size(part), (group_size(g) + 1 - group_rank(g) % 2) / 2);
    int64_t top = group_rank(g);
    coll_bcast(part, &top, sizeof top, 0); // ordered by key: the highest world rank is first
    assert_true(top >= group_rank(g));
    group_destroy(&part);
}

int main(void) {
    world_init();
    if (kernels_open("cpu", "auto", 1, &kernels)) return DS_ERR_BUG;
    const struct CMUnitTest tests[] = {cmocka_unit_test(allreduce), cmocka_unit_test(reduce_scatter_and_gather),
                                       cmocka_unit_test(exchange),  cmocka_unit_test(host_sums),
                                       cmocka_unit_test(ragged),    cmocka_unit_test(one_error),
                                       cmocka_unit_test(split)};
    int failed = cmocka_run_group_tests_name("coll", tests, NULL, NULL);
    world_finalize();
    return failed;
}
