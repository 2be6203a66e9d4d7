// adapters.h: low-rank adapters (LoRA, Hu et al. 2021) as weights: which weights of a model get them, and what is then
// trained and what frozen. Not collective.
//
//     W' = W + (alpha / rank) B A     W [out, in] frozen, A [rank, in] uniform in +-1/sqrt(in), B [out, rank] zero
//
// Names: "...q_proj.weight" gets "...q_proj.lora_A.weight" and "...q_proj.lora_B.weight".
#ifndef DS_ADAPTERS_H
#define DS_ADAPTERS_H

#include "arch/weights.h"

typedef struct {
    int64_t rank; // 0: no adapters
    double alpha;
    char *const *modules; // [n_modules] "attention", "mlp", or parts of the names of layers' linear weights. View
    int n_modules;
    bool only; // freeze everything but the adapters and a scalar head
} AdapterCfg;

// Every module fits some linear weight of a layer. DS_ERR_PARAMS with the names that there are; `what` (a role's name)
// begins the message.
Err adapters_check(const WeightList *all, const AdapterCfg *cfg, const char *what);

// Divides the weights of `all` into those that stay as they are and those that are trained: adapters, and what has none
// unless cfg->only. Both keep the order of blocks. Owner: caller, weights_free.
void adapters_split(const WeightList *all, const AdapterCfg *cfg, WeightList *frozen, WeightList *trained);

#endif
