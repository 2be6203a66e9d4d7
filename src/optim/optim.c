// optim.c: the order of a step.
#include "optim/optim.h"

#include <math.h>

#include "base/mem.h"
#include "base/watchdog.h"
#include "optim/adamw.h"

void optim_create(Optim *o, ZeroState *z, const OptimCfg *cfg, double ema_beta) {
    *o = (Optim){.cfg = *cfg, .z = z, .ema_beta = ema_beta};
    if (ema_beta >= 0) zero_create_own(z, &o->ema);
}

void optim_destroy(Optim *o) {
    store_destroy(&o->ema);
    *o = (Optim){0};
}

static const Store *store_of(const Optim *o, int kind) { return kind == 1 ? &o->z->m : kind == 2 ? &o->z->v : &o->ema; }

Dev *optim_lease(const Optim *o, int kind, int block, int64_t offset, int64_t n) {
    return kind == 0 ? zero_master_lease(o->z, block, offset, n)
                     : zero_lease(o->z, store_of(o, kind), block, offset, n);
}

void optim_return(const Optim *o, int kind, int block, int64_t offset, int64_t n) {
    if (kind == 0) zero_master_return(o->z, block, offset, n);
    else zero_return(o->z, store_of(o, kind), block, offset, n);
}

// Calls `what` for the part of every block that this rank owns.
static void each_part(Optim *o, void (*what)(Optim *o, int block, int64_t first, int64_t n)) {
    for (int b = 0; b < o->z->map.blocks; b++) {
        int64_t first, n;
        shard_range(&o->z->map, b, o->z->shard, &first, &n);
        for (int64_t at = 0; at < n; at += STORE_LEASE) {
            watchdog_tick();
            what(o, b, first + at, ds_min(STORE_LEASE, n - at));
        }
    }
}

static void ema_set(Optim *o, int block, int64_t first, int64_t n) {
    o->z->k->copy(optim_lease(o, 3, block, first, n), optim_lease(o, 0, block, first, n), (size_t)n * sizeof(float));
    optim_return(o, 3, block, first, n);
}

static void ema_move(Optim *o, int block, int64_t first, int64_t n) {
    o->z->k->ema(optim_lease(o, 3, block, first, n), optim_lease(o, 0, block, first, n), n, (float)o->ema_beta);
    optim_return(o, 3, block, first, n);
}

void optim_ema_reset(Optim *o) {
    if (o->ema.data) each_part(o, ema_set);
}

static void exchange(Optim *o, int block, int64_t first, int64_t n) {
    const Kernels *k = o->z->k;
    const size_t bytes = (size_t)n * sizeof(float);
    float *weights = MEM_NEW(float, 2 * n), *average = weights + n;
    k->copy_out(weights, optim_lease(o, 0, block, first, n), bytes);
    k->copy_out(average, optim_lease(o, 3, block, first, n), bytes);
    k->copy_in(optim_lease(o, 3, block, first, n), weights, bytes);
    optim_return(o, 3, block, first, n);
    k->copy_in(optim_lease(o, 0, block, first, n), average, bytes);
    optim_return(o, 0, block, first, n);
    mem_free(weights);
}

void optim_swap_ema(Optim *o) {
    each_part(o, exchange);
    zero_weights_changed(o->z);
}

void optim_begin(Optim *o) { zero_step_begin(o->z); }

double optim_reduce(Optim *o) {
    zero_grad_finish(o->z);
    o->norm = sqrt(zero_grad_sumsq(o->z));
    return o->norm;
}

double optim_apply(Optim *o) {
    double lr = sched_lr(&o->cfg.sched, o->steps);
    Sched adapters = o->cfg.sched;
    adapters.lr = o->cfg.adapter_lr;
    double scale = o->cfg.clip > 0 && o->norm > o->cfg.clip ? o->cfg.clip / o->norm : 1;
    adamw_update(o, lr, sched_lr(&adapters, o->steps), scale, o->steps + 1);
    o->steps++;
    zero_weights_changed(o->z);
    if (o->ema.data) each_part(o, ema_move);
    return lr;
}
