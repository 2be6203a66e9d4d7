// loss_ppo.h: PPO's two losses over action tokens (algorithms.md section 3.5; Schulman et al. 2017). Not collective.
//
// Arrays have one entry a token. mask[n] is 1 at action tokens; what stands elsewhere does not count, finite or not,
// and its gradient is 0; NULL: all are actions. Gradients NULL: not wanted. Sums and `scale`: see loss_lm.h; scale = 1
// / (action tokens of the step). Where both sides of a max or min are equal the gradient is the mean of theirs, as in
// PyTorch.
#ifndef DS_LOSS_PPO_H
#define DS_LOSS_PPO_H

#include "base/types.h"

// With rho = exp(logp - logp_old) and A the advantage, one token's loss is
//   L = max(-A rho, -A clip(rho, 1 - eps_low, 1 + eps_high))
//   and for A < 0, if dual_clip > 0: min(L, -A dual_clip)                   (Ye et al. 2020)
// minus entropy_coef * entropy.
typedef struct {
    double eps_low, eps_high;
    double dual_clip; // above 1; 0: off
    double entropy_coef;
} PpoActorCfg;

// Sums over action tokens (all but the last member add up as an array of doubles; that one is a maximum). Zero before
// the first call.
typedef struct {
    double tokens;    // how many
    double policy;    // of L; the loss is policy - entropy_coef * entropy
    double entropy;   // nats
    double ratio;     // of rho
    double kl;        // of rho - 1 - ln rho: k3 of the step from the old policy to this one
    double clipped;   // tokens whose loss is the clipped side's (larger than the other's)
    double ratio_max; // largest rho
} PpoActorStats;
enum { PPO_ACTOR_SUMS = sizeof(PpoActorStats) / sizeof(double) - 1 };

// Adds n tokens to *stats and sets dlogp[n] and dentropy[n] = scale * gradient. entropy NULL counts as 0 (only for
// entropy_coef = 0).
void loss_ppo_actor(const PpoActorCfg *cfg, int64_t n, const float *logp, const float *entropy, const float *logp_old,
                    const float *advantages, const uint8_t *mask, double scale, float *dlogp, float *dentropy,
                    PpoActorStats *stats);

// Adds the sums of `from` to `into` and takes the larger ratio.
void loss_ppo_actor_add(PpoActorStats *into, const PpoActorStats *from);

// Sums over action tokens; adds up as an array of doubles. Zero before the first call.
typedef struct {
    double tokens;         // how many
    double loss;           // of 0.5 max((V - R)^2, (clip(V, V_old +- eps_value) - R)^2)
    double clipped;        // tokens whose loss is the clipped side's (larger than the other's)
    double values;         // of V
    double returns;        // of R
    double returns_square; // of R^2
    double error;          // of R - V
    double error_square;   // of (R - V)^2
} PpoCriticStats;
enum { PPO_CRITIC_SUMS = sizeof(PpoCriticStats) / sizeof(double) };

// Adds n tokens to *stats and sets dvalues[n] = scale * d(sum of losses) / d(values). eps_value = 0: not clipped
// (values_old may be NULL then).
void loss_ppo_critic(double eps_value, int64_t n, const float *values, const float *values_old, const float *returns,
                     const uint8_t *mask, double scale, float *dvalues, PpoCriticStats *stats);

// 1 - var(R - V) / var(R) of summed stats; 0 if the returns do not vary.
double loss_ppo_explained_variance(const PpoCriticStats *stats);

#endif
