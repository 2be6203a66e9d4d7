// stage.c: the loop. What a step does is the stage's business; when to evaluate, save and stop is decided here.
#include "stage/stage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/watchdog.h"
#include "comm/agree.h"
#include "comm/coll.h"
#include "stage/finite.h"
#include "stage/save.h"
#include "stage/stop.h"

void stage_lane_sum(const Run *run, const double *x, int64_t n, double *sum) {
    const Layout *l = &run->layout;
    const int ranks = group_size(l->data);
    double *all = MEM_NEW(double, l->lanes *n);
    coll_allgather(l->data, x, (size_t)(l->turns * n) * sizeof *x, all);
    for (int64_t i = 0; i < n; i++) sum[i] = 0;
    for (int lane = 0; lane < l->lanes; lane++)
        for (int64_t i = 0; i < n; i++) sum[i] += all[((int64_t)(lane % ranks) * l->turns + lane / ranks) * n + i];
    mem_free(all);
}

char *stage_model_path(const Run *run, const char *name) {
    return mem_printf("%s/models/%s.h5", run->p->job.out, name);
}

char *stage_product_path(const Params *p, StageKind kind) {
    static const char *const names[STAGE_KINDS] = {"sft", "rm", "actor"};
    return mem_printf("%s/models/%s.h5", p->job.out, names[kind]);
}

Err stage_mark(Run *run, const Stage *stage) {
    Err err = history_sync(run->history);
    if (!err && group_rank(run->world) == 0) {
        char key[32];
        snprintf(key, sizeof key, "%s.records", stage->name);
        summary_put(run->summary, key, (double)history_records(run->history));
        err = summary_write(run->summary);
    }
    return agree_err(run->world, err);
}

static const TrainParams *train_params(const Run *run, const Stage *stage) {
    switch (stage->kind) {
    case STAGE_SFT: return &run->p->sft.train;
    case STAGE_RM: return &run->p->rm.train;
    default: return &run->p->ppo.train;
    }
}

typedef struct {
    Run *run;
    const Stage *stage;
    const TrainParams *train;
    void *self;
    int64_t step, steps, bad;
    double step_seconds, rate; // smoothed
} Loop;

static double peak_memory(const Run *run) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double bytes = (double)usage.ru_maxrss * 1024;
    coll_max_f64(run->world, &bytes, 1);
    return bytes;
}

static Err save_now(Loop *l) {
    Err err = DS_OK;
    const double began = clock_now();
    Kv *kv = kv_create();
    kv_put_i64(kv, "loop.step", l->step);
    kv_put_i64(kv, "loop.bad", l->bad);
    l->stage->save(l->self, kv);
    StageModel models[STAGE_MODELS];
    int n = l->stage->models(l->self, models);
    DS_TRY(finite_models(l->run, l->stage->name, models, n));
    DS_TRY(history_sync(l->run->history));
    if (l->run->rollouts) DS_TRY(history_sync_rollouts(l->run->rollouts));
    kv_put_i64(kv, "history.records", history_records(l->run->history));
    DS_TRY(save_checkpoint(l->run, l->stage->name, l->step, models, n, kv));
    l->run->last_checkpoint = clock_now();
    summary_put(l->run->summary, "checkpoint.seconds", clock_now() - began);
    l->run->checkpointed = true;
done:
    kv_destroy(&kv);
    return err;
}

static Err load_from(Loop *l, const char *path) {
    Err err = DS_OK;
    Kv *kv = NULL;
    StageModel models[STAGE_MODELS];
    int n = l->stage->models(l->self, models);
    DS_TRY(save_restore(l->run, path, models, n, &kv));
    DS_TRY(kv_get_i64(kv, "loop.step", &l->step));
    DS_TRY(kv_get_i64(kv, "loop.bad", &l->bad));
    DS_TRY(l->stage->load(l->self, kv));
    log_info("%s: goes on after step %lld of %lld", l->stage->name, (long long)l->step, (long long)l->steps);
done:
    kv_destroy(&kv);
    return err;
}

// A skipped step says why, and how many there have been in a row.
static void say_skipped(const Loop *l, StepInfo *info) {
    const size_t n = strlen(info->note);
    log_warn("%s step %lld skipped: %s", l->stage->name, (long long)l->step, info->why);
    snprintf(info->note + n, sizeof info->note - n, "%sskipped (%lld)", n ? " " : "", (long long)l->bad);
}

// One step and what is noted of it.
static Err one_step(Loop *l) {
    Err err = DS_OK;
    StepInfo info = {0};
    record_clear(&info.record);
    watchdog_step(l->stage->name, l->step + 1);
    double start = clock_now();
    DS_TRY(l->stage->step(l->run, l->self, l->step, &info));
    l->step++;
    l->run->steps_made++;
    l->bad = info.skipped ? l->bad + 1 : 0;
    bool due = l->train->eval_every > 0 && l->step % l->train->eval_every == 0 && l->step < l->steps;
    if (due) DS_TRY(l->stage->eval(l->run, l->self, l->step, false, &info.record));
    double seconds = clock_now() - start;
    l->step_seconds = l->step_seconds > 0 ? 0.9 * l->step_seconds + 0.1 * seconds : seconds;
    info.record.v[R_SKIPPED] = info.skipped;
    info.record.v[R_TOKENS] = (double)info.tokens;
    info.record.v[R_SECONDS] = seconds;
    info.record.v[R_TOKENS_PER_SECOND] = (double)info.tokens / seconds;
    info.record.v[R_MEMORY] = peak_memory(l->run);
    history_put(l->run->history, l->stage->name, l->step, clock_unix(), info.record.v);
    double rate = (double)info.tokens / seconds;
    l->rate = l->rate > 0 ? 0.9 * l->rate + 0.1 * rate : rate;
    if (info.skipped) say_skipped(l, &info);
    log_progress(l->stage->name, l->step, l->steps, l->rate, "tokens/s", info.note, l->step % l->train->log_every == 0);
    DS_CHECK(l->bad <= l->run->p->job.max_bad_steps, DS_ERR_NUMERIC,
             "%s: %lld steps in a row were skipped because a loss or gradient was not finite ([job] max_bad_steps = "
             "%lld), the last one for %s; the last checkpoint is untouched; a lower lr or fp32 may help",
             l->stage->name, (long long)l->bad, (long long)l->run->p->job.max_bad_steps, info.why);
done:
    return err;
}

static bool checkpoint_due(const Loop *l) {
    if (l->step == l->steps) return false;
    int64_t every = l->run->p->checkpoint.every_steps;
    if (every > 0 && l->step % every == 0) return true;
    // Rank 0's clock decides for all: the ranks' clocks differ.
    int64_t due = l->run->p->checkpoint.every_minutes > 0 &&
                  clock_now() - l->run->last_checkpoint > 60 * l->run->p->checkpoint.every_minutes;
    coll_bcast(l->run->world, &due, sizeof due, 0);
    return due;
}

// With a checkpoint, and how far this start came: one that gets nowhere is not to be started again and again.
static Err stop_here(Loop *l, StopWish wish, const char *why) {
    Err err = DS_OK;
    const bool speaks = group_rank(l->run->world) == 0;
    const int64_t made = l->run->steps_made;
    runlock_leaving(l->run->lock);
    DS_TRY(save_now(l));
    if (speaks) err = summary_write(l->run->summary);
    if (!err && speaks && wish == STOP_FOR_GOOD) err = stop_fulfilled();
    DS_TRY(agree_root(l->run->world, err));
    log_info(
        "%s: stopped by %s after step %lld of %lld (this start made %lld), with a checkpoint; start again to go on",
        l->stage->name, why, (long long)l->step, (long long)l->steps, (long long)made);
    DS_TRY(stop_without_step(wish, why, made, clock_now() - l->run->started));
    err = wish == STOP_FOR_GOOD ? DS_STOP_FINAL : DS_STOP_REQUEUE;
done:
    return err;
}

static Err all_steps(Loop *l) {
    Err err = DS_OK;
    while (l->step < l->steps) {
        const char *why;
        StopWish wish = stop_ask(l->run->world, 1.5 * l->step_seconds, &why);
        if (wish == STOP_EARLY || wish == STOP_FOR_GOOD) return stop_here(l, wish, why);
        if (wish == STOP_CHECKPOINT) DS_TRY(save_now(l));
        DS_TRY(one_step(l));
        if (checkpoint_due(l)) DS_TRY(save_now(l));
    }
done:
    return err;
}

// The evaluation before is the record of step 0.
static Err begin(Loop *l) {
    Record first;
    record_clear(&first);
    Err err = l->stage->begin(l->run, l->self, &first);
    if (!err) history_put(l->run->history, l->stage->name, 0, clock_unix(), first.v);
    return err;
}

Err stage_run(Run *run, const Stage *stage, const char *resume) {
    Err err = DS_OK;
    Loop l = {.run = run, .stage = stage, .train = train_params(run, stage)};
    StageModel models[STAGE_MODELS];
    watchdog_step(stage->name, 0);
    log_info("%s: %s", stage->name, stage->title);
    DS_TRY(stage->setup(run, &l.self));
    l.steps = stage->steps(l.self);
    if (resume) DS_TRY(load_from(&l, resume));
    else DS_TRY(begin(&l));
    DS_TRY(all_steps(&l));
    Record last;
    record_clear(&last);
    DS_TRY(stage->eval(run, l.self, l.step, true, &last));
    history_put(run->history, stage->name, l.step, clock_unix(), last.v);
    DS_TRY(finite_end(run, stage->name, l.steps, models, stage->models(l.self, models)));
    DS_TRY(stage->finish(run, l.self));
    run->products |= 1 << stage->kind;
    DS_TRY(history_sync(run->history));
done:
    watchdog_step("", 0);
    stage->destroy(&l.self);
    return err;
}
