// zero_state.h: who updates what. The training state of one model: weights in compute dtype, fp32 gradients, fp32
// master weights and Adam moments, replicated (ZeRO stage 0) or partitioned over a zero group (stage 1: moments and
// master weights).
//
// Each block's gradient is summed over the data group; the owner of a part updates it; the parts of the weights are
// gathered. In stage 0 every rank owns everything and the sum is an all-reduce.
#ifndef DS_ZERO_STATE_H
#define DS_ZERO_STATE_H

#include "arch/weights.h"
#include "comm/group.h"
#include "tensor/store.h"

typedef struct {
    const Kernels *k;          // view
    const WeightList *weights; // view
    const Group *data;         // view: the gradient's sum runs over it
    int stage, shard;          // ZeRO stage; which part of each block this rank owns
    ShardMap map;
    Store w;      // weights, compute dtype, whole blocks
    Store g;      // gradients, fp32, whole blocks; no data when not trained
    Store master; // fp32 owned parts; no data when the compute dtype is fp32: then the weights are the master
    Store m, v;   // Adam's moments, fp32, owned parts
    bool trained;
} ZeroState;

// Collective on data. stage 0 or 1; trained = false: weights only. Owner: caller, zero_state_destroy (Not collective).
void zero_state_create(ZeroState *z, const Kernels *k, const WeightList *weights, const Group *data, int stage,
                       DType dt, bool trained);
void zero_state_destroy(ZeroState *z);

// Address of a weight (compute dtype) or of its gradient; NULL if the model has none or is not trained. Not collective.
Dev *zero_weight(const ZeroState *z, int block, WeightRole role);
Dev *zero_grad(const ZeroState *z, int block, WeightRole role);

// The fp32 value that the optimizer updates of block element `offset`, which this rank must own. Not collective.
Dev *zero_master(const ZeroState *z, int block, int64_t offset);

// Sums gradients over the data group; afterwards only owned parts are defined. Collective on data.
void zero_grad_sum(ZeroState *z);

// Sum of squares of all gradients, the same bits for any number of ranks and any ZeRO stage. Collective on data.
double zero_grad_sumsq(const ZeroState *z);

// Makes the compute weights from the updated parts of all owners. Collective on data.
void zero_weights_gather(ZeroState *z);

// After the compute weights were set from outside: master = weights. Not collective.
void zero_master_reset(ZeroState *z);

#endif
