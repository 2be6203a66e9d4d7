// test_pack.c: every item is dealt once, micro-batches keep their bound, parts are balanced, and the deal is a pure
// function of its arguments.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "data/pack.h"
#include "data/partition.h"

// Micro-batches if the items of a part are taken as they come.
static int64_t in_order(const int64_t *length, const PackBatches *b, int64_t n, int64_t micro) {
    int64_t count = 0, tokens = 0;
    uint8_t *here = MEM_NEW(uint8_t, n);
    for (int64_t i = 0; i < b->start[b->n]; i++) here[b->item[i]] = 1;
    for (int64_t i = 0; i < n; i++) {
        if (!here[i]) continue;
        if (count == 0 || tokens + length[i] > micro) count++, tokens = 0;
        tokens += length[i];
    }
    mem_free(here);
    return count;
}

// Tokens of a micro-batch, whose items ascend and have not been seen before.
static int64_t check_batch(const int64_t *length, const PackBatches *b, int64_t m, int64_t micro, uint8_t *seen) {
    int64_t tokens = 0, items = b->start[m + 1] - b->start[m];
    assert_true(items > 0);
    for (int64_t i = b->start[m]; i < b->start[m + 1]; i++) {
        assert_true(i == b->start[m] || b->item[i] > b->item[i - 1]);
        assert_false(seen[b->item[i]]);
        seen[b->item[i]] = 1;
        tokens += length[b->item[i]];
    }
    assert_true(tokens <= micro || items == 1);
    return tokens;
}

// Checks a deal, returns the largest part's tokens.
static int64_t check_deal(const int64_t *length, int64_t n, int parts, int64_t micro) {
    Deal d = {0};
    int64_t largest = 0, most = 0, most_in_order = 0;
    uint8_t *seen = MEM_NEW(uint8_t, n);
    pack_deal(length, n, parts, micro, &d);
    assert_int_equal(d.parts, parts);
    for (int p = 0; p < parts; p++) {
        const PackBatches *b = &d.part[p];
        int64_t total = 0, before = INT64_MAX;
        assert_int_equal(b->start[0], 0);
        for (int64_t m = 0; m < b->n; m++) {
            const int64_t tokens = check_batch(length, b, m, micro, seen);
            assert_true(ds_min(tokens, micro) <= before); // a longer item counts as a full micro-batch
            before = ds_min(tokens, micro);
            total += tokens;
        }
        largest = ds_max(largest, total);
        most = ds_max(most, b->n);
        most_in_order = ds_max(most_in_order, in_order(length, b, n, micro));
    }
    assert_true(most <= most_in_order);
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

// The largest sum if the longest item left always goes to the part with the least.
static int64_t longest_first(const int64_t *length, int64_t n, int parts) {
    int64_t *left = MEM_NEW(int64_t, n), *sum = MEM_NEW(int64_t, parts), largest = 0;
    memcpy(left, length, (size_t)n * sizeof *left);
    for (int64_t dealt = 0; dealt < n; dealt++) {
        int64_t longest = 0;
        int least = 0;
        for (int64_t i = 1; i < n; i++)
            if (left[i] > left[longest]) longest = i;
        for (int p = 1; p < parts; p++)
            if (sum[p] < sum[least]) least = p;
        sum[least] += left[longest];
        largest = ds_max(largest, sum[least]);
        left[longest] = -1;
    }
    mem_free(left);
    mem_free(sum);
    return largest;
}

// What partition_even says is what it did, and no worse than longest first; returns the largest sum.
static int64_t check_even(const int64_t *weight, int64_t n, int parts) {
    int *owner = MEM_NEW(int, n);
    int64_t *sum = MEM_NEW(int64_t, parts), largest = 0;
    const int64_t said = partition_even(weight, n, parts, owner);
    for (int64_t i = 0; i < n; i++) {
        assert_in_range(owner[i], 0, parts - 1);
        sum[owner[i]] += weight[i];
    }
    for (int p = 0; p < parts; p++) {
        largest = ds_max(largest, sum[p]);
        assert_true(n < parts || sum[p] > 0);
    }
    assert_int_equal(largest, said);
    assert_true(largest <= longest_first(weight, n, parts));
    mem_free(owner);
    mem_free(sum);
    return largest;
}

// Lengths as transcripts have them: a log-normal body, cut at 512.
static int64_t transcript(uint64_t id, int64_t i) {
    return (int64_t)ds_min(512, 16 + exp(5 + 0.8 * rng_normal(3, RNG_SHUFFLE, id, (uint64_t)i)));
}

static void is_no_worse_than_longest_first(void **state) {
    (void)state;
    static const int parts[] = {1, 2, 3, 4, 7, 16, 64};
    int64_t length[256], better = 0, tried = 0;
    for (uint64_t id = 0; id < 20; id++)
        for (int64_t n = 1; n <= 256; n += 17)
            for (int p = 0; p < DS_COUNT(parts); p++) {
                for (int64_t i = 0; i < n; i++)
                    length[i] =
                        id % 2 ? transcript(id, i) : 1 + (int64_t)(1000 * rng_uniform(id, RNG_SHUFFLE, 1, (uint64_t)i));
                better += check_even(length, n, parts[p]) < longest_first(length, n, parts[p]);
                tried++;
            }
    assert_true(better > tried / 3);
}

static void solves_what_longest_first_does_not(void **state) {
    (void)state;
    const int64_t two[] = {4, 5, 6, 7, 8}, four[] = {3, 3, 7, 7, 5, 5, 4, 4, 6, 6, 4, 4, 4};
    assert_int_equal(longest_first(two, 5, 2), 17);
    assert_int_equal(check_even(two, 5, 2), 16);
    assert_true(check_even(four, 13, 4) <= 16);
    int64_t length[64], even = 0, greedy = 0; // above the mean, of 20 draws of 8 lanes of transcripts
    for (uint64_t id = 0; id < 20; id++) {
        int64_t sum = 0;
        for (int64_t i = 0; i < 64; i++) sum += length[i] = transcript(id, i);
        even += 8 * check_even(length, 64, 8) - sum;
        greedy += 8 * longest_first(length, 64, 8) - sum;
    }
    assert_true(even < greedy / 2);
}

static void handles_many_parts(void **state) {
    (void)state;
    int64_t length[4000];
    for (int64_t i = 0; i < 4000; i++) length[i] = transcript(5, i);
    check_even(length, 4000, 1024);
    check_deal(length, 4000, 1024, 1024);
    check_deal(length, 4000, 1, 600);
}

static void deals_equal_items_evenly(void **state) {
    (void)state;
    int64_t length[24];
    int owner[24], items[6] = {0};
    for (int64_t i = 0; i < 24; i++) length[i] = 33;
    assert_int_equal(partition_even(length, 24, 6, owner), 4 * 33);
    for (int i = 0; i < 24; i++) items[owner[i]]++;
    for (int p = 0; p < 6; p++) assert_int_equal(items[p], 4);
    const int64_t nothing[5] = {0}; // no part is empty if it can be helped
    int seen[3] = {0};
    assert_int_equal(partition_even(nothing, 5, 3, owner), 0);
    for (int i = 0; i < 5; i++) seen[owner[i]]++;
    for (int p = 0; p < 3; p++) assert_true(seen[p] > 0);
    assert_int_equal(partition_even(length, 0, 6, owner), 0);
    assert_int_equal(partition_even(length, 1, 6, owner), 33);
}

// In order a lane of 60, 50, 40, 50 would need three micro-batches of at most 100.
static void fills_micro_batches(void **state) {
    (void)state;
    const int64_t length[] = {60, 50, 40, 50}, expected[] = {0, 2, 1, 3};
    Deal d = {0};
    pack_deal(length, 4, 1, 100, &d);
    assert_int_equal(d.part[0].n, 2);
    assert_int_equal(d.part[0].start[1], 2);
    for (int i = 0; i < 4; i++) assert_int_equal(d.part[0].item[i], expected[i]);
    pack_deal_free(&d);
}

// What all turns cost if everyone waits in each for the rank with the most tokens.
static int64_t cost_of_turns(const int64_t *length, int64_t n, int lanes, int ranks, int64_t micro) {
    int64_t cost = 0;
    Deal d = {0};
    pack_deal(length, n, lanes, micro, &d);
    for (int64_t t = 0; t < pack_turns(&d, ranks); t++) {
        int64_t most = 0;
        for (int r = 0; r < ranks; r++) {
            const int64_t *item, items = pack_turn(&d, ranks, r, t, &item);
            int64_t tokens = 0;
            for (int64_t i = 0; i < items; i++) tokens += length[item[i]];
            most = ds_max(most, tokens);
        }
        cost += ranks * most;
    }
    pack_deal_free(&d);
    return cost;
}

// Near to what the tokens would cost, evenly: also where some lanes need one micro-batch more than others.
static void evens_out_turns(void **state) {
    (void)state;
    enum { N = 96 };
    int64_t length[N], sum = 0;
    for (int64_t i = 0; i < N; i++) sum += length[i] = transcript(11, i);
    for (int64_t micro = 520; micro < 2500; micro += 20)
        assert_true(cost_of_turns(length, N, 8, 4, micro) < sum + sum / 20);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(deals_everything_once),
                                       cmocka_unit_test(balances_tokens),
                                       cmocka_unit_test(deals_the_same_again),
                                       cmocka_unit_test(is_no_worse_than_longest_first),
                                       cmocka_unit_test(solves_what_longest_first_does_not),
                                       cmocka_unit_test(handles_many_parts),
                                       cmocka_unit_test(deals_equal_items_evenly),
                                       cmocka_unit_test(fills_micro_batches),
                                       cmocka_unit_test(evens_out_turns),
                                       cmocka_unit_test(reserves_room)};
    return cmocka_run_group_tests_name("pack", tests, NULL, NULL);
}
