// params_check.c: values beside each other. First what defaults left open is filled in (resolve_*), then contradictions
// are refused section by section (check_*); the message begins with the place where the value at fault was set.
#include "params/params_check.h"

#include <string.h>

#include "base/expand.h"
#include "base/mem.h"

// "file:12: [ppo] dual_clip = 0.5": where and how the key was set. out[1024].
static const char *place(const Params *p, const char *section, const char *name, char out[1024]) {
    const KeyTable *t = params_table();
    int k = keytable_find(t, section, name);
    if (k < 0) err_fatal("no key %s.%s", section, name);
    char where[512], *value = keytable_format(t, p, k);
    keytable_where(p->from, k, p->path, where);
    if (p->from[k].origin == KEY_FROM_DEFAULT) snprintf(where, sizeof where, "%s", p->path);
    snprintf(out, 1024, "%s: [%s] %s = %s%s", where, section, name, value,
             p->from[k].origin == KEY_FROM_DEFAULT ? " (default)" : "");
    mem_free(value);
    return out;
}

// Inside a function with `Err err`, label done and `char at[1024]`.
#define REFUSE(cond, section, name, ...)                                                                               \
    do {                                                                                                               \
        if (cond) {                                                                                                    \
            char *why = mem_printf(__VA_ARGS__);                                                                       \
            err = err_set(DS_ERR_PARAMS, "%s: %s", place(p, section, name, at), why);                                  \
            mem_free(why);                                                                                             \
            goto done;                                                                                                 \
        }                                                                                                              \
    } while (0)

// ---- filling in ----

static void replace(char **text, const char *with) {
    char *copy = mem_strdup(with); // first: `with` may lie in the old text
    mem_free(*text);
    *text = copy;
}

static Err resolve_job(Params *p) {
    const KeyTable *t = params_table();
    Err err = DS_OK;
    if (!*p->job.name) {
        const char *slash = strrchr(p->path, '/'), *base = slash ? slash + 1 : p->path, *dot = strrchr(base, '.');
        char *name = mem_strndup(base, dot && dot > base ? (size_t)(dot - base) : strlen(base));
        err = keytable_set(t, p, keytable_find(t, "job", "name"), name, "name of the params file");
        mem_free(name);
        if (err) return err;
    }
    if (*p->job.out) return DS_OK;
    char *out = mem_printf("out/%s", p->job.name);
    err = keytable_set(t, p, keytable_find(t, "job", "out"), out, "name of the params file");
    mem_free(out);
    return err;
}

static void resolve_init(ModelParams *m, ModelInit otherwise) {
    if (m->init == INIT_AUTO) m->init = *m->model ? INIT_MODEL : otherwise;
}

// What the user set of the two ways to give a warm-up wins over defaults and presets; two of the user's own contradict
// each other (check_train).
static void resolve_warmup(TrainParams *t, bool steps_set, bool ratio_set) {
    bool drop = t->schedule == SCHEDULE_CONSTANT; // has none
    if (!steps_set && (drop || t->warmup_ratio > 0)) t->warmup_steps = 0;
    if (!ratio_set && (drop || t->warmup_steps > 0)) t->warmup_ratio = 0;
}

static Err resolve(Params *p) {
    resolve_init(&p->actor.common, INIT_RANDOM);
    resolve_init(&p->critic.common, INIT_PREVIOUS);
    resolve_init(&p->reference.common, INIT_PREVIOUS);
    resolve_init(&p->reward.common, INIT_PREVIOUS);
    if (!p->actor.arch_kv_heads) p->actor.arch_kv_heads = p->actor.arch_heads;
    if (!p->actor.arch_ffn) p->actor.arch_ffn = 4 * p->actor.arch_width;
    char **files[] = {&p->data.sft_file, &p->data.rm_file, &p->data.ppo_file, &p->data.ptx_file};
    for (int i = 0; i < DS_COUNT(files); i++)
        if (!**files[i]) replace(files[i], p->data.file);
    if (!p->data.order_seed) p->data.order_seed = p->job.seed;
    if (!p->ppo.ptx_batch) p->ppo.ptx_batch = p->ppo.train.global_batch;
    resolve_warmup(&p->sft.train, params_was_set(p, "sft.warmup_steps"), params_was_set(p, "sft.warmup_ratio"));
    resolve_warmup(&p->rm.train, params_was_set(p, "rm.warmup_steps"), params_was_set(p, "rm.warmup_ratio"));
    resolve_warmup(&p->ppo.train, params_was_set(p, "ppo.warmup_steps"), params_was_set(p, "ppo.warmup_ratio"));
    return resolve_job(p);
}

// ---- what this version has not built, or no model can be ----

// What a key has by default, as keytable_format writes it. Owner: caller, mem_free.
static char *usual_value(int k) {
    const KeyTable *t = params_table();
    Params usual = {0};
    KeySource *from = MEM_NEW(KeySource, t->n_keys);
    keytable_set_defaults(t, &usual, from);
    char *value = keytable_format(t, &usual, k);
    mem_free(from);
    keytable_free(t, &usual);
    return value;
}

// Only training reads this key: the model of `section`, which is frozen, has it at its default.
static Err check_frozen_key(const Params *p, const char *section, const char *name) {
    Err err = DS_OK;
    char at[1024];
    const int k = keytable_find(params_table(), section, name);
    char *value = keytable_format(params_table(), p, k), *usual = usual_value(k);
    REFUSE(strcmp(value, usual), section, name, "expected %s: this model is frozen, and only training reads %s", usual,
           name);
done:
    mem_free(value);
    mem_free(usual);
    return err;
}

static Err check_frozen(const Params *p, const char *section) {
    static const char *const names[] = {"lora_rank",          "lora_alpha", "lora_modules", "lora_lr",
                                        "only_optimize_lora", "recompute",  "keep_layers",  "quantize_gradients"};
    Err err = DS_OK;
    char at[1024];
    for (int i = 0; i < DS_COUNT(names); i++) DS_TRY(check_frozen_key(p, section, names[i]));
    REFUSE(p->reference.common.offload == OFFLOAD_MOMENTS, section, "offload",
           "expected none or weights: this model is frozen, it has no moments");
done:
    return err;
}

static Err check_built_model(const Params *p, const char *section, const ModelParams *m) {
    Err err = DS_OK;
    char at[1024];
    REFUSE(m->arch[0] && !m->model[0] && m != &p->actor.common, section, "arch",
           "only [actor] begins a new model; here it tells a plan the shape of model = FILE, which is missing");
    REFUSE(m->offload == OFFLOAD_WEIGHTS && m->quantize_weights != QUANT_NONE, section, "quantize_weights",
           "expected none with offload = weights");
    REFUSE(m->only_optimize_lora && m->lora_rank == 0, section, "only_optimize_lora",
           "expected no where lora_rank = 0");
done:
    return err;
}

static Err check_built(const Params *p) {
    Err err = DS_OK;
    char at[1024];
    REFUSE(p->job.device == DEVICE_CUDA, "job", "device", "the CUDA back end is not built; expected cpu");
    REFUSE(p->generate.tensor > 1 && p->layout.tensor > 1, "generate", "tensor",
           "expected 1 with [layout] tensor = %lld: then generation has the layout of training",
           (long long)p->layout.tensor);
    REFUSE(p->generate.tensor > 1 && p->generate.gather == GATHER_BLOCK, "generate", "gather",
           "expected whole with [generate] tensor = %lld: the parts are made once a rollout",
           (long long)p->generate.tensor);
    DS_TRY(check_built_model(p, "actor", &p->actor.common));
    DS_TRY(check_built_model(p, "critic", &p->critic.common));
    DS_TRY(check_frozen(p, "reference"));
    DS_TRY(check_built_model(p, "reference", &p->reference.common));
    DS_TRY(check_built_model(p, "reward", &p->reward.common));
done:
    return err;
}

// ---- contradictions ----

static bool runs(const Params *p, StageKind stage) { return p->job.stages >> stage & 1; }

static Err check_job(const Params *p) {
    const char *name = p->job.name;
    Err err = DS_OK;
    char at[1024];
    REFUSE(strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."), "job", "name",
           "expected a plain name; the folder goes into out");
    REFUSE(p->job.max_hours > 0 && p->job.stop_margin_minutes >= 60 * p->job.max_hours, "job", "stop_margin_minutes",
           "expected less than max_hours = %g h, or no step would be taken", p->job.max_hours);
done:
    return err;
}

static Err check_layout(const Params *p) {
    Err err = DS_OK;
    char at[1024];
    REFUSE(p->layout.sequence && p->layout.tensor == 1, "layout", "sequence",
           "expected no where tensor = 1: no ranks split a layer, which could divide its tokens");
done:
    return err;
}

static Err check_model(const Params *p, const char *section, const ModelParams *m, ModelInit other) {
    const char *word = other == INIT_RANDOM ? "random" : "previous";
    Err err = DS_OK;
    char at[1024];
    REFUSE(m->init == INIT_MODEL && !*m->model, section, "init", "expected a path in [%s] model, or init = %s", section,
           word);
    REFUSE(m->init != INIT_MODEL && m->init != other, section, "init", "expected auto, model or %s here", word);
    REFUSE(m->init != INIT_MODEL && *m->model, section, "init", "contradicts [%s] model = %s; remove one of the two",
           section, m->model);
    REFUSE(m->quantize_weights && m->zero_stage != 3, section, "quantize_weights", "needs zero_stage = 3");
    REFUSE(m->quantize_gradients && p->layout.reduce == REDUCE_LIBRARY, section, "quantize_gradients",
           "contradicts [layout] reduce = library, by which MPI sums fp32; remove one of the two");
    // A block that spans a shared weight and a split one has another scale on every tensor rank.
    REFUSE((m->quantize_weights || m->quantize_gradients) && p->layout.tensor > 1, section,
           m->quantize_weights ? "quantize_weights" : "quantize_gradients",
           "expected none with [layout] tensor > 1: weights that its ranks share would drift apart");
    REFUSE(m->recompute == RECOMPUTE_NONE && m->keep_layers > 1, section, "keep_layers",
           "needs [%s] recompute = block; without it every layer keeps its activations", section);
done:
    return err;
}

static Err check_new_actor(const Params *p) {
    int64_t heads = p->actor.arch_heads, kv_heads = p->actor.arch_kv_heads, width = p->actor.arch_width;
    int64_t longest = p->generate.max_prompt + p->generate.max_answer;
    Err err = DS_OK;
    char at[1024];
    if (p->actor.common.init != INIT_RANDOM) return DS_OK;
    REFUSE(width % heads, "actor", "arch_width", "expected a multiple of arch_heads = %lld", (long long)heads);
    REFUSE(heads % kv_heads, "actor", "arch_kv_heads", "expected a divisor of arch_heads = %lld", (long long)heads);
    REFUSE(runs(p, STAGE_PPO) && !p->actor.common.arch[0] && longest > p->actor.arch_positions, "actor",
           "arch_positions", "expected at least [generate] max_prompt + max_answer = %lld", (long long)longest);
done:
    return err;
}

static Err check_models(const Params *p) {
    Err err = DS_OK;
    char at[1024];
    DS_TRY(check_model(p, "actor", &p->actor.common, INIT_RANDOM));
    DS_TRY(check_new_actor(p));
    DS_TRY(check_model(p, "critic", &p->critic.common, INIT_PREVIOUS));
    DS_TRY(check_model(p, "reference", &p->reference.common, INIT_PREVIOUS));
    DS_TRY(check_model(p, "reward", &p->reward.common, INIT_PREVIOUS));
    bool needs_reward = runs(p, STAGE_PPO) && p->ppo.reward_source == REWARD_MODEL;
    REFUSE(needs_reward && !runs(p, STAGE_RM) && !*p->reward.common.model, "reward", "model",
           "expected the path of a reward model: [job] stages has ppo without rm");
done:
    return err;
}

// Paths are taken as they stand.
static Err check_paths(const Params *p) {
    const struct {
        const char *section, *name, *value;
    } paths[] = {{"job", "out", p->job.out},
                 {"data", "file", p->data.file},
                 {"data", "sft_file", p->data.sft_file},
                 {"data", "rm_file", p->data.rm_file},
                 {"data", "ppo_file", p->data.ppo_file},
                 {"data", "ptx_file", p->data.ptx_file},
                 {"actor", "model", p->actor.common.model},
                 {"critic", "model", p->critic.common.model},
                 {"reference", "model", p->reference.common.model},
                 {"reward", "model", p->reward.common.model}};
    Err err = DS_OK;
    char at[1024], *said = NULL;
    for (int i = 0; i < DS_COUNT(paths); i++) {
        said = expand_refusal(paths[i].value);
        REFUSE(said, paths[i].section, paths[i].name, "%s", said);
    }
done:
    mem_free(said);
    return err;
}

static Err check_data(const Params *p) {
    const char *const names[] = {"sft_file", "rm_file", "ppo_file"};
    const char *const files[] = {p->data.sft_file, p->data.rm_file, p->data.ppo_file};
    Err err = DS_OK;
    char at[1024];
    for (int i = 0; i < STAGE_KINDS; i++)
        REFUSE(runs(p, (StageKind)i) && !*files[i], "data", names[i], "expected a data set, here or in [data] file");
    REFUSE(runs(p, STAGE_PPO) && p->ppo.ptx_coef > 0 && !*p->data.ptx_file, "data", "ptx_file",
           "expected a data set, here or in [data] file, because ptx_coef > 0");
done:
    return err;
}

static Err check_train(const Params *p, const char *section, const TrainParams *t) {
    Err err = DS_OK;
    char at[1024];
    REFUSE(t->warmup_steps > 0 && t->warmup_ratio > 0, section, "warmup_ratio",
           "contradicts warmup_steps = %lld; set one of the two", (long long)t->warmup_steps);
    REFUSE(t->warmup_steps > 0 && t->schedule == SCHEDULE_CONSTANT, section, "warmup_steps",
           "expected 0 with schedule = constant; constant_with_warmup has a warm-up");
    REFUSE(t->warmup_ratio > 0 && t->schedule == SCHEDULE_CONSTANT, section, "warmup_ratio",
           "expected 0 with schedule = constant; constant_with_warmup has a warm-up");
done:
    return err;
}

static Err check_ppo(const Params *p) {
    int64_t answers = p->ppo.rollout_batch * p->ppo.samples_per_prompt, batch = p->ppo.train.global_batch;
    Err err = DS_OK;
    char at[1024];
    if (!runs(p, STAGE_PPO)) return DS_OK;
    REFUSE(answers % batch, "ppo", "global_batch",
           "expected a divisor of rollout_batch x samples_per_prompt = %lld answers", (long long)answers);
    REFUSE(p->ppo.reward_source == REWARD_CHECKER && !*p->ppo.checker, "ppo", "reward_source",
           "expected the name of a checker");
    REFUSE(p->ppo.normalize_reward && runs(p, STAGE_RM) && !p->rm.normalize, "ppo", "normalize_reward",
           "needs [rm] normalize = yes");
    REFUSE(p->ppo.dual_clip > 0 && p->ppo.dual_clip <= 1, "ppo", "dual_clip", "expected 0 (off) or more than 1");
    REFUSE(p->ppo.kl_control == KL_ADAPTIVE && p->ppo.kl_coef <= 0, "ppo", "kl_coef",
           "expected more than 0 with kl_control = adaptive, which multiplies it");
    REFUSE(p->ppo.kl_control == KL_ADAPTIVE && p->ppo.max_kl > 0 && p->ppo.max_kl <= p->ppo.kl_target, "ppo", "max_kl",
           "expected more than kl_target = %g", p->ppo.kl_target);
    REFUSE(p->generate.greedy && p->ppo.samples_per_prompt > 1, "ppo", "samples_per_prompt",
           "expected 1 with [generate] greedy = yes: the answers would be equal");
done:
    return err;
}

Err params_check(Params *p) {
    Err err = DS_OK;
    DS_TRY(resolve(p));
    DS_TRY(check_built(p));
    DS_TRY(check_paths(p));
    DS_TRY(check_job(p));
    DS_TRY(check_layout(p));
    DS_TRY(check_models(p));
    DS_TRY(check_data(p));
    DS_TRY(check_train(p, "sft", &p->sft.train));
    DS_TRY(check_train(p, "rm", &p->rm.train));
    DS_TRY(check_train(p, "ppo", &p->ppo.train));
    DS_TRY(check_ppo(p));
done:
    return err;
}
