// ppo_setup.c: opens what stage 3 needs, from params.
#include "stage/ppo_setup.h"

#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "comm/agree.h"
#include "model/new_model.h"

// ---- prompts ----

// The records of one part whose prompts are short enough.
static int64_t *usable_prompts(const Feed *f, bool eval, int64_t max_prompt, int64_t *n) {
    const int64_t all = eval ? f->n_eval : f->n_train;
    int64_t *list = MEM_NEW(int64_t, all);
    *n = 0;
    for (int64_t i = 0; i < all; i++) {
        int64_t record = dataset_record(f->data, DATA_PPO, eval, i), length = dataset_prompt_length(f->data, record);
        if (length > 0 && length <= max_prompt) list[(*n)++] = record;
    }
    return list;
}

static Err open_prompts(const Run *run, Ppo *s) {
    Err err = DS_OK;
    const int64_t max_prompt = run->p->generate.max_prompt;
    DS_TRY(feed_open(run, run->p->data.ppo_file, DATA_PPO, run->p->ppo.train.micro_tokens, false, &s->prompts));
    s->usable = usable_prompts(&s->prompts, false, max_prompt, &s->n_usable);
    s->usable_eval = usable_prompts(&s->prompts, true, max_prompt, &s->n_usable_eval);
    DS_CHECK(s->n_usable > 0, DS_ERR_DATA, "%s: no prompt has at most [generate] max_prompt = %lld tokens",
             run->p->data.ppo_file, (long long)max_prompt);
    // The loader draws from the usable ones only.
    loader_create(&s->prompts.train, run->p, DATA_PPO, s->n_usable);
    s->stop_id = dataset_stop_id(s->prompts.data);
    if (run->p->ppo.ptx_coef > 0)
        DS_TRY(feed_open(run, run->p->data.ptx_file, DATA_PTX, run->p->ppo.train.micro_tokens, true, &s->ptx));
done:
    return err;
}

static Err read_prompts(Ppo *s, const int64_t *record, int64_t n, Prompts *out) {
    Err err = DS_OK;
    *out = (Prompts){.n = n, .record = MEM_NEW(int64_t, n), .start = MEM_NEW(int64_t, n + 1)};
    for (int64_t i = 0; i < n; i++) {
        out->record[i] = record[i];
        out->start[i + 1] = out->start[i] + dataset_prompt_length(s->prompts.data, record[i]);
    }
    out->ids = MEM_NEW(int32_t, out->start[n]);
    for (int64_t i = 0; i < n; i++) {
        int32_t *ids = NULL;
        int64_t length;
        DS_TRY(dataset_prompt(s->prompts.data, record[i], &ids, &length));
        memcpy(out->ids + out->start[i], ids, (size_t)length * sizeof *ids);
        mem_free(ids);
    }
done:
    return err;
}

Err ppo_setup_next_prompts(Run *run, Ppo *s, Prompts *out) {
    const int64_t n = run->p->ppo.rollout_batch;
    int64_t *record = MEM_NEW(int64_t, n);
    loader_next(&s->prompts.train, n, true, record);
    for (int64_t i = 0; i < n; i++) record[i] = s->usable[record[i]];
    Err err = read_prompts(s, record, n, out);
    mem_free(record);
    return err;
}

Err ppo_setup_eval_prompts(Run *run, Ppo *s, Prompts *out) {
    int64_t n = s->n_usable_eval, limit = run->p->ppo.train.eval_samples;
    return read_prompts(s, s->usable_eval, limit > 0 && n > limit ? limit : n, out);
}

// ---- models ----

static bool has_reward(const Run *run) { return run->p->ppo.reward_source == REWARD_MODEL; }

static Err open_role(Run *run, Role *role, const RoleSpec *spec) {
    if (spec->path) return role_open(run, spec, role);
    return agree_err(run->world,
                     err_set(DS_ERR_PARAMS, "ppo: no model for [%s]: expected [%s] model = FILE, or an earlier stage",
                             spec->name, spec->name));
}

static RoleSpec trained(const char *name, const ModelParams *keys, const char *path, ArchHead head, OptimCfg optim,
                        double ema_beta) {
    return (RoleSpec){
        .name = name, .keys = keys, .path = path, .head = head, .trained = true, .optim = optim, .ema_beta = ema_beta};
}

static RoleSpec frozen(const char *name, const ModelParams *keys, const char *path, ArchHead head) {
    return (RoleSpec){.name = name, .keys = keys, .path = path, .head = head, .ema_beta = -1};
}

static Err open_models(Run *run, Ppo *s) {
    Err err = DS_OK;
    const Params *p = run->p;
    char *actor = role_path(p, run->products, STAGE_PPO, MODEL_ACTOR);
    char *critic = role_path(p, run->products, STAGE_PPO, MODEL_CRITIC);
    char *reference = role_path(p, run->products, STAGE_PPO, MODEL_REFERENCE);
    char *reward = role_path(p, run->products, STAGE_PPO, MODEL_REWARD);
    const TrainParams *t = &p->ppo.train;
    const RoleSpec actor_spec =
        trained("actor", &p->actor.common, actor, ARCH_HEAD_LM, role_optim(t, t->lr, p->actor.common.lora_lr, 1),
                p->ppo.ema ? p->ppo.ema_beta : -1);
    const RoleSpec critic_spec = trained("critic", &p->critic.common, critic, ARCH_HEAD_SCALAR,
                                         role_optim(t, p->ppo.critic_lr, p->critic.common.lora_lr, 1), -1);
    RoleSpec reference_spec = frozen("reference", &p->reference.common, reference, ARCH_HEAD_LM);
    const RoleSpec reward_spec = frozen("reward", &p->reward.common, reward, ARCH_HEAD_SCALAR);
    if (new_model_shares(p)) reference_spec.beside = &s->actor.model;
    DS_TRY(open_role(run, &s->actor, &actor_spec));
    DS_TRY(open_role(run, &s->critic, &critic_spec));
    DS_TRY(open_role(run, &s->reference, &reference_spec));
    if (has_reward(run)) DS_TRY(open_role(run, &s->reward, &reward_spec));
done:
    mem_free(actor);
    mem_free(reference);
    mem_free(reward);
    mem_free(critic);
    return err;
}

// ---- the rest ----

static void set_configs(const Run *run, Ppo *s) {
    const Params *p = run->p;
    const Arch *reward = &s->reward.model.arch;
    s->gae = (GaeCfg){.gamma = p->ppo.gamma,
                      .lam = p->ppo.lam,
                      .clip_reward = p->ppo.clip_reward,
                      .missing_eos_penalty = p->ppo.missing_eos_penalty,
                      .normalize = p->ppo.normalize_reward && has_reward(run),
                      .score_mean = reward->score_mean,
                      .score_deviation = reward->score_std};
    s->kl_cfg = (KlControlCfg){(KlControlForm)p->ppo.kl_control, p->ppo.kl_target, p->ppo.kl_horizon};
    s->kl.coef = p->ppo.kl_coef;
    s->gen_cfg = (GenCfg){.sample = {.temperature = (float)p->generate.temperature,
                                     .greedy = p->generate.greedy,
                                     .top_k = p->generate.top_k,
                                     .top_p = (float)p->generate.top_p},
                          .seed = (uint64_t)p->job.seed,
                          .stop_ids = &s->stop_id,
                          .n_stop_ids = s->stop_id >= 0,
                          .stop_strings = p->generate.stop.item,
                          .n_stop_strings = p->generate.stop.n,
                          .tok = run->tok};
}

static UpdateCfg update_cfg(const Params *p) {
    return (UpdateCfg){.actor = {p->ppo.eps_low, p->ppo.eps_high, p->ppo.dual_clip, p->ppo.entropy_coef},
                       .eps_value = p->ppo.eps_value,
                       .ptx_coef = p->ppo.ptx_coef,
                       .inv_temperature = head_inv_temperature(p->generate.temperature),
                       .epochs = p->ppo.ppo_epochs,
                       .minibatch = p->ppo.train.global_batch,
                       .micro_tokens = p->ppo.train.micro_tokens,
                       .ptx_batch = p->ppo.ptx_batch,
                       .seed = (uint64_t)p->job.seed};
}

// Iterations, and with them the total of optimizer steps that the schedules need.
static void count_steps(const Run *run, Ppo *s) {
    const TrainParams *t = &run->p->ppo.train;
    const int64_t answers = run->p->ppo.rollout_batch * run->p->ppo.samples_per_prompt;
    s->steps = ds_ceil_div(s->n_usable * t->epochs, run->p->ppo.rollout_batch);
    if (t->max_steps > 0 && s->steps > t->max_steps) s->steps = t->max_steps;
    const int64_t updates = ppo_update_count(&s->update.cfg, answers);
    s->actor.optim.cfg = role_optim(t, t->lr, run->p->actor.common.lora_lr,
                                    (s->steps - ds_min(s->steps, run->p->ppo.critic_warmup)) * updates);
    s->critic.optim.cfg = role_optim(t, run->p->ppo.critic_lr, run->p->critic.common.lora_lr, s->steps * updates);
}

Err ppo_setup_open(Run *run, Ppo *s) {
    Err err = DS_OK;
    const Params *p = run->p;
    err = checker_find(p->ppo.checker, &s->checker);
    if (!err) err = open_prompts(run, s);
    DS_TRY(agree_err(run->world, err));
    DS_TRY(open_models(run, s));
    set_configs(run, s);
    s->workspace = (Workspace){.k = run->k};
    UpdateCfg cfg = update_cfg(p);
    ppo_update_create(&s->update, &cfg, p, &s->actor, &s->critic, p->ppo.ptx_coef > 0 ? &s->ptx : NULL, &s->workspace);
    count_steps(run, s);
    const int64_t answers = p->ppo.rollout_batch * p->ppo.samples_per_prompt;
    const HybridCfg hybrid = hybrid_config(p, group_size(run->world), group_size(run->layout.data));
    s->gen = hybrid_create(&s->actor.model, &run->layout, run->world, group_size(run->world), &hybrid, &s->workspace);
    rollout_create_scorer(&s->scorer, hybrid_exact(s->gen) ? NULL : &s->actor.model, &s->reference.model,
                          &s->critic.model, has_reward(run) ? &s->reward.model : NULL, p->ppo.train.micro_tokens,
                          p->generate.temperature, &s->workspace);
    const int64_t room = ds_max(p->ppo.train.micro_tokens, hybrid.max_tokens);
    rollout_reserve_scorer(&s->scorer, room);
    acts_reserve(&s->update.actor_acts, s->update.ptx ? ds_max(room, feed_room(&s->ptx)) : room, room);
    acts_reserve(&s->update.critic_acts, room, room);
    log_info(
        "  data      %s: %lld prompts, %lld held out, %lld longer than %lld tokens left out; %lld iterations of %lld",
        p->data.ppo_file, (long long)s->n_usable, (long long)s->n_usable_eval,
        (long long)(s->prompts.n_train + s->prompts.n_eval - s->n_usable - s->n_usable_eval),
        (long long)p->generate.max_prompt, (long long)s->steps, (long long)answers);
done:
    return err;
}

void ppo_setup_close(Ppo *s) {
    if (!s) return;
    hybrid_destroy(&s->gen);
    rollout_destroy_scorer(&s->scorer);
    ppo_update_destroy(&s->update);
    workspace_destroy(&s->workspace);
    role_close(&s->actor);
    role_close(&s->critic);
    role_close(&s->reference);
    role_close(&s->reward);
    feed_close(&s->prompts);
    feed_close(&s->ptx);
    mem_free(s->usable);
    mem_free(s->usable_eval);
}
