// zero_state.h: who keeps and updates what. The training state of one model: weights in compute dtype, fp32 gradients,
// fp32 master weights and Adam moments, by block: block 0 the embedding, 1 .. layers, layers + 1 the head.
//
// Of the master weights of bf16 weights only what these leave off is kept, `rest` (kernels.h, master_split).
//
//     stage 0  everything on every rank
//     stage 1  master weights and moments partitioned over the zero group (layout.h)
//     stage 2  also gradients: a layer's is summed and cut to parts as its backward pass ends
//     stage 3  also weights: a layer's parts are gathered while the layer before it computes; two layers are whole at
//              a time
//
// The calling order of a step: zero_step_begin; micro-batch by micro-batch zero_open before a block's weights are used,
// zero_grad_open before its gradients are added to, zero_grad_close when they are complete, block 0 last; then
// zero_grad_finish, the update of owned parts, zero_weights_changed. Every rank makes the same calls in the same order,
// each lane the same number of micro-batches.
//
// Gradients: micro-batch number j of all lanes is summed in one binary tree over the lanes; these sums are added in
// order of j. So the bits depend on the lanes alone, not on ranks, stage or zero group. (One rank with one lane adds in
// place, and so do stages 0 and 1 with layout->library: then MPI sums once a step, in its own order. Not so gradients
// that travel quantized.)
#ifndef DS_ZERO_STATE_H
#define DS_ZERO_STATE_H

#include "arch/weights.h"
#include "comm/layout.h"
#include "tensor/store.h"

enum { ZERO_LEVELS = 24 };

// FROZEN: weights only. LATER: so, without memory for them until zero_take. HOST: so, in host memory, from which a
// block comes to the device when it is opened. TRAINED. OFFLOADED: trained, with `rest` and moments in host
// memory.
typedef enum { ZERO_FROZEN, ZERO_LATER, ZERO_HOST, ZERO_TRAINED, ZERO_OFFLOADED } ZeroTraining;

// What travels between ranks rounded to blocks of 256 elements with a scale (kernels.h, quantize): bits of an element,
// 8 or 4; 0: it travels as it is. Weights (at stage 3 alone): everybody computes with what travels, the owner too;
// owned parts and master weights stay exact. Gradients: every micro-batch's are rounded once, before any sum.
typedef struct {
    int weight_bits, gradient_bits;
} ZeroQuant;

// How a model is kept.
typedef struct {
    int stage; // ZeRO
    ZeroTraining training;
    ZeroQuant quant;
} ZeroKeep;

typedef struct {
    const Kernels *k;          // view
    const WeightList *weights; // view
    const Layout *layout;      // view
    const Group *kv;           // view: the tensor ranks that keep the same key heads; NULL: no others do
    int stage, shard;          // ZeRO stage; which part of each block this rank owns
    bool trained, offload;     // offload: master weights and moments are in host memory
    ShardMap map;              // parts of weights and state; one part where nothing is partitioned
    ShardMap grad_map;         // parts of summed gradients: the zero group's
    Store w;                   // weights, compute dtype: whole blocks; stage 3: owned parts
    Store g;   // gradients of a micro-batch, fp32, whole blocks; stages 2, 3: only on one rank with one lane
    Store sum; // gradients of the step, fp32 owned parts of grad_map; no data where g holds them
    Store level[ZERO_LEVELS]; // sums of 1, 2, 4 ... lanes that wait for their neighbours; with several lanes a rank
    Store rest;               // of master weights, 16 bits, owned parts; no data when the compute dtype is fp32
    Store m, v;               // Adam's moments, fp32, owned parts; with offload they and `rest` are in host memory
    Dev *joined;              // room for a lease of master weights; NULL without rest
    int64_t version;          // how often weights have changed: zero_set, zero_weights_changed
    int64_t turn;             // micro-batches of this step so far
    struct ZeroWork *work;    // blocks that are whole for a while
    ZeroQuant quant;
    Dev *room; // gradients that travel quantized; NULL: they do not
} ZeroState;

// layout and kv must outlive z. Owner: caller, zero_state_destroy. Not collective.
void zero_state_create(ZeroState *z, const Kernels *k, const WeightList *weights, const Layout *layout, const Group *kv,
                       DType dt, ZeroKeep keep);
void zero_state_destroy(ZeroState *z);

// Address of a weight (compute dtype; at stage 3 its block must be open) or of its gradient (its block must be open for
// gradients); NULL if the model has none or is not trained. Not collective.
Dev *zero_weight(const ZeroState *z, int block, WeightRole role);
Dev *zero_grad(const ZeroState *z, int block, WeightRole role);

// Of block element `offset`, which this rank must own: the weight in compute dtype, the fp32 value that the optimizer
// updates (as store_lease; its return rounds it to the weight too), the summed gradient. Not collective.
Dev *zero_own_weight(const ZeroState *z, int block, int64_t offset);
Dev *zero_master_lease(const ZeroState *z, int block, int64_t offset, int64_t n);
void zero_master_return(const ZeroState *z, int block, int64_t offset, int64_t n);
// Of a store of this state with map's owned parts (rest, m, v, an average).
Dev *zero_lease(const ZeroState *z, const Store *s, int block, int64_t offset, int64_t n);
void zero_return(const ZeroState *z, const Store *s, int block, int64_t offset, int64_t n);

// A store of fp32 owned parts that is where the master weights are. Owner: caller, store_destroy.
void zero_create_own(const ZeroState *z, Store *s);
Dev *zero_grad_sum(const ZeroState *z, int block, int64_t offset);

// ---- weights ----

// The block's weights can be used until two more layers are opened; those of `next` (-1: none) begin to travel. Stages
// 0 to 2: nothing to do, but for weights in host memory. Collective on the zero group at stage 3.
void zero_open(const ZeroState *z, int block, int next);

// To open many blocks one after the other: so many layers travel at a time, from now on (2: as before), when they are
// asked for in advance. What is open is lost. Not collective; collective as zero_open.
void zero_widen(const ZeroState *z, int layers);
void zero_prefetch(const ZeroState *z, int block);

// Memory for the weights of a state made with ZERO_LATER, zeroed; they are lost with zero_drop. Not collective.
void zero_take(ZeroState *z);
void zero_drop(ZeroState *z);

// n elements of a block from `offset` on (which this rank keeps) = host values in compute dtype. Not collective.
void zero_set(ZeroState *z, int block, int64_t offset, int64_t n, const void *values);

// All blocks are whole until zero_release: for generation, which the ranks do each for itself. Collective on the zero
// group at stage 3.
void zero_gather(const ZeroState *z);
void zero_release(const ZeroState *z); // Not collective

// The owned parts of weights have changed. Collective on the zero group.
void zero_weights_changed(ZeroState *z);

// The compute weights were set from outside: the master weights are what they are. Not collective.
void zero_master_reset(ZeroState *z);

// ---- gradients ----

void zero_step_begin(ZeroState *z); // Not collective

// Clears the block's gradients of this micro-batch. Not collective.
void zero_grad_open(ZeroState *z, int block);

// Sums the block's gradients over the ranks into `sum`. Collective on data, on tensor where ranks share weights.
void zero_grad_close(ZeroState *z, int block);

// Afterwards zero_grad_sum is what all micro-batches gave. Collective on the zero group, on tensor where ranks share
// weights.
void zero_grad_finish(ZeroState *z);

// Sum of squares of all summed gradients, the same bits for any data layout. Collective on the zero and tensor groups.
double zero_grad_sumsq(const ZeroState *z);

#endif
