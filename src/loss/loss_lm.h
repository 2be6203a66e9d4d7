// loss_lm.h: the language-model loss of SFT and ptx: -sum w log p (algorithms.md section 1). Not collective.
//
// All of src/loss is plain host arithmetic in double over float arrays: nothing is allocated, no MPI, no device memory.
// The functions return plain sums, which add up over micro-batches and ranks; gradients are those of `scale` times the
// sum, so a caller sets scale = coef / (count of the whole optimizer step, all ranks). A NaN or an infinity on entry
// shows up in the sums and gradients; nobody looks for it here.
#ifndef DS_LOSS_LM_H
#define DS_LOSS_LM_H

#include "base/types.h"

// Returns -sum over i of weight[i] * logp[i] (nats) and sets dlogp[n] = -scale * weight[i]. weight: [n], NULL: all 1; a
// token of weight 0 does not count even if its logp is not finite. dlogp: [n], NULL: not wanted (evaluation).
double loss_lm(int64_t n, const float *logp, const float *weight, double scale, float *dlogp);

#endif
