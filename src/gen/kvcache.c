// kvcache.c: one arena [layer][k, v][kv head][block][position][dim], a stack of free block numbers, and how many slots
// have each of the others.
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
                  .users = MEM_NEW(int32_t, blocks),
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
        p->layer[i] =
            (KvCache){.kv_heads = a->kv_heads, .blocks = blocks, .block = block, .table = p->call, .table_ld = ld};
    kvcache_begin(p);
}

void kvcache_begin(KvPool *p) {
    if (p->n_free != p->blocks)
        err_fatal("%lld of %lld blocks of the cache are in use before the first pass",
                  (long long)(p->blocks - p->n_free), (long long)p->blocks);
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
    mem_free(p->users);
    mem_free(p->table);
    mem_free(p->used);
    mem_free(p->call_host);
    mem_free(p->layer);
    *p = (KvPool){0};
}

// ---- who has which block ----

// Blocks of a sequence of so many tokens, which is checked.
static int64_t blocks_for(const KvPool *p, int64_t tokens) {
    const int64_t need = blocks_of(tokens, p->block);
    if (need > p->ld)
        err_fatal("a sequence of %lld tokens in a cache of %lld a sequence", (long long)tokens,
                  (long long)(p->ld * p->block));
    return need;
}

// Whole blocks of a prompt that its sequences share: those before the block of its last position.
static int64_t shared_of(const KvPool *p, int64_t prompt) { return (prompt - 1) / p->block; }

// The slot has `need` blocks in all: takes free ones, or gives its last ones up.
static void resize(KvPool *p, int64_t slot, int64_t need) {
    int32_t *table = p->table + slot * p->ld;
    while (p->used[slot] < need) {
        const int32_t block = p->free[--p->n_free];
        p->users[block] = 1;
        table[p->used[slot]++] = block;
    }
    while (p->used[slot] > need) {
        const int32_t block = table[--p->used[slot]];
        if (--p->users[block] == 0) p->free[p->n_free++] = block;
    }
}

bool kvcache_acquire(KvPool *p, int64_t slot, int64_t tokens) {
    const int64_t need = blocks_for(p, tokens);
    if (need > p->n_free) return false;
    resize(p, slot, need);
    return true;
}

void kvcache_release(KvPool *p, int64_t slot) { resize(p, slot, 0); }

bool kvcache_join(KvPool *p, int64_t slot, int64_t from, int64_t prompt, int64_t tokens) {
    const int64_t need = blocks_for(p, tokens), shared = shared_of(p, prompt);
    if (need - shared > p->n_free) return false;
    for (int64_t i = 0; i < shared; i++) {
        const int32_t block = p->table[slot * p->ld + i] = p->table[from * p->ld + i];
        p->users[block]++;
    }
    p->used[slot] = shared;
    resize(p, slot, need);
    return true;
}

void kvcache_copy_prompt(KvPool *p, int64_t slot, int64_t from, int64_t prompt) {
    const int64_t last = shared_of(p, prompt);
    for (int64_t i = 0; i < p->layers; i++) {
        const KvCache *c = &p->layer[i];
        const size_t head = p->layer_bytes / (size_t)c->kv_heads, bytes = head / (size_t)p->blocks,
                     to_at = (size_t)p->table[slot * p->ld + last] * bytes,
                     from_at = (size_t)p->table[from * p->ld + last] * bytes;
        p->k->copy_2d(dev_at(c->k, to_at), head, dev_at(c->k, from_at), head, bytes, c->kv_heads);
        p->k->copy_2d(dev_at(c->v, to_at), head, dev_at(c->v, from_at), head, bytes, c->kv_heads);
    }
}

bool kvcache_succeed(KvPool *p, int64_t slot, int64_t prompt, int64_t tokens) {
    const int64_t need = blocks_for(p, tokens);
    if (tokens < prompt) err_fatal("a sequence of %lld tokens begins with %lld", (long long)tokens, (long long)prompt);
    if (need - p->used[slot] > p->n_free) return false;
    resize(p, slot, need);
    return true;
}

void kvcache_select(KvPool *p, const int64_t *slot, int64_t n) {
    for (int64_t s = 0; s < n; s++)
        memcpy(p->call_host + s * p->ld, p->table + slot[s] * p->ld, (size_t)p->ld * sizeof(int32_t));
    p->k->copy_in(p->call, p->call_host, (size_t)(n * p->ld) * sizeof(int32_t));
}
