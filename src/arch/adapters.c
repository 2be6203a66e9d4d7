// adapters.c: see adapters.h.
#include "arch/adapters.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

static bool is_attention(WeightRole r) { return r == W_Q || r == W_K || r == W_V || r == W_QKV || r == W_O; }
static bool is_mlp(WeightRole r) { return r == W_GATE || r == W_UP || r == W_DOWN; }

static bool fits(const Weight *w, const char *module) {
    if (!is_attention(w->role) && !is_mlp(w->role)) return false;
    if (!strcmp(module, "attention")) return is_attention(w->role);
    if (!strcmp(module, "mlp")) return is_mlp(w->role);
    return strstr(w->name, module) != NULL;
}

static bool is_adapted(const Weight *w, const AdapterCfg *cfg) {
    for (int i = 0; i < cfg->n_modules; i++)
        if (fits(w, cfg->modules[i])) return true;
    return false;
}

Err adapters_check(const WeightList *all, const AdapterCfg *cfg, const char *what) {
    if (cfg->rank > 0 && cfg->n_modules == 0)
        return err_set(DS_ERR_PARAMS, "[%s] lora_modules is empty: expected attention, mlp or parts of names", what);
    for (int i = 0; cfg->rank > 0 && i < cfg->n_modules; i++) {
        bool found = false;
        for (int w = 0; w < all->n && !found; w++) found = fits(&all->w[w], cfg->modules[i]);
        if (found) continue;
        const Weight *some = weights_find(all, 1, W_O);
        return err_set(
            DS_ERR_PARAMS,
            "[%s] lora_modules: no linear weight of a layer has \"%s\" in its name; expected attention, mlp, "
            "or a part of names such as %s",
            what, cfg->modules[i], some->name);
    }
    return DS_OK;
}

// ---- the adapters of a weight ----

static Weight adapter(const Weight *w, WeightRole role, const char *suffix, int64_t rows, int64_t cols) {
    const int stem = (int)(strlen(w->name) - strlen(".weight"));
    Weight x = {.role = role, .block = w->block, .ndim = 2, .shape = {rows, cols}, .decay = true, .adapter = true};
    snprintf(x.name, sizeof x.name, "%.*s.%s.weight", stem, w->name, suffix);
    return x;
}

// Every tensor rank keeps all of it and has the gradient of its own part of the weight.
static void keep_whole(const WeightList *all, Weight *x) {
    x->tp_axis = -1;
    x->n_cuts = 1;
    x->cut[0].n = x->shape[0];
    x->mine = all->tensor_rank == 0;
    x->grad = all->tensor_size > 1 ? W_GRAD_SUM_TENSOR : W_GRAD_SAME;
    x->count = x->shape[0] * x->shape[1];
}

// Cut as the weight is.
static void cut_alike(const Weight *w, Weight *x) {
    int64_t n = 0;
    x->tp_axis = w->tp_axis;
    x->n_cuts = w->n_cuts;
    memcpy(x->cut, w->cut, sizeof x->cut);
    x->mine = w->mine;
    x->grad = w->grad;
    for (int i = 0; i < w->n_cuts; i++) n += w->cut[i].n;
    x->count = n * x->shape[w->tp_axis == 1 ? 0 : 1];
}

static Weight adapter_a(const WeightList *all, const Weight *w, int64_t rank) {
    Weight x = adapter(w, weights_adapter_a(w->role), "lora_A", rank, w->shape[1]);
    x.init = W_INIT_UNIFORM;
    x.std = 1 / sqrt((double)w->shape[1]);
    if (w->tp_axis == 1) cut_alike(w, &x);
    else keep_whole(all, &x);
    return x;
}

static Weight adapter_b(const WeightList *all, const Weight *w, int64_t rank) {
    Weight x = adapter(w, weights_adapter_b(w->role), "lora_B", w->shape[0], rank);
    x.init = W_INIT_ZERO;
    if (w->tp_axis == 1) keep_whole(all, &x);
    else cut_alike(w, &x);
    return x;
}

// ---- the two lists ----

void adapters_split(const WeightList *all, const AdapterCfg *cfg, WeightList *frozen, WeightList *trained) {
    weights_begin(frozen, all->blocks, all->n);
    weights_begin(trained, all->blocks, 3 * all->n);
    for (int i = 0; i < all->n; i++) {
        const Weight *w = &all->w[i];
        const bool adapted = is_adapted(w, cfg);
        weights_put(adapted || (cfg->only && w->role != W_V_HEAD) ? frozen : trained, *w);
        if (!adapted) continue;
        weights_put(trained, adapter_a(all, w, cfg->rank));
        weights_put(trained, adapter_b(all, w, cfg->rank));
    }
}
