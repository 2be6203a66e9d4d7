// zero_work.h: inside the room zero: the buffers in which a block is whole for a while. Contracts: zero_state.h. Not
// collective.
#ifndef DS_ZERO_WORK_H
#define DS_ZERO_WORK_H

#include "zero/zero_state.h"

struct ZeroWork *zero_work_create(const ZeroState *z);
void zero_work_destroy(struct ZeroWork **work);

// First element of a block: its open weights (stage 3), its gradients of this micro-batch.
Dev *zero_work_weights(const ZeroState *z, int block);
Dev *zero_work_grads(const ZeroState *z, int block);

#endif
