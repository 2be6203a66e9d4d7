// zero_state.c: the partition over owners; stage 0 is the partition into one part.
#include "zero/zero_state.h"

#include "base/mem.h"
#include "comm/coll.h"

void zero_state_create(ZeroState *z, const Kernels *k, const WeightList *weights, const Group *data, int stage,
                       DType dt, bool trained) {
    bool sharded = stage >= 1 && trained;
    *z = (ZeroState){.k = k,
                     .weights = weights,
                     .data = data,
                     .stage = stage,
                     .trained = trained,
                     .shard = sharded ? group_rank(data) : 0};
    shard_create(&z->map, weights->blocks, weights->block_count, sharded ? group_size(data) : 1);
    store_create(&z->w, k, &z->map, dt, false);
    if (!trained) return;
    store_create(&z->g, k, &z->map, DS_F32, false);
    if (dt != DS_F32) store_create(&z->master, k, &z->map, DS_F32, true);
    store_create(&z->m, k, &z->map, DS_F32, true);
    store_create(&z->v, k, &z->map, DS_F32, true);
}

void zero_state_destroy(ZeroState *z) {
    store_destroy(&z->w);
    store_destroy(&z->g);
    store_destroy(&z->master);
    store_destroy(&z->m);
    store_destroy(&z->v);
    shard_destroy(&z->map);
}

static Dev *find(const ZeroState *z, const Store *s, int block, WeightRole role) {
    const Weight *w = weights_find(z->weights, block, role);
    return w && s->data ? store_at(s, block, w->offset) : NULL;
}

Dev *zero_weight(const ZeroState *z, int block, WeightRole role) { return find(z, &z->w, block, role); }
Dev *zero_grad(const ZeroState *z, int block, WeightRole role) { return find(z, &z->g, block, role); }

Dev *zero_master(const ZeroState *z, int block, int64_t offset) {
    if (!z->master.data) return store_at(&z->w, block, offset);
    return store_at(&z->master, block, offset - z->shard * z->map.part[block]);
}

void zero_grad_sum(ZeroState *z) {
    for (int b = 0; b < z->map.blocks; b++) {
        int64_t n = z->map.start[b + 1] - z->map.start[b];
        if (z->map.shards > 1) coll_reduce_scatter(z->data, z->k, store_at(&z->g, b, 0), n);
        else coll_allreduce(z->data, z->k, store_at(&z->g, b, 0), n);
    }
}

double zero_grad_sumsq(const ZeroState *z) {
    const ShardMap *m = &z->map;
    int64_t chunks = 0;
    for (int b = 0; b < m->blocks; b++) chunks += ds_ceil_div(m->count[b], SHARD_QUANTUM);
    double *part = MEM_NEW(double, chunks), sum = 0;
    int64_t at = 0;
    for (int b = 0; b < m->blocks; b++) {
        int64_t first, count;
        shard_range(m, b, z->shard, &first, &count);
        z->k->sumsq(part + at + first / SHARD_QUANTUM, store_at(&z->g, b, first), count, SHARD_QUANTUM);
        at += ds_ceil_div(m->count[b], SHARD_QUANTUM);
    }
    // A chunk has one owner, so that the sum over ranks adds zeros to it and changes no bit.
    if (m->shards > 1) coll_sum_f64(z->data, part, chunks);
    for (int64_t c = 0; c < chunks; c++) sum += part[c];
    mem_free(part);
    return sum;
}

void zero_weights_gather(ZeroState *z) {
    if (z->map.shards == 1) return;
    for (int b = 0; b < z->map.blocks; b++)
        coll_allgather_dev(z->data, store_at(&z->w, b, 0), z->map.part[b], dtype_bytes(z->w.dtype));
}

void zero_master_reset(ZeroState *z) {
    if (!z->master.data) return;
    for (int b = 0; b < z->map.blocks; b++) {
        int64_t first, count;
        shard_range(&z->map, b, z->shard, &first, &count);
        z->k->cast(DS_F32, zero_master(z, b, first), z->w.dtype, store_at(&z->w, b, first), count);
    }
}
