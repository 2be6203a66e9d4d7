// phases.c: seconds of each phase of RLHF on random weights and tokens, through the code that the stages run; the
// shapes and phases of the PyTorch + transformers script that tests/bench/run puts beside it. Prints one JSON line a
// phase. mpirun -np N spreads it.
//
// usage: phases [shape] [batch] [prompt] [answer] [threads] [repeats] [dtype]
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "comm/world.h"
#include "loss/loss_lm.h"
#include "loss/loss_pair.h"
#include "stage/ppo_update.h"

typedef struct {
    const char *name;
    ArchFamily family;
    int64_t vocab, width, ffn, layers, heads, kv_heads;
} Shape;
static const Shape shapes[] = {
    {"tiny", ARCH_LLAMA, 4096, 256, 704, 4, 4, 4},
    {"smollm2-135m", ARCH_LLAMA, 49152, 576, 1536, 30, 9, 3},
    {"smollm2-360m", ARCH_LLAMA, 49152, 960, 2560, 32, 15, 5},
    {"opt-125m", ARCH_OPT, 50272, 768, 3072, 12, 12, 12},
};

typedef struct {
    const Kernels *k;
    Run run;
    Params *p;
    Arch arch;
    int64_t batch, prompt, answer, repeats;
    Role actor, critic, reference, reward;
    Batch b;
    int32_t *rows, *targets;
    Prompts prompts;
    Rollout r;
    Hybrid *gen;
    Scorer scorer;
    Update update;
    Acts acts, critic_acts;
} Bench;

static int32_t random_id(const Bench *x, int64_t i) {
    uint32_t w[4];
    rng_words(1, RNG_SPLIT, 0, (uint64_t)i, w);
    return (int32_t)(3 + w[0] % (uint32_t)(x->arch.vocab - 3));
}

static void open_model(Bench *x, Role *role, ArchHead head, DType dt, bool trained) {
    Arch a = x->arch;
    OptimCfg cfg = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1, .sched = {.form = SCHED_CONSTANT, .lr = 1e-6}};
    a.head = head;
    model_create(&role->model, x->k, &a, dt, &x->run.layout,
                 (ZeroKeep){.stage = 1, .training = trained ? ZERO_TRAINED : ZERO_FROZEN}, NULL);
    model_init_random(&role->model, 1, -1);
    if (!trained) return;
    zero_master_reset(&role->model.zero);
    optim_create(&role->optim, &role->model.zero, &cfg, -1);
}

// This rank's share of the batch of whole sequences.
static void fill(Bench *x) {
    const int64_t n = x->prompt + x->answer, share = x->batch / group_size(x->run.world);
    batch_reserve(&x->b, n * share, share);
    x->b.n = n * share, x->b.n_seq = share, x->b.starts[0] = 0;
    x->rows = MEM_NEW(int32_t, n * share), x->targets = MEM_NEW(int32_t, n * share);
    for (int64_t i = 0; i < n * share; i++) {
        x->b.ids[i] = random_id(x, i);
        x->b.pos[i] = (int32_t)(i % n);
    }
    for (int64_t s = 0; s < share; s++) x->b.starts[s + 1] = (int32_t)((s + 1) * n);
}

static void nll(void *user, int64_t first, int64_t n, const float *logp, const float *entropy, float *dlogp,
                float *dentropy) {
    (void)user, (void)first, (void)entropy, (void)dentropy;
    loss_lm(n, logp, NULL, 1e-3, dlogp);
}

static void run_sft(Bench *x) {
    int64_t n = 0;
    for (int64_t s = 0; s < x->b.n_seq; s++)
        for (int32_t t = x->b.starts[s]; t + 1 < x->b.starts[s + 1]; t++)
            x->rows[n] = t, x->targets[n++] = x->b.ids[t + 1];
    optim_begin(&x->actor.optim);
    model_fwd(&x->actor.model, &x->acts, &x->b, n, NULL);
    head_lm_train(&x->actor.model, &x->acts, x->rows, x->targets, n, 1, nll, NULL);
    model_bwd(&x->actor.model, &x->acts);
    optim_reduce(&x->actor.optim);
    optim_apply(&x->actor.optim);
}

static void run_rm(Bench *x) {
    float *v = MEM_NEW(float, x->b.n), *dv = MEM_NEW(float, x->b.n);
    PairStats stats = {0};
    PairLossCfg cfg = {.form = PAIR_TOKENS};
    for (int64_t i = 0; i < x->b.n; i++) x->rows[i] = (int32_t)i;
    optim_begin(&x->critic.optim);
    model_fwd(&x->critic.model, &x->critic_acts, &x->b, x->b.n, NULL);
    head_scalar_fwd(&x->critic.model, &x->critic_acts, x->rows, x->b.n, v);
    loss_pair(&cfg, x->b.n_seq / 2, x->b.starts, x->b.ids, v, 1e-3, dv, &stats);
    head_scalar_bwd(&x->critic.model, &x->critic_acts, dv);
    model_bwd(&x->critic.model, &x->critic_acts);
    optim_reduce(&x->critic.optim);
    optim_apply(&x->critic.optim);
    mem_free(v);
    mem_free(dv);
}

static void run_gen(Bench *x) {
    GenCfg cfg = {.sample = {.temperature = 1, .top_p = 1}, .seed = 1};
    rollout_free(&x->r);
    rollout_generate(x->gen, &cfg, &x->prompts, 1, x->answer, 0, &x->r);
}

static void run_exp(Bench *x) {
    x->r.score_tokens = 0;
    rollout_score(&x->run, &x->scorer, &x->r);
}

static void run_ppo(Bench *x) {
    GaeCfg gae = {.gamma = 1, .lam = 0.95, .clip_reward = 5};
    UpdateStats stats;
    rollout_advantages(&gae, KL_BY_K1, 0.1, false, &x->r);
    if (ppo_update_run(&x->run, &x->update, &x->r, 0, true, &stats)) err_fatal("%s", err_text());
}

static double report(Bench *x, const char *name, void (*phase)(Bench *), double tokens) {
    double best = INFINITY;
    phase(x); // the first pays for what is allocated once
    for (int64_t i = 0; i < x->repeats; i++) {
        double start = clock_now();
        phase(x);
        best = fmin(best, clock_now() - start);
    }
    if (world_rank() == 0)
        printf("{\"phase\": \"%s\", \"seconds\": %.4f, \"tokens_per_s\": %.1f}\n", name, best, tokens / best);
    fflush(stdout);
    return best;
}

static void setup(Bench *x, const Shape *s, DType dt) {
    arch_family_defaults(&x->arch, s->family);
    Arch *a = &x->arch;
    a->vocab = s->vocab, a->width = a->embed_width = s->width, a->ffn = s->ffn, a->layers = s->layers;
    a->heads = s->heads, a->kv_heads = s->kv_heads, a->head_dim = s->width / s->heads, a->max_positions = 2048,
    a->tied = 1;
    if (a->pos == ARCH_POS_ROPE) a->rotary_dim = a->head_dim;
    open_model(x, &x->actor, ARCH_HEAD_LM, dt, true);
    open_model(x, &x->critic, ARCH_HEAD_SCALAR, dt, true);
    open_model(x, &x->reference, ARCH_HEAD_LM, dt, false);
    open_model(x, &x->reward, ARCH_HEAD_SCALAR, dt, false);
    acts_create(&x->acts, x->k, &x->actor.model.part, dt, true, a->layers);
    acts_create(&x->critic_acts, x->k, &x->critic.model.part, dt, true, a->layers);
    fill(x);
    x->prompts = (Prompts){
        .n = x->batch, .start = MEM_NEW(int64_t, x->batch + 1), .ids = MEM_NEW(int32_t, x->batch * x->prompt)};
    for (int64_t i = 0; i < x->batch; i++) x->prompts.start[i + 1] = (i + 1) * x->prompt;
    for (int64_t i = 0; i < x->batch * x->prompt; i++) x->prompts.ids[i] = random_id(x, i);
}

static const Shape *find_shape(const char *name) {
    for (int i = 0; i < DS_COUNT(shapes); i++)
        if (!strcmp(shapes[i].name, name)) return &shapes[i];
    return NULL;
}

int main(int argc, char **argv) {
    const char *defaults[] = {"", "smollm2-135m", "16", "128", "128", "2", "2", "fp32"};
    for (int i = 1; i < argc && i < DS_COUNT(defaults); i++) defaults[i] = argv[i];
    const Shape *shape = find_shape(defaults[1]);
    if (!shape) return DS_ERR_PARAMS;
    world_init();
    Bench x = {.batch = atoll(defaults[2]),
               .prompt = atoll(defaults[3]),
               .answer = atoll(defaults[4]),
               .repeats = atoll(defaults[6])};
    if (kernels_open("cpu", atoi(defaults[5]), &x.k)) return DS_ERR_BUG;
    x.run = (Run){.k = x.k, .world = group_world()};
    layout_create(&x.run.layout, x.run.world, (LayoutWish){0});
    setup(&x, shape, strcmp(defaults[7], "bf16") ? DS_F32 : DS_BF16);
    const double all = (double)(x.batch * (x.prompt + x.answer)), new_tokens = (double)(x.batch * x.answer);
    report(&x, "sft", run_sft, all);
    report(&x, "rm", run_rm, all);
    acts_destroy(&x.acts);
    acts_destroy(&x.critic_acts);
    const HybridCfg hybrid = {.slots = x.batch,
                              .max_tokens = x.prompt + x.answer,
                              .prefill_tokens = 2048,
                              .kv_block = 16,
                              .max_prompt = x.prompt,
                              .tensor = 1};
    x.gen = hybrid_create(&x.actor.model, &x.run.layout, x.run.world, 1, &hybrid, NULL);
    double total = report(&x, "gen", run_gen, new_tokens);
    const int64_t micro = 4096;
    rollout_create_scorer(&x.scorer, NULL, &x.reference.model, &x.critic.model, &x.reward.model, micro, 1, NULL);
    total += report(&x, "exp", run_exp, all);
    UpdateCfg cfg = {.actor = {.eps_low = 0.2, .eps_high = 0.2},
                     .eps_value = 0.2,
                     .inv_temperature = 1,
                     .epochs = 1,
                     .minibatch = x.batch,
                     .micro_tokens = micro,
                     .seed = 1};
    static const Params keep_all; // no recomputation
    ppo_update_create(&x.update, &cfg, &keep_all, &x.actor, &x.critic, NULL, NULL);
    total += report(&x, "ppo", run_ppo, all);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    if (world_rank() == 0)
        printf("{\"phase\": \"iteration\", \"seconds\": %.4f, \"tokens_per_s\": %.1f, \"peak_bytes\": %.0f, "
               "\"kernels\": \"%s\"}\n",
               total, all / total, (double)usage.ru_maxrss * 1024, kernels_describe());
    world_finalize();
    return 0;
}
