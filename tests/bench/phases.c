// phases.c: seconds, arithmetic and memory of each phase of RLHF on random weights and tokens, through the code that
// the stages run; the shapes, lengths and phases of the PyTorch + transformers script that tests/bench/run puts beside
// it. Prints one JSON line a phase. mpirun -np N spreads it.
//
// usage: phases [shape=smollm2-135m] [batch=16] [prompt=128] [answer=128] [threads=2] [repeats=2] [dtype=fp32|bf16]
//               [phases=sft,rm,gen,exp,ppo] [mixed=0|1] [micro=2048]
//
// mixed=1: prompts of prompt/4 .. prompt tokens and answers of answer/8 .. answer (lengths.h), on one rank. The phase
// chat answers one prompt. micro: tokens that are trained and scored at a time ([sft] micro_tokens). Where gen, exp and
// ppo are measured, their sum is the phase iteration.
//
// flops is what the phase must compute: 2 a weight and token forward, with the LM head only for rows whose logits are
// asked for, 4 a width, token and key in attention; three times that with a backward pass. bytes, of gen and chat: the
// weights, once a decoded token. peak_bytes: the most that rank 0's process held in the phase.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "comm/world.h"
#include "loss/loss_lm.h"
#include "loss/loss_pair.h"
#include "stage/ppo_update.h"
#include "tests/bench/lengths.h"

enum { PREFILL_TOKENS = 2048, KV_BLOCK = 16 };

typedef struct {
    const char *name;
    ArchFamily family;
    int64_t vocab, width, ffn, layers, heads, kv_heads;
} Shape;
static const Shape shapes[] = {
    {"tiny", ARCH_LLAMA, 4096, 256, 704, 4, 4, 4}, // 4 M
    {"llama-30m", ARCH_LLAMA, 16384, 384, 1024, 15, 6, 2},
    {"smollm2-135m", ARCH_LLAMA, 49152, 576, 1536, 30, 9, 3},
    {"smollm2-360m", ARCH_LLAMA, 49152, 960, 2560, 32, 15, 5},
    {"opt-125m", ARCH_OPT, 50272, 768, 3072, 12, 12, 12},
};

typedef struct {
    const Shape *shape;
    int64_t batch, prompt, answer, threads, repeats, mixed, micro;
    DType dt;
    const char *phases;
} Wish;

typedef struct {
    Wish wish;
    const Kernels *k;
    Run run;
    Arch arch;
    int64_t *prompt_len, *answer_len; // [batch]
    int64_t tokens, actions;          // of the batch: all, and those of answers
    Role actor, critic, reference, reward;
    Workspace shared; // activations and KV cache take turns, as in a job
    Acts actor_acts, critic_acts;
    Batch *micro; // this rank's whole sequences, for sft and rm
    int64_t n_micro;
    int32_t *rows, *targets;
    Prompts prompts, first_prompt;
    Rollout r, chat;
    Hybrid *gen;
    Scorer scorer;
    Update update;
    // Of the phases of an iteration, and how many of them there were.
    double total_seconds, total_flops, total_peak;
    int measured;
} Bench;

static bool wants(const Bench *x, const char *phase) {
    return strstr(x->wish.phases, phase) != NULL; // none is part of another's name
}

static int32_t random_id(const Bench *x, int64_t i) {
    uint32_t w[4];
    rng_words(1, RNG_SPLIT, 0, (uint64_t)i, w);
    return (int32_t)(3 + w[0] % (uint32_t)(x->arch.vocab - 3));
}

// ---- models ----

static void open_model(Bench *x, Role *role, ArchHead head, bool trained) {
    Arch a = x->arch;
    OptimCfg cfg = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1, .sched = {.form = SCHED_CONSTANT, .lr = 1e-6}};
    a.head = head;
    model_create(&role->model, x->k, &a, x->wish.dt, &x->run.layout,
                 (ZeroKeep){.stage = 1, .training = trained ? ZERO_TRAINED : ZERO_FROZEN}, NULL);
    model_init_random(&role->model, 1, -1);
    if (!trained) return;
    zero_master_reset(&role->model.zero);
    optim_create(&role->optim, &role->model.zero, &cfg, -1);
}

static void open_acts(Bench *x, Acts *acts, const Role *role) {
    acts_create(acts, x->k, &role->model.part, x->wish.dt, true, x->arch.layers);
    acts_share(acts, &x->shared, 0);
}

static void set_arch(Bench *x, const Shape *s) {
    arch_family_defaults(&x->arch, s->family);
    Arch *a = &x->arch;
    a->vocab = s->vocab, a->width = a->embed_width = s->width, a->ffn = s->ffn, a->layers = s->layers;
    a->heads = s->heads, a->kv_heads = s->kv_heads, a->head_dim = s->width / s->heads, a->tied = 1;
    a->max_positions = ds_max(2048, x->wish.prompt + x->wish.answer);
    if (a->pos == ARCH_POS_ROPE) a->rotary_dim = a->head_dim;
}

// ---- tokens ----

static void set_lengths(Bench *x) {
    const Wish *w = &x->wish;
    x->prompt_len = MEM_NEW(int64_t, w->batch), x->answer_len = MEM_NEW(int64_t, w->batch);
    for (int64_t i = 0; i < w->batch; i++) x->prompt_len[i] = w->prompt, x->answer_len[i] = w->answer;
    if (w->mixed) lengths_mixed(w->batch, w->prompt, w->answer, x->prompt_len, x->answer_len);
    for (int64_t i = 0; i < w->batch; i++) {
        x->tokens += x->prompt_len[i] + x->answer_len[i];
        x->actions += x->answer_len[i];
    }
}

static void append_sequence(Bench *x, Batch *b, int64_t length, int64_t *drawn) {
    for (int64_t t = 0; t < length; t++, b->n++) {
        b->ids[b->n] = random_id(x, (*drawn)++);
        b->pos[b->n] = (int32_t)t;
    }
    b->starts[++b->n_seq] = (int32_t)b->n;
}

// This rank's share of the batch of whole sequences in micro-batches; the two sequences of a pair stay together.
static void fill_micro(Bench *x) {
    const int64_t share = x->wish.batch / group_size(x->run.world), first = share * group_rank(x->run.world);
    int64_t drawn = 0;
    x->micro = MEM_NEW(Batch, share);
    for (int64_t s = 0; s < share; s += 2) {
        int64_t length[2] = {0}, pair = 0;
        for (int i = 0; i < 2 && s + i < share; i++)
            pair += length[i] = x->prompt_len[first + s + i] + x->answer_len[first + s + i];
        if (x->n_micro == 0 || x->micro[x->n_micro - 1].n + pair > x->wish.micro)
            batch_reserve(&x->micro[x->n_micro++], ds_max(x->wish.micro, pair), share);
        for (int i = 0; i < 2; i++)
            if (length[i]) append_sequence(x, &x->micro[x->n_micro - 1], length[i], &drawn);
    }
    x->rows = MEM_NEW(int32_t, x->tokens), x->targets = MEM_NEW(int32_t, x->tokens);
}

static void fill_prompts(Bench *x) {
    const int64_t n = x->wish.batch;
    x->prompts = (Prompts){.n = n, .start = MEM_NEW(int64_t, n + 1), .ids = MEM_NEW(int32_t, x->tokens)};
    for (int64_t i = 0; i < n; i++) x->prompts.start[i + 1] = x->prompts.start[i] + x->prompt_len[i];
    for (int64_t i = 0; i < x->prompts.start[n]; i++) x->prompts.ids[i] = random_id(x, i);
    x->first_prompt = x->prompts; // a view
    x->first_prompt.n = 1;
}

// ---- what must be computed ----

// Forward, of sequences [0, n) with `rows` rows of logits.
static double flops_fwd(const Bench *x, int64_t n, int64_t rows) {
    const Arch *a = &x->arch;
    const int64_t q = a->heads * a->head_dim, kv = a->kv_heads * a->head_dim;
    const int64_t layer = a->width * (2 * q + 2 * kv) + a->width * a->ffn * (a->glu ? 3 : 2);
    double tokens = 0, pairs = 0;
    for (int64_t i = 0; i < n; i++) {
        const double length = (double)(x->prompt_len[i] + x->answer_len[i]);
        tokens += length;
        pairs += length * (length + 1) / 2;
    }
    return (double)a->layers * (2 * (double)layer * tokens + 4 * (double)q * pairs) +
           2.0 * (double)(a->vocab * a->width) * (double)rows;
}

static double flops_sft(const Bench *x) { return 3 * flops_fwd(x, x->wish.batch, x->tokens - x->wish.batch); }
static double flops_rm(const Bench *x) { return 3 * flops_fwd(x, x->wish.batch, 0); }
static double flops_gen(const Bench *x) { return flops_fwd(x, x->wish.batch, x->actions); }
static double flops_chat(const Bench *x) { return flops_fwd(x, 1, x->answer_len[0]); }
// The reference's log-probs of the answers, the critic's values, the reward model's score: the actor's log-probs came
// with the answers.
static double flops_exp(const Bench *x) {
    return flops_fwd(x, x->wish.batch, x->actions) + 2 * flops_fwd(x, x->wish.batch, 0);
}
static double flops_ppo(const Bench *x) {
    return 3 * (flops_fwd(x, x->wish.batch, x->actions) + flops_fwd(x, x->wish.batch, 0));
}

// Weights that are read for the next token of every sequence, so many times.
static double decode_bytes(const Bench *x, int64_t steps) {
    return (double)steps * (double)weights_whole_count(&x->actor.model.weights) * (double)dtype_bytes(x->wish.dt);
}

// ---- phases ----

static void nll(void *user, int64_t first, int64_t n, const float *logp, const float *entropy, float *dlogp,
                float *dentropy) {
    (void)user, (void)first, (void)entropy, (void)dentropy;
    loss_lm(n, logp, NULL, 1e-3, dlogp);
}

static void sft_micro(Bench *x, const Batch *b) {
    int64_t n = 0;
    for (int64_t s = 0; s < b->n_seq; s++)
        for (int32_t t = b->starts[s]; t + 1 < b->starts[s + 1]; t++) x->rows[n] = t, x->targets[n++] = b->ids[t + 1];
    model_fwd(&x->actor.model, &x->actor_acts, b, n, NULL);
    head_lm_train(&x->actor.model, &x->actor_acts, x->rows, x->targets, n, 1, nll, NULL);
    model_bwd(&x->actor.model, &x->actor_acts);
}

static void run_sft(Bench *x) {
    optim_begin(&x->actor.optim);
    for (int64_t i = 0; i < x->n_micro; i++) sft_micro(x, &x->micro[i]);
    optim_reduce(&x->actor.optim);
    optim_apply(&x->actor.optim);
}

static void rm_micro(Bench *x, const Batch *b) {
    float *v = MEM_NEW(float, b->n), *dv = MEM_NEW(float, b->n);
    PairStats stats = {0};
    PairLossCfg cfg = {.form = PAIR_TOKENS};
    for (int64_t i = 0; i < b->n; i++) x->rows[i] = (int32_t)i;
    model_fwd(&x->critic.model, &x->critic_acts, b, b->n, NULL);
    head_scalar_fwd(&x->critic.model, &x->critic_acts, x->rows, b->n, v);
    loss_pair(&cfg, b->n_seq / 2, b->starts, b->ids, v, 1e-3, dv, &stats);
    head_scalar_bwd(&x->critic.model, &x->critic_acts, dv);
    model_bwd(&x->critic.model, &x->critic_acts);
    mem_free(v);
    mem_free(dv);
}

static void run_rm(Bench *x) {
    optim_begin(&x->critic.optim);
    for (int64_t i = 0; i < x->n_micro; i++) rm_micro(x, &x->micro[i]);
    optim_reduce(&x->critic.optim);
    optim_apply(&x->critic.optim);
}

static const GenCfg gen_cfg = {.sample = {.temperature = 1, .top_p = 1}, .seed = 1};

// Answers of unequal lengths, which a rollout's one max_answer cannot ask for.
static void generate_mixed(Bench *x) {
    const int64_t n = x->wish.batch, actions = x->actions;
    GenRequest *req = MEM_NEW(GenRequest, n);
    Rollout *r = &x->r;
    float *all = MEM_NEW(float, 7 * actions); // r->logp owns it
    *r = (Rollout){.answers = n,
                   .samples = 1,
                   .prompts = &x->prompts,
                   .starts = MEM_NEW(int32_t, n + 1),
                   .ids = MEM_NEW(int32_t, actions),
                   .score = MEM_NEW(float, n),
                   .truth = MEM_NEW(float, n),
                   .truncated = MEM_NEW(uint8_t, n),
                   .logp = all,
                   .logp_ref = all + actions,
                   .values = all + 2 * actions,
                   .kl = all + 3 * actions,
                   .rewards = all + 4 * actions,
                   .advantages = all + 5 * actions,
                   .returns = all + 6 * actions};
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = r->starts[i];
        r->starts[i + 1] = (int32_t)(at + x->answer_len[i]);
        req[i] = (GenRequest){.prompt = x->prompts.ids + x->prompts.start[i],
                              .n_prompt = x->prompt_len[i],
                              .id = (uint64_t)i,
                              .max_new = x->answer_len[i],
                              .ids = r->ids + at,
                              .logp = r->logp + at};
    }
    hybrid_enter(x->gen);
    hybrid_run(x->gen, &gen_cfg, req, n);
    hybrid_leave(x->gen);
    mem_free(req);
}

static void run_gen(Bench *x) {
    rollout_free(&x->r);
    if (x->wish.mixed) generate_mixed(x);
    else rollout_generate(x->gen, &gen_cfg, &x->prompts, 1, x->wish.answer, 0, &x->r);
}

static void run_chat(Bench *x) {
    rollout_free(&x->chat);
    rollout_generate(x->gen, &gen_cfg, &x->first_prompt, 1, x->wish.answer, 0, &x->chat);
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

// ---- measuring ----

// The most memory that this process has held since forget_peak; bytes, 0 where the system does not say.
static double peak_bytes(void) {
    char line[128];
    double kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "VmHWM:", 6)) kib = atof(line + 6);
    if (f) fclose(f);
    return kib * 1024;
}

static void forget_peak(void) {
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f) return;
    fputs("5", f);
    fclose(f);
}

static void print_phase(const Bench *x, const char *name, double seconds, double tokens, double flops, double bytes,
                        double peak) {
    if (world_rank() != 0) return;
    printf("{\"phase\": \"%s\", \"seconds\": %.4f, \"tokens_per_s\": %.1f, \"flops\": %.4g, \"bytes\": %.4g, "
           "\"peak_bytes\": %.0f, \"parameters\": %lld}\n",
           name, seconds, tokens / seconds, flops, bytes, peak,
           (long long)weights_whole_count(&x->actor.model.weights));
    fflush(stdout);
}

static double measure(Bench *x, const char *name, void (*phase)(Bench *), double tokens, double flops, double bytes) {
    double best = INFINITY;
    workspace_release(&x->shared);
    forget_peak();
    phase(x); // the first pays for what is allocated once
    for (int64_t i = 0; i < x->wish.repeats; i++) {
        const double start = clock_now();
        phase(x);
        best = fmin(best, clock_now() - start);
    }
    const double peak = peak_bytes();
    print_phase(x, name, best, tokens, flops, bytes, peak);
    if (phase != run_gen && phase != run_exp && phase != run_ppo) return best;
    x->measured++;
    x->total_seconds += best, x->total_flops += flops;
    x->total_peak = fmax(x->total_peak, peak);
    return best;
}

static void measure_train(Bench *x) {
    const double tokens = (double)x->tokens;
    if (wants(x, "sft")) {
        open_acts(x, &x->actor_acts, &x->actor);
        measure(x, "sft", run_sft, tokens, flops_sft(x), 0);
        acts_destroy(&x->actor_acts);
    }
    if (wants(x, "rm")) {
        open_acts(x, &x->critic_acts, &x->critic);
        measure(x, "rm", run_rm, tokens, flops_rm(x), 0);
        acts_destroy(&x->critic_acts);
    }
}

static void measure_gen(Bench *x, bool chat) {
    const Wish *w = &x->wish;
    const HybridCfg cfg = {.slots = chat ? 1 : w->batch,
                           .max_tokens = w->prompt + w->answer,
                           .prefill_tokens = PREFILL_TOKENS,
                           .kv_block = KV_BLOCK,
                           .max_prompt = w->prompt,
                           .tensor = 1};
    const double bytes = decode_bytes(x, w->answer);
    x->gen = hybrid_create(&x->actor.model, &x->run.layout, x->run.world, group_size(x->run.world), &cfg, &x->shared);
    if (chat) measure(x, "chat", run_chat, (double)w->answer, flops_chat(x), bytes);
    else measure(x, "gen", run_gen, (double)x->actions, flops_gen(x), bytes);
    hybrid_destroy(&x->gen);
}

static void measure_ppo(Bench *x) {
    static const Params keep_all; // no recomputation
    const UpdateCfg cfg = {.actor = {.eps_low = 0.2, .eps_high = 0.2},
                           .eps_value = 0.2,
                           .inv_temperature = 1,
                           .epochs = 1,
                           .minibatch = x->wish.batch,
                           .micro_tokens = x->wish.micro,
                           .seed = 1};
    open_model(x, &x->reference, ARCH_HEAD_LM, false);
    open_model(x, &x->reward, ARCH_HEAD_SCALAR, false);
    rollout_create_scorer(&x->scorer, NULL, &x->reference.model, &x->critic.model, &x->reward.model, x->wish.micro, 1,
                          &x->shared);
    measure(x, "exp", run_exp, (double)x->tokens, flops_exp(x), 0);
    if (!wants(x, "ppo")) return;
    ppo_update_create(&x->update, &cfg, &keep_all, &x->actor, &x->critic, NULL, &x->shared);
    measure(x, "ppo", run_ppo, (double)x->tokens, flops_ppo(x), 0);
}

// ---- the command line ----

static bool set_number(const char *arg, const char *name, int64_t *to) {
    const size_t n = strlen(name);
    if (strncmp(arg, name, n) || arg[n] != '=') return false;
    *to = atoll(arg + n + 1);
    return true;
}

static bool set_wish(Wish *w, const char *arg) {
    if (!strncmp(arg, "shape=", 6)) {
        w->shape = NULL;
        for (int i = 0; i < DS_COUNT(shapes); i++)
            if (!strcmp(shapes[i].name, arg + 6)) w->shape = &shapes[i];
        return w->shape;
    }
    if (!strncmp(arg, "dtype=", 6)) return w->dt = strcmp(arg + 6, "bf16") ? DS_F32 : DS_BF16, true;
    if (!strncmp(arg, "phases=", 7)) return w->phases = arg + 7, true;
    return set_number(arg, "batch", &w->batch) || set_number(arg, "prompt", &w->prompt) ||
           set_number(arg, "answer", &w->answer) || set_number(arg, "threads", &w->threads) ||
           set_number(arg, "repeats", &w->repeats) || set_number(arg, "mixed", &w->mixed) ||
           set_number(arg, "micro", &w->micro);
}

int main(int argc, char **argv) {
    Bench x = {.wish = {.shape = &shapes[2],
                        .batch = 16,
                        .prompt = 128,
                        .answer = 128,
                        .threads = 2,
                        .repeats = 2,
                        .micro = 2048,
                        .phases = "sft,rm,gen,exp,ppo"}};
    for (int i = 1; i < argc; i++)
        if (!set_wish(&x.wish, argv[i])) {
            fprintf(stderr, "phases: what is %s? (see the head of tests/bench/phases.c)\n", argv[i]);
            return DS_ERR_PARAMS;
        }
    world_init();
    if (kernels_open("cpu", "auto", (int)x.wish.threads, &x.k)) return DS_ERR_BUG;
    x.run = (Run){.k = x.k, .world = group_world()};
    x.shared = (Workspace){.k = x.k};
    layout_create(&x.run.layout, x.run.world, (LayoutWish){0});
    if (x.wish.mixed && group_size(x.run.world) > 1) err_fatal("mixed=1 is for one rank");
    const bool score = wants(&x, "exp") || wants(&x, "ppo"), rm = wants(&x, "rm"), ppo = wants(&x, "ppo");
    set_arch(&x, x.wish.shape);
    set_lengths(&x);
    fill_micro(&x);
    fill_prompts(&x);
    open_model(&x, &x.actor, ARCH_HEAD_LM, wants(&x, "sft") || ppo);
    if (score || rm) open_model(&x, &x.critic, ARCH_HEAD_SCALAR, rm || ppo);
    measure_train(&x);
    if (wants(&x, "chat")) measure_gen(&x, true);
    if (wants(&x, "gen") || score) measure_gen(&x, false);
    if (score) measure_ppo(&x);
    if (x.measured == 3)
        print_phase(&x, "iteration", x.total_seconds, (double)x.tokens, x.total_flops, 0, x.total_peak);
    world_finalize();
    return 0;
}
