// test_loader.c: an epoch is each record once, in an order that only seed, stage and epoch decide; a saved cursor goes
// on where it stood.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/mem.h"
#include "data/loader.h"

static Params params_of(int64_t seed, bool shuffle) {
    Params p = {0};
    p.data.order_seed = seed;
    p.data.shuffle = shuffle;
    return p;
}

static Loader loader_of(int64_t seed, bool shuffle, DataKind kind, int64_t n) {
    Params p = params_of(seed, shuffle);
    Loader l = {0};
    loader_create(&l, &p, kind, n);
    return l;
}

static void epoch_is_each_once(void **state) {
    (void)state;
    Loader l = loader_of(3, true, DATA_SFT, 103);
    int64_t record[10], first[103], moved = 0;
    for (int epoch = 0; epoch < 3; epoch++) {
        uint8_t seen[103] = {0};
        int64_t got = 0;
        while (got < 103) {
            int64_t n = loader_next(&l, 10, false, record);
            assert_int_equal(n, got < 100 ? 10 : 3); // the last step of an epoch is shorter
            for (int64_t i = 0; i < n; i++) {
                assert_in_range(record[i], 0, 102);
                assert_false(seen[record[i]]);
                seen[record[i]] = 1;
                if (epoch == 0) first[got + i] = record[i];
                else moved += first[got + i] != record[i];
            }
            got += n;
        }
    }
    assert_true(moved > 150); // another order in every epoch
    loader_free(&l);
}

static void order_depends_on_seed_and_kind(void **state) {
    (void)state;
    int64_t a[64], b[64];
    Loader l = loader_of(3, true, DATA_SFT, 64);
    loader_next(&l, 64, false, a);
    const struct {
        int64_t seed;
        DataKind kind;
        bool same;
    } others[] = {{3, DATA_SFT, true}, {4, DATA_SFT, false}, {3, DATA_RM, false}};
    for (int i = 0; i < DS_COUNT(others); i++) {
        Loader m = loader_of(others[i].seed, true, others[i].kind, 64);
        loader_next(&m, 64, false, b);
        assert_true(others[i].same == !memcmp(a, b, sizeof a));
        loader_free(&m);
    }
    loader_free(&l);
}

static void file_order_and_wrap(void **state) {
    (void)state;
    Loader l = loader_of(1, false, DATA_PPO, 5);
    int64_t record[12];
    assert_int_equal(loader_next(&l, 12, true, record), 12);
    for (int64_t i = 0; i < 12; i++) assert_int_equal(record[i], i % 5);
    assert_int_equal(l.epoch, 2);
    assert_int_equal(l.position, 2);
    assert_int_equal(loader_next(&l, 12, false, record), 3);
    assert_int_equal(loader_next(&l, 0, true, record), 0);
    loader_free(&l);
}

static void cursor_goes_on(void **state) {
    (void)state;
    int64_t a[40], b[40];
    for (int64_t steps = 0; steps < 12; steps++) {
        Loader l = loader_of(11, true, DATA_RM, 23), m = loader_of(11, true, DATA_RM, 23);
        Kv *kv = kv_create();
        for (int64_t i = 0; i < steps; i++) loader_next(&l, 7, steps % 2, a);
        loader_save(&l, "rm.loader", kv);
        assert_true(kv_has(kv, "rm.loader.epoch") && kv_has(kv, "rm.loader.position"));
        loader_next(&m, 5, false, b); // whatever it did before
        assert_int_equal(loader_load(&m, "rm.loader", kv), DS_OK);
        for (int i = 0; i < 5; i++) {
            int64_t n = loader_next(&l, 9, false, a);
            assert_int_equal(loader_next(&m, 9, false, b), n);
            assert_memory_equal(a, b, (size_t)n * sizeof *a);
        }
        kv_destroy(&kv);
        loader_free(&l);
        loader_free(&m);
    }
}

static void bad_cursor_is_refused(void **state) {
    (void)state;
    const int64_t bad[][2] = {{0, 24}, {-1, 0}, {0, -1}, {INT64_MAX, 0}};
    for (int i = 0; i < DS_COUNT(bad); i++) {
        Loader l = loader_of(1, true, DATA_SFT, 23);
        Kv *kv = kv_create();
        kv_put_i64(kv, "x.epoch", bad[i][0]);
        kv_put_i64(kv, "x.position", bad[i][1]);
        assert_int_equal(loader_load(&l, "x", kv), DS_ERR_DATA);
        err_clear();
        assert_int_equal(loader_load(&l, "y", kv), DS_ERR_DATA); // missing
        err_clear();
        assert_int_equal(l.epoch, 0);
        kv_destroy(&kv);
        loader_free(&l);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(epoch_is_each_once),
                                       cmocka_unit_test(order_depends_on_seed_and_kind),
                                       cmocka_unit_test(file_order_and_wrap), cmocka_unit_test(cursor_goes_on),
                                       cmocka_unit_test(bad_cursor_is_refused)};
    return cmocka_run_group_tests_name("loader", tests, NULL, NULL);
}
