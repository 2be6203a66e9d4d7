// new_model.h: models as params describe them.
#ifndef DS_NEW_MODEL_H
#define DS_NEW_MODEL_H

#include "model/model.h"
#include "params/params.h"

// The published shape that `keys` name, else the one of [actor] arch_* with `vocab` tokens; with this head. Not
// collective. DS_ERR_PARAMS, DS_ERR_DATA.
Err new_model_arch(const Params *p, const ModelParams *keys, int64_t vocab, ArchHead head, Arch *a);

// Whether a model of this shape can be split over `tensor` ranks and has what `keys` want adapted; `what` (a role's
// name) begins the message. Not collective. DS_ERR_PARAMS.
Err new_model_check(const Arch *a, int tensor, const ModelParams *keys, const char *what);

// Whether a model of this shape has a position for each token of [generate]'s longest prompt and answer; `what`: "the
// actor (x.h5)". Not collective. DS_ERR_PARAMS.
Err new_model_check_answer(const Arch *a, const Params *p, const char *what);

// Weights of it that are trained with `keys`: all, or those that adapters leave. Not collective.
int64_t new_model_trained(const Arch *a, const ModelParams *keys);

// model_create with the ZeRO stage, adapters and offload of `keys`; frozen models have no adapters. Collective on the
// tensor group.
void new_model_create(Model *m, const Kernels *k, const Arch *a, DType dt, const Layout *layout,
                      const ModelParams *keys, bool trained);

// Whether the reference, which begins as the actor, has from it the weights that the actor's adapters leave as they
// are: the actor has adapters; the reference has no file of its own; both compute in one dtype; weights travel to both
// as they are, and the reference does not ask for whole weights where the actor's are partitioned. Not collective.
bool new_model_shares(const Params *p);

// model_create_beside with the ZeRO stage and offload of `keys` for the weights that are not shared. Collective on the
// tensor group.
void new_model_create_beside(Model *m, const Model *with, const Layout *layout, const ModelParams *keys);

#endif
