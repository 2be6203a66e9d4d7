// model.h: the transformer: embedding -> layers -> head, forward and backward, over packed sequences.
//
// The calling order of a micro-batch: model_fwd, then one of the head functions of model/head.h, then (training)
// model_bwd. All of them are collective on the tensor group, whose ranks bring the same batches and get the same bits.
// At ZeRO stage 3 they are collective on the zero group, training passes on the data group at every stage
// (zero_state.h): each rank makes as many as the others, if need be with batch_empty. The rest is not collective.
//
// Tensor parallelism: what is split ends in a sum over the ranks: the embedding, attention and MLP forward; their
// inputs' gradients backward. Between these parts every rank has its own rows (acts.h) of the residual stream: all of
// them, or, with layout->sequence, its share. Then all rows are gathered before a split part, and the sum leaves each
// rank its rows of it, in the same order of ranks: the same bits. So in every pass, generation's too: one path, and
// with few rows no more messages than the sum over all of them takes.
#ifndef DS_MODEL_H
#define DS_MODEL_H

#include "arch/adapters.h"
#include "data/pack.h"
#include "model/acts.h"
#include "zero/zero_state.h"

typedef struct {
    Arch arch;          // the whole model
    ArchPart part;      // what this tensor rank computes
    WeightList weights; // of the part
    const Kernels *k;   // view
    DType dt;           // of compute
    Group *kv;          // the tensor ranks with the same key heads; NULL: no others have them
    ZeroState zero;     // all weights, or with adapters those that are trained
    struct Lora *lora;  // NULL: no adapters
    // With model_create_beside: the weights that are another model's (view), and the list of the others, which are in
    // `zero`; NULL and empty else.
    const ZeroState *shared;
    WeightList own;
    Dev *rope;   // fp32 [positions, rotary_dim] cos, sin; NULL without rotary
    Dev *slopes; // fp32 [own heads] ALiBi; NULL without
} Model;

// Where keys and values of earlier tokens lie during generation: one KvCache a layer, and where each sequence of the
// micro-batch begins.
typedef struct {
    const KvCache *layer; // [layers]
    const int32_t *first; // host [n_seq] position of each sequence's first row
} ModelCache;

// adapters: NULL or of rank 0: none. Weights are zero afterwards (model_init_random, or set through model_weight_set).
// layout must outlive m; its tensor group has at most arch_part_limit ranks. Owner: caller, model_destroy. Collective
// on the tensor group.
void model_create(Model *m, const Kernels *k, const Arch *arch, DType dt, const Layout *layout, ZeroKeep keep,
                  const AdapterCfg *adapters);
void model_destroy(Model *m);

// A frozen model of the shape and dtype of `with`, which has adapters and must outlive m: the weights that adapters
// leave as they are are not held twice, m has only the others. What m computes does not depend on what `with` trains. m
// is collective as `with` is where their weights are partitioned. Owner: caller, model_destroy. Collective on the
// tensor group.
void model_create_beside(Model *m, const Model *with, const Layout *layout, ZeroKeep keep);

// Whether m keeps weight w itself. Not collective.
bool model_keeps(const Model *m, const Weight *w);

// Runs the layers over the batch (ids, pos, starts); afterwards a->x[layers] is the residual stream, own rows. rows:
// the largest number of rows that the head will be asked for. cache: NULL except in generation.
void model_fwd(const Model *m, Acts *a, const Batch *b, int64_t rows, const ModelCache *cache);

// From a->dx (set by a head's backward) to gradients (+=) of every weight of embedding and layers.
void model_bwd(Model *m, Acts *a);

// ---- weights and gradients of a block, for the files of this room ----
// As zero_open, zero_weight, zero_grad_open, zero_grad, zero_grad_close of zero_state.h, in calling order and contract.
void model_open(const Model *m, int block, int next);
Dev *model_weight(const Model *m, int block, WeightRole role);
void model_grad_open(Model *m, int block);
Dev *model_grad(const Model *m, int block, WeightRole role);
void model_grad_close(Model *m, int block);

// As zero_widen, zero_prefetch.
void model_widen(const Model *m, int layers);
void model_prefetch(const Model *m, int block);

// All blocks are whole until model_release: for generation. As zero_gather, zero_release.
void model_gather(const Model *m);
void model_release(const Model *m);

// Copies elements [first, first + n) of this tensor rank's part of weight w (weights_pieces tells which of the whole
// they are) between host fp32 and the compute weights (set: those of them that this rank keeps; get: of a block that
// is open, or between model_gather and model_release). Of weights that are another model's nothing is set. Master
// weights are not touched: zero_master_reset afterwards.
void model_weight_set(Model *m, const Weight *w, int64_t first, int64_t n, const float *values);
void model_weight_get(const Model *m, const Weight *w, int64_t first, int64_t n, float *values);

// Normal (init_std, keyed by seed and the weight's name), uniform, zero and one, as weights.h says; only weights of
// `block`, or all (-1); adapters in any case.
void model_init_random(Model *m, uint64_t seed, int block);

// x dt [n] = sum over the tensor group. Collective on it.
void model_sum(const Model *m, Dev *x, int64_t n);

// ---- own rows and all rows, of `width` dt ----
// Into a split part: all rows, from every rank's `own`. They lie in `own` where it has all of them, else in a->whole
// until the next of these calls. Collective on the tensor group.
const Dev *model_rows_in(const Model *m, const Acts *a, const Dev *own, int64_t width);
// Out of it: own = own rows of the sum over the ranks of all rows, which each rank has put into acts_whole(a, own).
// Collective on the tensor group.
void model_rows_out(const Model *m, const Acts *a, Dev *own, int64_t width);
// own = own rows of acts_whole(a, own), where the ranks have the same. Not collective.
void model_rows_cut(const Model *m, const Acts *a, Dev *own, int64_t width);

#endif
