// zero_state.c: what is allocated, and where an element lies.
#include "zero/zero_state.h"

#include <string.h>

#include "base/mem.h"
#include "comm/coll_quant.h"
#include "zero/zero_work.h"

// Levels of the tree over the lanes of one rank: those at which a sum can wait for its neighbour.
static int levels_of(int turns) {
    int n = 0;
    while ((turns - 1) >> n) n++;
    return n;
}

static void create_gradients(ZeroState *z) {
    const Layout *l = z->layout;
    const bool in_place = // one rank with one lane; summed once a step
        !z->quant.gradient_bits && (l->lanes == 1 || (l->library && z->stage < 2));
    if (in_place || z->stage < 2) store_create(&z->g, z->k, &z->grad_map, DS_F32, false, MEM_GRADIENTS);
    if (in_place) return;
    store_create(&z->sum, z->k, &z->grad_map, DS_F32, true, MEM_GRADIENTS);
    for (int i = 0; i < levels_of(l->turns); i++)
        store_create(&z->level[i], z->k, &z->grad_map, DS_F32, true, MEM_GRADIENTS);
}

static void create_room(ZeroState *z) {
    int64_t part = 0;
    for (int b = 0; b < z->grad_map.blocks; b++) part = ds_max(part, z->grad_map.part[b]);
    z->room = z->k->mem_create(coll_quant_room(z->layout->zero, z->quant.gradient_bits, part), MEM_COMM);
}

void zero_create_own(const ZeroState *z, Store *s) {
    if (z->offload) store_create_host(s, z->k, &z->map, DS_F32, true);
    else store_create(s, z->k, &z->map, DS_F32, true, MEM_OPTIMIZER);
}

void zero_state_create(ZeroState *z, const Kernels *k, const WeightList *weights, const Layout *layout, const Group *kv,
                       DType dt, ZeroKeep keep) {
    const int stage = keep.stage;
    const bool trained = keep.training >= ZERO_TRAINED;
    const bool parts = stage == 3 || (stage >= 1 && trained);
    const int size = group_size(layout->zero);
    *z = (ZeroState){.k = k,
                     .weights = weights,
                     .layout = layout,
                     .kv = kv,
                     .stage = stage,
                     .trained = trained,
                     .offload = keep.training == ZERO_OFFLOADED,
                     .quant = keep.quant,
                     .shard = parts ? group_rank(layout->zero) : 0};
    shard_create(&z->map, weights->blocks, weights->block_count, parts ? size : 1);
    shard_create(&z->grad_map, weights->blocks, weights->block_count, size);
    if (keep.training == ZERO_HOST) store_create_host(&z->w, k, &z->map, dt, false);
    else if (keep.training == ZERO_LATER) z->w = (Store){.map = &z->map, .k = k, .dtype = dt};
    else store_create(&z->w, k, &z->map, dt, stage == 3, MEM_WEIGHTS);
    if (trained) {
        create_gradients(z);
        if (keep.quant.gradient_bits) create_room(z);
        if (dt != DS_F32) zero_create_own(z, &z->master);
        zero_create_own(z, &z->m);
        zero_create_own(z, &z->v);
    }
    z->work = zero_work_create(z);
}

void zero_state_destroy(ZeroState *z) {
    zero_work_destroy(&z->work);
    if (z->room) z->k->mem_destroy(z->room);
    store_destroy(&z->w);
    store_destroy(&z->g);
    store_destroy(&z->sum);
    for (int i = 0; i < ZERO_LEVELS; i++) store_destroy(&z->level[i]);
    store_destroy(&z->master);
    store_destroy(&z->m);
    store_destroy(&z->v);
    shard_destroy(&z->map);
    shard_destroy(&z->grad_map);
}

Dev *zero_weight(const ZeroState *z, int block, WeightRole role) {
    const Weight *w = weights_find(z->weights, block, role);
    if (!w) return NULL;
    Dev *base = zero_in_places(z) ? zero_work_weights(z, block) : store_at(&z->w, block, 0);
    return dev_at(base, (size_t)w->offset * dtype_bytes(z->w.dtype));
}

Dev *zero_grad(const ZeroState *z, int block, WeightRole role) {
    const Weight *w = weights_find(z->weights, block, role);
    if (!w || !z->trained) return NULL;
    return dev_at(zero_work_grads(z, block), (size_t)w->offset * sizeof(float));
}

// Address of an owned element of a store of owned parts.
static Dev *own_at(const ZeroState *z, const Store *s, int block, int64_t offset) {
    const int part = s->map->shards > 1 ? group_rank(z->layout->zero) : 0;
    return store_at(s, block, offset - part * s->map->part[block]);
}

Dev *zero_own_weight(const ZeroState *z, int block, int64_t offset) {
    return z->w.owned_only ? own_at(z, &z->w, block, offset) : store_at(&z->w, block, offset);
}

Dev *zero_lease(const ZeroState *z, const Store *s, int block, int64_t offset, int64_t n) {
    return store_lease(s, block, offset - z->shard * z->map.part[block], n);
}

void zero_return(const ZeroState *z, const Store *s, int block, int64_t offset, int64_t n) {
    store_return(s, block, offset - z->shard * z->map.part[block], n);
}

Dev *zero_master_lease(const ZeroState *z, int block, int64_t offset, int64_t n) {
    return z->master.data ? zero_lease(z, &z->master, block, offset, n) : zero_own_weight(z, block, offset);
}

void zero_master_return(const ZeroState *z, int block, int64_t offset, int64_t n) {
    if (z->master.data) zero_return(z, &z->master, block, offset, n);
}

Dev *zero_grad_sum(const ZeroState *z, int block, int64_t offset) {
    return z->stage == 0 || !z->sum.data ? store_at(&z->g, block, offset) : own_at(z, &z->sum, block, offset);
}

void zero_take(ZeroState *z) { store_create(&z->w, z->k, &z->map, z->w.dtype, false, MEM_COMM); }

void zero_drop(ZeroState *z) {
    const DType dt = z->w.dtype;
    store_destroy(&z->w);
    z->w = (Store){.map = &z->map, .k = z->k, .dtype = dt};
}

void zero_set(ZeroState *z, int block, int64_t offset, int64_t n, const void *values) {
    const size_t bytes = (size_t)n * dtype_bytes(z->w.dtype);
    z->version++;
    if (z->w.host) memcpy(store_host(&z->w, block, offset - z->shard * z->map.part[block]), values, bytes);
    else z->k->copy_in(zero_own_weight(z, block, offset), values, bytes);
}

static void each_own_part(ZeroState *z, void (*what)(ZeroState *z, int block, int64_t first, int64_t n)) {
    for (int b = 0; b < z->map.blocks; b++) {
        int64_t first, n;
        shard_range(&z->map, b, z->shard, &first, &n);
        for (int64_t at = 0; at < n; at += STORE_LEASE) what(z, b, first + at, ds_min(STORE_LEASE, n - at));
    }
}

static void to_master(ZeroState *z, int b, int64_t first, int64_t n) {
    z->k->cast(DS_F32, zero_master_lease(z, b, first, n), z->w.dtype, zero_own_weight(z, b, first), n);
    zero_master_return(z, b, first, n);
}

static void from_master(ZeroState *z, int b, int64_t first, int64_t n) {
    z->k->cast(z->w.dtype, zero_own_weight(z, b, first), DS_F32, zero_master_lease(z, b, first, n), n);
}

void zero_master_reset(ZeroState *z) {
    if (z->master.data) each_own_part(z, to_master);
}

void zero_master_spread(ZeroState *z) {
    if (z->master.data) each_own_part(z, from_master);
    zero_weights_changed(z);
}
