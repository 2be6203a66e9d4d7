// stage_sft.c: next-token loss over answers; the denominator is the count of the whole step, over ranks and
// micro-batches.
#include "stage/stage_sft.h"

#include <math.h>
#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"
#include "comm/agree.h"
#include "comm/coll.h"
#include "loss/loss_lm.h"
#include "model/head.h"
#include "stage/feed.h"
#include "stage/finite.h"
#include "stage/role.h"
#include "stage/save.h"

typedef struct {
    Role actor;
    Feed feed;
    Acts acts;
    Batch batch;
    int32_t *rows, *targets;
    int64_t rows_cap, steps;
    double nll_first, nll_last;
} Sft;

// What the loss of one micro-batch needs and adds to.
typedef struct {
    double scale, *loss;
} Nll;

static void nll_loss(void *user, int64_t first, int64_t n, const float *logp, const float *entropy, float *dlogp,
                     float *dentropy) {
    Nll *x = user;
    (void)first, (void)entropy, (void)dentropy;
    *x->loss += loss_lm(n, logp, NULL, x->scale, dlogp);
}

static void destroy(void **self) {
    Sft *s = *self;
    if (!s) return;
    role_close(&s->actor);
    feed_close(&s->feed);
    acts_destroy(&s->acts);
    batch_free(&s->batch);
    mem_free(s->rows);
    mem_free(s->targets);
    MEM_FREE(*self);
}

static Err setup(Run *run, void **self) {
    Err err = DS_OK;
    const TrainParams *t = &run->p->sft.train;
    Sft *s = MEM_NEW(Sft, 1);
    char *path = role_path(run->p, run->products, STAGE_SFT, MODEL_ACTOR);
    *self = s;
    DS_TRY(
        feed_open(run, run->p->data.sft_file, DATA_SFT, t->micro_tokens, run->p->sft.loss_on == LOSS_ON_ALL, &s->feed));
    s->steps = feed_steps(&s->feed, t->global_batch, t->epochs, t->max_steps);
    RoleSpec spec = {.name = "actor",
                     .keys = &run->p->actor.common,
                     .path = path,
                     .head = ARCH_HEAD_LM,
                     .trained = true,
                     .optim = role_optim(t, t->lr, run->p->actor.common.lora_lr, s->steps),
                     .ema_beta = -1};
    DS_TRY(role_open(run, &spec, &s->actor));
    const Model *m = &s->actor.model;
    acts_create(&s->acts, run->k, &m->part, m->dt, true, acts_kept(spec.keys, m->arch.layers));
    acts_reserve(&s->acts, feed_room(&s->feed), feed_room(&s->feed));
    log_info("  data      %s: %lld samples, %lld held out; %lld steps of %lld", run->p->data.sft_file,
             (long long)s->feed.n_train, (long long)s->feed.n_eval, (long long)s->steps, (long long)t->global_batch);
done:
    mem_free(path);
    return err;
}

static int64_t steps(const void *self) { return ((const Sft *)self)->steps; }

static int models(void *self, StageModel *list) {
    Sft *s = self;
    list[0] = (StageModel){"actor", &s->actor.model, &s->actor.optim};
    return 1;
}

// Reads the micro-batch of a turn and runs the layers; returns the number of target rows in *n. Collective.
static Err forward(Run *run, Sft *s, int64_t turn, int64_t *n) {
    Err err = DS_OK;
    DS_TRY(agree_err(run->world, feed_batch(&s->feed, turn, &s->batch)));
    if (s->rows_cap < s->batch.n) {
        s->rows = mem_grow(s->rows, s->rows_cap, s->batch.n, sizeof *s->rows);
        s->targets = mem_grow(s->targets, s->rows_cap, s->batch.n, sizeof *s->targets);
        s->rows_cap = s->batch.n;
    }
    *n = feed_targets(&s->batch, s->rows, s->targets);
    model_fwd(&s->actor.model, &s->acts, &s->batch, *n, NULL);
done:
    return err;
}

static Err evaluate(Run *run, Sft *s, double *nll) {
    Err err = DS_OK;
    int64_t limit = run->p->sft.train.eval_samples, n = s->feed.n_eval, rows;
    double sum = 0, *lane = MEM_NEW(double, run->layout.turns);
    *nll = NAN;
    if (limit > 0 && n > limit) n = limit;
    if (n == 0) goto done;
    DS_TRY(agree_err(run->world, feed_eval(&s->feed, 0, n)));
    for (int64_t t = 0; t < feed_turns(&s->feed); t++) {
        DS_TRY(forward(run, s, t, &rows));
        float *logp = MEM_NEW(float, rows);
        head_lm_score(&s->actor.model, &s->acts, s->rows, s->targets, rows, 1, logp, NULL);
        lane[t % run->layout.turns] += loss_lm(rows, logp, NULL, 0, NULL);
        mem_free(logp);
    }
    stage_lane_sum(run, lane, 1, &sum);
    *nll = sum / (double)s->feed.counted;
done:
    mem_free(lane);
    return err;
}

static const char odd_loss[] = "the loss of held-out samples is not finite";

static Err begin(Run *run, void *self, Record *record) {
    Sft *s = self;
    Err err = DS_OK;
    DS_TRY(evaluate(run, s, &s->nll_first));
    record->v[R_EVAL_NLL] = s->nll_first;
    if (s->feed.n_eval == 0) goto done;
    DS_TRY(finite_evaluation("sft", FINITE_BEFORE, isfinite(s->nll_first), odd_loss));
    log_info("  before    perplexity %.3f on held-out samples", exp(s->nll_first));
done:
    return err;
}

static Err step(Run *run, void *self, int64_t at, StepInfo *info) {
    Err err = DS_OK;
    Sft *s = self;
    Optim *o = &s->actor.optim;
    double loss, own = 0, *lane = MEM_NEW(double, run->layout.turns);
    (void)at;
    DS_TRY(agree_err(run->world, feed_next(&s->feed, run->p->sft.train.global_batch)));
    Nll nll = {.scale = 1 / (double)ds_max(1, s->feed.counted)};
    optim_begin(o);
    for (int64_t t = 0, rows; t < feed_turns(&s->feed); t++) {
        DS_TRY(forward(run, s, t, &rows));
        nll.loss = &lane[t % run->layout.turns];
        head_lm_train(&s->actor.model, &s->acts, s->rows, s->targets, rows, 1, nll_loss, &nll);
        model_bwd(&s->actor.model, &s->acts);
    }
    for (int t = 0; t < run->layout.turns; t++) own += lane[t];
    stage_lane_sum(run, lane, 1, &loss);
    loss *= nll.scale;
    double norm = optim_reduce(o);
    info->skipped = !isfinite(norm) || !isfinite(loss);
    if (info->skipped) finite_find(run, &(StageModel){"actor", &s->actor.model, o}, own, info->why);
    else snprintf(info->note, sizeof info->note, "loss %.4f", loss);
    info->record.v[R_LR] = info->skipped ? NAN : optim_apply(o);
    info->record.v[R_LOSS] = loss;
    info->record.v[R_GRAD_NORM] = norm;
    info->tokens = s->feed.tokens;
done:
    mem_free(lane);
    return err;
}

static Err eval(Run *run, void *self, int64_t at, bool last, Record *record) {
    Err err = DS_OK;
    Sft *s = self;
    char words[80];
    DS_TRY(evaluate(run, s, &s->nll_last));
    record->v[R_EVAL_NLL] = s->nll_last;
    if (s->feed.n_eval == 0) goto done;
    if (isfinite(exp(s->nll_last)))
        log_info("  %-9s perplexity %.3f on held-out samples after %lld steps", last ? "after" : "eval",
                 exp(s->nll_last), (long long)at);
    if (isfinite(s->nll_last))
        snprintf(words, sizeof words, "the perplexity of held-out samples, exp(%.4g), is not finite", s->nll_last);
    DS_TRY(finite_evaluation("sft", last ? FINITE_AFTER : FINITE_DURING, isfinite(exp(s->nll_last)),
                             isfinite(s->nll_last) ? words : odd_loss));
done:
    return err;
}

static void save(const void *self, Kv *kv) {
    const Sft *s = self;
    loader_save(&s->feed.train, "sft.loader", kv);
    kv_put_i64(kv, "sft.optim_steps", s->actor.optim.steps);
    kv_put_f64(kv, "sft.nll_first", s->nll_first);
}

static Err load(void *self, const Kv *kv) {
    Err err = DS_OK;
    Sft *s = self;
    DS_TRY(loader_load(&s->feed.train, "sft.loader", kv));
    DS_TRY(kv_get_i64(kv, "sft.optim_steps", &s->actor.optim.steps));
    DS_TRY(kv_get_f64(kv, "sft.nll_first", &s->nll_first));
done:
    return err;
}

static Err finish(Run *run, void *self) {
    Err err = DS_OK;
    Sft *s = self;
    summary_put(run->summary, "sft.perplexity_before", exp(s->nll_first));
    summary_put(run->summary, "sft.perplexity_after", exp(s->nll_last));
    DS_TRY(stage_mark(run, &stage_sft));
    DS_TRY(save_model(run, "sft", &s->actor.model, &s->actor.optim, false, run->p->actor.common.dtype));
done:
    return err;
}

const Stage stage_sft = {.kind = STAGE_SFT,
                         .name = "sft",
                         .title = "supervised fine-tuning",
                         .setup = setup,
                         .destroy = destroy,
                         .steps = steps,
                         .models = models,
                         .begin = begin,
                         .step = step,
                         .eval = eval,
                         .save = save,
                         .load = load,
                         .finish = finish};
