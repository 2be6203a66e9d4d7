// head.h: final norm and the two heads, over chosen rows of the micro-batch that model_fwd has just run. Collective on
// the tensor group (and as model.h says), whose ranks get the same numbers.
//
// The logits never exist for all rows: the LM head takes a chunk of rows through matmul, log-softmax, loss and back at
// a time.
#ifndef DS_HEAD_H
#define DS_HEAD_H

#include "model/model.h"

// A loss over rows first .. first + n of the chosen rows: from logp[n] and entropy[n] (nats, of the tempered
// distribution) to the gradients dlogp[n] and dentropy[n] of the whole step's loss (zero on entry).
typedef void (*HeadLoss)(void *user, int64_t first, int64_t n, const float *logp, const float *entropy, float *dlogp,
                         float *dentropy);

// logp[n] (and entropy[n] unless NULL) of targets[n] at rows[n] (host arrays, rows ascending) under logits *
// inv_temperature.
void head_lm_score(const Model *m, Acts *a, const int32_t *rows, const int32_t *targets, int64_t n,
                   float inv_temperature, float *logp, float *entropy);

// The same, through `loss`, with gradients of the head's weights (+=) and a->dx (=). n may be 0.
void head_lm_train(Model *m, Acts *a, const int32_t *rows, const int32_t *targets, int64_t n, float inv_temperature,
                   HeadLoss loss, void *user);

// How the next token is drawn (kernels.h: sample). temperature also scales the log-probs that are recorded: they are
// those of the distribution that training sees, before top_k and top_p cut it.
typedef struct {
    float temperature;
    bool greedy;
    int64_t top_k; // 0: off
    float top_p;   // 1: off
} SampleCfg;

// What log-probs of this temperature are scaled by: the sampler's and, so that they have the same bits, the trainer's.
float head_inv_temperature(double temperature);

// Draws ids[n] after rows[n] with uniforms u[n], and logp[n] of what was drawn.
void head_lm_sample(const Model *m, Acts *a, const int32_t *rows, int64_t n, const SampleCfg *cfg, const float *u,
                    int32_t *ids, float *logp);

// values[n] of the scalar head at rows[n].
void head_scalar_fwd(const Model *m, Acts *a, const int32_t *rows, int64_t n, float *values);
// After head_scalar_fwd: from dvalues[n] to gradients of the head's weights (+=) and a->dx (=).
void head_scalar_bwd(Model *m, Acts *a, const float *dvalues);

#endif
