// tiny.h: what the tests of layouts train: a tiny model on 16 sequences that are dealt to the lanes.
#ifndef TESTS_TINY_H
#define TESTS_TINY_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "comm/coll.h"
#include "comm/world.h"
#include "gen/decode.h"
#include "model/head.h"
#include "optim/optim.h"

enum { SEQUENCES = 16, LONGEST = 24, VOCAB = 61 };
static const Kernels *kernels;

static int64_t length_of(int64_t s) { return 2 + (s * 7) % (LONGEST - 2); }
static int32_t token_of(int64_t s, int64_t t) { return (int32_t)((s * 31 + t * t * 7 + 3) % VOCAB); }

static void fill(Batch *b, int64_t first, int64_t n) {
    batch_reserve(b, n * LONGEST, n);
    b->n = b->n_seq = 0;
    b->starts[0] = 0;
    for (int64_t s = first; s < first + n; s++) {
        for (int64_t t = 0; t < length_of(s); t++) {
            b->ids[b->n] = token_of(s, t);
            b->pos[b->n++] = (int32_t)t;
        }
        b->starts[++b->n_seq] = (int32_t)b->n;
    }
}

typedef struct {
    double scale, sum; // of the loss: 1 / counted tokens, sum over this rank's
} TinyLoss;

static double entropy_bonus; // a test may set it

// Mean negative log-prob, less entropy_bonus times the entropy.
static void tiny_loss(void *user, int64_t first, int64_t n, const float *logp, const float *entropy, float *dlogp,
                      float *dentropy) {
    TinyLoss *x = user;
    (void)first;
    for (int64_t i = 0; i < n; i++) {
        x->sum -= x->scale * (logp[i] + entropy_bonus * entropy[i]);
        dlogp[i] = (float)-x->scale;
        dentropy[i] = (float)(-entropy_bonus * x->scale);
    }
}

// Half the squared distance of each token's value from a target.
static void tiny_scalar(Model *m, Acts *a, const Batch *b, TinyLoss *x) {
    float values[SEQUENCES * LONGEST];
    int32_t rows[SEQUENCES * LONGEST];
    for (int32_t i = 0; i < b->n; i++) rows[i] = i;
    head_scalar_fwd(m, a, rows, b->n, values);
    for (int64_t i = 0; i < b->n; i++) {
        const double d = values[i] - (double)(b->ids[i] % 7) / 7;
        x->sum += x->scale * d * d / 2;
        values[i] = (float)(x->scale * d);
    }
    head_scalar_bwd(m, a, values);
}

static void tiny_lm(Model *m, Acts *a, const Batch *b, TinyLoss *x) {
    int32_t rows[SEQUENCES * LONGEST], targets[SEQUENCES * LONGEST];
    int64_t n = 0;
    for (int64_t s = 0; s < b->n_seq; s++)
        for (int32_t t = b->starts[s]; t + 1 < b->starts[s + 1]; t++) rows[n] = t, targets[n++] = b->ids[t + 1];
    head_lm_train(m, a, rows, targets, n, 1, tiny_loss, x);
}

// Gradients of the mean over all 16 sequences, which are dealt to the lanes, and in each lane to micro-batches of
// `micro`; so many of the last layers keep their activations. Returns this rank's share of the loss.
static inline double backward(Model *m, const Layout *l, int64_t micro, int64_t kept) {
    const int64_t share = SEQUENCES / l->lanes;
    double count = 0;
    for (int64_t s = 0; s < SEQUENCES; s++) count += (double)length_of(s) - (m->arch.head == ARCH_HEAD_LM);
    Acts a;
    Batch b = {0};
    TinyLoss loss = {.scale = 1 / count};
    acts_create(&a, kernels, &m->part, m->dt, true, kept);
    zero_step_begin(&m->zero);
    for (int64_t at = 0; at < share; at += micro)
        for (int turn = 0; turn < l->turns; turn++) {
            const int64_t lane = (int64_t)turn * group_size(l->data) + group_rank(l->data);
            fill(&b, lane * share + at, ds_min(micro, share - at));
            model_fwd(m, &a, &b, b.n, NULL);
            if (m->arch.head == ARCH_HEAD_LM) tiny_lm(m, &a, &b, &loss);
            else tiny_scalar(m, &a, &b, &loss);
            model_bwd(m, &a);
        }
    acts_destroy(&a);
    batch_free(&b);
    return loss.sum;
}

// ---- generation ----

enum { PROMPTS = 33, NEW = 12 };

// Answers the prompts rank, rank + size, ... with `slots` at once; ids and log-probs by prompt number.
static inline void generate(const Model *m, int rank, int size, int64_t slots, int64_t prefill, int32_t *ids,
                            float *logp, int64_t *count) {
    int32_t prompt[PROMPTS][LONGEST], stop = 7;
    GenRequest req[PROMPTS];
    int64_t n = 0;
    for (int64_t i = rank; i < PROMPTS; i += size) {
        for (int64_t t = 0; t < length_of(i); t++) prompt[i][t] = token_of(i, t);
        req[n++] = (GenRequest){.prompt = prompt[i],
                                .n_prompt = length_of(i),
                                .id = (uint64_t)i,
                                .max_new = NEW,
                                .ids = ids + i * NEW,
                                .logp = logp + i * NEW};
    }
    GenCfg cfg = {
        .sample = {.temperature = 0.8f, .top_k = 20, .top_p = 0.95f}, .seed = 9, .stop_ids = &stop, .n_stop_ids = 1};
    Gen *g = gen_create(m, slots, LONGEST + NEW, prefill, 16, NULL);
    gen_run(g, &cfg, req, n, NULL, NULL);
    gen_destroy(&g);
    for (int64_t i = 0; i < n; i++) count[rank + i * size] = req[i].n;
}

// The log-probs of answers are, bit for bit, what training computes for the same tokens.
static inline void same_as_training(const Model *m, const int32_t *ids, const float *logp, const int64_t *count) {
    Acts a;
    Batch b = {0};
    acts_create(&a, kernels, &m->part, m->dt, true, m->arch.layers);
    for (int64_t i = 0; i < PROMPTS; i++) {
        const int64_t n = length_of(i), k = count[i];
        int32_t rows[NEW], targets[NEW];
        float score[NEW];
        batch_reserve(&b, n + k, 1);
        b.n = n + k, b.n_seq = 1, b.starts[0] = 0, b.starts[1] = (int32_t)(n + k);
        for (int64_t t = 0; t < n + k; t++) {
            b.ids[t] = t < n ? token_of(i, t) : ids[i * NEW + t - n];
            b.pos[t] = (int32_t)t;
        }
        for (int64_t t = 0; t < k; t++) rows[t] = (int32_t)(n + t - 1), targets[t] = ids[i * NEW + t];
        model_fwd(m, &a, &b, k, NULL);
        head_lm_score(m, &a, rows, targets, k, 1 / 0.8f, score, NULL);
        assert_memory_equal(score, logp + i * NEW, (size_t)k * sizeof *score);
    }
    acts_destroy(&a);
    batch_free(&b);
}

static const OptimCfg tiny_optim = {.beta1 = 0.9,
                                    .beta2 = 0.95,
                                    .eps = 1e-8,
                                    .weight_decay = 0.1,
                                    .clip = 0.5,
                                    .sched = {.form = SCHED_CONSTANT, .lr = 1e-2, .total_steps = 5}};

#endif
