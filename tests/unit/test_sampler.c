// test_sampler.c: the uniforms that draw tokens: what they are, that they fill (0, 1) evenly and differ at each
// position, request and seed; and when an answer ends.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/rng.h"
#include "gen/sampler.h"

// Part of what a seed means: they never change.
static void known_values(void **state) {
    (void)state;
    static const struct {
        uint64_t seed, id;
        int64_t at;
        float u;
    } known[] = {{0, 0, 0, 0x1.cd89d9p-1f},
                 {1234, 0, 0, 0x1.b9f53ep-2f},
                 {1234, 0, 1, 0x1.b11cf3p-1f},
                 {1234, 1, 0, 0x1.22676bp-1f},
                 {1234, 1152921504606846976, 255, 0x1.63efcbp-1f},
                 {7, 1152921504606846981, 4095, 0x1.992d46p-2f},
                 {1, 0, 5818355, 0x1.fffffep-1f}}; // all 24 bits
    for (int i = 0; i < DS_COUNT(known); i++) {
        const float u = sampler_uniform(known[i].seed, known[i].id, known[i].at);
        if (u != known[i].u) fail_msg("number %d is %.9g, expected %.9g", i, (double)u, (double)known[i].u);
    }
}

static void fills_the_range(void **state) {
    (void)state;
    enum { N = 1 << 18, BINS = 256 };
    static int64_t count[BINS];
    double sum = 0, squares = 0, low = 1, high = 0, chi = 0;
    for (int64_t i = 0; i < N; i++) {
        uint32_t w[4];
        const float u = sampler_uniform(7, (uint64_t)i % 61, i / 61);
        rng_words(7, RNG_SAMPLE, (uint64_t)i % 61, (uint64_t)i / 61, w);
        assert_true(u > 0 && u < 1 && fabs((double)u * 0x1p24 - ((double)(w[0] >> 8) + 0.5)) <= 0.5);
        low = fmin(low, u), high = fmax(high, u);
        sum += u, squares += (double)u * u;
        count[(int)(u * BINS)]++;
    }
    for (int b = 0; b < BINS; b++) {
        const double off = (double)count[b] - (double)N / BINS;
        chi += off * off / ((double)N / BINS);
    }
    printf("    mean %.5f, variance %.5f, from %.2e to 1 - %.2e, chi-square %.1f of %d\n", sum / N,
           squares / N - sum / N * sum / N, low, 1 - high, chi, BINS - 1);
    assert_true(fabs(sum / N - 0.5) < 0.002); // 3.5 deviations
    assert_true(fabs(squares / N - 1.0 / 3) < 0.002);
    assert_true(low < 1e-4 && high > 1 - 1e-4);
    assert_true(chi > 170 && chi < 340); // 1e-4 on either side
}

// Numbers that a position, a request or a seed apart share would show as answers that repeat.
static void differ_everywhere(void **state) {
    (void)state;
    enum { N = 4096 };
    int same = 0;
    for (int64_t i = 0; i < N; i++) {
        const float u = sampler_uniform(3, 5, i);
        same += u == sampler_uniform(3, 5, i + 1);
        same += u == sampler_uniform(3, 6, i);
        same += u == sampler_uniform(4, 5, i);
        same += u == sampler_uniform(3, 5 + (1ull << 60), i); // an evaluation's
    }
    assert_true(same <= 3); // of 24 bits some are equal by chance
}

static void answers_end(void **state) {
    (void)state;
    int32_t ids[8] = {1, 2, 3, 4, 5, 6, 9, 8};
    const int32_t stop[] = {9, 10};
    const GenCfg cfg = {.stop_ids = stop, .n_stop_ids = 2}, none = {0};
    GenRequest r = {.ids = ids, .max_new = 6};
    for (r.n = 1; r.n < 6; r.n++) assert_int_equal(sampler_stop(&cfg, &r), GEN_STOP_NONE);
    assert_int_equal(sampler_stop(&cfg, &r), GEN_STOP_LENGTH); // exactly max_new
    r.max_new = 7, r.n = 7;
    assert_int_equal(sampler_stop(&cfg, &r), GEN_STOP_EOS); // the end counts, also as the last that fits
    assert_int_equal(sampler_stop(&none, &r), GEN_STOP_LENGTH);
    r.max_new = 8, r.n = 7;
    assert_int_equal(sampler_stop(&none, &r), GEN_STOP_NONE);
    r.n = 8; // an end that is not the last token does not count
    assert_int_equal(sampler_stop(&cfg, &r), GEN_STOP_LENGTH);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_values), cmocka_unit_test(fills_the_range),
                                       cmocka_unit_test(differ_everywhere), cmocka_unit_test(answers_end)};
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
