// save.h: training state <-> checkpoints and model files: which piece of which tensor this rank writes or reads.
#ifndef DS_SAVE_H
#define DS_SAVE_H

#include "stage/stage.h"

// Writes `checkpoints/<stage>-<step>` with the fp32 weights, moments and averages of the models, and kv. Collective on
// run->data.
Err save_checkpoint(Run *run, const char *stage, int64_t step, const StageModel *models, int n, const Kv *kv);

// Puts a checkpoint back, whatever layout wrote it; *kv: its numbers (owner: caller, kv_destroy). Collective on
// run->data.
Err save_restore(Run *run, const char *path, const StageModel *models, int n, Kv **kv);

// Writes <out>/models/<name>.h5 in `dtype`: the model's weights, or its moving average (ema). Collective on run->world.
Err save_model(Run *run, const char *name, const Model *m, const Optim *optim, bool ema, DType dtype);

#endif
