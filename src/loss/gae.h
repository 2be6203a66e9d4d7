// gae.h: rewards of a token, advantages and returns of PPO (algorithms.md sections 3.3, 3.4; Schulman et al. 2016),
// whitening. Not collective.
//
// Answers are packed: answer a is the action tokens starts[a] .. starts[a+1], starts[0] = 0; arrays hold one entry an
// action (EOS is an action). An answer without actions is passed over.
#ifndef DS_GAE_H
#define DS_GAE_H

#include "base/types.h"

typedef struct {
    double gamma, lam;
    double clip_reward;         // scores are cut to +- this; 0: not
    double missing_eos_penalty; // taken from the clipped score of a truncated answer
    bool normalize;             // (score - score_mean) / score_deviation before the clip
    double score_mean, score_deviation; // of the reward model; deviation > 0
} GaeCfg;

// What the last action of an answer gets for its score: normalised, clipped, penalised.
double gae_score(const GaeCfg *cfg, double score, bool truncated);

// rewards[t] = -kl_coef * kl[t], and gae_score on top at the last action. score, truncated: [answers].
void gae_rewards(const GaeCfg *cfg, double kl_coef, int64_t answers, const int32_t *starts, const float *kl,
                 const float *score, const uint8_t *truncated, float *rewards);

// advantages and returns = advantages + values; the value past an answer's end is 0.
void gae_advantages(const GaeCfg *cfg, int64_t answers, const int32_t *starts, const float *rewards,
                    const float *values, float *advantages, float *returns);

// Whitening takes the moments over all actions of the step. They are summed in double an answer at a time; a caller
// that brings the parts of all ranks into the order of the global answer index before gae_moments_sum gets the same
// bits from any layout.
typedef struct { double count, sum, square; } GaeMoments;

// parts[answers]: count, sum and sum of squares of x over each answer.
void gae_moments(int64_t answers, const int32_t *starts, const float *x, GaeMoments *parts);

// Their sum, in the order given.
GaeMoments gae_moments_sum(int64_t n, const GaeMoments *parts);

// x[n] = (x - mean) / sqrt(max(variance, 1e-8)), with the biased variance of `total`. total->count > 0.
void gae_whiten(const GaeMoments *total, int64_t n, float *x);

#endif
