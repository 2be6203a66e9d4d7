// test_update.c: the updates of one PPO iteration: minibatches in an order of their own in every pass and iteration;
// and when one model's gradient is not finite, both stay as they are.
#include "stage/ppo_update.h"
#include "tiny.h"

enum { ASKED = 6, SAMPLES = 2, ANSWER = 5, PROMPT = 4 };

typedef struct {
    Run run;
    Role actor, critic;
    Prompts prompts;
    Rollout r;
    Update u;
} Case;

static void open_role(Role *role, const Arch *arch, const Layout *l) {
    *role = (Role){0};
    model_create(&role->model, kernels, arch, DS_F32, l, (ZeroKeep){.stage = 1, .training = ZERO_TRAINED}, NULL);
    model_init_random(&role->model, 5, -1);
    zero_master_reset(&role->model.zero);
    optim_create(&role->optim, &role->model.zero, &tiny_optim, -1);
}

// Answers that nobody drew, with numbers that nobody computed: what the updates do with them is what counts.
static void fill_rollout(Case *x) {
    const int64_t answers = ASKED * SAMPLES, actions = answers * ANSWER;
    x->prompts = (Prompts){.n = ASKED, .start = MEM_NEW(int64_t, ASKED + 1), .ids = MEM_NEW(int32_t, ASKED * PROMPT)};
    for (int64_t i = 0; i < ASKED; i++) x->prompts.start[i + 1] = (i + 1) * PROMPT;
    for (int64_t t = 0; t < ASKED * PROMPT; t++) x->prompts.ids[t] = token_of(1, t);
    Rollout *r = &x->r;
    *r = (Rollout){.answers = answers, .samples = SAMPLES, .prompts = &x->prompts};
    r->starts = MEM_NEW(int32_t, answers + 1);
    r->ids = MEM_NEW(int32_t, actions);
    r->logp = MEM_NEW(float, 4 * actions);
    r->values = r->logp + actions, r->advantages = r->logp + 2 * actions, r->returns = r->logp + 3 * actions;
    for (int64_t i = 0; i < answers; i++) r->starts[i + 1] = (int32_t)((i + 1) * ANSWER);
    for (int64_t t = 0; t < actions; t++) {
        r->ids[t] = token_of(2, t);
        r->logp[t] = -4;
        r->advantages[t] = (float)(t % 7) - 3;
        r->returns[t] = (float)(t % 5);
    }
}

static void begin(Case *x, int64_t epochs, int64_t minibatch) {
    static const Params p; // no layer keeps its activations
    Arch a;
    arch_family_defaults(&a, ARCH_LLAMA);
    a.layers = 2, a.width = a.embed_width = 32, a.heads = a.kv_heads = 4, a.head_dim = a.rotary_dim = 8;
    a.ffn = 48, a.vocab = VOCAB, a.max_positions = 64, a.tied = 1, a.init_std = 0.2;
    *x = (Case){.run = {.k = kernels, .world = group_world()}};
    layout_create(&x->run.layout, x->run.world, (LayoutWish){0});
    open_role(&x->actor, &a, &x->run.layout);
    a.head = ARCH_HEAD_SCALAR;
    open_role(&x->critic, &a, &x->run.layout);
    fill_rollout(x);
    const UpdateCfg cfg = {.actor = {.eps_low = 10, .eps_high = 10, .entropy_coef = 0.01},
                           .inv_temperature = 1,
                           .epochs = epochs,
                           .minibatch = minibatch,
                           .micro_tokens = 64,
                           .seed = 3};
    ppo_update_create(&x->u, &cfg, &p, &x->actor, &x->critic, NULL, NULL);
}

static void end(Case *x) {
    ppo_update_destroy(&x->u);
    role_close(&x->actor);
    role_close(&x->critic);
    rollout_free(&x->r);
    rollout_free_prompts(&x->prompts);
    layout_destroy(&x->run.layout);
}

// All ranks' weights and both moments.
static Xxh128Hex state_of(const Role *role) {
    const ZeroState *z = &role->model.zero;
    float *all = NULL;
    int64_t n = 0;
    for (int b = 0; b < z->map.blocks; b++)
        for (int kind = 0; kind < 3; kind++) {
            int64_t first, count;
            shard_range(&z->map, b, z->shard, &first, &count);
            all = mem_grow(all, n, n + count, sizeof *all);
            if (count) kernels->copy_out(all + n, optim_lease(&role->optim, kind, b, first, count), (size_t)count * 4);
            n += count;
        }
    const Xxh128Hex own = hash_xxh128(all, (size_t)n * sizeof *all);
    Xxh128Hex *ranks = MEM_NEW(Xxh128Hex, world_size());
    coll_allgather(group_world(), &own, sizeof own, ranks);
    const Xxh128Hex hash = hash_xxh128(ranks, (size_t)world_size() * sizeof *ranks);
    mem_free(ranks);
    mem_free(all);
    return hash;
}

// The states of actor and critic after an iteration of that number.
static void after(int64_t iteration, int64_t epochs, int64_t minibatch, Xxh128Hex out[2]) {
    Case x;
    UpdateStats stats;
    begin(&x, epochs, minibatch);
    assert_int_equal(ppo_update_run(&x.run, &x.u, &x.r, iteration, true, &stats), DS_OK);
    assert_int_equal(stats.updates, ppo_update_count(&x.u.cfg, x.r.answers));
    assert_int_equal(stats.skipped, 0);
    assert_int_equal((int64_t)stats.actor.tokens, epochs * x.r.starts[x.r.answers]); // each answer once a pass
    out[0] = state_of(&x.actor), out[1] = state_of(&x.critic);
    end(&x);
}

static void orders_differ(void **state) {
    (void)state;
    Xxh128Hex first[2], again[2], second[2], tenth[2];
    after(0, 1, 4, first);
    after(0, 1, 4, again);
    after(1, 1, 4, second);
    after(10, 1, 4, tenth);
    for (int m = 0; m < 2; m++) {
        assert_string_equal(first[m].hex, again[m].hex);
        assert_string_not_equal(first[m].hex, second[m].hex);
        assert_string_not_equal(first[m].hex, tenth[m].hex);
        assert_string_not_equal(second[m].hex, tenth[m].hex);
    }
    // Passes: numbered through all iterations, so that the second of iteration 0 is not the first of iteration 1 with
    // two passes each; with one pass a number it is.
    Case x;
    UpdateStats stats;
    Xxh128Hex both[2];
    after(0, 2, 4, both);
    begin(&x, 1, 4);
    for (int64_t i = 0; i < 2; i++) assert_int_equal(ppo_update_run(&x.run, &x.u, &x.r, i, true, &stats), DS_OK);
    assert_string_equal(state_of(&x.actor).hex, both[0].hex);
    assert_string_equal(state_of(&x.critic).hex, both[1].hex);
    end(&x);
}

// One answer's numbers are spoilt: the minibatch that holds it changes neither model, the others change both.
static void hold_still(float *(*which)(Rollout *r), const char *words) {
    Case x;
    UpdateStats stats;
    begin(&x, 1, ASKED * SAMPLES);
    const Xxh128Hex actor = state_of(&x.actor), critic = state_of(&x.critic);
    which(&x.r)[3 * ANSWER + 1] = NAN;
    assert_int_equal(ppo_update_run(&x.run, &x.u, &x.r, 0, true, &stats), DS_OK);
    assert_int_equal(stats.skipped, 1);
    assert_int_equal(stats.updates, 1);
    assert_int_equal(x.actor.optim.steps, 0);
    assert_int_equal(x.critic.optim.steps, 0);
    assert_string_equal(state_of(&x.actor).hex, actor.hex);
    assert_string_equal(state_of(&x.critic).hex, critic.hex);
    if (!strstr(stats.why, words)) fail_msg("says \"%s\", expected \"%s\"", stats.why, words);
    end(&x);
    begin(&x, 1, ASKED * SAMPLES / 4);
    which(&x.r)[3 * ANSWER + 1] = NAN;
    assert_int_equal(ppo_update_run(&x.run, &x.u, &x.r, 0, true, &stats), DS_OK);
    assert_int_equal(stats.skipped, 1);
    assert_int_equal(stats.updates, 4);
    assert_int_equal(x.actor.optim.steps, 3);
    assert_int_equal(x.critic.optim.steps, 3);
    end(&x);
}

static float *advantages(Rollout *r) { return r->advantages; }
static float *returns(Rollout *r) { return r->returns; }

static void both_or_neither(void **state) {
    (void)state;
    hold_still(advantages, ": the actor's loss is not finite");
    hold_still(returns, ": the critic's loss is not finite");
}

static void critic_alone(void **state) {
    (void)state;
    Case x;
    UpdateStats stats;
    begin(&x, 2, 4);
    const Xxh128Hex actor = state_of(&x.actor), critic = state_of(&x.critic);
    assert_int_equal(ppo_update_run(&x.run, &x.u, &x.r, 0, false, &stats), DS_OK);
    assert_int_equal(stats.updates, 6);
    assert_int_equal(x.critic.optim.steps, 6);
    assert_int_equal(x.actor.optim.steps, 0);
    assert_string_equal(state_of(&x.actor).hex, actor.hex);
    assert_string_not_equal(state_of(&x.critic).hex, critic.hex);
    end(&x);
}

int main(void) {
    world_init();
    if (kernels_open("cpu", "auto", 1, &kernels)) return DS_ERR_BUG;
    const struct CMUnitTest tests[] = {cmocka_unit_test(orders_differ), cmocka_unit_test(both_or_neither),
                                       cmocka_unit_test(critic_alone)};
    const int failed = cmocka_run_group_tests_name("update", tests, NULL, NULL);
    world_finalize();
    return failed;
}
