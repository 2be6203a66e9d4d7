// sched.c: warm-up from 0, then a fall by progress = share of the steps after the warm-up.
#include "optim/sched.h"

#include <math.h>

static const double PI = 3.14159265358979323846;
static const double POLYNOMIAL_END = 1e-7; // transformers' lr_end

static double half_cosine(double progress) { return fmax(0, 0.5 * (1 + cos(PI * progress))); }

// lr / peak.
static double decay(const Sched *s, double progress) {
    switch (s->form) {
    case SCHED_LINEAR: return 1 - progress;
    case SCHED_COSINE: return half_cosine(progress);
    case SCHED_COSINE_RESTARTS: return progress >= 1 ? 0 : half_cosine(fmod(s->cycles * progress, 1));
    case SCHED_POLYNOMIAL: {
        double end = s->lr > POLYNOMIAL_END ? POLYNOMIAL_END / s->lr : 1;
        return end + (1 - end) * pow(1 - progress, s->power);
    }
    case SCHED_COSINE_MIN_LR: return s->min_lr_ratio + (1 - s->min_lr_ratio) * half_cosine(progress);
    case SCHED_CONSTANT:
    case SCHED_CONSTANT_WARMUP: break;
    }
    return 1;
}

double sched_lr(const Sched *s, int64_t steps) {
    if (s->form == SCHED_CONSTANT) return s->lr;
    if (steps < s->warmup_steps) return s->lr * (double)steps / (double)s->warmup_steps;
    int64_t falling = ds_max(1, s->total_steps - s->warmup_steps), fallen = ds_min(steps - s->warmup_steps, falling);
    return s->lr * decay(s, (double)fallen / (double)falling);
}

int64_t sched_warmup(int64_t steps, double ratio, int64_t total_steps) {
    return steps > 0 ? steps : (int64_t)ceil(ratio * (double)total_steps);
}
