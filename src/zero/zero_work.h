// zero_work.h: inside the room zero: the buffers in which a block is whole for a while. Contracts: zero_state.h. Not
// collective.
#ifndef DS_ZERO_WORK_H
#define DS_ZERO_WORK_H

#include "zero/zero_state.h"

// Weights are whole only in places, block by block.
static inline bool zero_in_places(const ZeroState *z) { return z->stage == 3 || z->w.host; }

struct ZeroWork *zero_work_create(const ZeroState *z);
void zero_work_destroy(struct ZeroWork **work);

// First element of a block: its open weights (zero_in_places), its gradients of this micro-batch.
Dev *zero_work_weights(const ZeroState *z, int block);
Dev *zero_work_grads(const ZeroState *z, int block);

#endif
