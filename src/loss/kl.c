// kl.c: KL estimators of a token (Schulman, "Approximating KL divergence", 2020) and the adaptive weight of the
// penalty.
#include "loss/kl.h"

#include <math.h>

double kl_token(KlForm form, double logp, double logp_ref) {
    double x = logp - logp_ref;
    switch (form) {
    case KL_BY_K1: return x;
    case KL_BY_K2: return 0.5 * x * x;
    case KL_BY_K3: break;
    }
    return expm1(-x) + x; // exp(-x) - 1 would lose the digits of a small x
}

void kl_tokens(KlForm form, int64_t n, const float *logp, const float *logp_ref, float *kl) {
    for (int64_t i = 0; i < n; i++) kl[i] = (float)kl_token(form, (double)logp[i], (double)logp_ref[i]);
}

void kl_control_update(const KlControlCfg *cfg, KlControlState *state, double kl, int64_t answers) {
    if (cfg->form == KL_CONTROL_FIXED || !isfinite(kl)) return;
    double error = kl / cfg->target - 1;
    double bounded = fmin(fmax(error, -0.2), 0.2);
    state->coef *= 1 + bounded * (double)ds_min(answers, cfg->horizon) / (double)cfg->horizon;
}
