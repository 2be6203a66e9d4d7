// model.h: the transformer: embedding -> layers -> head, forward and backward, over packed sequences.
//
// The calling order of a micro-batch: model_fwd, then one of the head functions of model/head.h, then (training)
// model_bwd. At ZeRO stage 3 these are collective on the zero group, training passes on the data group at every stage
// (zero_state.h): each rank makes as many as the others, if need be with batch_empty. The rest is not collective.
#ifndef DS_MODEL_H
#define DS_MODEL_H

#include "data/pack.h"
#include "model/acts.h"
#include "zero/zero_state.h"

typedef struct {
    Arch arch;
    WeightList weights;
    const Kernels *k; // view
    DType dt;         // of compute
    ZeroState zero;
    Dev *rope; // fp32 [positions, rotary_dim] cos, sin; NULL without rotary
    int64_t rope_rows;
    Dev *slopes; // fp32 [heads] ALiBi; NULL without
} Model;

// Where keys and values of earlier tokens lie during generation: one KvCache a layer, and where each sequence of the
// micro-batch begins.
typedef struct {
    const KvCache *layer; // [layers]
    const int32_t *first; // host [n_seq] position of each sequence's first row
} ModelCache;

// Weights are zero afterwards (model_init_random, or set through model_weight_set). layout must outlive m. Owner:
// caller, model_destroy.
void model_create(Model *m, const Kernels *k, const Arch *arch, DType dt, const Layout *layout, int zero_stage,
                  ZeroTraining training, ZeroQuant quant);
void model_destroy(Model *m);

// Runs the layers over the batch (ids, pos, starts); afterwards a->x[layers] is the residual stream. rows: the largest
// number of rows that the head will be asked for. cache: NULL except in generation.
void model_fwd(const Model *m, Acts *a, const Batch *b, int64_t rows, const ModelCache *cache);

// From a->dx (set by a head's backward) to gradients (+=) of every weight of embedding and layers.
void model_bwd(Model *m, Acts *a);

// Copies elements [first, first + n) of weight w between host fp32 and the compute weights (set: those of them that
// this rank keeps; get: at stage 3 between zero_gather and zero_release). Master weights are not touched:
// zero_master_reset afterwards.
void model_weight_set(Model *m, const Weight *w, int64_t first, int64_t n, const float *values);
void model_weight_get(const Model *m, const Weight *w, int64_t first, int64_t n, float *values);

// Normal (init_std, keyed by seed and the weight's name), zero and one, as weights.h says; only weights of `block`, or
// all (-1).
void model_init_random(Model *m, uint64_t seed, int block);

#endif
