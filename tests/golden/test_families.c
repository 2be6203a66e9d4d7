// test_families.c: loss, log-probs, logits and every weight's gradient of each model family against PyTorch +
// transformers (tools/refs/families.py): relative error of norms 1e-5 in fp32; the worst tensor is printed.
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

static void load_weights(Case *c, const char *dir, ArchHead head) {
    ImportSource *source = NULL;
    if (import_open(dir, &source)) fail_msg("%s", err_text());
    Arch arch = *import_arch(source);
    arch.head = head;
    model_create(&c->m, kernels, &arch, DS_F32, &world, (ZeroKeep){.training = ZERO_TRAINED}, NULL);
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

static Case *open_case(const char *family, ArchHead head) {
    Case *c = MEM_NEW(Case, 1);
    char dir[128], ref[128];
    snprintf(dir, sizeof dir, "tests/refs/families/%s", family);
    snprintf(ref, sizeof ref, "tests/refs/families/%s.safetensors", family);
    if (safetensors_open(ref, &c->ref)) fail_msg("%s", err_text());
    load_weights(c, dir, head);
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

// Compares the gradient of every weight (prefix: "grad." or "grad_values."); only those that the reference has, if
// partial.
static void compare_gradients(const Case *c, const char *prefix, bool partial) {
    double worst = 0, floor = 1e-2 * gradient_norm(c);
    char worst_name[128] = "", name[160];
    for (int i = 0; i < c->m.weights.n; i++) {
        const Weight *w = &c->m.weights.w[i];
        snprintf(name, sizeof name, "%s%s", prefix, w->name);
        if (partial && !safetensors_find(&c->ref, name)) continue;
        if (w->role == W_LM_HEAD) snprintf(name, sizeof name, "%slm_head.weight", prefix); // what PyTorch calls it
        float *g = MEM_NEW(float, w->count);
        kernels->copy_out(g, model_grad(&c->m, w->block, w->role), (size_t)w->count * sizeof *g);
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

static void check_language_model(const char *family) {
    Case *c = open_case(family, ARCH_HEAD_LM);
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
    close_case(c);
}

static void family(void **state) {
    printf("  %s\n", (const char *)*state);
    check_language_model(*state);
}

// Recomputing the layers below the last in the backward pass must give the same bits.
static void recompute(void **state) {
    (void)state;
    float *g[2];
    int64_t n = 0;
    for (int pass = 0; pass < 2; pass++) {
        Case *c = open_case("qwen3", ARCH_HEAD_LM);
        if (pass) c->a.kept = 1;
        model_fwd(&c->m, &c->a, &c->b, c->b.n, NULL);
        head_lm_train(&c->m, &c->a, c->rows, c->targets, c->n_rows, 1, mean_nll, c);
        model_bwd(&c->m, &c->a);
        n = shard_total(&c->m.zero.map);
        g[pass] = MEM_NEW(float, n);
        kernels->copy_out(g[pass], c->m.zero.g.data, (size_t)n * sizeof(float));
        close_case(c);
    }
    assert_memory_equal(g[0], g[1], (size_t)n * sizeof(float));
    mem_free(g[0]);
    mem_free(g[1]);
}

// The scalar head behind OPT-350M's projection.
static void scalar_head(void **state) {
    (void)state;
    Case *c = open_case("opt-postnorm", ARCH_HEAD_SCALAR);
    const SafeTensor *head = safetensors_find(&c->ref, "v_head.weight");
    const Weight *w = weights_find_name(&c->m.weights, "v_head.weight");
    assert_non_null(head);
    float v_head[256], values[TOKENS], dvalues[TOKENS];
    assert_int_equal(head->count, w->count);
    assert_int_equal(safetensors_read_f32(&c->ref, head, 0, head->count, v_head), DS_OK);
    model_weight_set(&c->m, w, 0, w->count, v_head);
    int32_t all[TOKENS];
    for (int i = 0; i < TOKENS; i++) all[i] = i;
    model_fwd(&c->m, &c->a, &c->b, c->b.n, NULL);
    head_scalar_fwd(&c->m, &c->a, all, c->b.n, values);
    double e = relative(c, "values", values, c->b.n, 1, false, 0);
    printf("    values: %.2e\n", e);
    assert_true(e < bound);
    for (int64_t i = 0; i < c->b.n; i++) dvalues[i] = 2 * values[i] / (float)c->b.n;
    head_scalar_bwd(&c->m, &c->a, dvalues);
    model_bwd(&c->m, &c->a);
    compare_gradients(c, "grad_values.", true);
    close_case(c);
}

int main(void) {
    world_init();
    layout_create(&world, group_world(), (LayoutWish){0});
    if (kernels_open("cpu", 1, &kernels)) return DS_ERR_BUG;
    static const char *const families[] = {"opt",   "opt-postnorm", "gpt2",    "bloom", "gpt_neox",
                                           "llama", "llama-tied",   "mistral", "qwen2", "qwen3"};
    struct CMUnitTest tests[DS_COUNT(families) + 2] = {{0}};
    for (int i = 0; i < DS_COUNT(families); i++)
        tests[i] = (struct CMUnitTest){families[i], family, NULL, NULL, (void *)(uintptr_t)families[i]};
    tests[DS_COUNT(families)] = (struct CMUnitTest)cmocka_unit_test(recompute);
    tests[DS_COUNT(families) + 1] = (struct CMUnitTest)cmocka_unit_test(scalar_head);
    int failed = cmocka_run_group_tests_name("families", tests, NULL, NULL);
    layout_destroy(&world);
    world_finalize();
    return failed;
}
