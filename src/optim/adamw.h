// adamw.h: AdamW over the parts that this rank owns. Not collective.
#ifndef DS_ADAMW_H
#define DS_ADAMW_H

#include "optim/optim.h"

// One update with learning rate lr (adapter_lr for low-rank adapters) and gradients multiplied by grad_scale; step
// counts from 1 (bias correction). Weights without decay (biases, norms) get none.
void adamw_update(Optim *o, double lr, double adapter_lr, double grad_scale, int64_t step);

#endif
