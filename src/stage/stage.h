// stage.h: what a stage of the job is, and the loop that runs any of them: steps, evaluation, history, checkpoints,
// stops.
#ifndef DS_STAGE_H
#define DS_STAGE_H

#include "comm/layout.h"
#include "io/history.h"
#include "io/kv.h"
#include "io/origin.h"
#include "io/runlock.h"
#include "io/summary.h"
#include "model/model.h"
#include "optim/optim.h"
#include "params/params.h"
#include "stage/record.h"
#include "token/chat.h"

// What all stages of one job share. Made by job.c; views for the stages.
typedef struct {
    const Params *p;
    const Kernels *k;
    const Group *world; // all ranks
    Layout layout;
    const Group *sharing; // [checkpoint] files = node: the ranks of this node; else NULL
    const Origin *origin;
    Tokenizer *tok;    // of the data set, which every model must share; NULL: none
    ChatText template; // of the data set, noted in every model
    int products;      // bits of StageKind: that stage's product is there, as rank 0 saw it, or was made since
    Runlock *lock;     // rank 0: of the run's folder
    Summary *summary;
    History *history;
    Rollouts *rollouts;
    double started;         // clock_now() of the job
    double last_checkpoint; // clock_now()
    bool checkpointed;      // this start has written one
    int64_t steps_made;     // by this start, in all stages
} Run;

// What a step reports.
enum { FINITE_WORDS = 192 };
typedef struct {
    bool skipped;           // a number was not finite: no model was updated (ppo: not in one of its minibatches)
    char why[FINITE_WORDS]; // which (finite.h)
    int64_t tokens;         // through the model, over all ranks: for the rate
    Record record;
    char note[96]; // for the progress line: "loss 2.31"
} StepInfo;

// A model whose training state belongs into the stage's checkpoints.
typedef struct {
    const char *name;
    Model *model;
    Optim *optim;
} StageModel;
enum { STAGE_MODELS = 4 };

// All functions are Collective on run->world and return the same code on every rank. `self` is the stage's own state.
typedef struct {
    StageKind kind;
    const char *name; // as [job] stages spells it
    const char *title;
    // Loads models and data. Owner of *self: the loop, which calls destroy.
    Err (*setup)(Run *run, void **self);
    void (*destroy)(void **self);       // accepts NULL. Not collective
    int64_t (*steps)(const void *self); // in all. Not collective
    // Fills list[STAGE_MODELS], returns how many. Not collective.
    int (*models)(void *self, StageModel *list);
    // A new stage (not a resumed one) begins: evaluation before; fills its rows of the record.
    Err (*begin)(Run *run, void *self, Record *record);
    // Step number `step`, from 0.
    Err (*step)(Run *run, void *self, int64_t step, StepInfo *info);
    // Evaluation after `step` steps; fills its rows of the record. last: the stage is over.
    Err (*eval)(Run *run, void *self, int64_t step, bool last, Record *record);
    // Counters, cursors, controllers. Not collective.
    void (*save)(const void *self, Kv *kv);
    Err (*load)(void *self, const Kv *kv);
    // Writes the stage's models; the one that marks the stage as done comes last.
    Err (*finish)(Run *run, void *self);
} Stage;

// Runs `stage`, from checkpoint folder `resume` or (NULL) from its beginning. DS_STOP_REQUEUE: stopped early with a
// checkpoint. Collective on run->world.
Err stage_run(Run *run, const Stage *stage, const char *resume);

// Before a stage's product is written: notes in summary.json how much of the history belongs to what is done, and
// writes it. Collective on run->world.
Err stage_mark(Run *run, const Stage *stage);

// sum[n] of what this rank's lanes gave, x[layout.turns][n], over all lanes in their order: the same bits for equal
// lanes. Collective on run->world.
void stage_lane_sum(const Run *run, const double *x, int64_t n, double *sum);

// <out>/models/<name>.h5; the same for the model that marks a stage as done. Owner: caller, mem_free. Not collective.
char *stage_model_path(const Run *run, const char *name);
char *stage_product_path(const Params *p, StageKind kind);

#endif
