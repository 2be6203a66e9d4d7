// store.c: addresses into the flat buffers.
#include "tensor/store.h"

void store_create(Store *s, const Kernels *k, const ShardMap *map, DType dtype, bool owned_only, MemTag tag) {
    *s = (Store){.map = map, .k = k, .dtype = dtype, .owned_only = owned_only};
    s->data = k->mem_create(store_bytes(s), tag);
}

void store_destroy(Store *s) {
    if (s->data) s->k->mem_destroy(s->data);
    *s = (Store){0};
}

Dev *store_at(const Store *s, int block, int64_t offset) {
    const int64_t *start = s->owned_only ? s->map->own : s->map->start;
    return dev_at(s->data, (size_t)(start[block] + offset) * dtype_bytes(s->dtype));
}

size_t store_bytes(const Store *s) {
    int64_t n = s->owned_only ? shard_owned(s->map) : shard_total(s->map);
    return (size_t)n * dtype_bytes(s->dtype);
}

void store_zero(Store *s) { s->k->zero(s->data, store_bytes(s)); }
