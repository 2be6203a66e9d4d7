// ppo_setup.h: what stage 3 is made of: models, prompts, generation, scoring, updates.
#ifndef DS_PPO_SETUP_H
#define DS_PPO_SETUP_H

#include "stage/ppo_update.h"

// Means over the answers of a scored rollout; KL in nats, log p_actor - log p_reference.
typedef struct {
    double reward, deviation, truth, kl_token, kl_sequence, length, truncated;
} Means;

typedef struct {
    Role actor, critic, reference, reward; // reward: zero when the checker is the reward
    Feed prompts, ptx;
    int64_t *usable, n_usable;           // prompt records that are short enough, of the training and
    int64_t *usable_eval, n_usable_eval; // the held-out part
    Workspace workspace; // activations and KV cache: generation, scoring and the training of both models take turns
    Hybrid *gen;
    GenCfg gen_cfg;
    int32_t stop_id;
    Scorer scorer;
    Update update;
    GaeCfg gae;
    KlControlCfg kl_cfg;
    KlControlState kl;
    Checker checker;
    int64_t steps;
    Means last; // of the last evaluation
} Ppo;

// Loads and makes everything. Collective on run->world; the same code everywhere.
Err ppo_setup_open(Run *run, Ppo *s);
void ppo_setup_close(Ppo *s); // Not collective. Accepts NULL

// The prompts of the next iteration, and those of an evaluation (at most [ppo] eval_samples). DS_ERR_DATA, DS_ERR_IO.
// Not collective.
Err ppo_setup_next_prompts(Run *run, Ppo *s, Prompts *out);
Err ppo_setup_eval_prompts(Run *run, Ppo *s, Prompts *out);

#endif
