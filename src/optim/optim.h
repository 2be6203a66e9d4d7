// optim.h: one optimizer step of one model: sum of gradients, global norm, clip, AdamW, gather (algorithms.md section
// 4), and the moving average of the weights. A step is two calls, so that several models can be skipped together.
#ifndef DS_OPTIM_H
#define DS_OPTIM_H

#include "optim/sched.h"
#include "zero/zero_state.h"

typedef struct {
    double beta1, beta2, eps, weight_decay;
    double clip; // largest global norm; 0: not clipped
    Sched sched;
    double adapter_lr; // peak learning rate of low-rank adapters; their schedule is the same
} OptimCfg;

typedef struct {
    OptimCfg cfg;
    ZeroState *z;  // view: what is updated
    int64_t steps; // accepted so far; a skipped step does not advance the schedule
    Store ema;     // fp32 owned parts; no data without a moving average
    double ema_beta;
    double norm; // of the last optim_reduce
} Optim;

// ema_beta < 0: no moving average; else it starts as the weights at the first optim_ema_reset. Not collective. Owner:
// caller, optim_destroy.
void optim_create(Optim *o, ZeroState *z, const OptimCfg *cfg, double ema_beta);
void optim_destroy(Optim *o);

// Average = weights as they are. Not collective.
void optim_ema_reset(Optim *o);

// Weights and average change places: to use or write the average as a model; again to go on. Needs an average.
// Collective on the zero group.
void optim_swap_ema(Optim *o);

// Clears the gradients before the first backward pass of a step. Not collective.
void optim_begin(Optim *o);

// Sums the gradients over the data group and returns their global norm: not finite if any is. Collective on the data
// group.
double optim_reduce(Optim *o);

// Clips, updates, gathers, averages. Returns the learning rate used. Collective on the data group.
double optim_apply(Optim *o);

// The fp32 elements [offset, offset + n) of a block, which this rank must own, of the weights (0), the first or second
// moment (1, 2), the moving average (3), as store_lease and store_return (store.h). Not collective.
Dev *optim_lease(const Optim *o, int kind, int block, int64_t offset, int64_t n);
void optim_return(const Optim *o, int kind, int block, int64_t offset, int64_t n);

#endif
