// adamw.c: the kernel is called weight by weight, since decay differs between them.
#include "optim/adamw.h"

#include <math.h>

static void update_weight(Optim *o, const Weight *w, AdamwArgs args) {
    ZeroState *z = o->z;
    int64_t first, n;
    shard_cut(&z->map, w->block, z->shard, w->offset, w->count, &first, &n);
    if (n == 0) return;
    if (!w->decay) args.weight_decay = 0;
    const int64_t at = w->offset + first;
    Dev *rounded = z->master.data ? zero_own_weight(z, w->block, at) : NULL;
    z->k->adamw(z->w.dtype, rounded, optim_state(o, 0, w->block, at), optim_state(o, 1, w->block, at),
                optim_state(o, 2, w->block, at), zero_grad_sum(z, w->block, at), n, args);
}

void adamw_update(Optim *o, double lr, double grad_scale, int64_t step) {
    const OptimCfg *c = &o->cfg;
    AdamwArgs args = {.lr = (float)lr,
                      .beta1 = (float)c->beta1,
                      .beta2 = (float)c->beta2,
                      .eps = (float)c->eps,
                      .weight_decay = (float)c->weight_decay,
                      .correction1 = (float)(1 - pow(c->beta1, (double)step)),
                      .correction2 = (float)(1 - pow(c->beta2, (double)step)),
                      .grad_scale = (float)grad_scale};
    for (int i = 0; i < o->z->weights->n; i++) update_weight(o, &o->z->weights->w[i], args);
}
