// store.h: one device buffer a model and purpose (weights, gradients, moments), cut into the blocks of a ShardMap. Not
// collective.
#ifndef DS_STORE_H
#define DS_STORE_H

#include "kernels/kernels.h"
#include "tensor/shard.h"

typedef struct {
    const ShardMap *map; // view
    const Kernels *k;    // view
    DType dtype;
    bool owned_only; // holds one owner's parts (master weights, moments), not whole blocks
    Dev *data;
} Store;

// Zeroed. owned_only: shard_owned elements, else shard_total. Owner: caller, store_destroy.
void store_create(Store *s, const Kernels *k, const ShardMap *map, DType dtype, bool owned_only, MemTag tag);
void store_destroy(Store *s);

// Address of element `offset` of a block: of the whole block, or, for an owned-only store, of the owner's part.
Dev *store_at(const Store *s, int block, int64_t offset);

size_t store_bytes(const Store *s);
void store_zero(Store *s);

#endif
