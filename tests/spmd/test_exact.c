// test_exact.c: what generation may not change: answers and log-probs do not depend on whether prompts are shared, and
// the log-prob of the sampler is, bit for bit, that of the trainer: whatever the batch, the packing, the micro-batches
// and the threads. So the first ratio of PPO is exactly 1.
#include "stage/ppo_update.h"
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

static void use_threads(int n) {
    if (kernels_open("cpu", "auto", n, &kernels)) fail_msg("%s", err_text());
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
    for (int64_t i = 0; i < n; i++) {
        const bool ended = req[i].ids[req[i].n - 1] == stop;
        x->n[req[i].id] = req[i].n;
        assert_int_equal(req[i].stop, ended ? GEN_STOP_EOS : GEN_STOP_LENGTH);
        assert_true(ended ? req[i].n <= req[i].max_new : req[i].n == req[i].max_new); // exactly so long without an end
    }
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

// ---- the sampler's log-prob is the trainer's ----

enum { ASKED = 30, SAMPLES = 2, ANSWER = 24, LONG = 60, SEED = 11 };
static const double temperature = 0.55; // 1 / 0.55 rounded to float is not 1 / (0.55 rounded to float)
static int64_t scored;

// A uniform whole number in 0 .. n - 1.
static int64_t draw(uint64_t id, int64_t at, int64_t n) {
    return (int64_t)(rng_uniform(SEED, RNG_SHUFFLE, id, (uint64_t)at) * (double)n);
}

static Prompts random_prompts(void) {
    Prompts p = {.n = ASKED, .record = MEM_NEW(int64_t, ASKED), .start = MEM_NEW(int64_t, ASKED + 1)};
    for (int64_t i = 0; i < ASKED; i++) p.start[i + 1] = p.start[i] + 1 + draw(1, i, LONG);
    p.ids = MEM_NEW(int32_t, p.start[ASKED]);
    for (int64_t t = 0; t < p.start[ASKED]; t++) p.ids[t] = (int32_t)draw(2, t, VOCAB);
    return p;
}

static void open_role(Role *role, const Arch *arch, DType dt, const Layout *l) {
    *role = (Role){0};
    model_create(&role->model, kernels, arch, dt, l, (ZeroKeep){.stage = 1, .training = ZERO_TRAINED}, NULL);
    model_init_random(&role->model, SEED, -1);
    zero_master_reset(&role->model.zero);
    optim_create(&role->optim, &role->model.zero, &tiny_optim, -1);
}

// Answers in random order, so many tokens at most in a micro-batch, through the training pass: the same bits.
static void random_packing(const Model *m, const Rollout *r, const float *logp, int64_t micro, uint64_t id) {
    const int64_t actions = r->starts[r->answers];
    int64_t *order = MEM_NEW(int64_t, r->answers), n = 0;
    int32_t *rows = MEM_NEW(int32_t, actions), *action = MEM_NEW(int32_t, actions), *target = MEM_NEW(int32_t, actions);
    float *score = MEM_NEW(float, actions);
    Acts a;
    Batch b = {0};
    acts_create(&a, m->k, &m->part, m->dt, true, m->arch.layers);
    rng_permutation(SEED, RNG_SHUFFLE, id, r->answers, order);
    for (int64_t at = 0; at < r->answers; at += n) {
        int64_t tokens = rollout_length(r, order[at]), n_rows;
        for (n = 1; at + n < r->answers && (tokens += rollout_length(r, order[at + n])) <= micro; n++) continue;
        rollout_batch(r, order + at, n, &b, rows, action, &n_rows);
        for (int64_t i = 0; i < n_rows; i++) target[i] = r->ids[action[i]];
        model_fwd(m, &a, &b, n_rows, NULL);
        head_lm_score(m, &a, rows, target, n_rows, head_inv_temperature(temperature), score, NULL);
        for (int64_t i = 0; i < n_rows; i++) assert_memory_equal(&score[i], &logp[action[i]], sizeof *score);
        scored += n_rows;
    }
    acts_destroy(&a);
    batch_free(&b);
    mem_free(order);
    mem_free(rows);
    mem_free(action);
    mem_free(target);
    mem_free(score);
}

// The updates of a stage: in the first one every ratio is 1, in the next one, after a step, they are not.
static void first_ratio(Run *run, Role *actor, Role *critic, Rollout *r, int64_t micro, Workspace *space) {
    const Params p = {0};
    const UpdateCfg cfg = {.actor = {.eps_low = 0.2, .eps_high = 0.2},
                           .inv_temperature = head_inv_temperature(temperature),
                           .epochs = 1,
                           .minibatch = r->answers,
                           .micro_tokens = micro,
                           .seed = SEED};
    Update u;
    UpdateStats stats;
    for (int64_t t = 0; t < r->starts[r->answers]; t++) r->advantages[t] = t % 3 ? 1 : -1;
    ppo_update_create(&u, &cfg, &p, actor, critic, NULL, space);
    assert_int_equal(ppo_update_run(run, &u, r, 0, true, &stats), DS_OK);
    if (stats.first_ratio != 0 || stats.actor.ratio_max != 1 || stats.actor.ratio != stats.actor.tokens)
        fail_msg("the first ratio is off by %.3g", stats.first_ratio);
    assert_int_equal((int64_t)stats.actor.tokens, r->starts[r->answers]);
    assert_int_equal(ppo_update_run(run, &u, r, 1, true, &stats), DS_OK);
    assert_true(stats.first_ratio > 1e-3);
    ppo_update_destroy(&u);
}

// One rollout with so many slots, on one number of threads; scored and trained on another.
static void rollout_exact(Run *run, ArchFamily family, DType dt, int64_t slots, int threads) {
    const Arch arch = arch_of(family);
    Arch scalar = arch;
    Role actor, critic;
    Rollout r = {0};
    Scorer s;
    Prompts prompts = random_prompts();
    Workspace space = {.k = kernels};
    int32_t stop = 7;
    const GenCfg cfg = {.sample = {.temperature = (float)temperature, .top_k = 40, .top_p = 0.98f},
                        .seed = SEED,
                        .stop_ids = &stop,
                        .n_stop_ids = 1};
    const HybridCfg hybrid = {.slots = slots,
                              .max_tokens = LONG + ANSWER,
                              .prefill_tokens = 150,
                              .kv_block = slots == 3 ? 5 : 16,
                              .max_prompt = LONG,
                              .tensor = 1,
                              .release = slots % 3 == 0};
    scalar.head = ARCH_HEAD_SCALAR;
    open_role(&actor, &arch, dt, &run->layout);
    open_role(&critic, &scalar, dt, &run->layout);
    Hybrid *h = hybrid_create(&actor.model, &run->layout, run->world, group_size(run->world), &hybrid, &space);
    use_threads(threads);
    rollout_generate(h, &cfg, &prompts, SAMPLES, ANSWER, (uint64_t)slots << 20, &r);
    assert_true(!space.data == hybrid.release);
    const int64_t actions = r.starts[r.answers], micro = 64 + draw(3, slots, 500);
    float *logp = MEM_NEW(float, actions);
    memcpy(logp, r.logp, (size_t)actions * sizeof *logp);
    use_threads(3 - threads);
    random_packing(&actor.model, &r, logp, micro, (uint64_t)slots);
    rollout_create_scorer(&s, &actor.model, &actor.model, NULL, NULL, 2 * micro, temperature, &space);
    rollout_score(run, &s, &r);
    assert_memory_equal(r.logp, logp, (size_t)actions * sizeof *logp);
    assert_memory_equal(r.logp_ref, logp, (size_t)actions * sizeof *logp);
    first_ratio(run, &actor, &critic, &r, 3 * micro / 2, &space);
    hybrid_destroy(&h);
    rollout_destroy_scorer(&s);
    rollout_free(&r);
    rollout_free_prompts(&prompts);
    workspace_destroy(&space);
    role_close(&actor);
    role_close(&critic);
    mem_free(logp);
}

static void same_log_probs(void **state) {
    (void)state;
    static const int64_t slots[] = {1, 3, 16, 64};
    static const ArchFamily families[] = {ARCH_LLAMA, ARCH_BLOOM};
    Run run = {.k = kernels, .world = group_world()};
    layout_create(&run.layout, run.world, (LayoutWish){0});
    scored = 0;
    for (int i = 0; i < DS_COUNT(slots) * DS_COUNT(families) * 2; i++)
        rollout_exact(&run, families[i / 2 % 2], i % 2 ? DS_BF16 : DS_F32, slots[i / 4], 1 + i / 8);
    use_threads(1);
    printf("    %lld log-probs\n", (long long)scored);
    assert_true(scored > 10000);
    layout_destroy(&run.layout);
}

int main(void) {
    world_init();
    if (kernels_open("cpu", "auto", 1, &kernels)) return DS_ERR_BUG;
    const struct CMUnitTest tests[] = {cmocka_unit_test(shared_prompts), cmocka_unit_test(shared_together),
                                       cmocka_unit_test(same_log_probs)};
    int failed = cmocka_run_group_tests_name("exact", tests, NULL, NULL);
    world_finalize();
    return failed;
}
