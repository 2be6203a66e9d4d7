// role.c: model files to models.
#include "stage/role.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/watchdog.h"
#include "comm/agree.h"
#include "gen/hybrid.h"
#include "io/h5_inspect.h"
#include "model/load.h"
#include "model/new_model.h"

DType role_dtype(DType wished) {
    static bool said;
    if (wished != DS_BF16 || kernels_has_bf16()) return wished;
    if (!said)
        log_info("note: this device does not multiply bf16; bf16 models are computed in fp32 and written in bf16");
    said = true;
    return DS_F32;
}

static char *given(const ModelParams *keys) { return keys->model[0] ? mem_strdup(keys->model) : NULL; }

static char *made_by(const Params *p, int products, StageKind kind) {
    return products >> kind & 1 ? stage_product_path(p, kind) : NULL;
}

// The reward model is trained by rm, from what sft made; in ppo it is rm's.
static char *reward_path(const Params *p, int products, StageKind stage) {
    char *path = stage == STAGE_RM ? given(&p->reward.common) : made_by(p, products, STAGE_RM);
    if (!path && stage == STAGE_RM) path = made_by(p, products, STAGE_SFT);
    return path ? path : given(stage == STAGE_RM ? &p->actor.common : &p->reward.common);
}

char *role_path(const Params *p, int products, StageKind stage, JobModel model) {
    char *path = NULL;
    switch (model) {
    case MODEL_ACTOR: // of ppo: what sft made of [actor] model, where this run had that stage
        if (stage == STAGE_PPO) path = made_by(p, products, STAGE_SFT);
        return path ? path : given(&p->actor.common);
    case MODEL_REFERENCE:
        path = given(&p->reference.common);
        return path ? path : role_path(p, products, stage, MODEL_ACTOR);
    case MODEL_CRITIC:
        path = given(&p->critic.common);
        if (!path) path = role_path(p, products, stage, MODEL_REWARD);
        return path ? path : role_path(p, products, stage, MODEL_ACTOR);
    case MODEL_REWARD: break;
    }
    return reward_path(p, products, stage);
}

OptimCfg role_optim(const TrainParams *t, double lr, double adapter_lr, int64_t total_steps) {
    return (OptimCfg){.beta1 = t->beta1,
                      .beta2 = t->beta2,
                      .eps = t->eps,
                      .weight_decay = t->weight_decay,
                      .clip = t->clip,
                      .adapter_lr = adapter_lr,
                      .sched = {.form = (SchedForm)t->schedule,
                                .lr = lr,
                                .total_steps = total_steps,
                                .warmup_steps = sched_warmup(t->warmup_steps, t->warmup_ratio, total_steps),
                                .min_lr_ratio = t->min_lr_ratio,
                                .cycles = t->cycles,
                                .power = t->power}};
}

Err role_check_tokenizer(const Tokenizer *data, const ModelFile *file, const Arch *a, const char *path) {
    Err err = DS_OK;
    Tokenizer *tok = NULL;
    if (!data) goto done;
    DS_CHECK(tok_vocab_size(data) <= a->vocab, DS_ERR_DATA, "%s: has %lld tokens, the data set's tokenizer %lld", path,
             (long long)a->vocab, (long long)tok_vocab_size(data));
    DS_TRY(load_tokenizer(file, path, &tok));
    if (!tok) goto done;
    DS_CHECK(
        !strcmp(tok_hash(tok), tok_hash(data)), DS_ERR_DATA,
        "%s: its tokenizer (%.12s...) is not the data set's (%.12s...); build the data with this model's tokenizer",
        path, tok_hash(tok), tok_hash(data));
done:
    tok_free(&tok);
    return err;
}

static const char *role_words(const RoleSpec *spec) { return spec->path ? spec->path : "random weights"; }

Err role_open(Run *run, const RoleSpec *spec, Role *role) {
    Err err = DS_OK;
    ModelFile *file = NULL;
    Arch arch;
    *role = (Role){0};
    DS_TRY(h5_inspect_for_all(run->world, spec->path));
    if (spec->path) {
        watchdog_enter(WATCH_FILE, "opening a model", spec->path);
        err = modelfile_open(spec->path, &file);
        if (!err) err = load_arch(file, spec->path, spec->head, &arch);
        if (!err) err = role_check_tokenizer(run->tok, file, &arch, spec->path);
        watchdog_leave();
    } else {
        err = run->tok ? new_model_arch(run->p, spec->keys, tok_vocab_size(run->tok), spec->head, &arch)
                       : err_set(DS_ERR_PARAMS,
                                 "[actor] init = random needs a tokenizer in the data set, or [actor] model = FILE");
    }
    if (!err && spec->head == ARCH_HEAD_LM) err = hybrid_check(&arch, group_size(run->world), run->p->generate.tensor);
    if (!err) err = new_model_check(&arch, group_size(run->layout.tensor), spec->keys, spec->name);
    DS_TRY(agree_err(run->world, err));
    if (spec->beside) new_model_create_beside(&role->model, spec->beside, &run->layout, spec->keys);
    else
        new_model_create(&role->model, run->k, &arch, role_dtype(spec->keys->dtype), &run->layout, spec->keys,
                         spec->trained);
    model_init_random(&role->model, (uint64_t)run->p->job.seed, spec->path ? role->model.weights.blocks - 1 : -1);
    if (file) err = load_weights(&role->model, file, spec->path);
    DS_TRY(agree_err(run->world, err));
    if (spec->trained) {
        zero_master_reset(&role->model.zero);
        optim_create(&role->optim, &role->model.zero, &spec->optim, spec->ema_beta);
        optim_ema_reset(&role->optim);
    }
    role->source = mem_strdup(role_words(spec));
    char *words = arch_describe(&role->model.arch);
    log_info("  %-9s %s: %s, %s%s", spec->name, role->source, words, dtype_name(role->model.dt),
             spec->trained ? "" : ", frozen");
    if (role->model.lora)
        log_info("  %-9s adapters of rank %lld: %.2f M weights are trained", "", (long long)spec->keys->lora_rank,
                 (double)weights_whole_count(role->model.zero.weights) / 1e6);
    if (spec->beside)
        log_info("  %-9s %.2f M of its weights are those that adapters leave alone, held once", "",
                 (double)(weights_whole_count(&role->model.weights) - weights_whole_count(&role->model.own)) / 1e6);
    mem_free(words);
done:
    modelfile_close(&file);
    return err;
}

void role_close(Role *role) {
    if (role->optim.z) optim_destroy(&role->optim);
    model_destroy(&role->model);
    mem_free(role->source);
    *role = (Role){0};
}
