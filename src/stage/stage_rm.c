// stage_rm.c: pairs of answers through the trunk and a scalar head; a pair stays in one micro-batch.
#include "stage/stage_rm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "comm/agree.h"
#include "comm/coll.h"
#include "loss/loss_pair.h"
#include "model/head.h"
#include "stage/feed.h"
#include "stage/finite.h"
#include "stage/role.h"
#include "stage/save.h"

typedef struct {
    Role reward;
    Feed feed;
    Acts acts;
    Batch batch;
    int32_t *rows;
    float *values, *dvalues;
    int64_t cap, steps;
    PairLossCfg cfg;
    PairStats first, last; // of the evaluations before and after
} Rm;

static void destroy(void **self) {
    Rm *s = *self;
    if (!s) return;
    role_close(&s->reward);
    feed_close(&s->feed);
    acts_destroy(&s->acts);
    batch_free(&s->batch);
    mem_free(s->rows);
    mem_free(s->values);
    mem_free(s->dvalues);
    MEM_FREE(*self);
}

static Err setup(Run *run, void **self) {
    Err err = DS_OK;
    const TrainParams *t = &run->p->rm.train;
    Rm *s = MEM_NEW(Rm, 1);
    *self = s;
    s->cfg = (PairLossCfg){
        .form = (PairForm)run->p->rm.loss, .margin = run->p->rm.margin, .center_coef = run->p->rm.center_coef};
    char *path = role_path(run->p, run->products, STAGE_RM, MODEL_REWARD);
    DS_TRY(feed_open(run, run->p->data.rm_file, DATA_RM, t->micro_tokens, false, &s->feed));
    s->steps = feed_steps(&s->feed, t->global_batch, t->epochs, t->max_steps);
    RoleSpec spec = {.name = "reward",
                     .keys = &run->p->reward.common,
                     .path = path,
                     .head = ARCH_HEAD_SCALAR,
                     .trained = true,
                     .optim = role_optim(t, t->lr, run->p->reward.common.lora_lr, s->steps),
                     .ema_beta = -1};
    DS_TRY(role_open(run, &spec, &s->reward));
    const Model *m = &s->reward.model;
    acts_create(&s->acts, run->k, &m->part, m->dt, true, acts_kept(spec.keys, m->arch.layers));
    acts_reserve(&s->acts, feed_room(&s->feed), feed_room(&s->feed));
    log_info("  data      %s: %lld pairs, %lld held out; %lld steps of %lld", run->p->data.rm_file,
             (long long)s->feed.n_train, (long long)s->feed.n_eval, (long long)s->steps, (long long)t->global_batch);
done:
    mem_free(path);
    return err;
}

static int64_t steps(const void *self) { return ((const Rm *)self)->steps; }

static int models(void *self, StageModel *list) {
    Rm *s = self;
    list[0] = (StageModel){"reward", &s->reward.model, &s->reward.optim};
    return 1;
}

// Reads the micro-batch of a turn and computes a value for every token. Collective.
static Err forward(Run *run, Rm *s, int64_t turn) {
    Err err = DS_OK;
    DS_TRY(agree_err(run->world, feed_batch(&s->feed, turn, &s->batch)));
    const int64_t n = s->batch.n;
    if (s->cap < n) {
        s->rows = mem_grow(s->rows, s->cap, n, sizeof *s->rows);
        s->values = mem_grow(s->values, s->cap, n, sizeof *s->values);
        s->dvalues = mem_grow(s->dvalues, s->cap, n, sizeof *s->dvalues);
        for (int64_t i = s->cap; i < n; i++) s->rows[i] = (int32_t)i;
        s->cap = n;
    }
    model_fwd(&s->reward.model, &s->acts, &s->batch, n, NULL);
    head_scalar_fwd(&s->reward.model, &s->acts, s->rows, n, s->values);
done:
    return err;
}

static Err evaluate(Run *run, Rm *s, PairStats *stats) {
    Err err = DS_OK;
    int64_t limit = run->p->rm.train.eval_samples, n = s->feed.n_eval;
    PairStats *lane = MEM_NEW(PairStats, run->layout.turns);
    *stats = (PairStats){0};
    if (limit > 0 && n > limit) n = limit;
    if (n == 0) goto done;
    DS_TRY(agree_err(run->world, feed_eval(&s->feed, 0, n)));
    for (int64_t t = 0; t < feed_turns(&s->feed); t++) {
        DS_TRY(forward(run, s, t));
        loss_pair(&s->cfg, s->batch.n_seq / 2, s->batch.starts, s->batch.ids, s->values, 0, NULL,
                  &lane[t % run->layout.turns]);
    }
    stage_lane_sum(run, (double *)lane, PAIR_STATS_DOUBLES, (double *)stats);
done:
    mem_free(lane);
    return err;
}

static bool is_finite(const PairStats *x) { return isfinite(x->squares); }
static const char odd_score[] = "a score of held-out pairs is not finite";

static void say(const char *when, const PairStats *x) {
    double low, high;
    if (x->pairs == 0 || !is_finite(x)) return;
    loss_pair_interval(x->right, x->pairs, &low, &high);
    log_info("  %-9s accuracy %.1f %% [%.1f, %.1f] on %.0f held-out pairs; score %.3f chosen, %.3f rejected", when,
             100 * x->right / x->pairs, 100 * low, 100 * high, x->pairs, x->chosen / x->pairs, x->rejected / x->pairs);
}

static Err begin(Run *run, void *self, Record *record) {
    Rm *s = self;
    Err err = DS_OK;
    DS_TRY(evaluate(run, s, &s->first));
    record->v[R_EVAL_ACCURACY] = s->first.right / s->first.pairs;
    say("before", &s->first);
    DS_TRY(finite_evaluation("rm", FINITE_BEFORE, is_finite(&s->first), odd_score));
done:
    return err;
}

static Err step(Run *run, void *self, int64_t at, StepInfo *info) {
    Err err = DS_OK;
    Rm *s = self;
    Optim *o = &s->reward.optim;
    PairStats stats, *lane = MEM_NEW(PairStats, run->layout.turns);
    double own = 0;
    (void)at;
    DS_TRY(agree_err(run->world, feed_next(&s->feed, run->p->rm.train.global_batch)));
    const double scale = 1 / (double)ds_max(1, s->feed.n);
    optim_begin(o);
    for (int64_t t = 0; t < feed_turns(&s->feed); t++) {
        DS_TRY(forward(run, s, t));
        memset(s->dvalues, 0, (size_t)s->batch.n * sizeof *s->dvalues);
        loss_pair(&s->cfg, s->batch.n_seq / 2, s->batch.starts, s->batch.ids, s->values, scale, s->dvalues,
                  &lane[t % run->layout.turns]);
        head_scalar_bwd(&s->reward.model, &s->acts, s->dvalues);
        model_bwd(&s->reward.model, &s->acts);
    }
    for (int t = 0; t < run->layout.turns; t++) own += lane[t].loss;
    stage_lane_sum(run, (double *)lane, PAIR_STATS_DOUBLES, (double *)&stats);
    double loss = stats.loss * scale, norm = optim_reduce(o);
    info->skipped = !isfinite(norm) || !isfinite(loss);
    if (info->skipped) finite_find(run, &(StageModel){"reward", &s->reward.model, o}, own, info->why);
    else snprintf(info->note, sizeof info->note, "loss %.4f accuracy %.2f", loss, stats.right / stats.pairs);
    info->record.v[R_LR] = info->skipped ? NAN : optim_apply(o);
    info->record.v[R_LOSS] = loss;
    info->record.v[R_GRAD_NORM] = norm;
    info->record.v[R_ACCURACY] = stats.right / stats.pairs;
    info->record.v[R_CHOSEN] = stats.chosen / stats.pairs;
    info->record.v[R_REJECTED] = stats.rejected / stats.pairs;
    info->tokens = s->feed.tokens;
done:
    mem_free(lane);
    return err;
}

static Err eval(Run *run, void *self, int64_t at, bool last, Record *record) {
    Err err = DS_OK;
    Rm *s = self;
    (void)at;
    DS_TRY(evaluate(run, s, &s->last));
    record->v[R_EVAL_ACCURACY] = s->last.right / s->last.pairs;
    say(last ? "after" : "eval", &s->last);
    DS_TRY(finite_evaluation("rm", last ? FINITE_AFTER : FINITE_DURING, is_finite(&s->last), odd_score));
done:
    return err;
}

static void save(const void *self, Kv *kv) {
    const Rm *s = self;
    loader_save(&s->feed.train, "rm.loader", kv);
    kv_put_i64(kv, "rm.optim_steps", s->reward.optim.steps);
    kv_put_array(kv, "rm.first", DS_F64, PAIR_STATS_DOUBLES, &s->first);
}

static Err load(void *self, const Kv *kv) {
    Err err = DS_OK;
    Rm *s = self;
    DS_TRY(loader_load(&s->feed.train, "rm.loader", kv));
    DS_TRY(kv_get_i64(kv, "rm.optim_steps", &s->reward.optim.steps));
    DS_TRY(kv_copy_array(kv, "rm.first", DS_F64, PAIR_STATS_DOUBLES, &s->first));
done:
    return err;
}

static Err finish(Run *run, void *self) {
    Err err = DS_OK;
    Rm *s = self;
    Arch *a = &s->reward.model.arch;
    double low, high;
    if (run->p->rm.normalize && s->last.pairs > 0) {
        loss_pair_moments(&s->last, &a->score_mean, &a->score_std);
        if (!(a->score_std > 0)) a->score_std = 1;
    }
    loss_pair_interval(s->last.right, s->last.pairs, &low, &high);
    summary_put(run->summary, "rm.accuracy_before", s->first.right / s->first.pairs);
    summary_put(run->summary, "rm.accuracy_after", s->last.right / s->last.pairs);
    summary_put(run->summary, "rm.accuracy_low", low);
    summary_put(run->summary, "rm.accuracy_high", high);
    DS_TRY(stage_mark(run, &stage_rm));
    DS_TRY(save_model(run, "rm", &s->reward.model, &s->reward.optim, false, run->p->reward.common.dtype));
done:
    return err;
}

const Stage stage_rm = {.kind = STAGE_RM,
                        .name = "rm",
                        .title = "reward model",
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
