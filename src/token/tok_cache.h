// tok_cache.h: words that were encoded before, with their ids; for the files of src/token only. Not collective.
#ifndef DS_TOK_CACHE_H
#define DS_TOK_CACHE_H

#include "base/types.h"

#define CACHE_MAX_WORD 48 // bytes of a word that is kept
#define CACHE_MAX_IDS 12  // ids of it

typedef struct {
    uint64_t hash;
    uint8_t bytes, ids; // bytes = 0: empty
    char word[CACHE_MAX_WORD];
    int32_t id[CACHE_MAX_IDS];
} CacheEntry;

typedef struct TokCache TokCache;

// Owner: caller, cache_destroy (which accepts NULL).
TokCache *cache_create(void);
void cache_destroy(TokCache **c);

// The entry of s[n] (0 < n <= CACHE_MAX_WORD, hash: vocab_hash), NULL if it is not there.
const CacheEntry *cache_find(const TokCache *c, uint64_t hash, const char *s, int64_t n);

// Keeps s[n] -> id[k], in place of whatever stood there; nothing if it is too long.
void cache_put(TokCache *c, uint64_t hash, const char *s, int64_t n, const int32_t *id, int64_t k);

#endif
