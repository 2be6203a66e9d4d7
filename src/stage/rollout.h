// rollout.h: the experience of one PPO iteration: generated, scored, turned into advantages (algorithms.md section 3, 1
// to 4).
//
// Every rank holds all of it: a few numbers a token. So whatever is computed from it (moments, order, minibatches) is
// computed everywhere in the same order and does not depend on the number of ranks.
#ifndef DS_ROLLOUT_H
#define DS_ROLLOUT_H

#include "data/pack.h"
#include "gen/hybrid.h"
#include "loss/gae.h"
#include "loss/kl.h"
#include "stage/checker.h"
#include "stage/role.h"

// Prompts of an iteration; a prompt is answered `samples` times.
typedef struct {
    int64_t n;
    int64_t *record; // [n] number in the data set
    int64_t *start;  // [n + 1] into ids
    int32_t *ids;
} Prompts;
void rollout_free_prompts(Prompts *p); // Not collective

// Answer i is sample i % samples of prompt i / samples. Its actions are starts[i] .. starts[i + 1] of the arrays below.
typedef struct {
    int64_t answers, samples;
    const Prompts *prompts;                                                // view
    int32_t *starts;                                                       // [answers + 1]
    int32_t *ids;                                                          // [actions] tokens drawn
    float *logp, *logp_ref, *values, *kl, *rewards, *advantages, *returns; // [actions]
    float *score, *truth; // [answers] by the reward model, by the checker
    uint8_t *truncated;   // [answers] cut at max_answer
    int32_t *scorer;      // [answers] the rank of the data group that scored it
    double generate_seconds, score_seconds;
    int64_t score_tokens; // prompts and answers, once
} Rollout;
void rollout_free(Rollout *r); // Not collective. Accepts a zero one

// Samples answers: each rank its share, then all ranks get all. key: makes the draws of this rollout different from
// others. Collective on run->world.
void rollout_generate(Hybrid *h, const GenCfg *cfg, const Prompts *prompts, int64_t samples, int64_t max_answer,
                      uint64_t key, Rollout *out);

// The models that score, each with activations of its own; NULL: not scored (zeros). One call a micro-batch goes
// through all.
typedef struct {
    const Model *actor; // only where generation's log-probs are not those of training: they are replaced
    const Model *reference, *critic, *reward;
    Acts actor_acts, reference_acts, critic_acts, reward_acts;
    int64_t micro_tokens;
    float inv_temperature;
} Scorer;
void rollout_create_scorer(Scorer *s, const Model *actor, const Model *reference, const Model *critic,
                           const Model *reward, int64_t micro_tokens, double temperature,
                           Workspace *shared);          // Not collective
void rollout_reserve_scorer(Scorer *s, int64_t tokens); // room for micro-batches of so many. Not collective
void rollout_destroy_scorer(Scorer *s);                 // Not collective

// Fills logp_ref, values, score (and logp anew, with an actor). Collective on run->world.
void rollout_score(Run *run, Scorer *s, Rollout *r);

// Fills truth by the checker from the decoded texts; nothing without a checker. Not collective.
void rollout_check(const Run *run, Checker checker, Rollout *r);

// kl, rewards, advantages, returns, whitening if asked. Not collective.
void rollout_advantages(const GaeCfg *gae, KlForm form, double kl_coef, bool whiten, Rollout *r);

// The tokens of answer i, prompt included.
int64_t rollout_length(const Rollout *r, int64_t i);

// Packs answers item[n] (prompt and answer each) into b; rows[] are the rows that predict their actions, action[] the
// actions' places in the arrays of r, both in order, *n_rows of them. rows and action have room for every action of the
// items. Not collective.
void rollout_batch(const Rollout *r, const int64_t *item, int64_t n, Batch *b, int32_t *rows, int32_t *action,
                   int64_t *n_rows);

#endif
