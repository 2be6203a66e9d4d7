// test_sample.c: sampling against a plain sort, ties and edges, and the distribution of many draws.
#include "ref.h"

// ---- the plain way: sort all tokens, cut, walk ----
typedef struct {
    float logit;
    int32_t id;
} Token;

static int by_logit_then_id(const void *a, const void *b) {
    const Token *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static int32_t plain_sample(const float *x, int64_t n, double u, double temperature, int64_t top_k, double top_p) {
    Token *t = mem_array(n, sizeof *t);
    double *p = mem_array(n, sizeof *p), total = 0.0, sum = 0.0;
    for (int64_t i = 0; i < n; i++) t[i] = (Token){x[i], (int32_t)i};
    qsort(t, (size_t)n, sizeof *t, by_logit_then_id);
    int64_t kept = top_k > 0 && top_k < n ? top_k : n, count = 0;
    const double max = t[0].logit;
    for (int64_t i = 0; i < kept; i++) total += exp((t[i].logit - max) / temperature);
    for (count = 0; count < kept && sum < top_p * total; count++) sum += exp((t[count].logit - max) / temperature);
    if (top_p >= 1.0) count = kept;
    if (count == 0) count = 1;
    total = 0.0;
    for (int64_t i = 0; i < count; i++) total += p[t[i].id] = exp((t[i].logit - max) / temperature);
    int32_t id = 0;
    sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        if (p[i] <= 0.0) continue;
        id = (int32_t)i;
        if ((sum += p[i]) > u * total) break;
    }
    if (temperature <= 0.0) id = t[0].id;
    mem_free(t), mem_free(p);
    return id;
}

static int32_t draw(const Kernels *k, const float *x, int64_t vocab, int64_t valid, float u, float temperature,
                    int64_t top_k, float top_p) {
    Dev *px = dev_floats(k, DS_F32, x, vocab), *pu = dev_floats(k, DS_F32, &u, 1), *id = k->mem_create(4, MEM_WEIGHTS);
    int32_t out = -1;
    k->sample(id, px, pu, 1, vocab, valid, temperature, top_k, top_p);
    k->copy_out(&out, id, 4);
    DEV_FREE(k, px, pu, id);
    return out;
}

static void against_sorting(void **state) {
    (void)state;
    enum { VOCAB = 203, VALID = 200 };
    static const struct {
        float t;
        int64_t k;
        float p;
    } ways[] = {{1.0f, 0, 1.0f},   {0.7f, 0, 1.0f},   {1.0f, 1, 1.0f}, {1.0f, 7, 1.0f}, {1.0f, 199, 1.0f},
                {1.0f, 200, 1.0f}, {1.0f, 999, 1.0f}, {1.0f, 0, 0.9f}, {1.5f, 0, 0.5f}, {1.0f, 0, 1e-6f},
                {0.9f, 20, 0.8f},  {2.0f, 50, 0.95f}, {0.0f, 0, 1.0f}, {-1.0f, 5, 0.5f}};
    const Kernels *k = ref_open(1);
    for (int round = 0; round < 60; round++) {
        float *x = rand_floats(VOCAB, 2.0, 200 + (uint64_t)round);
        if (round % 3 == 1) // many ties
            for (int i = 0; i < VOCAB; i++) x[i] = roundf(x[i]);
        if (round % 3 == 2) // all negative, a few impossible
            for (int i = 0; i < VOCAB; i++) x[i] = i % 11 ? x[i] - 50.0f : -INFINITY;
        x[201] = 100.0f; // beyond the vocabulary
        for (int w = 0; w < DS_COUNT(ways); w++) {
            const float u = (float)rng_uniform(3, RNG_SAMPLE, (uint64_t)round, (uint64_t)w);
            const int32_t got = draw(k, x, VOCAB, VALID, u, ways[w].t, ways[w].k, ways[w].p);
            const int32_t want = plain_sample(x, VALID, u, ways[w].t, ways[w].k, ways[w].p);
            if (got != want) fail_msg("round %d way %d u %.9g: token %d, expected %d", round, w, (double)u, got, want);
        }
        mem_free(x);
    }
}

static void ties_and_edges(void **state) {
    (void)state;
    const Kernels *k = ref_open(1);
    const float flat[6] = {1, 1, 1, 1, 1, 1}, mixed[6] = {0, 3, -1, 3, 3, 2}, one[1] = {-5};
    assert_int_equal(draw(k, mixed, 6, 6, 0.9f, 0.0f, 0, 1.0f), 1);   // greedy: the lowest id of equals
    assert_int_equal(draw(k, mixed, 6, 6, 0.99f, 1.0f, 1, 1.0f), 1);  // so does top-k 1
    assert_int_equal(draw(k, mixed, 6, 6, 0.999f, 1.0f, 2, 1.0f), 3); // two of three equals: ids 1 and 3
    assert_int_equal(draw(k, mixed, 6, 6, 0.001f, 1.0f, 2, 1.0f), 1);
    assert_int_equal(draw(k, flat, 6, 6, 0.999f, 1.0f, 0, 0.5f), 2); // half of six equals: 0, 1, 2
    assert_int_equal(draw(k, flat, 6, 6, 0.999f, 1.0f, 0, 0.51f), 3);
    assert_int_equal(draw(k, flat, 6, 6, 0.999f, 1.0f, 4, 0.5f), 1); // top-p inside top-k: half of four
    assert_int_equal(draw(k, flat, 6, 6, 0.9999999f, 1.0f, 0, 1.0f), 5);
    assert_int_equal(draw(k, flat, 6, 6, 1e-9f, 1.0f, 0, 1.0f), 0);
    assert_int_equal(draw(k, one, 1, 1, 0.5f, 1.0f, 5, 0.3f), 0);
}

// Draws of a known distribution over several blocks of the vocabulary: chi-square of 15 degrees of freedom, 99.9 %
// point 37.7.
static void distribution(void **state) {
    (void)state;
    enum { N = 20000, VOCAB = 3000, BINS = 16 };
    const Kernels *k = ref_open(2);
    float *x = mem_array(VOCAB, sizeof *x), *u = mem_array(N, sizeof *u), total = 0.0f;
    double chi = 0.0, want[BINS];
    int64_t seen[BINS] = {0};
    for (int i = 0; i < VOCAB; i++) x[i] = -INFINITY;
    for (int b = 0; b < BINS; b++) x[b * 187 + 5] = logf((float)(b + 1)), total += (float)(b + 1);
    for (int b = 0; b < BINS; b++) want[b] = N * (b + 1) / (double)total;
    for (int i = 0; i < N; i++) u[i] = (float)rng_uniform(11, RNG_SAMPLE, 1, (uint64_t)i);
    Dev *px = dev_new(k, DS_F32, 100 * VOCAB), *pu = dev_floats(k, DS_F32, u, N),
        *id = k->mem_create(N * 4, MEM_WEIGHTS);
    for (int r = 0; r < 100; r++) k->copy_in(dev_at(px, (size_t)r * VOCAB * 4), x, VOCAB * 4);
    for (int r = 0; r < N; r += 100)
        k->sample(dev_at(id, (size_t)r * 4), px, dev_at(pu, (size_t)r * 4), 100, VOCAB, VOCAB, 1.0f, 0, 1.0f);
    int32_t *got = mem_array(N, sizeof *got);
    k->copy_out(got, id, N * 4);
    for (int i = 0; i < N; i++) {
        assert_int_equal((got[i] - 5) % 187, 0);
        seen[(got[i] - 5) / 187]++;
    }
    for (int b = 0; b < BINS; b++) chi += ((double)seen[b] - want[b]) * ((double)seen[b] - want[b]) / want[b];
    printf("  chi-square %.1f\n", chi);
    assert_true(chi < 37.7);
    // a row's token does not depend on the rows beside it
    for (int r = 0; r < 50; r++) assert_int_equal(draw(k, x, VOCAB, VOCAB, u[r], 1.0f, 0, 1.0f), got[r]);
    mem_free(x), mem_free(u), mem_free(got);
    DEV_FREE(k, px, pu, id);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_sorting), cmocka_unit_test(ties_and_edges),
                                       cmocka_unit_test(distribution)};
    return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
