// plan_models.h: inside the room plan: the shapes of the models and samples that params speak of. Not collective.
#ifndef DS_PLAN_MODELS_H
#define DS_PLAN_MODELS_H

#include "arch/arch.h"
#include "comm/layout.h"
#include "plan/plan.h"

typedef enum { ROLE_ACTOR, ROLE_CRITIC, ROLE_REFERENCE, ROLE_REWARD, ROLES } PlanRole;

typedef struct {
    const char *name;
    const ModelParams *keys;
    Arch arch;
    char *source; // words
} PlanModel;

typedef struct {
    PlanModel model[ROLES];
    // of the data sets, where they are there; else what the params allow
    int64_t longest[3];           // tokens of the longest sft sample, rm pair, ptx text
    double sft_tokens, rm_tokens; // of a sample, a pair in the mean
    bool data_known, vocab_assumed;
} PlanModels;

// DS_ERR_PARAMS, DS_ERR_DATA, DS_ERR_IO. Owner: caller, plan_models_free.
Err plan_models_find(const Params *p, PlanModels *m);
void plan_models_free(PlanModels *m);

// The keys that they point to are now those of p, which speaks of the same models.
void plan_models_keys(PlanModels *m, const Params *p);

// What the model's weights are held and computed in: bf16 is fp32 where [job] isa names a set that does not multiply
// it; "auto" stands for machines that do, whatever this one is.
DType plan_dtype(const Params *p, const ModelParams *keys);

// plan_make, of models found before: files are opened once, however many plans are tried. Errors as plan_make's.
Err plan_make_of(const Params *p, const PlanModels *models, int ranks, Plan *plan);

#endif
