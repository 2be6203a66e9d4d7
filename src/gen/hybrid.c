// hybrid.c: see hybrid.h.
#include "gen/hybrid.h"

#include "base/mem.h"

struct Hybrid {
    const Model *actor;   // view
    const Layout *layout; // view: of training
    HybridCfg cfg;
    Workspace *shared; // view
    Layout own_layout; // tensor > 1
    Model part;        // tensor > 1: has weights between enter and leave
    Gen *gen;
};

HybridCfg hybrid_config(const Params *p, int ranks, int data) {
    const int64_t answers = p->ppo.rollout_batch * p->ppo.samples_per_prompt;
    const int64_t groups = p->generate.tensor > 1 ? ranks / p->generate.tensor : data;
    return (HybridCfg){.slots = ds_min(p->generate.batch, ds_ceil_div(answers, groups)),
                       .max_tokens = p->generate.max_prompt + p->generate.max_answer,
                       .prefill_tokens = p->ppo.train.micro_tokens,
                       .kv_block = p->generate.kv_block,
                       .max_prompt = p->generate.max_prompt,
                       .tensor = p->generate.tensor,
                       .gather_blocks = p->generate.gather_blocks,
                       .by_block = p->generate.gather == GATHER_BLOCK,
                       .release = p->generate.release_cache};
}

Err hybrid_check(const Arch *a, int ranks, int64_t tensor) {
    int64_t best = 1;
    for (int64_t t = 1; t <= ranks && t <= arch_part_limit(a); t++)
        if (ranks % t == 0 && (t <= tensor || best < tensor)) best = t;
    if (best == tensor) return DS_OK;
    return err_set(DS_ERR_PARAMS,
                   "[generate] tensor = %lld: must divide the %d ranks, and split %lld heads; the nearest is %lld",
                   (long long)tensor, ranks, (long long)a->heads, (long long)best);
}

Hybrid *hybrid_create(const Model *actor, const Layout *layout, const Group *world, int ranks, const HybridCfg *cfg,
                      Workspace *shared) {
    Hybrid *h = MEM_NEW(Hybrid, 1);
    *h = (Hybrid){.actor = actor, .layout = layout, .cfg = *cfg, .shared = shared};
    if (cfg->tensor > 1) {
        const LayoutWish wish = {.tensor = cfg->tensor};
        if (world) layout_create(&h->own_layout, world, wish);
        else layout_create_dry(&h->own_layout, ranks, wish);
        model_create(&h->part, actor->k, &actor->arch, actor->dt, &h->own_layout, (ZeroKeep){.training = ZERO_LATER},
                     NULL);
    }
    h->gen = gen_create(cfg->tensor > 1 ? &h->part : actor, cfg->slots, cfg->max_tokens, cfg->prefill_tokens,
                        cfg->kv_block, shared);
    gen_reserve(h->gen, cfg->max_prompt);
    if (cfg->by_block && actor->zero.stage == 3) gen_together(h->gen, layout->zero);
    return h;
}

void hybrid_destroy(Hybrid **ph) {
    Hybrid *h = *ph;
    if (!h) return;
    gen_destroy(&h->gen);
    model_destroy(&h->part);
    layout_destroy(&h->own_layout);
    MEM_FREE(*ph);
}

const Group *hybrid_data(const Hybrid *h) { return h->cfg.tensor > 1 ? h->own_layout.data : h->layout->data; }

bool hybrid_exact(const Hybrid *h) { return h->cfg.tensor == 1; }

// The part of a weight, from the whole of it.
static void cut(const Hybrid *h, const Weight *w) {
    const Model *m = &h->part;
    const size_t e = dtype_bytes(m->dt);
    Dev *to = zero_weight(&m->zero, w->block, w->role);
    const Dev *from = model_weight(h->actor, w->block, w->role);
    if (w->tp_axis == 1) {
        m->k->copy_2d(to, (size_t)w->cut[0].n * e, dev_cat(from, (size_t)w->cut[0].first * e), (size_t)w->shape[1] * e,
                      (size_t)w->cut[0].n * e, w->shape[0]);
        return;
    }
    for (int i = 0; i < w->n_cuts; i++) {
        const size_t bytes = (size_t)(w->cut[i].n * w->shape[1]) * e;
        m->k->copy(to, dev_cat(from, (size_t)(w->cut[i].first * w->shape[1]) * e), bytes);
        to = dev_at(to, bytes);
    }
}

static void cut_block(const Hybrid *h, int block) {
    const WeightList *list = &h->part.weights;
    model_open(h->actor, block, -1);
    for (int i = 0; i < list->n; i++)
        if (list->w[i].block == block) cut(h, &list->w[i]);
}

static void fill_part(Hybrid *h) {
    const int blocks = h->part.weights.blocks, some = (int)h->cfg.gather_blocks;
    zero_take(&h->part.zero);
    model_widen(h->actor, some);
    for (int first = 0; first < blocks; first += some) {
        const int end = (int)ds_min(first + some, blocks);
        for (int b = first; b < end; b++) model_prefetch(h->actor, b);
        for (int b = first; b < end; b++) cut_block(h, b);
    }
    model_widen(h->actor, 0);
}

void hybrid_enter(Hybrid *h) {
    if (h->cfg.tensor > 1) fill_part(h);
    else if (!h->cfg.by_block) model_gather(h->actor);
}

void hybrid_leave(Hybrid *h) {
    if (h->cfg.tensor > 1) zero_drop(&h->part.zero);
    else model_release(h->actor);
    if (h->cfg.release) workspace_release(h->shared);
}

void hybrid_run(Hybrid *h, const GenCfg *cfg, GenRequest *req, int64_t n) { gen_run(h->gen, cfg, req, n, NULL, NULL); }
