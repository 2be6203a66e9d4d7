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

static void create_own(const ZeroState *z, Store *s, DType dt) {
    if (z->offload) store_create_host(s, z->k, &z->map, dt, true);
    else store_create(s, z->k, &z->map, dt, true, MEM_OPTIMIZER);
}

void zero_create_own(const ZeroState *z, Store *s) { create_own(z, s, DS_F32); }

static void create_rest(ZeroState *z) {
    create_own(z, &z->rest, DS_BF16); // as wide
    z->joined = z->k->mem_create((size_t)ds_min(shard_owned(&z->map), STORE_LEASE) * sizeof(float), MEM_COMM);
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
        if (dt != DS_F32) create_rest(z);
        zero_create_own(z, &z->m);
        zero_create_own(z, &z->v);
    }
    z->work = zero_work_create(z);
}

void zero_state_destroy(ZeroState *z) {
    zero_work_destroy(&z->work);
    if (z->room) z->k->mem_destroy(z->room);
    if (z->joined) z->k->mem_destroy(z->joined);
    store_destroy(&z->w);
    store_destroy(&z->g);
    store_destroy(&z->sum);
    for (int i = 0; i < ZERO_LEVELS; i++) store_destroy(&z->level[i]);
    store_destroy(&z->rest);
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
    Dev *w = zero_own_weight(z, block, offset);
    if (!z->rest.data) return w;
    if (n > STORE_LEASE) err_fatal("a lease of %lld master weights", (long long)n);
    z->k->master_join(z->joined, w, zero_lease(z, &z->rest, block, offset, n), n);
    return z->joined;
}

void zero_master_return(const ZeroState *z, int block, int64_t offset, int64_t n) {
    if (!z->rest.data) return;
    z->k->master_split(zero_own_weight(z, block, offset), zero_lease(z, &z->rest, block, offset, n), z->joined, n);
    zero_return(z, &z->rest, block, offset, n);
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

void zero_master_reset(ZeroState *z) {
    if (z->rest.host) memset(z->rest.host, 0, store_bytes(&z->rest));
    else if (z->rest.data) store_zero(&z->rest);
}
