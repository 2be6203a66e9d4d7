// stage_ppo.c: an iteration: prompts -> answers -> scores -> advantages -> updates.
#include "stage/stage_ppo.h"

#include <math.h>
#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"
#include "comm/agree.h"
#include "stage/finite.h"
#include "stage/ppo_setup.h"
#include "stage/save.h"

// Draws of training, evaluation and shown answers never meet.
enum { KEY_EVAL = 1, KEY_SHOW = 2 };
static uint64_t rollout_key(uint64_t purpose, uint64_t iteration) { return purpose << 60 | iteration << 28; }

static void destroy(void **self) {
    ppo_setup_close(*self);
    MEM_FREE(*self);
}

static Err setup(Run *run, void **self) {
    *self = MEM_NEW(Ppo, 1);
    return ppo_setup_open(run, *self);
}

static int64_t steps(const void *self) { return ((const Ppo *)self)->steps; }

static int models(void *self, StageModel *list) {
    Ppo *s = self;
    list[0] = (StageModel){"actor", &s->actor.model, &s->actor.optim};
    list[1] = (StageModel){"critic", &s->critic.model, &s->critic.optim};
    return 2;
}

static Means means_of(const Rollout *r) {
    double n = (double)r->answers, actions = (double)r->starts[r->answers], sum = 0, square = 0, truth = 0, kl = 0,
           cut = 0;
    for (int64_t i = 0; i < r->answers; i++) {
        sum += r->score[i];
        square += (double)r->score[i] * r->score[i];
        truth += r->truth[i];
        cut += r->truncated[i];
    }
    for (int64_t t = 0; t < r->starts[r->answers]; t++) kl += (double)r->logp[t] - r->logp_ref[t];
    double mean = sum / n;
    return (Means){mean,   sqrt(fmax(0, square / n - mean * mean)), truth / n, kl / actions, kl / n, actions / n,
                   cut / n};
}

// Answers the prompts and scores them.
static void experience(Run *run, Ppo *s, const Prompts *prompts, int64_t samples, uint64_t key, Rollout *r) {
    rollout_generate(s->gen, &s->gen_cfg, prompts, samples, run->p->generate.max_answer, key, r);
    rollout_score(run, &s->scorer, r);
    rollout_check(run, s->checker, r);
    if (run->p->ppo.reward_source == REWARD_CHECKER)
        for (int64_t i = 0; i < r->answers; i++) r->score[i] = r->truth[i];
}

static Err evaluate(Run *run, Ppo *s, FiniteWhen when, Means *out) {
    Err err = DS_OK;
    char why[FINITE_WORDS];
    Prompts prompts = {0};
    Rollout r = {0};
    *out = (Means){NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    DS_TRY(agree_err(run->world, ppo_setup_eval_prompts(run, s, &prompts)));
    if (prompts.n == 0) goto done;
    experience(run, s, &prompts, 1, rollout_key(KEY_EVAL, 0), &r);
    *out = means_of(&r);
    if (!s->checker) out->truth = NAN;
    DS_TRY(finite_evaluation("ppo", when, finite_rollout(run, &r, why), why));
done:
    rollout_free(&r);
    rollout_free_prompts(&prompts);
    return err;
}

static void say(const Ppo *s, const char *when, const Means *m) {
    if (!isfinite(m->reward)) return;
    char truth[48] = "";
    if (s->checker) snprintf(truth, sizeof truth, ", true score %.3f", m->truth);
    log_info("  %-9s reward %.3f%s, KL %.3f nats a sequence, %.1f tokens an answer on held-out prompts", when,
             m->reward, truth, m->kl_sequence, m->length);
}

// Keeps the answers to the first few held-out prompts in the summary: "before1", "after1".
static Err show(Run *run, Ppo *s, const char *when) {
    Err err = DS_OK;
    Prompts prompts = {0};
    Rollout r = {0};
    char key[32];
    GenCfg cfg = s->gen_cfg;
    cfg.sample.greedy = true;
    DS_TRY(agree_err(run->world, ppo_setup_eval_prompts(run, s, &prompts)));
    prompts.n = ds_min(prompts.n, run->p->job.show_prompts);
    if (prompts.n == 0 || !run->tok) goto done;
    rollout_generate(s->gen, &cfg, &prompts, 1, run->p->generate.max_answer, rollout_key(KEY_SHOW, 0), &r);
    for (int64_t i = 0; i < prompts.n; i++) {
        char *question = tok_text(run->tok, prompts.ids + prompts.start[i], prompts.start[i + 1] - prompts.start[i]);
        char *answer = tok_text(run->tok, r.ids + r.starts[i], r.starts[i + 1] - r.starts[i]);
        snprintf(key, sizeof key, "ppo.prompt%lld", (long long)i + 1);
        summary_put_text(run->summary, key, question);
        snprintf(key, sizeof key, "ppo.%s%lld", when, (long long)i + 1);
        summary_put_text(run->summary, key, answer);
        mem_free(question);
        mem_free(answer);
    }
done:
    rollout_free(&r);
    rollout_free_prompts(&prompts);
    return err;
}

static Err begin(Run *run, void *self, Record *record) {
    Err err = DS_OK;
    Ppo *s = self;
    Means m;
    DS_TRY(evaluate(run, s, FINITE_BEFORE, &m));
    record->v[R_EVAL_REWARD] = m.reward;
    record->v[R_EVAL_TRUE_SCORE] = m.truth;
    say(s, "before", &m);
    summary_put(run->summary, "ppo.reward_before", m.reward);
    summary_put(run->summary, "ppo.true_score_before", m.truth);
    DS_TRY(show(run, s, "before"));
    if (group_rank(run->world) == 0) err = summary_write(run->summary);
    DS_TRY(agree_err(run->world, err));
done:
    return err;
}

static void record_rollout(const Ppo *s, const Rollout *r, const Means *m, Record *rec) {
    rec->v[R_REWARD] = m->reward;
    rec->v[R_REWARD_STD] = m->deviation;
    rec->v[R_TRUE_SCORE] = s->checker ? m->truth : NAN;
    rec->v[R_KL_TOKEN] = m->kl_token;
    rec->v[R_KL_SEQUENCE] = m->kl_sequence;
    rec->v[R_KL_COEF] = s->kl.coef;
    rec->v[R_ANSWER_LENGTH] = m->length;
    rec->v[R_TRUNCATED] = m->truncated;
    rec->v[R_GENERATE_SECONDS] = r->generate_seconds;
    rec->v[R_SCORE_SECONDS] = r->score_seconds;
    rec->v[R_GENERATE_RATE] = (double)r->starts[r->answers] / r->generate_seconds;
    rec->v[R_SCORE_RATE] = (double)r->score_tokens / r->score_seconds;
}

static void record_updates(const Ppo *s, const UpdateStats *u, Record *rec) {
    const double n = u->actor.tokens, updates = (double)u->updates;
    if (n > 0) {
        rec->v[R_LOSS] = (u->actor.policy - s->update.cfg.actor.entropy_coef * u->actor.entropy) / n;
        rec->v[R_ENTROPY] = u->actor.entropy / n;
        rec->v[R_RATIO_MEAN] = u->actor.ratio / n;
        rec->v[R_RATIO_MAX] = u->actor.ratio_max;
        rec->v[R_RATIO_FIRST] = u->first_ratio;
        rec->v[R_CLIP_FRACTION] = u->actor.clipped / n;
        rec->v[R_GRAD_NORM] = u->actor_norm / updates;
        rec->v[R_LR] = u->lr;
    }
    if (u->ptx_tokens > 0) {
        rec->v[R_PTX_LOSS] = u->ptx_loss / u->ptx_tokens;
        rec->v[R_LOSS] += s->update.cfg.ptx_coef * rec->v[R_PTX_LOSS];
    }
    rec->v[R_VALUE_LOSS] = u->critic.loss / u->critic.tokens;
    rec->v[R_EXPLAINED] = loss_ppo_explained_variance(&u->critic);
    rec->v[R_CRITIC_LR] = u->critic_lr;
    rec->v[R_CRITIC_GRAD_NORM] = u->critic_norm / updates;
    rec->v[R_TRAIN_SECONDS] = u->seconds;
    rec->v[R_TRAIN_RATE] = (double)u->tokens / u->seconds;
}

// Everything of this rank's share of the answers into rollouts.nc.
static Err put_rollouts(Run *run, const Rollout *r, int64_t iteration) {
    const int rank = group_rank(run->world), size = group_size(run->world);
    const float *const list[] = {r->logp, r->logp_ref, r->values, r->rewards, r->advantages, r->returns};
    enum { LISTS = DS_COUNT(list) };
    const int64_t n = r->answers > rank ? (r->answers - rank + size - 1) / size : 0;
    RolloutAnswer *answers = MEM_NEW(RolloutAnswer, n);
    const float **values = MEM_NEW(const float *, n *LISTS);
    for (int64_t i = 0; i < n; i++) {
        const int64_t a = rank + i * size;
        for (int v = 0; v < LISTS; v++) values[i * LISTS + v] = list[v] + r->starts[a];
        answers[i] = (RolloutAnswer){.sample = a,
                                     .length = r->starts[a + 1] - r->starts[a],
                                     .tokens = (const uint32_t *)r->ids + r->starts[a],
                                     .values = values + i * LISTS};
    }
    Err err = history_put_rollouts(run->rollouts, iteration, answers, n);
    mem_free(answers);
    mem_free(values);
    return err;
}

static Err step(Run *run, void *self, int64_t at, StepInfo *info) {
    Err err = DS_OK;
    Ppo *s = self;
    Prompts prompts = {0};
    Rollout r = {0};
    UpdateStats updates;
    DS_TRY(agree_err(run->world, ppo_setup_next_prompts(run, s, &prompts)));
    experience(run, s, &prompts, run->p->ppo.samples_per_prompt, rollout_key(0, (uint64_t)at), &r);
    rollout_advantages(&s->gae, (KlForm)run->p->ppo.kl_estimator, s->kl.coef, run->p->ppo.whiten == WHITEN_GLOBAL, &r);
    DS_TRY(ppo_update_run(run, &s->update, &r, at, at >= run->p->ppo.critic_warmup, &updates));
    DS_TRY(put_rollouts(run, &r, at));
    Means m = means_of(&r);
    record_rollout(s, &r, &m, &info->record);
    record_updates(s, &updates, &info->record);
    DS_CHECK(run->p->ppo.max_kl == 0 || !(m.kl_sequence > run->p->ppo.max_kl), DS_ERR_NUMERIC,
             "ppo: the KL of iteration %lld is %.3f nats a sequence, above [ppo] max_kl = %g; the last checkpoint is "
             "untouched",
             (long long)at + 1, m.kl_sequence, run->p->ppo.max_kl);
    kl_control_update(&s->kl_cfg, &s->kl, m.kl_sequence, r.answers);
    info->skipped = updates.skipped > 0;
    if (info->skipped && finite_rollout(run, &r, info->why)) snprintf(info->why, sizeof info->why, "%s", updates.why);
    else if (at + 1 == s->steps) DS_TRY(finite_evaluation("ppo", FINITE_AFTER, !info->skipped, info->why));
    info->tokens = r.score_tokens;
    if (isfinite(m.reward + m.kl_sequence))
        snprintf(info->note, sizeof info->note, "reward %.3f KL %.3f", m.reward, m.kl_sequence);
done:
    rollout_free(&r);
    rollout_free_prompts(&prompts);
    return err;
}

static Err eval(Run *run, void *self, int64_t at, bool last, Record *record) {
    Err err = DS_OK;
    Ppo *s = self;
    (void)at;
    DS_TRY(evaluate(run, s, last ? FINITE_AFTER : FINITE_DURING, &s->last));
    record->v[R_EVAL_REWARD] = s->last.reward;
    record->v[R_EVAL_TRUE_SCORE] = s->last.truth;
    say(s, last ? "after" : "eval", &s->last);
done:
    return err;
}

static void save(const void *self, Kv *kv) {
    const Ppo *s = self;
    loader_save(&s->prompts.train, "ppo.loader", kv);
    if (s->update.ptx) loader_save(&s->ptx.train, "ppo.ptx_loader", kv);
    kv_put_i64(kv, "ppo.actor_steps", s->actor.optim.steps);
    kv_put_i64(kv, "ppo.critic_steps", s->critic.optim.steps);
    kv_put_f64(kv, "ppo.kl_coef", s->kl.coef);
}

static Err load(void *self, const Kv *kv) {
    Err err = DS_OK;
    Ppo *s = self;
    DS_TRY(loader_load(&s->prompts.train, "ppo.loader", kv));
    if (s->update.ptx) DS_TRY(loader_load(&s->ptx.train, "ppo.ptx_loader", kv));
    DS_TRY(kv_get_i64(kv, "ppo.actor_steps", &s->actor.optim.steps));
    DS_TRY(kv_get_i64(kv, "ppo.critic_steps", &s->critic.optim.steps));
    DS_TRY(kv_get_f64(kv, "ppo.kl_coef", &s->kl.coef));
done:
    return err;
}

static Err finish(Run *run, void *self) {
    Err err = DS_OK;
    Ppo *s = self;
    DType dtype = run->p->actor.common.dtype;
    DS_TRY(show(run, s, "after"));
    summary_put(run->summary, "ppo.reward_after", s->last.reward);
    summary_put(run->summary, "ppo.true_score_after", s->last.truth);
    summary_put(run->summary, "ppo.kl_after", s->last.kl_sequence);
    DS_TRY(stage_mark(run, &stage_ppo));
    DS_TRY(save_model(run, "critic", &s->critic.model, &s->critic.optim, false, run->p->critic.common.dtype));
    if (run->p->ppo.ema) DS_TRY(save_model(run, "actor_ema", &s->actor.model, &s->actor.optim, true, dtype));
    DS_TRY(save_model(run, "actor", &s->actor.model, &s->actor.optim, false, dtype));
done:
    return err;
}

const Stage stage_ppo = {.kind = STAGE_PPO,
                         .name = "ppo",
                         .title = "reinforcement learning (PPO)",
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
