// plan.h: what a job will need, before it is submitted: memory by purpose and phase, traffic, arithmetic, time. Nothing
// is computed and no memory is taken: the objects of each phase are made on the dry backend, with ranks that are not
// there, by the functions that a run uses, so that the figures are a run's own. Not collective.
#ifndef DS_PLAN_H
#define DS_PLAN_H

#include <stdio.h>

#include "kernels/kernels.h"
#include "params/params.h"

typedef enum { PLAN_SFT, PLAN_RM, PLAN_PPO, PLAN_PHASES } PlanPhase;

// What travels: sums of gradients and gathers of weights inside zero groups, sums of gradients over their copies, sums
// and gathers of activations inside tensor groups.
typedef enum { PLAN_ZERO_REDUCE, PLAN_ZERO_GATHER, PLAN_COPIES, PLAN_TENSOR, PLAN_TRAFFIC } PlanTraffic;

// Of one rank.
typedef struct {
    int64_t bytes[MEM_TAGS], total; // the most at any time; total: of the sum
    double sent[PLAN_TRAFFIC];      // bytes of one step (ppo: of one minibatch's two models)
    double rollout;                 // bytes on the way to the generation layout
    int64_t turns;                  // micro-batches of one step
    int64_t checkpoint;             // bytes of a checkpoint, all ranks together
    double flops[3], seconds[3];    // of one step; ppo, one iteration: generate, score, train
    double travel;                  // seconds of the step's traffic
} PhasePlan;

typedef struct {
    PhasePlan phase[PLAN_PHASES];
    int64_t need[MEM_TAGS], total; // the most over the phases
} Plan;

// The plan of p on `ranks` ranks. DS_ERR_PARAMS: a layout that cannot be, a model whose shape nobody tells;
// DS_ERR_DATA, DS_ERR_IO: a file that is there and cannot be read.
Err plan_make(const Params *p, int ranks, Plan *plan);

// GiB that a rank may fill: [machine] memory_gib, its preset's, or this machine's shared by `sharing` ranks.
double plan_memory_gib(const Params *p, int sharing);

// recompute = fit: sets keep_layers of the trained models (actor, then critic, then reward) to the largest with which
// the plan on `ranks` ranks stays within memory_gib; to 1 where none does. Errors as plan_make's.
Err plan_fit(Params *p, int ranks, double memory_gib);

// Makes and prints it, and what plan_fit chooses, for a person. *fits: into [machine] memory. If not, what to change is
// printed.
Err plan_print(const Params *p, int ranks, FILE *out, bool *fits);

#endif
