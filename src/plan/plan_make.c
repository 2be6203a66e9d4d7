// plan_make.c: the phases of a job, dry.
#include <math.h>

#include "base/mem.h"
#include "comm/coll.h"
#include "gen/hybrid.h"
#include "model/new_model.h"
#include "optim/optim.h"
#include "plan/plan.h"
#include "plan/plan_models.h"

// What a phase has made: models with their state, activations, a generator.
typedef struct {
    const Params *p;
    const PlanModels *all;
    int ranks;
    Layout layout;
    PhasePlan *out;
    Model model[ROLES];
    Optim optim[ROLES];
    Acts acts[8];
    int n_acts;
    Workspace workspace; // of ppo
    Hybrid *gen;
} Dry;

static void add_model(Dry *d, PlanRole role, bool trained, bool ema) {
    const PlanModel *x = &d->all->model[role];
    const OptimCfg cfg = {0};
    new_model_create(&d->model[role], &kernels_dry, &x->arch, plan_dtype(d->p, x->keys), &d->layout, x->keys, trained);
    if (trained) optim_create(&d->optim[role], &d->model[role].zero, &cfg, ema ? 0 : -1);
}

static void add_reference(Dry *d) {
    const ModelParams *keys = d->all->model[ROLE_REFERENCE].keys;
    if (!new_model_shares(d->p)) add_model(d, ROLE_REFERENCE, false, false);
    else new_model_create_beside(&d->model[ROLE_REFERENCE], &d->model[ROLE_ACTOR], &d->layout, keys);
}

static void add_acts(Dry *d, PlanRole role, bool keep, int64_t tokens, Workspace *shared) {
    const PlanModel *x = &d->all->model[role];
    Acts *a = &d->acts[d->n_acts++];
    acts_create(a, &kernels_dry, &d->model[role].part, plan_dtype(d->p, x->keys), keep,
                keep ? acts_kept(x->keys, x->arch.layers) : 1);
    if (shared) acts_share(a, shared, 0);
    acts_reserve(a, tokens, tokens);
}

// Attention and MLP of a layer: what they send. The backward pass needs all rows of their inputs once more.
static void dry_halves(const Model *m, const Acts *a, bool backward) {
    for (int half = 0; half < 2; half++) {
        for (int i = 0; i < 1 + backward; i++) model_rows_in(m, a, a->t1, m->arch.width);
        model_rows_out(m, a, a->t1, m->arch.width);
    }
}

// The calls of one micro-batch that communicate, as model.c and head.c make them: ZeRO's, and over the tensor group
// those of the n tokens in `a`.
static void dry_turn(Model *m, const Acts *a) {
    const int head = m->weights.blocks - 1;
    model_open(m, 0, 1);
    model_rows_out(m, a, a->x[0], m->arch.embed_width);
    for (int b = 1; b < head; b++) {
        model_open(m, b, b + 1);
        dry_halves(m, a, false);
    }
    model_open(m, head, -1);
    model_open(m, 0, -1);
    model_grad_open(m, 0);
    model_grad_open(m, head);
    model_rows_in(m, a, a->x[m->arch.layers], m->arch.width);
    if (m->arch.head == ARCH_HEAD_LM) model_sum(m, NULL, a->n * m->arch.embed_width);
    model_grad_close(m, head);
    for (int b = head - 1; b > 0; b--) {
        model_open(m, b, b - 1);
        model_grad_open(m, b);
        if (b - 1 < m->arch.layers - a->kept) dry_halves(m, a, false);
        dry_halves(m, a, true);
        model_grad_close(m, b);
    }
    model_rows_in(m, a, a->dx, m->arch.width);
    model_grad_close(m, 0);
}

static double group_sent(const Group *g) {
    return (double)(coll_group_sent_as(g, COLL_REDUCE_SCATTER) + coll_group_sent_as(g, COLL_ALLGATHER));
}

// Adds `times` what has been sent so far: -n before, n after what happens n times.
static void count(Dry *d, int64_t times) {
    double *sent = d->out->sent, n = (double)times;
    sent[PLAN_ZERO_REDUCE] += n * (double)coll_group_sent_as(d->layout.zero, COLL_REDUCE_SCATTER);
    sent[PLAN_ZERO_GATHER] += n * (double)coll_group_sent_as(d->layout.zero, COLL_ALLGATHER);
    sent[PLAN_COPIES] += n * group_sent(d->layout.copies);
    sent[PLAN_TENSOR] += n * group_sent(d->layout.tensor);
}

// One optimizer step of a model with these activations: what it sends. All turns after the first, which finds other
// blocks open, send the same: one of them stands for all, of which there can be a million.
static void dry_step(Dry *d, PlanRole role, Acts *a, int64_t turns, int64_t tokens) {
    ZeroState *z = &d->model[role].zero;
    acts_set_rows(a, tokens);
    count(d, -1);
    zero_step_begin(z);
    dry_turn(&d->model[role], a);
    if (turns > 1) {
        count(d, 2 - turns);
        dry_turn(&d->model[role], a);
        count(d, turns - 2);
    }
    zero_grad_finish(z);
    zero_weights_changed(z);
    count(d, 1);
}

// Micro-batches of one step of so many samples on a rank: lanes in turn, each with enough for its share of the tokens,
// of which a sample is the least.
static int64_t turns_of(const Dry *d, double step_tokens, int64_t samples, int64_t micro_tokens) {
    const double lane = step_tokens / d->layout.lanes;
    const int64_t turns = ds_max(1, (int64_t)(lane / (double)micro_tokens + 0.999));
    return d->layout.turns * ds_min(turns, ds_ceil_div(samples, d->layout.lanes));
}

static int64_t checkpoint_bytes(const Dry *d, PlanRole role) {
    if (!d->optim[role].z) return 0;
    return weights_whole_count(d->model[role].zero.weights) * (int64_t)sizeof(float) *
           (d->optim[role].ema.data ? 4 : 3);
}

// Forward FLOP of `tokens` tokens in sequences of `length`: products with the weights, and attention's.
static double forward_flops(const Arch *a, double tokens, double length) {
    return 2 * (double)arch_param_count(a) * tokens +
           2 * (double)(a->layers * a->heads * a->head_dim) * length * tokens;
}

static double train_flops(const PlanModel *x, double tokens, double length) {
    const double kept = (double)acts_kept(x->keys, x->arch.layers) / (double)x->arch.layers;
    return forward_flops(&x->arch, tokens, length) * (4 - kept);
}

// Takes the accounts and gives everything back.
static void close_phase(Dry *d) {
    PhasePlan *x = d->out;
    for (int tag = 0; tag < MEM_TAGS; tag++) {
        x->bytes[tag] = kernels_mem_peak((MemTag)tag);
        if (tag != MEM_HOST) x->total += x->bytes[tag];
    }
    for (int r = 0; r < ROLES; r++) x->checkpoint += checkpoint_bytes(d, (PlanRole)r);
    hybrid_destroy(&d->gen);
    for (int i = 0; i < d->n_acts; i++) acts_destroy(&d->acts[i]);
    for (int r = 0; r < ROLES; r++) {
        if (d->optim[r].z) optim_destroy(&d->optim[r]);
        model_destroy(&d->model[r]);
    }
    d->n_acts = 0;
    workspace_destroy(&d->workspace);
    kernels_mem_forget();
}

static void plan_supervised(Dry *d, PlanRole role, const TrainParams *t, int64_t longest, double tokens, bool pairs) {
    const PlanModel *x = &d->all->model[role];
    const double all = tokens * (double)t->global_batch;
    add_model(d, role, true, false);
    add_acts(d, role, true, ds_max(t->micro_tokens, longest), NULL);
    d->out->turns = turns_of(d, all, t->global_batch, t->micro_tokens);
    dry_step(d, role, &d->acts[0], d->out->turns, t->micro_tokens);
    d->out->flops[2] = train_flops(x, all, pairs ? tokens / 2 : tokens) / d->ranks;
    close_phase(d);
}

static double link_of(const Params *p) { return p->machine.link > 0 ? p->machine.link : p->machine.network; }

// A pass over the running sequences reads every weight of the rank's part, which may have to travel first, and sums
// activations over the ranks that have the other parts, twice a layer.
static double generate_seconds(const Dry *d, int64_t answers) {
    const Params *p = d->p;
    const PlanModel *actor = &d->all->model[ROLE_ACTOR];
    const HybridCfg cfg = hybrid_config(p, d->ranks, group_size(d->layout.data));
    const int64_t parts = ds_max(cfg.tensor, p->layout.tensor), mine = ds_ceil_div(answers, d->ranks / parts);
    const double passes = (double)(p->generate.max_answer * ds_ceil_div(mine, cfg.slots));
    const double e = (double)dtype_bytes(plan_dtype(p, actor->keys));
    const double weights = (double)arch_param_count(&actor->arch) * e / (double)parts;
    const double sums =
        4.0 * (double)((parts - 1) * actor->arch.layers * cfg.slots * actor->arch.width) * e / (double)parts;
    const bool travels = cfg.by_block && actor->keys->zero_stage == 3;
    return passes * (weights / p->machine.bandwidth + sums / link_of(p)) +
           ((travels ? passes * weights : 0) + d->out->rollout) / p->machine.network;
}

// Tokens that go through the actor while it generates: a prompt goes once on every rank that has answers to it, which
// are neighbours.
static double generate_tokens(const Params *p, int64_t answers, int groups) {
    const int64_t prompts = ds_min(answers, p->ppo.rollout_batch + groups - 1);
    return (double)(prompts * p->generate.max_prompt + answers * p->generate.max_answer);
}

static void plan_ppo_cost(Dry *d, int64_t answers) {
    const Params *p = d->p;
    const PlanModel *m = d->all->model;
    const double length = (double)(p->generate.max_prompt + p->generate.max_answer), all = (double)answers * length;
    double *flops = d->out->flops;
    flops[0] = forward_flops(&m[ROLE_ACTOR].arch, generate_tokens(p, answers, group_size(hybrid_data(d->gen))), length);
    flops[1] = forward_flops(&m[ROLE_REFERENCE].arch, all, length) + forward_flops(&m[ROLE_CRITIC].arch, all, length);
    if (p->ppo.reward_source == REWARD_MODEL) flops[1] += forward_flops(&m[ROLE_REWARD].arch, all, length);
    if (!hybrid_exact(d->gen)) flops[1] += forward_flops(&m[ROLE_ACTOR].arch, all, length);
    flops[2] = (train_flops(&m[ROLE_ACTOR], all, length) + train_flops(&m[ROLE_CRITIC], all, length)) *
               (double)p->ppo.ppo_epochs;
    for (int i = 0; i < 3; i++) flops[i] /= d->ranks;
    d->out->seconds[0] = generate_seconds(d, answers);
}

static void plan_ppo(Dry *d) {
    const Params *p = d->p;
    const int ranks = group_size(d->layout.data);
    const int64_t answers = p->ppo.rollout_batch * p->ppo.samples_per_prompt;
    const int64_t longest = p->generate.max_prompt + p->generate.max_answer, micro = p->ppo.train.micro_tokens,
                  room = ds_max(micro, longest);
    const bool has_reward = p->ppo.reward_source == REWARD_MODEL;
    add_model(d, ROLE_ACTOR, true, p->ppo.ema);
    add_model(d, ROLE_CRITIC, true, false);
    add_reference(d);
    if (has_reward) add_model(d, ROLE_REWARD, false, false);
    add_acts(d, ROLE_ACTOR, true, p->ppo.ptx_coef > 0 ? ds_max(room, d->all->longest[2]) : room, &d->workspace);
    add_acts(d, ROLE_CRITIC, true, room, &d->workspace);
    add_acts(d, ROLE_REFERENCE, false, room, &d->workspace);
    add_acts(d, ROLE_CRITIC, false, room, &d->workspace);
    if (has_reward) add_acts(d, ROLE_REWARD, false, room, &d->workspace);
    const HybridCfg hybrid = hybrid_config(p, d->ranks, ranks);
    d->gen = hybrid_create(&d->model[ROLE_ACTOR], &d->layout, NULL, d->ranks, &hybrid, &d->workspace);
    if (!hybrid_exact(d->gen)) add_acts(d, ROLE_ACTOR, false, room, &d->workspace);
    const double before = group_sent(d->layout.zero);
    hybrid_enter(d->gen);
    hybrid_leave(d->gen);
    d->out->rollout = group_sent(d->layout.zero) - before;
    const int64_t batch = ds_min(p->ppo.train.global_batch, answers);
    d->out->turns = turns_of(d, (double)(batch * longest), batch, micro);
    dry_step(d, ROLE_ACTOR, &d->acts[0], d->out->turns, micro);
    dry_step(d, ROLE_CRITIC, &d->acts[1], d->out->turns, micro);
    plan_ppo_cost(d, answers);
    close_phase(d);
}

static void set_seconds(PhasePlan *x, const Params *p, double steps) {
    for (int i = 0; i < 3; i++) x->seconds[i] = fmax(x->seconds[i], x->flops[i] / p->machine.flops);
    for (int i = 0; i < PLAN_TRAFFIC; i++)
        x->travel += steps * x->sent[i] / (i == PLAN_TENSOR ? link_of(p) : p->machine.network);
}

Err plan_make(const Params *p, int ranks, Plan *plan) {
    PlanModels models;
    Err err = plan_models_find(p, &models);
    if (err) return err;
    err = plan_make_of(p, &models, ranks, plan);
    plan_models_free(&models);
    return err;
}

Err plan_make_of(const Params *p, const PlanModels *found, int ranks, Plan *plan) {
    Err err = DS_OK;
    PlanModels models = *found;
    Dry d = {.p = p, .all = &models, .ranks = ranks, .workspace = {.k = &kernels_dry}};
    *plan = (Plan){0};
    plan_models_keys(&models, p);
    DS_CHECK(ranks >= 1 && ranks <= 1 << 20, DS_ERR_PARAMS, "--ranks %d: expected 1 to %d", ranks, 1 << 20);
    const LayoutWish wish = {p->layout.tensor, p->layout.zero, p->layout.lanes};
    DS_TRY(layout_check(ranks, wish));
    for (int r = 0; r < ROLES; r++)
        DS_TRY(new_model_check(&models.model[r].arch, (int)wish.tensor, models.model[r].keys, models.model[r].name));
    DS_TRY(hybrid_check(&models.model[ROLE_ACTOR].arch, ranks, p->generate.tensor));
    layout_create_dry(&d.layout, ranks, wish);
    d.layout.library = p->layout.reduce == REDUCE_LIBRARY;
    d.layout.sequence = p->layout.sequence;
    kernels_mem_forget();
    for (int phase = 0; phase < PLAN_PHASES; phase++) {
        d.out = &plan->phase[phase];
        if (!(p->job.stages >> phase & 1)) continue;
        if (phase == PLAN_SFT)
            plan_supervised(&d, ROLE_ACTOR, &p->sft.train, models.longest[0], models.sft_tokens, false);
        else if (phase == PLAN_RM)
            plan_supervised(&d, ROLE_REWARD, &p->rm.train, models.longest[1], models.rm_tokens, true);
        else plan_ppo(&d);
        const double answers = (double)(p->ppo.rollout_batch * p->ppo.samples_per_prompt);
        set_seconds(d.out, p,
                    phase == PLAN_PPO ? (double)p->ppo.ppo_epochs * answers / (double)p->ppo.train.global_batch : 1);
        for (int tag = 0; tag < MEM_TAGS; tag++) plan->need[tag] = ds_max(plan->need[tag], d.out->bytes[tag]);
        plan->total = ds_max(plan->total, d.out->total);
    }
    layout_destroy(&d.layout);
done:
    return err;
}
