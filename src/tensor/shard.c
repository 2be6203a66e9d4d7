// shard.c: see the drawing in shard.h.
#include "tensor/shard.h"

#include "base/mem.h"

void shard_create(ShardMap *m, int blocks, const int64_t *count, int shards) {
    *m = (ShardMap){.blocks = blocks,
                    .shards = shards,
                    .count = MEM_NEW(int64_t, blocks),
                    .start = MEM_NEW(int64_t, blocks + 1),
                    .part = MEM_NEW(int64_t, blocks),
                    .own = MEM_NEW(int64_t, blocks + 1)};
    for (int b = 0; b < blocks; b++) {
        m->count[b] = count[b];
        m->part[b] = ds_round_up(ds_ceil_div(count[b], shards), SHARD_QUANTUM);
        m->start[b + 1] = m->start[b] + m->part[b] * shards;
        m->own[b + 1] = m->own[b] + m->part[b];
    }
}

void shard_destroy(ShardMap *m) {
    mem_free(m->count);
    mem_free(m->start);
    mem_free(m->part);
    mem_free(m->own);
    *m = (ShardMap){0};
}

int64_t shard_total(const ShardMap *m) { return m->start[m->blocks]; }
int64_t shard_owned(const ShardMap *m) { return m->own[m->blocks]; }

void shard_range(const ShardMap *m, int block, int rank, int64_t *first, int64_t *count) {
    *first = ds_min(rank * m->part[block], m->count[block]);
    *count = ds_min(m->part[block], m->count[block] - *first);
}

void shard_cut(const ShardMap *m, int block, int rank, int64_t offset, int64_t n, int64_t *first, int64_t *count) {
    int64_t own_first, own_count;
    shard_range(m, block, rank, &own_first, &own_count);
    int64_t lo = ds_max(offset, own_first), hi = ds_min(offset + n, own_first + own_count);
    *first = lo - offset;
    *count = ds_max(hi - lo, 0);
    if (*count == 0) *first = 0;
}
