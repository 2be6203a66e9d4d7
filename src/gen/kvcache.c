// kvcache.c: one arena [layer][k, v][block][kv head][position][dim] and a stack of free block numbers.
#include "gen/kvcache.h"

#include <string.h>

#include "base/mem.h"

static int64_t blocks_of(int64_t tokens, int64_t block) { return ds_ceil_div(tokens, block); }

static size_t pool_bytes(const Arch *a, DType dt, int64_t blocks, int64_t block) {
    return (size_t)(blocks * a->kv_heads * block * a->head_dim) * dtype_bytes(dt);
}

size_t kvcache_bytes(const Arch *arch, DType dt, int64_t slots, int64_t max_tokens, int64_t block) {
    return pool_bytes(arch, dt, slots * blocks_of(max_tokens, block), block) * (size_t)(2 * arch->layers);
}

void kvcache_create(KvPool *p, const Model *m, int64_t slots, int64_t max_tokens, int64_t block, Workspace *shared) {
    const Arch *a = &m->part.own;
    const int64_t ld = blocks_of(max_tokens, block), blocks = slots * ld;
    *p = (KvPool){.k = m->k,
                  .layers = a->layers,
                  .block = block,
                  .blocks = blocks,
                  .n_free = blocks,
                  .slots = slots,
                  .ld = ld,
                  .free = MEM_NEW(int32_t, blocks),
                  .table = MEM_NEW(int32_t, blocks),
                  .used = MEM_NEW(int64_t, slots),
                  .call_host = MEM_NEW(int32_t, blocks),
                  .layer = MEM_NEW(KvCache, a->layers)};
    for (int64_t i = 0; i < blocks; i++) p->free[i] = (int32_t)(blocks - 1 - i);
    p->shared = shared;
    p->layer_bytes = pool_bytes(a, m->dt, blocks, block);
    const size_t all = p->layer_bytes * (size_t)(2 * a->layers);
    if (!shared) p->arena = m->k->mem_create(all, MEM_KV);
    p->call = m->k->mem_create((size_t)blocks * sizeof(int32_t), MEM_KV);
    for (int64_t i = 0; i < a->layers; i++)
        p->layer[i] = (KvCache){.kv_heads = a->kv_heads, .block = block, .table = p->call, .table_ld = ld};
    kvcache_begin(p);
}

void kvcache_begin(KvPool *p) {
    if (p->shared) {
        workspace_need(p->shared, p->layer_bytes * (size_t)(2 * p->layers));
        p->arena = p->shared->data;
    }
    for (int64_t i = 0; i < p->layers; i++) {
        p->layer[i].k = dev_at(p->arena, p->layer_bytes * (size_t)(2 * i));
        p->layer[i].v = dev_at(p->arena, p->layer_bytes * (size_t)(2 * i + 1));
    }
}

void kvcache_destroy(KvPool *p) {
    if (!p->k) return;
    if (!p->shared) p->k->mem_destroy(p->arena);
    p->k->mem_destroy(p->call);
    mem_free(p->free);
    mem_free(p->table);
    mem_free(p->used);
    mem_free(p->call_host);
    mem_free(p->layer);
    *p = (KvPool){0};
}

bool kvcache_acquire(KvPool *p, int64_t slot, int64_t tokens) {
    const int64_t need = blocks_of(tokens, p->block);
    if (need > p->ld)
        err_fatal("a sequence of %lld tokens in a cache of %lld a sequence", (long long)tokens,
                  (long long)(p->ld * p->block));
    if (need > p->n_free) return false;
    for (int64_t i = 0; i < need; i++) p->table[slot * p->ld + i] = p->free[--p->n_free];
    p->used[slot] = need;
    return true;
}

void kvcache_release(KvPool *p, int64_t slot) {
    while (p->used[slot] > 0) p->free[p->n_free++] = p->table[slot * p->ld + --p->used[slot]];
}

void kvcache_select(KvPool *p, const int64_t *slot, int64_t n) {
    for (int64_t s = 0; s < n; s++)
        memcpy(p->call_host + s * p->ld, p->table + slot[s] * p->ld, (size_t)p->ld * sizeof(int32_t));
    p->k->copy_in(p->call, p->call_host, (size_t)(n * p->ld) * sizeof(int32_t));
}
