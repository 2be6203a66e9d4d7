// shard.h: which rank owns which element of a block-wise flat store, and the map back. Arithmetic only. Not collective.
//
// Each block (embedding, a layer, the head) is one contiguous buffer, padded so that `shards` ranks own equal parts
// that are whole quanta. Sums that must not depend on the layout (gradient norm, checksum) are taken quantum by
// quantum.
//
//     block b:  | part 0 | part 1 | ... | part shards-1 |      start[b] .. start[b + 1], real elements count[b], the
//     rest zero
#ifndef DS_SHARD_H
#define DS_SHARD_H

#include "base/types.h"

enum { SHARD_QUANTUM = 16384 }; // elements; part of what a layout-independent sum means: never change

typedef struct {
    int blocks, shards;
    int64_t *count; // [blocks] real elements
    int64_t *start; // [blocks + 1] first element of a block in the flat buffer
    int64_t *part;  // [blocks] elements of each owner
    int64_t *own;   // [blocks + 1] first element of a block in an owner's buffer (its parts end to end)
} ShardMap;

// Owner: caller, shard_destroy.
void shard_create(ShardMap *m, int blocks, const int64_t *count, int shards);
void shard_destroy(ShardMap *m);

// Elements of the whole flat buffer, and of one owner's buffer.
int64_t shard_total(const ShardMap *m);
int64_t shard_owned(const ShardMap *m);

// The range of block elements that `rank` really owns (no padding): first, count (0: none).
void shard_range(const ShardMap *m, int block, int rank, int64_t *first, int64_t *count);

// Cuts the weight at [offset, offset + n) of a block to what `rank` owns: *first within the weight, *count (0: none).
void shard_cut(const ShardMap *m, int block, int rank, int64_t offset, int64_t n, int64_t *first, int64_t *count);

#endif
