// kvcache.h: keys and values of the sequences being generated, in blocks that come from one pool. Not collective.
//
// A sequence reserves, when it is admitted, the blocks of its longest possible length, so that it can always finish; it
// gives them back when it ends, and the next prompt takes them.
//
// Sequences that begin with the same prompt share the blocks of it that none of them writes any more:
//
//     prompt of 40, blocks of 16      shared   shared   own: prompt's last positions, then the answer
//                                     0 .. 15  16 .. 31  32 .. 39, 40 .. 47   48 .. 63
//
// The block of the prompt's last position is each one's own, even where the prompt fills it. So n sequences of at most
// max_tokens never need more than n times what one needs, however they share, and the last to give up a shared block
// frees it.
#ifndef DS_KVCACHE_H
#define DS_KVCACHE_H

#include "model/model.h"

typedef struct {
    const Kernels *k;      // view
    int64_t layers, block; // positions of a block, 1 or more; multiples of 16 are read fastest
    int64_t blocks, n_free;
    int32_t *free;      // [blocks] numbers of the free blocks are the first n_free
    int32_t *users;     // [blocks] slots that have the block; 0: it is free
    int64_t slots, ld;  // sequences at most, blocks of one at most
    int32_t *table;     // host [slots][ld]
    int64_t *used;      // [slots] blocks that it has
    Dev *arena;         // K and V of all layers, own or at the beginning of `shared`
    Dev *call;          // int32 [slots][ld] table of the sequences of one call
    Workspace *shared;  // view; NULL: none
    size_t layer_bytes; // K of one layer
    int32_t *call_host;
    KvCache *layer; // [layers]
} KvPool;

// Room for `slots` sequences of up to max_tokens each, in `shared` (whose users take turns) unless it is NULL. Owner:
// caller, kvcache_destroy.
void kvcache_create(KvPool *p, const Model *m, int64_t slots, int64_t max_tokens, int64_t block, Workspace *shared);

// Before the first pass of a turn: the pool finds its memory again. All slots must be free.
void kvcache_begin(KvPool *p);
void kvcache_destroy(KvPool *p);

// Reserves room for `tokens` positions in `slot`; false if the pool has too few free blocks.
bool kvcache_acquire(KvPool *p, int64_t slot, int64_t tokens);
void kvcache_release(KvPool *p, int64_t slot);

// As kvcache_acquire, for a sequence whose first `prompt` positions (1 or more, fewer than tokens) are those of the one
// in slot `from`, whose blocks it shares. Of its own are none of them set: kvcache_copy_prompt sets those, once the
// sequence in `from` has them.
bool kvcache_join(KvPool *p, int64_t slot, int64_t from, int64_t prompt, int64_t tokens);
void kvcache_copy_prompt(KvPool *p, int64_t slot, int64_t from, int64_t prompt);

// The sequence in `slot` has ended, and one with the same first `prompt` positions, in place, takes its slot. False,
// and nothing has changed: too few free blocks.
bool kvcache_succeed(KvPool *p, int64_t slot, int64_t prompt, int64_t tokens);

// Makes sequence s of the next forward pass the one in slot[s].
void kvcache_select(KvPool *p, const int64_t *slot, int64_t n);

// arch: of a tensor rank's part.
size_t kvcache_bytes(const Arch *arch, DType dt, int64_t slots, int64_t max_tokens, int64_t block);

#endif
