// test_exact.c: what generation may not change: answers and log-probs do not depend on whether prompts are shared.
#include "tiny.h"

// Families that divide nothing alike: grouped heads with rotary positions; ALiBi and a norm of the embedding; learned
// positions with biases.
static Arch arch_of(ArchFamily family) {
    Arch a;
    arch_family_defaults(&a, family);
    a.layers = 3, a.width = a.embed_width = 36, a.heads = 6, a.head_dim = 6;
    a.kv_heads = family == ARCH_LLAMA ? 2 : a.heads;
    if (a.pos == ARCH_POS_ROPE) a.rotary_dim = 6;
    a.ffn = 52, a.vocab = VOCAB, a.max_positions = 128, a.tied = 1, a.init_std = 0.2;
    return a;
}

// ---- prompts that are shared ----

// Lengths about the edges of blocks, each with so many samples.
static const struct {
    int64_t length, samples;
} shared[] = {{1, 4}, {16, 5}, {17, 3}, {40, 6}, {32, 1}, {33, 7}, {2, 2}, {31, 5}, {48, 4}, {15, 3}};
enum { KINDS = DS_COUNT(shared), REQUESTS = 40, MOST = 48, SOME = 13 };

typedef struct {
    int32_t ids[REQUESTS][SOME];
    float logp[REQUESTS][SOME];
    int64_t n[REQUESTS], prefilled;
} Answers;

// The requests of ranks first, first + 1, ... of `ranks` (neighbours together), with the prompts' own arrays, or each
// with a copy.
static int64_t requests_of(bool copies, int rank, int ranks, Answers *x, GenRequest *req) {
    static int32_t prompt[REQUESTS][MOST];
    int64_t n = 0, i = 0;
    for (int k = 0; k < KINDS; k++)
        for (int64_t s = 0; s < shared[k].samples; s++, i++) {
            const int64_t own = copies ? i : i - s;
            for (int64_t t = 0; t < shared[k].length; t++) prompt[own][t] = token_of(k, t);
            if (i < REQUESTS * rank / ranks || i >= REQUESTS * (rank + 1) / ranks) continue;
            req[n++] = (GenRequest){.prompt = prompt[own],
                                    .n_prompt = shared[k].length,
                                    .id = (uint64_t)i,
                                    .max_new = SOME - (i % 3 == 0),
                                    .ids = x->ids[i],
                                    .logp = x->logp[i]};
        }
    assert_int_equal(i, REQUESTS);
    return n;
}

static void answer(Gen *g, bool copies, int rank, int ranks, Answers *x) {
    GenRequest req[REQUESTS];
    int32_t stop = 7;
    const GenCfg cfg = {.sample = {.temperature = 0.9f, .top_p = 1}, .seed = 3, .stop_ids = &stop, .n_stop_ids = 1};
    memset(x, 0, sizeof *x);
    const int64_t n = requests_of(copies, rank, ranks, x, req);
    gen_run(g, &cfg, req, n, NULL, NULL);
    for (int64_t i = 0; i < n; i++) x->n[req[i].id] = req[i].n;
    x->prefilled = gen_prefilled(g);
}

static void same(const Answers *a, const Answers *b) {
    assert_memory_equal(a->n, b->n, sizeof a->n);
    assert_memory_equal(a->ids, b->ids, sizeof a->ids);
    assert_memory_equal(a->logp, b->logp, sizeof a->logp);
}

// With few slots samples of a prompt begin one after the other, with many together; blocks of the cache are smaller and
// larger than prompts. Twice with one generator: gen_run is fatal where the one before has left blocks behind.
static void sharing_of(const Arch *arch, DType dt, const Layout *alone) {
    static const int64_t slots[] = {1, 3, 5, 16, 64}, block[] = {16, 32, 16, 32, 16};
    static Answers want, got;
    int64_t each = 0, once = 0;
    Model m;
    for (int k = 0; k < KINDS; k++) once += shared[k].length, each += shared[k].length * shared[k].samples;
    model_create(&m, kernels, arch, dt, alone, (ZeroKeep){0}, NULL);
    model_init_random(&m, 5, -1);
    Gen *g = gen_create(&m, 4, MOST + SOME, 64, 16, NULL);
    answer(g, true, 0, 1, &want);
    assert_int_equal(want.prefilled, each);
    gen_destroy(&g);
    for (int c = 0; c < DS_COUNT(slots); c++) {
        g = gen_create(&m, slots[c], MOST + SOME, c % 2 ? 1000 : 40, block[c], NULL);
        for (int twice = 0; twice < 2; twice++) {
            answer(g, false, 0, 1, &got);
            same(&got, &want);
            assert_int_equal(got.prefilled, once);
        }
        gen_destroy(&g);
    }
    model_destroy(&m);
}

static void shared_prompts(void **state) {
    (void)state;
    static const ArchFamily families[] = {ARCH_LLAMA, ARCH_BLOOM, ARCH_OPT};
    const Group *g = group_world();
    Group *own = group_split(g, group_rank(g), 0);
    Layout alone;
    layout_create(&alone, own, (LayoutWish){0});
    for (int i = 0; i < 2 * DS_COUNT(families); i++) { // the ranks divide them
        if (i % group_size(g) != group_rank(g)) continue;
        const Arch arch = arch_of(families[i / 2]);
        sharing_of(&arch, i % 2 ? DS_BF16 : DS_F32, &alone);
    }
    layout_destroy(&alone);
    group_destroy(&own);
}

// Ranks that make every pass together because weights come block by block: each with its share of the requests, the
// first and last prompts of which others have too.
static void shared_together(void **state) {
    (void)state;
    static Answers all, mine;
    const Group *world = group_world();
    const Arch arch = arch_of(ARCH_LLAMA);
    Layout l;
    Model m;
    layout_create(&l, world, (LayoutWish){0});
    model_create(&m, kernels, &arch, DS_BF16, &l, (ZeroKeep){.stage = 3}, NULL);
    model_init_random(&m, 5, -1);
    Gen *g = gen_create(&m, 3, MOST + SOME, 64, 16, NULL);
    model_gather(&m);
    answer(g, true, 0, 1, &all);
    model_release(&m);
    gen_together(g, l.zero);
    answer(g, false, group_rank(world), group_size(world), &mine);
    for (int64_t i = 0; i < REQUESTS; i++) {
        if (!mine.n[i]) continue;
        assert_int_equal(mine.n[i], all.n[i]);
        assert_memory_equal(mine.ids[i], all.ids[i], sizeof all.ids[i]);
        assert_memory_equal(mine.logp[i], all.logp[i], sizeof all.logp[i]);
    }
    gen_destroy(&g);
    model_destroy(&m);
    layout_destroy(&l);
}

int main(void) {
    world_init();
    if (kernels_open("cpu", 1, &kernels)) return DS_ERR_BUG;
    const struct CMUnitTest tests[] = {cmocka_unit_test(shared_prompts), cmocka_unit_test(shared_together)};
    int failed = cmocka_run_group_tests_name("exact", tests, NULL, NULL);
    world_finalize();
    return failed;
}
