// case.h: what the tests against PyTorch + transformers share: a tiny model, the batch and the numbers of a reference
// file (tools/refs/families.py, tools/refs/lora.py), and how far off the model is: relative error of norms 1e-5 in
// fp32; the worst tensor is printed.
#ifndef TESTS_CASE_H
#define TESTS_CASE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "comm/world.h"
#include "io/import.h"
#include "io/safetensors.h"
#include "model/head.h"

enum { TOKENS = 20 };
static Layout world; // of all ranks
static const double bound = 1e-5;

static const Kernels *kernels;

typedef struct {
    Model m;
    Acts a;
    Batch b;
    Safetensors ref;
    float nll[TOKENS];
    int32_t rows[TOKENS], targets[TOKENS];
    int64_t n_rows;
    double denominator;
} Case;

static void load_weights(Case *c, const char *dir, ArchHead head, const AdapterCfg *adapters) {
    ImportSource *source = NULL;
    if (import_open(dir, &source)) fail_msg("%s", err_text());
    Arch arch = *import_arch(source);
    arch.head = head;
    model_create(&c->m, kernels, &arch, DS_F32, &world, (ZeroKeep){.training = ZERO_TRAINED}, adapters);
    const WeightList *list = import_weights(source);
    for (int i = 0; i < list->n; i++) {
        const Weight *w = weights_find_name(&c->m.weights, list->w[i].name);
        if (!w) continue; // the LM head of a model that gets a scalar one
        float *values = MEM_NEW(float, w->count);
        assert_int_equal(import_read(source, i, DS_F32, values), DS_OK);
        model_weight_set(&c->m, w, 0, w->count, values);
        mem_free(values);
    }
    import_close(&source);
}

static void load_batch(Case *c) {
    const SafeTensor *ids = safetensors_find(&c->ref, "ids"), *starts = safetensors_find(&c->ref, "starts");
    assert_non_null(ids);
    assert_non_null(starts);
    c->b = (Batch){0};
    batch_reserve(&c->b, ids->count, starts->count - 1);
    c->b.n = ids->count;
    c->b.n_seq = starts->count - 1;
    memcpy(c->b.ids, ids->data, ids->bytes);
    memcpy(c->b.starts, starts->data, starts->bytes);
    for (int64_t s = 0; s < c->b.n_seq; s++)
        for (int32_t t = c->b.starts[s]; t < c->b.starts[s + 1]; t++) {
            c->b.pos[t] = t - c->b.starts[s];
            if (t + 1 == c->b.starts[s + 1]) continue;
            c->rows[c->n_rows] = t;
            c->targets[c->n_rows++] = c->b.ids[t + 1];
        }
    c->denominator = (double)c->n_rows;
}

// The family's model and what tests/refs/<refs> expects of it.
static Case *open_case(const char *family, const char *refs, ArchHead head, const AdapterCfg *adapters) {
    Case *c = MEM_NEW(Case, 1);
    char dir[128], ref[128];
    snprintf(dir, sizeof dir, "tests/refs/families/%s", family);
    snprintf(ref, sizeof ref, "tests/refs/%s/%s.safetensors", refs, family);
    if (safetensors_open(ref, &c->ref)) fail_msg("%s", err_text());
    load_weights(c, dir, head, adapters);
    load_batch(c);
    acts_create(&c->a, kernels, &c->m.part, DS_F32, true, c->m.arch.layers);
    return c;
}

static void close_case(Case *c) {
    acts_destroy(&c->a);
    model_destroy(&c->m);
    batch_free(&c->b);
    safetensors_close(&c->ref);
    mem_free(c);
}

// |x - ref| / |ref| of a reference tensor; transposed: ref is [cols, rows].
static double relative(const Case *c, const char *name, const float *x, int64_t rows, int64_t cols, bool transposed,
                       double floor) {
    const SafeTensor *t = safetensors_find(&c->ref, name);
    if (!t) fail_msg("the reference has no %s", name);
    assert_int_equal(t->count, rows * cols);
    float *ref = MEM_NEW(float, t->count);
    assert_int_equal(safetensors_read_f32(&c->ref, t, 0, t->count, ref), DS_OK);
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) {
            double r = ref[transposed ? j * rows + i : i * cols + j], d = x[i * cols + j] - r;
            diff += d * d;
            norm += r * r;
        }
    mem_free(ref);
    return sqrt(diff) / fmax(sqrt(norm), floor);
}

static void mean_nll(void *user, int64_t first, int64_t n, const float *logp, const float *entropy, float *dlogp,
                     float *dentropy) {
    Case *c = user;
    (void)entropy;
    (void)dentropy;
    for (int64_t i = 0; i < n; i++) {
        c->nll[c->rows[first + i]] = -logp[i];
        dlogp[i] = (float)(-1 / c->denominator);
    }
}

static double gradient_norm(const Case *c) { return sqrt(zero_grad_sumsq(&c->m.zero)); }

// Compares the gradient of every weight that is trained (prefix: "grad." or "grad_values."); only those that the
// reference has, if partial.
static void compare_gradients(const Case *c, const char *prefix, bool partial) {
    double worst = 0, floor = 1e-2 * gradient_norm(c);
    char worst_name[128] = "", name[160];
    for (int i = 0; i < c->m.zero.weights->n; i++) {
        const Weight *w = &c->m.zero.weights->w[i];
        snprintf(name, sizeof name, "%s%s", prefix, w->name);
        if (partial && !safetensors_find(&c->ref, name)) continue;
        if (w->role == W_LM_HEAD) snprintf(name, sizeof name, "%slm_head.weight", prefix); // what PyTorch calls it
        float *g = MEM_NEW(float, w->count);
        kernels->copy_out(g, zero_grad(&c->m.zero, w->block, w->role), (size_t)w->count * sizeof *g);
        // A gradient that is zero but for rounding (a bias on all keys) is measured against the whole gradient.
        double e = relative(c, name, g, w->shape[0], w->shape[1], w->hf_transposed, floor);
        if (e > worst) {
            worst = e;
            snprintf(worst_name, sizeof worst_name, "%s", w->name);
        }
        mem_free(g);
    }
    printf("    worst gradient: %.2e  %s\n", worst, worst_name);
    assert_true(worst < bound);
}

// Logits, log-probs, loss and gradients of the language model.
static inline void check_language_model(Case *c) {
    const int64_t vocab = c->m.arch.vocab, n = c->b.n;
    float *logits = MEM_NEW(float, n *vocab), *logp = MEM_NEW(float, n);
    int32_t all[TOKENS], zeros[TOKENS] = {0};
    for (int i = 0; i < TOKENS; i++) all[i] = i;
    model_fwd(&c->m, &c->a, &c->b, n, NULL);
    head_lm_score(&c->m, &c->a, all, zeros, n, 1, logp, NULL);
    kernels->copy_out(logits, c->a.logits, (size_t)(n * vocab) * sizeof *logits);
    double e = relative(c, "logits", logits, n, vocab, false, 0);
    printf("    logits: %.2e\n", e);
    assert_true(e < bound);
    head_lm_train(&c->m, &c->a, c->rows, c->targets, c->n_rows, 1, mean_nll, c);
    model_bwd(&c->m, &c->a);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += c->nll[i];
    float loss = (float)(sum / c->denominator);
    e = relative(c, "nll", c->nll, n, 1, false, 0);
    printf("    log-probs: %.2e   loss: %.2e\n", e, relative(c, "loss", &loss, 1, 1, false, 0));
    assert_true(e < bound);
    assert_true(relative(c, "loss", &loss, 1, 1, false, 0) < bound);
    compare_gradients(c, "grad.", false);
    mem_free(logits);
    mem_free(logp);
}

#endif
