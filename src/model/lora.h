// lora.h: a model with low-rank adapters (arch/adapters.h). Not for other rooms: model.h. Collective as the functions
// of zero_state.h that they are named after.
//
// Adapters act on weights, not on activations: when a layer is opened, its effective weights W + (alpha / rank) B A are
// made in one of two places (layers take turns), and the rest of the program computes with them as with any weights: in
// training, scoring and generation, which so have the same bits. The frozen weights are kept and never changed, so
// that nothing has to be taken back. Gradients of effective weights go to a scratch of one layer, from which those of
// A and B follow when it is closed. So a step costs the arithmetic of a full one; what is saved is the memory of
// gradients, moments and master weights, and what travels to sum gradients.
#ifndef DS_LORA_H
#define DS_LORA_H

#include "model/model.h"

enum { LORA_PLACES = 2 };

typedef struct Lora {
    float scale;
    WeightList frozen, trained;
    ZeroState base; // the frozen weights; m->zero has the trained ones
    ShardMap map;   // layers of effective weights, whole; nothing for embedding and head
    struct {
        Dev *data;
        int block; // -1: none
        int64_t version;
    } place[LORA_PLACES];
    Dev *grad; // fp32, effective gradients of one layer
    Store all; // between lora_gather and lora_release
} Lora;

// Makes m->lora and m->zero; the rest of m is made but for them.
void lora_create(Model *m, const Layout *layout, ZeroKeep keep, const AdapterCfg *cfg);
void lora_destroy(Model *m);

void lora_open(const Model *m, int block, int next);
Dev *lora_weight(const Model *m, int block, WeightRole role);
Dev *lora_grad(const Model *m, int block, WeightRole role);
void lora_grad_open(Model *m, int block);
void lora_grad_close(Model *m, int block);
void lora_gather(const Model *m);
void lora_release(const Model *m);

// The state that keeps weight w of m->weights, and the weight in its list.
ZeroState *lora_home(Model *m, const Weight *w, const Weight **there);

#endif
