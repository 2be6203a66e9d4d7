// kl.h: estimators of the KL divergence from the reference model, and the controller of its weight (algorithms.md
// sections 3.3, 3.8; Ziegler et al. 2019). Not collective.
#ifndef DS_KL_H
#define DS_KL_H

#include "base/types.h"

// In the order of the key [ppo] kl_estimator. With x = logp - logp_ref: x, x^2 / 2, exp(-x) - 1 + x.
typedef enum { KL_BY_K1, KL_BY_K2, KL_BY_K3 } KlForm;

double kl_token(KlForm form, double logp, double logp_ref);

// kl[n], a token each.
void kl_tokens(KlForm form, int64_t n, const float *logp, const float *logp_ref, float *kl);

// In the order of the key [ppo] kl_control.
typedef enum { KL_CONTROL_FIXED, KL_CONTROL_ADAPTIVE } KlControlForm;

typedef struct {
    KlControlForm form;
    double target;   // nats a sequence, > 0
    int64_t horizon; // answers, >= 1
} KlControlCfg;

// Part of the checkpoint.
typedef struct { double coef; } KlControlState;

// After an iteration of `answers` answers with mean KL `kl` (nats a sequence): adaptive: coef *= 1 + clip(kl / target -
// 1, -0.2, 0.2) * min(answers / horizon, 1). (Without the min, an iteration longer than five horizons could turn the
// sign of coef.) A kl that is not finite changes nothing.
void kl_control_update(const KlControlCfg *cfg, KlControlState *state, double kl, int64_t answers);

#endif
