// finite.h: numbers that are not finite: where one appeared first, and what may not be so when a stage writes.
#ifndef DS_FINITE_H
#define DS_FINITE_H

#include "stage/rollout.h"

// Of a skipped step: says in words[FINITE_WORDS] which number of the model was not finite, and on which rank: a weight,
// the first of the model; else a loss, of which `loss` is this rank's share; else the gradient of the last weight,
// which is the first that is computed. Of several ranks the lowest. "" if there is none. After optim_reduce. Collective
// on run->world.
void finite_find(const Run *run, const StageModel *m, double loss, char words[FINITE_WORDS]);

// The same of the numbers of an iteration: false if one is not finite, with words. The same on all ranks. Not
// collective.
bool finite_rollout(const Run *run, const Rollout *r, char words[FINITE_WORDS]);

// DS_ERR_NUMERIC if a weight or moving average of the models is not finite; names rank, model and weight. Collective on
// run->world.
Err finite_models(const Run *run, const char *stage, const StageModel *models, int n);

// Before a stage of `steps` steps writes: the same, and DS_ERR_NUMERIC if no model was ever updated. Collective on
// run->world.
Err finite_end(const Run *run, const char *stage, int64_t steps, const StageModel *models, int n);

// DS_ERR_NUMERIC if an evaluation at the stage's beginning or end is not finite, `words` say of what. In between a
// warning: it may become finite again. Not collective; all ranks bring the same.
typedef enum { FINITE_BEFORE, FINITE_DURING, FINITE_AFTER } FiniteWhen;
Err finite_evaluation(const char *stage, FiniteWhen when, bool finite, const char *words);

#endif
