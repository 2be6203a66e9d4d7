// coll_quant.c: a segment of every rank's part is quantized, goes to its owner, and is added there in coll.c's tree, in
// the places of x from which the segments were sent.
#include "comm/coll_quant.h"

#include "comm/comm_mpi.h"
#include "kernels/kernels.h"

enum { SEGMENT = 1 << 20 }; // elements of each rank's part that travel at a time

size_t coll_quant_room(const Group *g, int bits, int64_t part) {
    const size_t slot = kernels_quant_bytes(bits, ds_min(part, SEGMENT));
    return (size_t)g->size * slot * (g->size > 1 ? 2 : 1); // one alone receives nothing
}

// The n elements at x become the sum of those at x, x + part, x + 2 part, ..., neighbours first.
static void add_tree(const Kernels *k, Dev *x, int64_t part, int size, int64_t n) {
    for (int step = 1; step < size; step *= 2)
        for (int r = 0; r + step < size; r += 2 * step)
            k->add(DS_F32, dev_at(x, (size_t)(r * part) * sizeof(float)),
                   dev_cat(x, (size_t)((r + step) * part) * sizeof(float)), n);
}

// The first n elements of every rank's part.
static void reduce_segment(const Group *g, const Kernels *k, int bits, Dev *x, int64_t part, int64_t n, Dev *room) {
    const size_t slot = kernels_quant_bytes(bits, n), stride = (size_t)part * sizeof(float);
    Dev *in = dev_at(room, (size_t)g->size * slot);
    for (int r = 0; r < g->size; r++)
        k->quantize(bits, dev_at(room, (size_t)r * slot), DS_F32, dev_at(x, (size_t)r * stride), n);
    coll_exchange_dev(g, COLL_REDUCE_SCATTER, room, in, slot);
    for (int r = 0; r < g->size; r++)
        k->dequantize(bits, DS_F32, dev_at(x, (size_t)r * stride), dev_at(r == g->rank ? room : in, (size_t)r * slot),
                      n);
    add_tree(k, x, part, g->size, n);
    if (g->rank > 0) k->copy(dev_at(x, (size_t)g->rank * stride), x, (size_t)n * sizeof(float));
}

void coll_quant_reduce_scatter(const Group *g, const Kernels *k, int bits, Dev *x, int64_t n, Dev *room) {
    const int64_t part = n / g->size;
    if (n % g->size || part % KERNEL_QUANT_BLOCK)
        err_fatal("quantized reduce-scatter of %lld elements over %d ranks", (long long)n, g->size);
    for (int64_t at = 0; at < part; at += SEGMENT)
        reduce_segment(g, k, bits, dev_at(x, (size_t)at * sizeof(float)), part, ds_min(SEGMENT, part - at), room);
}
