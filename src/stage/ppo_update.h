// ppo_update.h: the updates of actor and critic from one iteration's experience (algorithms.md section 3, 5 to 7).
#ifndef DS_PPO_UPDATE_H
#define DS_PPO_UPDATE_H

#include "loss/loss_ppo.h"
#include "stage/feed.h"
#include "stage/role.h"
#include "stage/rollout.h"

typedef struct {
    PpoActorCfg actor;
    double eps_value, ptx_coef;
    float inv_temperature;
    int64_t epochs, minibatch, micro_tokens, ptx_batch;
    uint64_t seed;
} UpdateCfg;

// Buffers that live through the stage.
typedef struct {
    UpdateCfg cfg;
    Role *actor, *critic; // views
    Feed *ptx;            // view; NULL without
    Acts actor_acts, critic_acts;
    Batch batch;
    int32_t *rows, *action, *target;
    float *values,
        *gathered; // gathered: [4, cap] of the micro-batch's actions: old log-prob, advantage, old value, return
    float *dvalues;
    int64_t cap;
} Update;

// What an iteration's updates did; sums over ranks and minibatches.
typedef struct {
    PpoActorStats actor;
    PpoCriticStats critic;
    double first_ratio; // largest |ratio - 1| of the first minibatch
    // Each step's loss is a mean over its own texts; these are sums over the iteration: their ratio, what is reported,
    // weights every token alike, not every step.
    double ptx_loss, ptx_tokens;
    double actor_norm, critic_norm, lr, critic_lr; // norms: mean over minibatches; rates: of the last one
    int64_t updates, skipped, tokens;
    char why[FINITE_WORDS]; // the first was skipped
    double seconds;
} UpdateStats;

// p: how many layers of the two models keep their activations. Not collective.
void ppo_update_create(Update *u, const UpdateCfg *cfg, const Params *p, Role *actor, Role *critic, Feed *ptx,
                       Workspace *shared);
void ppo_update_destroy(Update *u); // Not collective

// Optimizer steps of one iteration over `answers` answers. Not collective.
int64_t ppo_update_count(const UpdateCfg *cfg, int64_t answers);

// All epochs and minibatches over r; iteration keys their order. train_actor = false: the critic's only. Collective on
// run->data.
Err ppo_update_run(Run *run, Update *u, const Rollout *r, int64_t iteration, bool train_actor, UpdateStats *stats);

#endif
