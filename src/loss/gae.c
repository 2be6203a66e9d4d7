// gae.c: rewards, generalised advantages, returns, whitening. The recursions run in double and are rounded when stored.
#include "loss/gae.h"

#include <math.h>

double gae_score(const GaeCfg *cfg, double score, bool truncated) {
    if (cfg->normalize) score = (score - cfg->score_mean) / cfg->score_deviation;
    // Not fmin(fmax()): these would turn a NaN into a bound.
    if (cfg->clip_reward > 0 && score > cfg->clip_reward) score = cfg->clip_reward;
    if (cfg->clip_reward > 0 && score < -cfg->clip_reward) score = -cfg->clip_reward;
    return truncated ? score - cfg->missing_eos_penalty : score;
}

void gae_rewards(const GaeCfg *cfg, double kl_coef, int64_t answers, const int32_t *starts, const float *kl,
                 const float *score, const uint8_t *truncated, float *rewards) {
    for (int64_t a = 0; a < answers; a++) {
        int64_t last = (int64_t)starts[a + 1] - 1;
        for (int64_t t = starts[a]; t <= last; t++) {
            double bonus = t == last ? gae_score(cfg, (double)score[a], truncated[a]) : 0;
            rewards[t] = (float)(bonus - kl_coef * (double)kl[t]);
        }
    }
}

void gae_advantages(const GaeCfg *cfg, int64_t answers, const int32_t *starts, const float *rewards,
                    const float *values, float *advantages, float *returns) {
    for (int64_t a = 0; a < answers; a++) {
        double advantage = 0, next = 0;
        for (int64_t t = (int64_t)starts[a + 1] - 1; t >= starts[a]; t--) {
            double v = (double)values[t], delta = (double)rewards[t] + cfg->gamma * next - v;
            advantage = delta + cfg->gamma * cfg->lam * advantage;
            next = v;
            advantages[t] = (float)advantage;
            returns[t] = (float)(advantage + v);
        }
    }
}

void gae_moments(int64_t answers, const int32_t *starts, const float *x, GaeMoments *parts) {
    for (int64_t a = 0; a < answers; a++) {
        GaeMoments m = {.count = (double)(starts[a + 1] - starts[a])};
        for (int64_t t = starts[a]; t < starts[a + 1]; t++) {
            m.sum += (double)x[t];
            m.square += (double)x[t] * (double)x[t];
        }
        parts[a] = m;
    }
}

GaeMoments gae_moments_sum(int64_t n, const GaeMoments *parts) {
    GaeMoments m = {0};
    for (int64_t i = 0; i < n; i++) {
        m.count += parts[i].count;
        m.sum += parts[i].sum;
        m.square += parts[i].square;
    }
    return m;
}

void gae_whiten(const GaeMoments *total, int64_t n, float *x) {
    double mean = total->sum / total->count, variance = total->square / total->count - mean * mean;
    double inverse = 1 / sqrt(variance < 1e-8 ? 1e-8 : variance);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(((double)x[i] - mean) * inverse);
}
