// test_rng.c: Philox's published numbers; normals against the C library's logarithm and cosine; many at a time are the
// same bits as one by one.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

// The seed that makes Philox's key this one: rng.c mixes the purpose in.
static uint64_t seed_of_key(uint64_t key) { return key ^ RNG_INIT * 0x9E3779B97F4A7C15ull; }

// Known answers of Random123 (kat_vectors, philox4x32, 10 rounds).
static void draws_known_words(void **state) {
    (void)state;
    static const struct {
        uint64_t key, draw, id;
        uint32_t words[4];
    } known[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {~0ull, ~0ull, ~0ull, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < DS_COUNT(known); i++) {
        uint32_t words[4];
        rng_words(seed_of_key(known[i].key), RNG_INIT, known[i].id, known[i].draw, words);
        assert_memory_equal(words, known[i].words, sizeof words);
    }
}

// In (0, 1), from the same words as the normals.
static double unit(uint32_t hi, uint32_t lo) { return ((double)(((uint64_t)hi << 32 | lo) >> 12) + 0.5) * 0x1p-52; }

// 52 bits of the first two words, on the halves: exact numbers, and so below 1.
static void uniforms_are_halves(void **state) {
    (void)state;
    double sum = 0;
    for (uint64_t i = 0; i < 100000; i++) {
        uint32_t w[4];
        const double u = rng_uniform(3, RNG_SPLIT, 5, i);
        rng_words(3, RNG_SPLIT, 5, i, w);
        assert_true(u == unit(w[0], w[1]) && u > 0 && u < 1 && fmod(u * 0x1p53, 2) == 1);
        sum += u;
    }
    assert_true(fabs(sum / 100000 - 0.5) < 0.005);
}

static void normals_are_box_muller(void **state) {
    (void)state;
    enum { N = 200000 };
    double sum = 0, squares = 0;
    for (uint64_t i = 0; i < N; i++) {
        uint32_t w[4];
        const double x = rng_normal(3, RNG_INIT, 5, i);
        rng_words(3, RNG_INIT, 5, i, w);
        const double want = sqrt(-2 * log(unit(w[0], w[1]))) * cos(2 * acos(-1) * unit(w[2], w[3]));
        assert_true(fabs(x - want) <= 1e-14);
        sum += x;
        squares += x * x;
    }
    assert_true(fabs(sum / N) < 0.01);
    assert_true(fabs(squares / N - 1) < 0.02);
}

static void many_are_one_by_one(void **state) {
    (void)state;
    enum { N = 10007 };
    float *many = MEM_NEW(float, N + 1);
    for (uint64_t first = 0; first < 3; first++)
        for (int64_t n = N; n > 0; n = n / 3) {
            many[n] = 7;
            rng_normals(9, RNG_LORA, 11, first, n, 0.02, many);
            for (int64_t i = 0; i < n; i++)
                assert_true(many[i] == (float)(0.02 * rng_normal(9, RNG_LORA, 11, first + (uint64_t)i)));
            assert_true(many[n] == 7);
        }
    mem_free(many);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(draws_known_words), cmocka_unit_test(uniforms_are_halves),
                                       cmocka_unit_test(normals_are_box_muller), cmocka_unit_test(many_are_one_by_one)};
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
