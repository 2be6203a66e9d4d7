// test_beside.c: a reference that has from the actor, which has adapters, what they leave as it is
// (model_create_beside): its log-probs are those of a reference with weights of its own, to the bit, before and after
// the actor is trained, and the actor's own bits do not change by it; what it holds is less.
#include <stdlib.h>

#include "model/lora.h"
#include "tiny.h"

static Arch arch_of(ArchFamily family) {
    Arch a;
    arch_family_defaults(&a, family);
    a.layers = 3, a.width = a.embed_width = 64, a.heads = 4, a.head_dim = 16;
    a.kv_heads = family == ARCH_QWEN2 ? 2 : 4;
    if (a.pos == ARCH_POS_ROPE) a.rotary_dim = 16;
    a.ffn = 96, a.vocab = VOCAB, a.max_positions = 64, a.tied = 1, a.init_std = 0.15;
    return a;
}

// How the models are kept. only: nothing but adapters is trained, so that the reference has nothing of its own.
typedef struct {
    ArchFamily family;
    DType dt;
    bool only, host;
    int stage, own_stage, tensor;
} Case;

enum { ROWS = SEQUENCES * LONGEST };

// Log-probs of all tokens of this rank's sequences.
static int64_t score(const Model *m, const Layout *l, float *logp) {
    static int32_t rows[ROWS], targets[ROWS];
    const int64_t share = SEQUENCES / group_size(l->data);
    int64_t n = 0;
    Acts a;
    Batch b = {0};
    fill(&b, group_rank(l->data) * share, share);
    for (int64_t s = 0; s < b.n_seq; s++)
        for (int32_t t = b.starts[s]; t + 1 < b.starts[s + 1]; t++) rows[n] = t, targets[n++] = b.ids[t + 1];
    acts_create(&a, kernels, &m->part, m->dt, false, 1);
    model_fwd(m, &a, &b, n, NULL);
    head_lm_score(m, &a, rows, targets, n, 1, logp, NULL);
    acts_destroy(&a);
    batch_free(&b);
    return n;
}

static int64_t held(void) {
    kernels_mem_forget();
    return kernels_mem_peak(MEM_WEIGHTS) + kernels_mem_peak(MEM_HOST);
}

static bool equal(const float *a, const float *b, int64_t n) { return !memcmp(a, b, (size_t)n * sizeof *a); }

static void train_once(Model *m, Optim *o, const Layout *l) {
    optim_begin(o);
    backward(m, l, 4, m->arch.layers);
    assert_true(optim_reduce(o) > 0);
    optim_apply(o);
}

static void one_case(const Case *c, const Layout *l) {
    static char attention[] = "attention", mlp[] = "mlp", *modules[] = {attention, mlp};
    static float actor[2][ROWS], beside[2][ROWS], apart[ROWS];
    const Arch arch = arch_of(c->family);
    const AdapterCfg cfg = {.rank = 3, .alpha = 6, .modules = modules, .n_modules = 1 + c->only, .only = c->only};
    const ZeroKeep own = {.stage = c->own_stage, .training = c->host ? ZERO_HOST : ZERO_FROZEN};
    Model a, r, s;
    Optim o;
    int64_t bytes = held();
    model_create(&s, kernels, &arch, c->dt, l, own, NULL);
    const int64_t bytes_apart = held() - bytes;
    model_create(&a, kernels, &arch, c->dt, l, (ZeroKeep){.stage = c->stage, .training = ZERO_TRAINED}, &cfg);
    bytes = held();
    model_create_beside(&r, &a, l, own);
    const int64_t bytes_beside = held() - bytes;
    const int64_t tables = r.rope ? arch.max_positions * arch.rotary_dim * 4 : r.slopes ? r.part.own.heads * 4 : 0;
    assert_int_equal(r.own.n + a.lora->frozen.n, s.weights.n);
    assert_int_equal(bytes_beside - tables, c->only ? 0 : (int64_t)store_bytes(&r.zero.w));
    assert_int_equal(bytes_apart - tables, (int64_t)store_bytes(&s.zero.w));
    assert_true(bytes_beside <= bytes_apart);
    for (int i = 0; i < 3; i++) model_init_random(i == 0 ? &a : i == 1 ? &r : &s, 5, -1);
    zero_master_reset(&a.zero);
    OptimCfg optim = tiny_optim;
    optim.adapter_lr = 0.05;
    optim_create(&o, &a.zero, &optim, -1);
    const int64_t n = score(&s, l, apart);
    score(&r, l, beside[0]);
    train_once(&a, &o, l);
    train_once(&a, &o, l); // the first one left A as it was: B is zero
    score(&a, l, actor[0]);
    score(&r, l, beside[1]);
    score(&a, l, actor[1]);
    for (int i = 0; i < 2; i++)
        if (!equal(beside[i], apart, n))
            fail_msg("family %d, %s, stage %d: the reference's log-probs are others", c->family, dtype_name(c->dt),
                     c->stage);
    assert_true(equal(actor[0], actor[1], n));
    assert_false(equal(actor[0], apart, n));
    model_gather(&r); // as for generation
    score(&r, l, beside[1]);
    model_release(&r);
    score(&a, l, actor[1]);
    assert_true(equal(beside[1], apart, n) && equal(actor[0], actor[1], n));
    optim_destroy(&o);
    model_destroy(&a);
    model_destroy(&r);
    model_destroy(&s);
}

static void same_log_probs(void **state) {
    (void)state;
    static const ArchFamily families[] = {ARCH_QWEN2, ARCH_OPT, ARCH_BLOOM};
    const int ranks = group_size(group_world());
    for (int i = 0; i < 2 * 4 * 2 * DS_COUNT(families); i++) {
        Case c = {.dt = i % 2 ? DS_BF16 : DS_F32,
                  .stage = i / 2 % 4,
                  .only = i / 8 % 2,
                  .family = families[i / 16],
                  .host = i % 5 == 1};
        c.own_stage = c.host ? 0 : i % 3 ? c.stage : 3;
        for (c.tensor = 1; c.tensor <= ranks && c.tensor <= 4; c.tensor *= 2) {
            if (!getenv("DSCHAT_TEST_ALL") && (i + c.tensor) % 3) continue; // a third of them
            Layout l;
            layout_create(&l, group_world(), (LayoutWish){.tensor = c.tensor});
            l.sequence = c.tensor > 1 && i % 3 == 0;
            one_case(&c, &l);
            layout_destroy(&l);
        }
    }
}

int main(void) {
    world_init();
    if (kernels_open("cpu", "auto", 1, &kernels)) return DS_ERR_BUG;
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_log_probs)};
    int failed = cmocka_run_group_tests_name("beside", tests, NULL, NULL);
    world_finalize();
    return failed;
}
