// adamw.c: the kernel is called weight by weight, since decay differs between them.
#include "optim/adamw.h"

#include <math.h>

// n elements from block element `at` on.
static void update_part(Optim *o, int block, int64_t at, int64_t n, AdamwArgs args) {
    ZeroState *z = o->z;
    Dev *rest = z->rest.data ? zero_lease(z, &z->rest, block, at, n) : NULL;
    z->k->adamw(z->w.dtype, zero_own_weight(z, block, at), rest, optim_lease(o, 1, block, at, n),
                optim_lease(o, 2, block, at, n), zero_grad_sum(z, block, at), n, args);
    if (rest) zero_return(z, &z->rest, block, at, n);
    for (int kind = 1; kind < 3; kind++) optim_return(o, kind, block, at, n);
}

static void update_weight(Optim *o, const Weight *w, AdamwArgs args) {
    int64_t first, n;
    shard_cut(&o->z->map, w->block, o->z->shard, w->offset, w->count, &first, &n);
    if (!w->decay) args.weight_decay = 0;
    for (int64_t at = 0; at < n; at += STORE_LEASE)
        update_part(o, w->block, w->offset + first + at, ds_min(STORE_LEASE, n - at), args);
}

void adamw_update(Optim *o, double lr, double adapter_lr, double grad_scale, int64_t step) {
    const OptimCfg *c = &o->cfg;
    AdamwArgs args = {.lr = (float)lr,
                      .beta1 = (float)c->beta1,
                      .beta2 = (float)c->beta2,
                      .eps = (float)c->eps,
                      .weight_decay = (float)c->weight_decay,
                      .correction1 = (float)(1 - pow(c->beta1, (double)step)),
                      .correction2 = (float)(1 - pow(c->beta2, (double)step)),
                      .grad_scale = (float)grad_scale};
    for (int i = 0; i < o->z->weights->n; i++) {
        const Weight *w = &o->z->weights->w[i];
        args.lr = (float)(w->adapter ? adapter_lr : lr);
        update_weight(o, w, args);
    }
}
