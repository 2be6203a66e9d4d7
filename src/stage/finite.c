// finite.c: see finite.h. Sums of squares, which the norm takes anyway, tell a weight whose elements are all finite.
#include "stage/finite.h"

#include <math.h>
#include <stdio.h>

#include "base/log.h"
#include "comm/coll.h"

enum { WEIGHTS = 0, AVERAGE = 3, GRADIENTS = 4 }; // the first two as optim_lease counts

// Whether this rank's part of a weight is finite, or its average or gradient.
static bool part_is_finite(const Optim *o, int kind, const Weight *w) {
    const ZeroState *z = o->z;
    int64_t first, n;
    double sum = 0;
    shard_cut(&z->map, w->block, z->shard, w->offset, w->count, &first, &n);
    for (int64_t at = 0; at < n && isfinite(sum); at += STORE_LEASE) {
        const int64_t count = ds_min(STORE_LEASE, n - at), offset = w->offset + first + at;
        const Dev *x =
            kind == GRADIENTS ? zero_grad_sum(z, w->block, offset) : optim_lease(o, kind, w->block, offset, count);
        z->k->sumsq(&sum, x, count, count);
    }
    return isfinite(sum);
}

// The lowest of the ranks' numbers; of equal ones the lowest rank's. None of them: INT64_MAX.
static int64_t lowest(const Run *run, int64_t own, int *rank) {
    const int64_t size = group_size(run->world);
    int64_t key = own == INT64_MAX ? INT64_MIN : -(own * size + group_rank(run->world));
    coll_max_i64(run->world, &key, 1);
    if (key == INT64_MIN) return INT64_MAX;
    *rank = (int)(-key % size);
    return -key / size;
}

// The first weight of which a number is not finite, on any rank: of gradients the last one. NULL: none.
static const Weight *find_weight(const Run *run, const Optim *o, int kind, int *rank) {
    const WeightList *list = o->z->weights;
    int64_t own = 0;
    while (own < list->n && part_is_finite(o, kind, &list->w[kind == GRADIENTS ? list->n - 1 - own : own])) own++;
    const int64_t found = lowest(run, own < list->n ? own : INT64_MAX, rank);
    if (found == INT64_MAX) return NULL;
    return &list->w[kind == GRADIENTS ? list->n - 1 - found : found];
}

void finite_find(const Run *run, const StageModel *m, double loss, char words[FINITE_WORDS]) {
    int rank = 0;
    const Weight *w = find_weight(run, m->optim, WEIGHTS, &rank);
    words[0] = 0;
    if (w) {
        snprintf(words, FINITE_WORDS, "rank %d: the %s's weight %s is not finite", rank, m->name, w->name);
        return;
    }
    if (lowest(run, isfinite(loss) ? INT64_MAX : 0, &rank) == 0) {
        snprintf(words, FINITE_WORDS, "rank %d: the %s's loss is not finite", rank, m->name);
        return;
    }
    w = find_weight(run, m->optim, GRADIENTS, &rank);
    if (w) snprintf(words, FINITE_WORDS, "rank %d: the %s's gradient of %s is not finite", rank, m->name, w->name);
}

// The first of x[n] that is not finite; n: none.
static int64_t first_odd(const float *x, int64_t n) {
    int64_t i = 0;
    while (i < n && isfinite(x[i])) i++;
    return i;
}

bool finite_rollout(const Run *run, const Rollout *r, char words[FINITE_WORDS]) {
    const struct {
        const float *x;
        const char *words;
    } list[] = {{r->logp, "the actor's log-probability"},
                {r->logp_ref, "the reference's log-probability"},
                {r->values, "the critic's value"}};
    const int64_t actions = r->starts[r->answers];
    for (int v = 0; v < DS_COUNT(list); v++) {
        const int64_t t = first_odd(list[v].x, actions);
        int64_t i = 0;
        if (t == actions) continue;
        while (r->starts[i + 1] <= t) i++;
        snprintf(words, FINITE_WORDS, "rank %d: %s of answer %lld, token %lld, is not finite",
                 r->scorer[i] * group_size(run->layout.tensor), list[v].words, (long long)i + 1,
                 (long long)(t - r->starts[i]) + 1);
        return false;
    }
    const int64_t i = first_odd(r->score, r->answers);
    if (i == r->answers) return true;
    snprintf(words, FINITE_WORDS, "rank %d: the score of answer %lld is not finite",
             r->scorer[i] * group_size(run->layout.tensor), (long long)i + 1);
    return false;
}

Err finite_models(const Run *run, const char *stage, const StageModel *models, int n) {
    static const struct {
        int kind;
        const char *words;
    } kinds[] = {{WEIGHTS, "weight"}, {AVERAGE, "moving average of"}};
    for (int i = 0; i < n; i++)
        for (int k = 0; k < DS_COUNT(kinds); k++) {
            int rank = 0;
            const Optim *o = models[i].optim;
            if (kinds[k].kind == AVERAGE && o->ema_beta < 0) continue;
            const Weight *w = find_weight(run, o, kinds[k].kind, &rank);
            if (w)
                return err_set(DS_ERR_NUMERIC,
                               "%s: rank %d: the %s's %s %s is not finite: nothing is written, the last checkpoint is "
                               "untouched; a lower lr may help",
                               stage, rank, models[i].name, kinds[k].words, w->name);
        }
    return DS_OK;
}

Err finite_end(const Run *run, const char *stage, int64_t steps, const StageModel *models, int n) {
    int64_t updates = 0;
    for (int i = 0; i < n; i++) updates += models[i].optim->steps;
    if (steps > 0 && updates == 0)
        return err_set(
            DS_ERR_NUMERIC,
            "%s: every one of its %lld steps was skipped because a loss or gradient was not finite: no model "
            "is written",
            stage, (long long)steps);
    return finite_models(run, stage, models, n);
}

Err finite_evaluation(const char *stage, FiniteWhen when, bool finite, const char *words) {
    if (finite) return DS_OK;
    switch (when) {
    case FINITE_BEFORE:
        return err_set(DS_ERR_NUMERIC, "%s: before the first step %s: the model that the stage begins with is at fault",
                       stage, words);
    case FINITE_DURING: log_warn("%s: in this evaluation %s", stage, words); return DS_OK;
    case FINITE_AFTER: break;
    }
    return err_set(DS_ERR_NUMERIC,
                   "%s: after the last step %s: no model is written, the last checkpoint is untouched; a lower lr may "
                   "help",
                   stage, words);
}
