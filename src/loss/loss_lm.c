// loss_lm.c: weighted negative log-likelihood and its gradient.
#include "loss/loss_lm.h"

double loss_lm(int64_t n, const float *logp, const float *weight, double scale, float *dlogp) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double w = weight ? (double)weight[i] : 1;
        if (w != 0) sum -= w * (double)logp[i]; // 0 * inf would be NaN
        if (dlogp) dlogp[i] = (float)(-scale * w);
    }
    return sum;
}
