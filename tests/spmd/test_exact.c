// test_exact.c: the sampler's log-prob is the trainer's, to the bit: ten thousand tokens generated in batches of 1 to
// 64 sequences, then scored as training does, in random packings. What makes the first PPO ratio exactly 1.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "comm/world.h"
#include "gen/decode.h"

enum { REQUESTS = 84, MAX_PROMPT = 40, MAX_ANSWER = 30, MAX_TOKENS = MAX_PROMPT + MAX_ANSWER, IDS = 211 };

#define TEMPERATURE 0.55 // (float)(1 / 0.55) is not 1 / 0.55f

static const Kernels *kernels;

typedef struct {
    int32_t prompt[MAX_PROMPT], ids[MAX_ANSWER];
    float logp[MAX_ANSWER], scored[MAX_ANSWER];
} Slot;

static uint32_t random_word(uint64_t key, int64_t i) {
    uint32_t w[4];
    rng_words(5, RNG_SPLIT, key, (uint64_t)i, w);
    return w[0];
}

static Arch arch_of(ArchFamily family) {
    Arch a;
    arch_family_defaults(&a, family);
    a.head = ARCH_HEAD_LM;
    a.vocab = IDS, a.width = a.embed_width = 64, a.ffn = 96, a.layers = 2, a.heads = 4, a.head_dim = 16;
    a.kv_heads = family == ARCH_LLAMA ? 2 : 4, a.max_positions = 128, a.tied = 1;
    if (a.pos == ARCH_POS_ROPE) a.rotary_dim = a.head_dim;
    return a;
}

static void generate(const Model *m, int64_t slots, Slot *slot, GenRequest *req) {
    const GenCfg cfg = {.sample = {.temperature = TEMPERATURE, .top_p = 1}, .seed = 7};
    for (int64_t i = 0; i < REQUESTS; i++) {
        req[i] = (GenRequest){.prompt = slot[i].prompt,
                              .n_prompt = 1 + random_word(1, i) % MAX_PROMPT,
                              .id = (uint64_t)i,
                              .max_new = MAX_ANSWER,
                              .ids = slot[i].ids,
                              .logp = slot[i].logp};
        for (int64_t t = 0; t < req[i].n_prompt; t++) slot[i].prompt[t] = (int32_t)(random_word(2, i * 64 + t) % IDS);
    }
    Gen *g = gen_create(m, slots, MAX_TOKENS, 128, 16, NULL);
    gen_run(g, &cfg, req, REQUESTS, NULL, NULL);
    gen_destroy(&g);
}

// Appends a whole sequence and the rows that predict its answer.
static int64_t append(Batch *b, const GenRequest *r, int32_t *rows, int32_t *targets, int64_t n) {
    for (int64_t t = 0; t < r->n_prompt + r->n; t++) {
        const int64_t answer = t - r->n_prompt;
        b->ids[b->n] = answer < 0 ? r->prompt[t] : r->ids[answer];
        b->pos[b->n] = (int32_t)t;
        if (answer >= 0) rows[n] = (int32_t)(b->n - 1), targets[n++] = r->ids[answer];
        b->n++;
    }
    b->starts[++b->n_seq] = (int32_t)b->n;
    return n;
}

// Log-probs of all answers by training's forward pass, 1 to 12 sequences at a time in an order of their own.
static int64_t score(const Model *m, int64_t slots, Slot *slot, const GenRequest *req) {
    enum { MOST = 12 };
    int32_t rows[MOST * MAX_ANSWER], targets[MOST * MAX_ANSWER];
    float logp[MOST * MAX_ANSWER];
    int64_t total = 0;
    Acts a;
    Batch b = {0};
    acts_create(&a, kernels, &m->part, m->dt, true, m->arch.layers);
    batch_reserve(&b, MOST * MAX_TOKENS, MOST);
    for (int64_t first = 0, take; first < REQUESTS; first += take) {
        int64_t n = 0, at = 0;
        take = ds_min(1 + random_word((uint64_t)slots, first) % MOST, REQUESTS - first);
        b.n = b.n_seq = 0, b.starts[0] = 0;
        for (int64_t i = first; i < first + take; i++) n = append(&b, &req[i * 53 % REQUESTS], rows, targets, n);
        model_fwd(m, &a, &b, n, NULL);
        head_lm_score(m, &a, rows, targets, n, head_inv_temperature(TEMPERATURE), logp, NULL);
        for (int64_t i = first; i < first + take; at += req[i * 53 % REQUESTS].n, i++)
            memcpy(slot[i * 53 % REQUESTS].scored, logp + at, (size_t)req[i * 53 % REQUESTS].n * sizeof *logp);
        total += n;
    }
    batch_free(&b);
    acts_destroy(&a);
    return total;
}

static void one(ArchFamily family, DType dt, int threads) {
    static const int64_t slots[] = {1, 3, 16, 64};
    const Arch arch = arch_of(family);
    Layout l;
    Model m;
    Slot *slot = MEM_NEW(Slot, REQUESTS);
    GenRequest *req = MEM_NEW(GenRequest, REQUESTS);
    int64_t total = 0;
    assert_int_equal(kernels_open("cpu", threads, &kernels), DS_OK);
    layout_create(&l, group_world(), (LayoutWish){0});
    model_create(&m, kernels, &arch, dt, &l, (ZeroKeep){.training = ZERO_FROZEN}, NULL);
    model_init_random(&m, 3, -1);
    for (int i = 0; i < DS_COUNT(slots); i++) {
        generate(&m, slots[i], slot, req);
        total += score(&m, slots[i], slot, req);
        for (int64_t r = 0; r < REQUESTS; r++)
            for (int64_t t = 0; t < req[r].n; t++)
                if (memcmp(&slot[r].logp[t], &slot[r].scored[t], sizeof(float)) ||
                    expf(slot[r].scored[t] - slot[r].logp[t]) != 1.0f)
                    fail_msg("%s, %lld slots, answer %lld, token %lld: sampled at %.9g, trained at %.9g",
                             dtype_name(dt), (long long)slots[i], (long long)r, (long long)t, (double)slot[r].logp[t],
                             (double)slot[r].scored[t]);
    }
    assert_true(total >= 10000);
    model_destroy(&m);
    layout_destroy(&l);
    mem_free(slot);
    mem_free(req);
}

static void grouped_queries(void **state) {
    (void)state;
    one(ARCH_LLAMA, DS_F32, 1);
    one(ARCH_LLAMA, DS_BF16, 1);
    one(ARCH_LLAMA, DS_BF16, 2);
}

static void learned_positions(void **state) {
    (void)state;
    one(ARCH_OPT, DS_F32, 1);
    one(ARCH_OPT, DS_BF16, 1);
}

int main(void) {
    world_init();
    const struct CMUnitTest tests[] = {cmocka_unit_test(grouped_queries), cmocka_unit_test(learned_positions)};
    const int failed = cmocka_run_group_tests_name("exact", tests, NULL, NULL);
    world_finalize();
    return failed;
}
