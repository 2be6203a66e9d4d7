// role.h: the models of the job (actor, reference, critic, reward): where each comes from, and its training state.
#ifndef DS_ROLE_H
#define DS_ROLE_H

#include "io/modelfile.h"
#include "stage/stage.h"

typedef enum { MODEL_ACTOR, MODEL_CRITIC, MODEL_REFERENCE, MODEL_REWARD } JobModel;

typedef struct {
    Model model;
    Optim optim;  // zero if frozen
    char *source; // words: the path, or "random"
} Role;

typedef struct {
    const char *name; // for messages: "actor"
    const ModelParams *keys;
    const char *path;    // model file; NULL: a new random model after [actor] arch_*
    ArchHead head;       // a file with an LM head can become a scalar one (with a new v_head), not the other way
    const Model *beside; // a model with adapters from the same file, opened before: see model_create_beside; NULL: none
    bool trained;
    OptimCfg optim;  // if trained
    double ema_beta; // < 0: no moving average
} RoleSpec;

// Collective on run->world; the same code everywhere. DS_ERR_DATA: not a model, another tokenizer than the data's, more
// tokens than the model has. Owner: caller, role_close (Not collective).
Err role_open(Run *run, const RoleSpec *spec, Role *role);
void role_close(Role *role); // accepts a zero one

// Which file a model of a stage begins with: what an earlier stage of this run made of it (products: bits of
// StageKind), or what params name. NULL: none, so that it begins with random weights (sft, rm), or cannot (ppo). Owner:
// caller, mem_free. Not collective.
char *role_path(const Params *p, int products, StageKind stage, JobModel model);

// DS_ERR_DATA where the model of `path` has fewer tokens than `tok` (NULL: not known), or another tokenizer. Not
// collective.
Err role_check_tokenizer(const Tokenizer *tok, const ModelFile *file, const Arch *arch, const char *path);

// The optimizer keys of a stage as the optimizer wants them. Not collective.
OptimCfg role_optim(const TrainParams *train, double lr, double adapter_lr, int64_t total_steps);

// The dtype of compute for a wished one: bf16 becomes fp32, with words, where the device does not multiply bf16. Not
// collective.
DType role_dtype(DType wished);

#endif
