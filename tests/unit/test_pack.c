// test_pack.c: every item is dealt once, micro-batches keep their bound, parts are balanced, and the deal is a pure
// function of its arguments.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "data/pack.h"

// Checks a deal, returns the largest part's tokens.
static int64_t check_deal(const int64_t *length, int64_t n, int parts, int64_t micro) {
    Deal d = {0};
    int64_t largest = 0;
    uint8_t *seen = MEM_NEW(uint8_t, n);
    pack_deal(length, n, parts, micro, &d);
    assert_int_equal(d.parts, parts);
    for (int p = 0; p < parts; p++) {
        const PackBatches *b = &d.part[p];
        int64_t total = 0;
        assert_int_equal(b->start[0], 0);
        for (int64_t m = 0; m < b->n; m++) {
            int64_t tokens = 0, items = b->start[m + 1] - b->start[m];
            assert_true(items > 0);
            for (int64_t i = b->start[m]; i < b->start[m + 1]; i++) {
                assert_true(i == 0 || b->item[i] > b->item[i - 1]); // ascending over the whole part
                assert_false(seen[b->item[i]]);
                seen[b->item[i]] = 1;
                tokens += length[b->item[i]];
            }
            assert_true(tokens <= micro || items == 1);
            // Greedy: the first item of the next micro-batch did not fit.
            if (m + 1 < b->n) assert_true(tokens + length[b->item[b->start[m + 1]]] > micro);
            total += tokens;
        }
        largest = ds_max(largest, total);
    }
    for (int64_t i = 0; i < n; i++) assert_true(seen[i]);
    mem_free(seen);
    pack_deal_free(&d);
    return largest;
}

static void deals_everything_once(void **state) {
    (void)state;
    static const int parts[] = {1, 2, 3, 8, 17};
    int64_t length[200];
    for (int64_t i = 0; i < 200; i++) length[i] = 1 + (int64_t)(300 * rng_uniform(7, RNG_SHUFFLE, 0, (uint64_t)i));
    for (int p = 0; p < DS_COUNT(parts); p++)
        for (int64_t n = 0; n <= 200; n += 25)
            for (int64_t micro = 16; micro <= 4096; micro *= 4) check_deal(length, n, parts[p], micro);
}

static void balances_tokens(void **state) {
    (void)state;
    int64_t length[256], sum = 0;
    for (int64_t i = 0; i < 256; i++) {
        double u = rng_uniform(9, RNG_SHUFFLE, 0, (uint64_t)i);
        length[i] = 10 + (int64_t)(500 * u * u * u);
        sum += length[i];
    }
    for (int parts = 2; parts <= 16; parts *= 2) {
        int64_t largest = check_deal(length, 256, parts, 4096);
        assert_true(largest <= sum / parts + sum / (50 * parts) + 1); // within 2 % of even
    }
}

static void deals_the_same_again(void **state) {
    (void)state;
    const int64_t length[] = {5, 5, 5, 5, 9, 9, 1, 1, 1}; // equals must not depend on the sort
    const int64_t expected[2][5] = {{0, 2, 4, 6, 8}, {1, 3, 5, 7, -1}};
    Deal d = {0};
    pack_deal(length, 9, 2, 100, &d);
    for (int p = 0; p < 2; p++) {
        assert_int_equal(d.part[p].n, 1);
        for (int64_t i = 0; i < d.part[p].start[1]; i++) assert_int_equal(d.part[p].item[i], expected[p][i]);
    }
    pack_deal_free(&d);
    pack_deal_free(&d); // a zero one
}

static void reserves_room(void **state) {
    (void)state;
    Batch b = {0};
    batch_reserve(&b, 0, 0);
    b.starts[0] = 0; // [n_seq + 1] even for none
    batch_reserve(&b, 100, 3);
    b.ids[99] = 1, b.pos[99] = 2, b.counted[99] = 1, b.starts[3] = 100, b.sample[2] = 7;
    batch_reserve(&b, 50, 3);
    assert_int_equal(b.ids[99], 1); // smaller: nothing moves
    assert_int_equal(b.cap, 100);
    batch_free(&b);
    assert_null(b.ids);
    batch_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(deals_everything_once), cmocka_unit_test(balances_tokens),
                                       cmocka_unit_test(deals_the_same_again), cmocka_unit_test(reserves_room)};
    return cmocka_run_group_tests_name("pack", tests, NULL, NULL);
}
