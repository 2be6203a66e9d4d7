// sched.h: the learning rate of a step (algorithms.md section 4): the formulas of transformers.get_scheduler. Not
// collective.
#ifndef DS_SCHED_H
#define DS_SCHED_H

#include "base/types.h"

// In the order of the key `schedule`.
typedef enum {
    SCHED_LINEAR,
    SCHED_COSINE,
    SCHED_COSINE_RESTARTS,
    SCHED_POLYNOMIAL,
    SCHED_CONSTANT, // no warm-up
    SCHED_CONSTANT_WARMUP,
    SCHED_COSINE_MIN_LR
} SchedForm;

typedef struct {
    SchedForm form;
    double lr;            // peak
    int64_t warmup_steps; // sched_warmup
    int64_t total_steps;  // of the job, warm-up included
    double min_lr_ratio;  // SCHED_COSINE_MIN_LR: last / peak
    double cycles;        // SCHED_COSINE_RESTARTS
    double power;         // SCHED_POLYNOMIAL, which ends at min(1e-7, lr)
} Sched;

// Learning rate of the step after `steps` accepted ones (0 for the first; a skipped step does not count). Beyond
// total_steps it stays what it is at total_steps.
double sched_lr(const Sched *s, int64_t steps);

// Steps of warm-up: `steps` if above 0, else ceil(ratio * total_steps), as transformers has it.
int64_t sched_warmup(int64_t steps, double ratio, int64_t total_steps);

#endif
