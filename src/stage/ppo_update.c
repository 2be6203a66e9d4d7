// ppo_update.c: a minibatch is dealt to the ranks, each packs its micro-batches and takes them through actor and
// critic; then one optimizer step of each model, or of none if a number is not finite anywhere.
#include "stage/ppo_update.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "comm/agree.h"
#include "comm/coll.h"
#include "loss/loss_lm.h"
#include "model/head.h"
#include "stage/finite.h"

void ppo_update_create(Update *u, const UpdateCfg *cfg, const Params *p, Role *actor, Role *critic, Feed *ptx,
                       Workspace *shared) {
    *u = (Update){.cfg = *cfg, .actor = actor, .critic = critic, .ptx = ptx};
    const Model *a = &actor->model, *c = &critic->model;
    acts_create(&u->actor_acts, a->k, &a->part, a->dt, true, acts_kept(&p->actor.common, a->arch.layers));
    acts_create(&u->critic_acts, c->k, &c->part, c->dt, true, acts_kept(&p->critic.common, c->arch.layers));
    if (shared) {
        acts_share(&u->actor_acts, shared, 0);
        acts_share(&u->critic_acts, shared, 0);
    }
}

void ppo_update_destroy(Update *u) {
    acts_destroy(&u->actor_acts);
    acts_destroy(&u->critic_acts);
    batch_free(&u->batch);
    mem_free(u->rows);
    mem_free(u->action);
    mem_free(u->target);
    mem_free(u->values);
    mem_free(u->gathered);
    mem_free(u->dvalues);
    *u = (Update){0};
}

int64_t ppo_update_count(const UpdateCfg *cfg, int64_t answers) {
    return cfg->epochs * ds_ceil_div(answers, cfg->minibatch);
}

static void reserve(Update *u, int64_t n) {
    if (n <= u->cap) return;
    u->rows = mem_grow(u->rows, u->cap, n, sizeof *u->rows);
    u->action = mem_grow(u->action, u->cap, n, sizeof *u->action);
    u->target = mem_grow(u->target, u->cap, n, sizeof *u->target);
    u->values = mem_grow(u->values, u->cap, n, sizeof *u->values);
    u->dvalues = mem_grow(u->dvalues, u->cap, n, sizeof *u->dvalues);
    u->gathered = mem_grow(u->gathered, 4 * u->cap, 4 * n, sizeof *u->gathered);
    u->cap = n;
}

// The four kinds of numbers in u->gathered.
typedef enum { OLD_LOGP, ADVANTAGE, OLD_VALUE, RETURN } Gathered;
static float *gathered(const Update *u, Gathered which) { return u->gathered + which * u->cap; }

static void gather(Update *u, const Rollout *r, int64_t n) {
    const float *const from[] = {r->logp, r->advantages, r->values, r->returns};
    for (int which = 0; which < DS_COUNT(from); which++)
        for (int64_t i = 0; i < n; i++) gathered(u, (Gathered)which)[i] = from[which][u->action[i]];
    for (int64_t i = 0; i < n; i++) u->target[i] = r->ids[u->action[i]];
}

// ---- actor ----

typedef struct {
    Update *u;
    double scale, first_ratio;
    PpoActorStats *stats;
} ActorLoss;

static void actor_loss(void *user, int64_t first, int64_t n, const float *logp, const float *entropy, float *dlogp,
                       float *dentropy) {
    ActorLoss *x = user;
    const float *old = gathered(x->u, OLD_LOGP) + first;
    loss_ppo_actor(&x->u->cfg.actor, n, logp, entropy, old, gathered(x->u, ADVANTAGE) + first, NULL, x->scale, dlogp,
                   dentropy, x->stats);
    for (int64_t i = 0; i < n; i++) x->first_ratio = fmax(x->first_ratio, fabs(exp((double)logp[i] - old[i]) - 1));
}

static void train_micro(Update *u, const Rollout *r, const int64_t *item, int64_t n, double scale, bool train_actor,
                        double *first_ratio, UpdateStats *stats) {
    int64_t n_rows, room = 0;
    for (int64_t i = 0; i < n; i++) room += rollout_length(r, item[i]);
    reserve(u, ds_max(1, room));
    rollout_batch(r, item, n, &u->batch, u->rows, u->action, &n_rows);
    gather(u, r, n_rows);
    if (train_actor) {
        ActorLoss loss = {.u = u, .scale = scale, .stats = &stats->actor};
        model_fwd(&u->actor->model, &u->actor_acts, &u->batch, n_rows, NULL);
        head_lm_train(&u->actor->model, &u->actor_acts, u->rows, u->target, n_rows, u->cfg.inv_temperature, actor_loss,
                      &loss);
        model_bwd(&u->actor->model, &u->actor_acts);
        *first_ratio = fmax(*first_ratio, loss.first_ratio);
    }
    model_fwd(&u->critic->model, &u->critic_acts, &u->batch, n_rows, NULL);
    head_scalar_fwd(&u->critic->model, &u->critic_acts, u->rows, n_rows, u->values);
    loss_ppo_critic(u->cfg.eps_value, n_rows, u->values, gathered(u, OLD_VALUE), gathered(u, RETURN), NULL, scale,
                    u->dvalues, &stats->critic);
    head_scalar_bwd(&u->critic->model, &u->critic_acts, u->dvalues);
    model_bwd(&u->critic->model, &u->critic_acts);
}

// ---- pretraining texts ----

typedef struct {
    double scale, loss;
} PtxLoss;

static void ptx_loss(void *user, int64_t first, int64_t n, const float *logp, const float *entropy, float *dlogp,
                     float *dentropy) {
    PtxLoss *x = user;
    (void)first, (void)entropy, (void)dentropy;
    x->loss += loss_lm(n, logp, NULL, x->scale, dlogp);
}

static Err train_ptx(Run *run, Update *u, UpdateStats *stats) {
    Err err = DS_OK;
    Feed *f = u->ptx;
    DS_TRY(agree_err(run->world, feed_next(f, u->cfg.ptx_batch)));
    PtxLoss loss = {.scale = u->cfg.ptx_coef / (double)ds_max(1, f->counted)};
    for (int64_t t = 0; t < feed_turns(f); t++) {
        DS_TRY(agree_err(run->world, feed_batch(f, t, &u->batch)));
        reserve(u, u->batch.n);
        int64_t n = feed_targets(&u->batch, u->rows, u->target);
        model_fwd(&u->actor->model, &u->actor_acts, &u->batch, n, NULL);
        head_lm_train(&u->actor->model, &u->actor_acts, u->rows, u->target, n, 1, ptx_loss, &loss);
        model_bwd(&u->actor->model, &u->actor_acts);
    }
    stats->ptx_loss += loss.loss;
    // Counts are known to all ranks, sums are this rank's: the part that is reduced later must count them once.
    if (f->rank == 0) stats->ptx_tokens += (double)f->counted;
    stats->tokens += f->tokens;
done:
    return err;
}

// ---- minibatches ----

// Why the first update of the iteration that is skipped is skipped: what is summed is finite until then.
static void find_why(const Run *run, const Update *u, double actor, UpdateStats *stats) {
    const StageModel a = {"actor", &u->actor->model, &u->actor->optim},
                     c = {"critic", &u->critic->model, &u->critic->optim};
    if (!isfinite(actor)) finite_find(run, &a, stats->actor.policy + stats->ptx_loss, stats->why);
    else finite_find(run, &c, stats->critic.loss, stats->why);
}

// The optimizer steps of both models, or of neither.
static void apply(const Run *run, Update *u, bool train_actor, UpdateStats *stats) {
    double actor = train_actor ? optim_reduce(&u->actor->optim) : 0, critic = optim_reduce(&u->critic->optim);
    stats->actor_norm += actor;
    stats->critic_norm += critic;
    stats->updates++;
    if (!isfinite(actor) || !isfinite(critic)) {
        if (stats->skipped++ == 0) find_why(run, u, actor, stats);
        return;
    }
    if (train_actor) stats->lr = optim_apply(&u->actor->optim);
    stats->critic_lr = optim_apply(&u->critic->optim);
}

static Err minibatch(Run *run, Update *u, const Rollout *r, const int64_t *item, int64_t n, bool train_actor,
                     UpdateStats *stats) {
    Err err = DS_OK;
    Deal deal = {0};
    int64_t actions = 0, *length = MEM_NEW(int64_t, n), *chosen = MEM_NEW(int64_t, n);
    double first_ratio = 0;
    for (int64_t i = 0; i < n; i++) {
        actions += r->starts[item[i] + 1] - r->starts[item[i]];
        stats->tokens += length[i] = rollout_length(r, item[i]);
    }
    pack_deal(length, n, run->layout.lanes, u->cfg.micro_tokens, &deal);
    if (train_actor) optim_begin(&u->actor->optim);
    optim_begin(&u->critic->optim);
    const int rank = group_rank(run->layout.data), ranks = group_size(run->layout.data);
    for (int64_t t = 0; t < pack_turns(&deal, ranks); t++) {
        const int64_t *own, count = pack_turn(&deal, ranks, rank, t, &own);
        for (int64_t i = 0; i < count; i++) chosen[i] = item[own[i]];
        train_micro(u, r, chosen, count, 1 / (double)ds_max(1, actions), train_actor, &first_ratio, stats);
    }
    if (stats->updates == 0) stats->first_ratio = first_ratio;
    if (train_actor && u->ptx) DS_TRY(train_ptx(run, u, stats));
    apply(run, u, train_actor, stats);
done:
    pack_deal_free(&deal);
    mem_free(length);
    mem_free(chosen);
    return err;
}

// Sums what is each rank's own.
static void reduce(Run *run, UpdateStats *s) {
    double maxima[] = {s->actor.ratio_max, s->first_ratio}, ptx[] = {s->ptx_loss, s->ptx_tokens};
    coll_sum_f64(run->layout.data, (double *)&s->actor, PPO_ACTOR_SUMS);
    coll_sum_f64(run->layout.data, (double *)&s->critic, PPO_CRITIC_SUMS);
    coll_sum_f64(run->layout.data, ptx, 2);
    coll_max_f64(run->layout.data, maxima, 2);
    s->actor.ratio_max = maxima[0];
    s->first_ratio = maxima[1];
    s->ptx_loss = ptx[0];
    s->ptx_tokens = ptx[1];
}

Err ppo_update_run(Run *run, Update *u, const Rollout *r, int64_t iteration, bool train_actor, UpdateStats *stats) {
    Err err = DS_OK;
    double start = clock_now();
    int64_t *order = MEM_NEW(int64_t, r->answers);
    *stats = (UpdateStats){0};
    for (int64_t e = 0; e < u->cfg.epochs; e++) {
        uint64_t key = (uint64_t)(iteration * u->cfg.epochs + e);
        rng_permutation(u->cfg.seed, RNG_MINIBATCH, key, r->answers, order);
        for (int64_t at = 0; at < r->answers; at += u->cfg.minibatch)
            DS_TRY(minibatch(run, u, r, order + at, ds_min(u->cfg.minibatch, r->answers - at), train_actor, stats));
    }
    reduce(run, stats);
    stats->seconds = clock_now() - start;
done:
    mem_free(order);
    return err;
}
