// tok_cache.c: see tok_cache.h. A table with one place for each hash: a newer word pushes an older one out.
#include "token/tok_cache.h"

#include <string.h>

#include "base/mem.h"

#ifdef DS_SANITIZED // fuzzing makes a tokenizer for each execution, and entries are to be pushed out there
enum { ENTRIES = 1 << 6 };
#else
enum { ENTRIES = 1 << 15 };
#endif

struct TokCache {
    CacheEntry *entry; // [ENTRIES], made at first use
};

TokCache *cache_create(void) { return MEM_NEW(TokCache, 1); }

void cache_destroy(TokCache **c) {
    if (!*c) return;
    mem_free((*c)->entry);
    MEM_FREE(*c);
}

const CacheEntry *cache_find(const TokCache *c, uint64_t hash, const char *s, int64_t n) {
    if (!c->entry) return NULL;
    const CacheEntry *e = &c->entry[hash & (ENTRIES - 1)];
    return e->hash == hash && e->bytes == n && !memcmp(e->word, s, (size_t)n) ? e : NULL;
}

void cache_put(TokCache *c, uint64_t hash, const char *s, int64_t n, const int32_t *id, int64_t k) {
    if (n > CACHE_MAX_WORD || k > CACHE_MAX_IDS) return;
    if (!c->entry) c->entry = MEM_NEW(CacheEntry, ENTRIES);
    CacheEntry *e = &c->entry[hash & (ENTRIES - 1)];
    *e = (CacheEntry){.hash = hash, .bytes = (uint8_t)n, .ids = (uint8_t)k};
    memcpy(e->word, s, (size_t)n);
    memcpy(e->id, id, (size_t)k * sizeof *id);
}
