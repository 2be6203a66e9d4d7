// loss_pair.c: pairwise ranking loss and its gradient, over packed pairs.
//
// Both forms are one loop over positions t = d .. e-1, with e the longer row's length. A position past a row's end
// reads the row's last score:
//
//     chosen    p p p c c c|- -      d: first difference      PAIR_TOKENS  d as drawn
//     rejected  p p p r r r r r      ^d=3       ^e=8          PAIR_LAST    d = e - 1: both rows read their last score
#include "loss/loss_pair.h"

#include <math.h>
#include <string.h>

// One row of a pair. last: gradient of the last score, which many positions may add to, so kept in double until the
// end.
typedef struct {
    const int32_t *ids;
    const float *values;
    float *dvalues; // NULL: not wanted
    int64_t n;
    double last;
} Row;

static Row row_at(const int32_t *starts, int64_t s, const int32_t *ids, const float *values, float *dvalues) {
    int64_t at = starts[s], n = starts[s + 1] - at;
    return (Row){.ids = ids + at, .values = values + at, .dvalues = dvalues ? dvalues + at : NULL, .n = n};
}

static double row_value(const Row *r, int64_t t) { return (double)r->values[ds_min(t, r->n - 1)]; }

static void row_add(Row *r, int64_t t, double g) {
    if (t >= r->n - 1) r->last += g;
    else if (r->dvalues) r->dvalues[t] = (float)g;
}

static int64_t first_difference(const Row *c, const Row *r) {
    int64_t shorter = ds_min(c->n, r->n), longer = ds_max(c->n, r->n), t = 0;
    while (t < shorter && c->ids[t] == r->ids[t]) t++;
    return ds_min(t, longer - 1);
}

// -logsigmoid(z), without overflow.
static double minus_logsigmoid(double z) { return log1p(exp(-fabs(z))) + (z < 0 ? -z : 0); }

static double pair_loss(const PairLossCfg *cfg, Row *c, Row *r, double scale) {
    int64_t end = ds_max(c->n, r->n);
    int64_t start = cfg->form == PAIR_LAST ? end - 1 : first_difference(c, r);
    double sum = 0, share = 1 / (double)(end - start);
    for (int64_t t = start; t < end; t++) {
        double z = row_value(c, t) - row_value(r, t) - cfg->margin;
        double g = -scale * share / (1 + exp(z));
        sum += minus_logsigmoid(z);
        row_add(c, t, g);
        row_add(r, t, -g);
    }
    double both = row_value(c, end - 1) + row_value(r, end - 1);
    c->last += scale * 2 * cfg->center_coef * both;
    r->last += scale * 2 * cfg->center_coef * both;
    return sum * share + cfg->center_coef * both * both;
}

void loss_pair(const PairLossCfg *cfg, int64_t pairs, const int32_t *starts, const int32_t *ids, const float *values,
               double scale, float *dvalues, PairStats *stats) {
    if (dvalues) memset(dvalues, 0, (size_t)starts[2 * pairs] * sizeof *dvalues);
    for (int64_t p = 0; p < pairs; p++) {
        Row c = row_at(starts, 2 * p, ids, values, dvalues), r = row_at(starts, 2 * p + 1, ids, values, dvalues);
        double c_end = row_value(&c, c.n - 1), r_end = row_value(&r, r.n - 1);
        stats->pairs += 1;
        stats->loss += pair_loss(cfg, &c, &r, scale);
        stats->right += c_end > r_end;
        stats->chosen += c_end;
        stats->rejected += r_end;
        stats->squares += c_end * c_end + r_end * r_end;
        if (!dvalues) continue;
        c.dvalues[c.n - 1] = (float)c.last;
        r.dvalues[r.n - 1] = (float)r.last;
    }
}

void loss_pair_scores(int64_t rows, const int32_t *starts, const float *values, float *scores) {
    for (int64_t s = 0; s < rows; s++) scores[s] = values[starts[s + 1] - 1];
}

void loss_pair_moments(const PairStats *stats, double *mean, double *deviation) {
    double n = 2 * stats->pairs;
    *mean = n > 0 ? (stats->chosen + stats->rejected) / n : 0;
    double variance = n > 0 ? stats->squares / n - *mean * *mean : 0;
    *deviation = variance < 0 ? 0 : sqrt(variance); // below 0 by rounding only; NaN stays NaN
}

void loss_pair_interval(double right, double n, double *low, double *high) {
    const double z = 1.959963984540054; // 97.5 % quantile of the normal distribution
    *low = 0;
    *high = 1;
    if (!(n > 0)) return;
    double p = right / n, shrink = 1 + z * z / n;
    double centre = (p + z * z / (2 * n)) / shrink;
    double half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink;
    *low = fmax(0, centre - half);
    *high = fmin(1, centre + half);
}
