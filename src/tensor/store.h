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
    void *host; // NULL, or where the elements are; then data is room for one lease, or NULL
} Store;

// Zeroed. owned_only: shard_owned elements, else shard_total. Owner: caller, store_destroy.
void store_create(Store *s, const Kernels *k, const ShardMap *map, DType dtype, bool owned_only, MemTag tag);
void store_destroy(Store *s);

// Owned parts in host memory, zeroed; leased: they come to the device by store_lease.
void store_create_host(Store *s, const Kernels *k, const ShardMap *map, DType dtype, bool leased);
// Their address.
void *store_host(const Store *s, int block, int64_t offset);

// Address of element `offset` of a block: of the whole block, or, for an owned-only store, of the owner's part.
Dev *store_at(const Store *s, int block, int64_t offset);

// The device address of n <= STORE_LEASE elements of a block of an owned-only store, until the next lease: in place, or
// a copy of what the host has. store_return: what was leased has changed.
enum { STORE_LEASE = 1 << 22 };
Dev *store_lease(const Store *s, int block, int64_t offset, int64_t n);
void store_return(const Store *s, int block, int64_t offset, int64_t n);

size_t store_bytes(const Store *s);
void store_zero(Store *s);

#endif
