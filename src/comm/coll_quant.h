// coll_quant.h: sums of what travels quantized (kernels.h, quantize). Collective on the group.
#ifndef DS_COLL_QUANT_H
#define DS_COLL_QUANT_H

#include "comm/coll.h"

// As coll_reduce_scatter, of elements that are first rounded to blocks of `bits` (8 or 4): each is off by at most half
// the scale of its block. So is what a rank keeps for itself, or is alone with, or the bits would depend on who owns an
// element. x[n]: n / size a multiple of KERNEL_QUANT_BLOCK. room: device memory of coll_quant_room bytes for parts of
// n / size or more, contents undefined.
void coll_quant_reduce_scatter(const Group *g, const struct Kernels *k, int bits, Dev *x, int64_t n, Dev *room);

// Not collective.
size_t coll_quant_room(const Group *g, int bits, int64_t part);

#endif
