// loss_ppo.c: the clipped losses of PPO's actor and critic, and their gradients.
//
// Each is a max (or min) of terms; a term carries its derivative, so that the rule for ties stands in one place.
#include "loss/loss_ppo.h"

#include <math.h>

// A value and its derivative by the ratio (actor) or by the value (critic).
typedef struct { double value, grad; } Term;

// PyTorch's rule: equal sides share the gradient. A NaN on either side ends up here too, and stays visible in value.
static Term term_tie(Term a, Term b) { return (Term){0.5 * (a.value + b.value), 0.5 * (a.grad + b.grad)}; }
static Term term_max(Term a, Term b) { return a.value > b.value ? a : a.value < b.value ? b : term_tie(a, b); }
static Term term_min(Term a, Term b) { return a.value < b.value ? a : a.value > b.value ? b : term_tie(a, b); }

// clip(x, low, high); its derivative is 1 on the bounds too.
static Term clip(double x, double low, double high) {
    return x < low ? (Term){low, 0} : x > high ? (Term){high, 0} : (Term){x, 1};
}

static Term actor_term(const PpoActorCfg *cfg, double ratio, double advantage, bool *clipped) {
    Term cut = clip(ratio, 1 - cfg->eps_low, 1 + cfg->eps_high);
    Term plain = {-advantage * ratio, -advantage};
    Term bounded = {-advantage * cut.value, -advantage * cut.grad};
    *clipped = bounded.value > plain.value;
    Term loss = term_max(plain, bounded);
    if (cfg->dual_clip > 0 && advantage < 0) loss = term_min(loss, (Term){-advantage * cfg->dual_clip, 0});
    return loss;
}

void loss_ppo_actor(const PpoActorCfg *cfg, int64_t n, const float *logp, const float *entropy, const float *logp_old,
                    const float *advantages, const uint8_t *mask, double scale, float *dlogp, float *dentropy,
                    PpoActorStats *stats) {
    for (int64_t i = 0; i < n; i++) {
        if (dlogp) dlogp[i] = 0;
        if (dentropy) dentropy[i] = 0;
        if (mask && !mask[i]) continue;
        double x = (double)logp[i] - (double)logp_old[i], ratio = exp(x);
        bool clipped;
        Term loss = actor_term(cfg, ratio, (double)advantages[i], &clipped);
        // d ratio / d logp = ratio. A clipped token has no gradient, whatever its ratio: 0 * inf would be NaN.
        if (dlogp && loss.grad != 0) dlogp[i] = (float)(scale * loss.grad * ratio);
        if (dentropy) dentropy[i] = (float)(-scale * cfg->entropy_coef);
        stats->tokens += 1;
        stats->policy += loss.value;
        stats->entropy += entropy ? (double)entropy[i] : 0;
        stats->ratio += ratio;
        stats->kl += expm1(x) - x;
        stats->clipped += clipped;
        if (ratio > stats->ratio_max) stats->ratio_max = ratio;
    }
}

void loss_ppo_actor_add(PpoActorStats *into, const PpoActorStats *from) {
    into->tokens += from->tokens;
    into->policy += from->policy;
    into->entropy += from->entropy;
    into->ratio += from->ratio;
    into->kl += from->kl;
    into->clipped += from->clipped;
    if (from->ratio_max > into->ratio_max) into->ratio_max = from->ratio_max;
}

static Term critic_term(double eps_value, double value, double value_old, double target, bool *clipped) {
    double e = value - target;
    Term plain = {0.5 * e * e, e};
    *clipped = false;
    if (!(eps_value > 0)) return plain;
    Term cut = clip(value, value_old - eps_value, value_old + eps_value);
    double f = cut.value - target;
    Term bounded = {0.5 * f * f, f * cut.grad};
    *clipped = bounded.value > plain.value;
    return term_max(plain, bounded);
}

void loss_ppo_critic(double eps_value, int64_t n, const float *values, const float *values_old, const float *returns,
                     const uint8_t *mask, double scale, float *dvalues, PpoCriticStats *stats) {
    for (int64_t i = 0; i < n; i++) {
        if (dvalues) dvalues[i] = 0;
        if (mask && !mask[i]) continue;
        double v = (double)values[i], r = (double)returns[i];
        bool clipped;
        Term loss = critic_term(eps_value, v, values_old ? (double)values_old[i] : v, r, &clipped);
        if (dvalues) dvalues[i] = (float)(scale * loss.grad);
        stats->tokens += 1;
        stats->loss += loss.value;
        stats->clipped += clipped;
        stats->values += v;
        stats->returns += r;
        stats->returns_square += r * r;
        stats->error += r - v;
        stats->error_square += (r - v) * (r - v);
    }
}

double loss_ppo_explained_variance(const PpoCriticStats *stats) {
    double n = stats->tokens;
    if (!(n > 0)) return 0;
    double spread = stats->returns_square / n - stats->returns / n * (stats->returns / n);
    double left = stats->error_square / n - stats->error / n * (stats->error / n);
    // The difference of two sums: below this share of them it is rounding.
    return spread > 1e-14 * stats->returns_square / n ? 1 - left / spread : 0;
}
