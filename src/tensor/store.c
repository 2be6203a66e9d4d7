// store.c: addresses into the flat buffers.
#include "tensor/store.h"

void store_create(Store *s, const Kernels *k, const ShardMap *map, DType dtype, bool owned_only, MemTag tag) {
    *s = (Store){.map = map, .k = k, .dtype = dtype, .owned_only = owned_only};
    s->data = k->mem_create(store_bytes(s), tag);
}

void store_create_host(Store *s, const Kernels *k, const ShardMap *map, DType dtype, bool leased) {
    *s = (Store){.map = map, .k = k, .dtype = dtype, .owned_only = true};
    if (leased) s->data = k->mem_create((size_t)ds_min(shard_owned(map), STORE_LEASE) * dtype_bytes(dtype), MEM_COMM);
    s->host = k->host_create(store_bytes(s));
}

void *store_host(const Store *s, int block, int64_t offset) {
    return (char *)s->host + (size_t)(s->map->own[block] + offset) * dtype_bytes(s->dtype);
}

Dev *store_lease(const Store *s, int block, int64_t offset, int64_t n) {
    if (!s->host) return store_at(s, block, offset);
    if (n > STORE_LEASE) err_fatal("a lease of %lld elements", (long long)n);
    s->k->copy_in(s->data, store_host(s, block, offset), (size_t)n * dtype_bytes(s->dtype));
    return s->data;
}

void store_return(const Store *s, int block, int64_t offset, int64_t n) {
    if (s->host) s->k->copy_out(store_host(s, block, offset), s->data, (size_t)n * dtype_bytes(s->dtype));
}

void store_destroy(Store *s) {
    if (s->host) s->k->host_destroy(s->host, store_bytes(s));
    if (s->data) s->k->mem_destroy(s->data);
    *s = (Store){0};
}

Dev *store_at(const Store *s, int block, int64_t offset) {
    if (s->host) err_fatal("a store in host memory is used in place");
    const int64_t *start = s->owned_only ? s->map->own : s->map->start;
    return dev_at(s->data, (size_t)(start[block] + offset) * dtype_bytes(s->dtype));
}

size_t store_bytes(const Store *s) {
    int64_t n = s->owned_only ? shard_owned(s->map) : shard_total(s->map);
    return (size_t)n * dtype_bytes(s->dtype);
}

void store_zero(Store *s) { s->k->zero(s->data, store_bytes(s)); }
