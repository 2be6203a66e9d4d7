// layer.h: the two halves of a transformer block. Collective on the tensor group. See model.h for the order of calls.
#ifndef DS_LAYER_H
#define DS_LAYER_H

#include "model/model.h"

// out dt [own, width] = attention(in) of layer i with its output projection, from in [own, width]; keeps what the
// backward pass needs in a->layer[i].
void attention_fwd(const Model *m, Acts *a, int64_t i, Dev *out, const Dev *in, const ModelCache *cache);
// din dt [own, width] = gradient of `in`, from dout [own, width]; weights' gradients +=.
void attention_bwd(Model *m, Acts *a, int64_t i, Dev *din, const Dev *dout, const Dev *in);

// The bias of a product that is summed over the tensor group: rank 0 adds it, NULL on the others.
static inline const Dev *layer_bias(const Model *m, int block, WeightRole role) {
    return m->part.rank == 0 ? model_weight(m, block, role) : NULL;
}

void mlp_fwd(const Model *m, Acts *a, int64_t i, Dev *out, const Dev *in);
void mlp_bwd(Model *m, Acts *a, int64_t i, Dev *din, const Dev *dout, const Dev *in);

#endif
