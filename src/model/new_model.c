// new_model.c: see new_model.h.
#include "model/new_model.h"

#include "arch/arch_known.h"

Err new_model_arch(const Params *p, const ModelParams *keys, int64_t vocab, ArchHead head, Arch *a) {
    Err err = DS_OK;
    if (keys->arch[0]) {
        DS_TRY(arch_known(keys->arch, a));
        DS_CHECK(vocab <= a->vocab, DS_ERR_PARAMS, "arch = %s has %lld tokens, the data set's tokenizer %lld",
                 keys->arch, (long long)a->vocab, (long long)vocab);
        a->head = head;
        goto done;
    }
    arch_family_defaults(a, (ArchFamily)p->actor.arch_family);
    a->layers = p->actor.arch_layers;
    a->width = p->actor.arch_width;
    a->embed_width = p->actor.arch_embed_width ? p->actor.arch_embed_width : a->width;
    if (p->actor.arch_post_norm) a->pre_norm = a->final_norm = 0;
    a->heads = p->actor.arch_heads;
    a->kv_heads = p->actor.arch_kv_heads;
    a->ffn = p->actor.arch_ffn;
    a->max_positions = p->actor.arch_positions;
    a->init_std = p->actor.arch_std;
    a->tied = p->actor.arch_tied;
    a->vocab = vocab;
    DS_CHECK(a->width % a->heads == 0, DS_ERR_PARAMS, "[actor] arch_heads = %lld does not divide arch_width = %lld",
             (long long)a->heads, (long long)a->width);
    a->head_dim = a->width / a->heads;
    if (a->pos == ARCH_POS_ROPE) a->rotary_dim = a->family == ARCH_NEOX ? a->head_dim / 4 / 2 * 2 : a->head_dim;
    a->head = head;
    DS_TRY(arch_check(a, "[actor] arch_*"));
done:
    return err;
}

static AdapterCfg adapters(const ModelParams *keys) {
    return (AdapterCfg){.rank = keys->lora_rank,
                        .alpha = keys->lora_alpha,
                        .modules = keys->lora_modules.item,
                        .n_modules = keys->lora_modules.n,
                        .only = keys->only_optimize_lora};
}

static ZeroTraining training_of(Offload offload, bool trained) {
    if (trained) return offload == OFFLOAD_NONE ? ZERO_TRAINED : ZERO_OFFLOADED;
    return offload == OFFLOAD_WEIGHTS ? ZERO_HOST : ZERO_FROZEN;
}

Err new_model_check(const Arch *a, int tensor, const ModelParams *keys, const char *what) {
    if (tensor > arch_part_limit(a))
        return err_set(DS_ERR_PARAMS,
                       "[layout] tensor = %d: the %s has %lld heads, so that it can be split over %lld ranks at most",
                       tensor, what, (long long)a->heads, (long long)arch_part_limit(a));
    const AdapterCfg cfg = adapters(keys);
    WeightList list;
    weights_build(a, &list);
    Err err = adapters_check(&list, &cfg, what);
    weights_free(&list);
    return err;
}

Err new_model_check_answer(const Arch *a, const Params *p, const char *what) {
    const int64_t longest = p->generate.max_prompt + p->generate.max_answer;
    if (a->max_positions >= longest) return DS_OK;
    return err_set(DS_ERR_PARAMS,
                   "[generate] max_prompt + max_answer = %lld tokens, but %s has %lld positions; give smaller ones",
                   (long long)longest, what, (long long)a->max_positions);
}

int64_t new_model_trained(const Arch *a, const ModelParams *keys) {
    const AdapterCfg cfg = adapters(keys);
    WeightList all, frozen = {0}, trained = {0};
    weights_build(a, &all);
    if (cfg.rank > 0) adapters_split(&all, &cfg, &frozen, &trained);
    const int64_t n = weights_whole_count(cfg.rank > 0 ? &trained : &all);
    if (cfg.rank > 0) weights_free(&frozen), weights_free(&trained);
    weights_free(&all);
    return n;
}

static ZeroKeep keep_of(const ModelParams *keys, bool trained) {
    return (ZeroKeep){.stage = (int)keys->zero_stage,
                      .training = training_of(keys->offload, trained),
                      .quant = {params_quant_bits(keys->quantize_weights),
                                trained ? params_quant_bits(keys->quantize_gradients) : 0}};
}

void new_model_create(Model *m, const Kernels *k, const Arch *a, DType dt, const Layout *layout,
                      const ModelParams *keys, bool trained) {
    const AdapterCfg cfg = adapters(keys);
    model_create(m, k, a, dt, layout, keep_of(keys, trained), trained ? &cfg : NULL);
}

static bool travels_rounded(const ModelParams *keys) {
    return keys->zero_stage == 3 && keys->quantize_weights != QUANT_NONE;
}

bool new_model_shares(const Params *p) {
    const ModelParams *actor = &p->actor.common, *reference = &p->reference.common;
    return actor->lora_rank > 0 && !reference->model[0] && reference->dtype == actor->dtype &&
           !travels_rounded(actor) && !travels_rounded(reference) &&
           (actor->zero_stage < 3 || reference->zero_stage == 3);
}

void new_model_create_beside(Model *m, const Model *with, const Layout *layout, const ModelParams *keys) {
    model_create_beside(m, with, layout, keep_of(keys, false));
}
