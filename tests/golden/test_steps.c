// test_steps.c: whole jobs against PyTorch: ./dschat runs the three stages from tiny models and data, and its history,
// rollouts, summary and products are what tools/refs/golden_steps.py computes on its own: every scalar of every step,
// every number of every token that was drawn, every weight. Also on two ranks with four lanes: the numbers do not
// depend on how a step is cut.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "data/dataset.h"
#include "io/modelfile.h"
#include "io/safetensors.h"
#include "io/summary.h"
#include "nc.h"

#define REFS "tests/refs/steps/"
#define HERE "build/tmp/steps/"

static const double reported = 3e-5; // share by which what is reported may be off; below 1 the number itself

// What a job was asked to be, and what the reference expects of it.
typedef struct {
    const char *name, *way, *keys;
    int ranks;
    Safetensors ref;
    char out[128];
    int wrong;
    double worst;
    char where[160];
} Case;

#define LANES "layout.lanes=4 actor.zero_stage=3 critic.zero_stage=1 reference.zero_stage=3 reward.zero_stage=2"
static Case cases[] = {
    {.name = "llama", .way = "alone", .keys = "", .ranks = 1},
    {.name = "llama", .way = "lanes", .keys = LANES " generate.tensor=2", .ranks = 2},
    {.name = "opt", .way = "alone", .keys = "layout.lanes=2 actor.recompute=block", .ranks = 1},
    {.name = "opt", .way = "tensor", .keys = "layout.tensor=2 layout.sequence=yes layout.lanes=2", .ranks = 2},
    {.name = "lora", .way = "alone", .keys = "", .ranks = 1},
    {.name = "lora", .way = "lanes", .keys = LANES, .ranks = 2}};

static void run(const char *format, ...) {
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (system(line) != 0) fail_msg("failed: %s", line); // lint: the program itself
}

static int make_inputs(void **state) {
    static const char *const models[] = {"llama", "other", "opt"};
    (void)state;
    if (getenv("TEST_KEEP") && file_exists(HERE "opt.h5")) return 0; // those of a run before
    run("rm -rf %s && mkdir -p %s", HERE, HERE);
    run("bin/dschat-data build " REFS "data.in >" HERE "data.log 2>&1");
    for (int i = 0; i < DS_COUNT(models); i++)
        run("bin/dschat-model import " REFS "%s " HERE "%s.h5 >" HERE "%s.log 2>&1", models[i], models[i], models[i]);
    return 0;
}

// ---- comparing ----

static const SafeTensor *get(const Case *c, const char *format, ...) {
    char name[160];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    const SafeTensor *t = safetensors_find(&c->ref, name);
    if (!t) fail_msg("the reference has no %s", name);
    return t;
}

static double value(const SafeTensor *t, int64_t i) {
    assert_true(i >= 0 && i < t->count);
    if (!strcmp(t->dtype, "I32")) {
        int32_t x;
        memcpy(&x, t->data + 4 * i, sizeof x);
        return x;
    }
    if (!strcmp(t->dtype, "F32")) {
        float x;
        memcpy(&x, t->data + 4 * i, sizeof x);
        return x;
    }
    double x;
    assert_string_equal(t->dtype, "F64");
    memcpy(&x, t->data + 8 * i, sizeof x);
    return x;
}

static void note(Case *c, double error, double bound, const char *format, ...) {
    char what[160];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (!(error <= bound) && c->wrong++ < 12) print_error("    %s: off by %.2e, at most %.0e\n", what, error, bound);
    if (!(error <= c->worst)) {
        c->worst = error;
        snprintf(c->where, sizeof c->where, "%s", what);
    }
}

static void say(Case *c, const char *what) {
    print_message("    %-9s worst %.1e  %s\n", what, c->worst, c->where);
    c->worst = 0;
    snprintf(c->where, sizeof c->where, "-");
}

// |x - want|, of `want` where that is above 1; both NaN is equal, one is not.
static double distance(double x, double want) {
    if (isnan(x) && isnan(want)) return 0;
    return fabs(x - want) / fmax(fabs(want), 1);
}

// ---- what is compared ----

// The tokens that the reference was computed from.
static void check_data(const Case *c) {
    const SafeTensor *want = get(c, "data.tokens");
    Dataset *d = NULL;
    if (dataset_open(HERE "data.h5", &d)) fail_msg("%s", err_text());
    const int64_t rows = dataset_rows(d);
    int64_t *row = MEM_NEW(int64_t, rows);
    int32_t *ids = MEM_NEW(int32_t, want->count);
    for (int64_t i = 0, n = 0; i < rows; i++) {
        row[i] = i;
        n += dataset_length(d, i);
        if (n > want->count || (i + 1 == rows && n < want->count)) fail_msg("the reference is of another data set");
    }
    if (dataset_read(d, row, rows, ids)) fail_msg("%s", err_text());
    if (memcmp(ids, want->data, want->bytes)) fail_msg("the reference is of another data set");
    dataset_close(&d);
    mem_free(row);
    mem_free(ids);
}

static bool evaluation(const Nc *h, int64_t record) { return isnan(nc_get(h, "tokens", record, 0)); }

// The record of history.nc that is record r of the reference.
static int64_t find_record(const Case *c, const Nc *h, int64_t r) {
    const double stage = value(get(c, "history.stage"), r), step = value(get(c, "history.step"), r),
                 eval = value(get(c, "history.eval"), r);
    int64_t found = -1;
    for (int64_t i = 0; i < h->records; i++)
        if (nc_get(h, "stage", i, 0) == stage && nc_get(h, "step", i, 0) == step && evaluation(h, i) == (eval == 1)) {
            if (found >= 0) fail_msg("two records of stage %g, step %g", stage, step);
            found = i;
        }
    if (found < 0) fail_msg("no record of stage %g, step %g", stage, step);
    return found;
}

static void check_history(Case *c) {
    const SafeTensor *stage = get(c, "history.stage"), *step = get(c, "history.step");
    char path[160];
    Nc h;
    snprintf(path, sizeof path, "%s/history.nc", c->out);
    nc_open(&h, path);
    assert_int_equal(h.records, stage->count);
    for (int64_t r = 0; r < stage->count; r++) {
        const int64_t record = find_record(c, &h, r);
        for (int i = 0; i < c->ref.n; i++) {
            const char *name = c->ref.t[i].name + strlen("history.");
            if (strncmp(c->ref.t[i].name, "history.", strlen("history.")) || !strcmp(name, "eval")) continue;
            const bool rate = strstr(name, "lr") != NULL; // plain arithmetic in double
            note(c, distance(nc_get(&h, name, record, 0), value(&c->ref.t[i], r)), rate ? 1e-12 : reported,
                 "%s of stage %g, step %g", name, value(stage, r), value(step, r));
        }
    }
    nc_close(&h);
    say(c, "history");
}

// Every answer of every iteration, token by token.
static void check_rollouts(Case *c) {
    const SafeTensor *sample = safetensors_find(&c->ref, "rollouts.sample");
    char path[160];
    Nc f;
    if (!sample) return;
    snprintf(path, sizeof path, "%s/rollouts.nc", c->out);
    nc_open(&f, path);
    assert_int_equal(f.records, sample->count);
    for (int i = 0; i < c->ref.n; i++) {
        const SafeTensor *t = &c->ref.t[i];
        if (strncmp(t->name, "rollouts.", strlen("rollouts."))) continue;
        const char *name = t->name + strlen("rollouts.");
        const int64_t width = t->count / f.records;
        for (int64_t e = 0; e < t->count; e++) {
            const double want = value(t, e), x = nc_get(&f, name, e / width, e % width);
            if (strcmp(t->dtype, "I32")) note(c, distance(x, want), reported, "%s %lld", t->name, (long long)e);
            else if (x != (want < 0 ? UINT32_MAX : want))
                fail_msg("%s %lld is %g, expected %g", t->name, (long long)e, x, want);
        }
    }
    nc_close(&f);
    say(c, "rollouts");
}

static void check_summary(Case *c) {
    char path[160], more[32];
    Summary *s = NULL;
    int shown = 0;
    snprintf(path, sizeof path, "%s/summary.json", c->out);
    if (summary_open(path, &s)) fail_msg("%s", err_text());
    for (int i = 0; i < c->ref.n; i++) {
        const SafeTensor *t = &c->ref.t[i];
        if (!strncmp(t->name, "summary.", 8))
            note(c, distance(summary_get(s, t->name + 8), value(t, 0)), reported, "%s", t->name);
        if (strncmp(t->name, "text.", 5)) continue;
        shown += !strncmp(t->name, "text.ppo.prompt", 15);
        const char *text = summary_get_text(s, t->name + 5);
        if (strlen(text) != t->bytes || memcmp(text, t->data, t->bytes))
            fail_msg("%s is \"%s\", expected \"%.*s\"", t->name, text, (int)t->bytes, t->data);
    }
    snprintf(more, sizeof more, "ppo.prompt%d", shown + 1);
    if (summary_get_text(s, more)[0]) fail_msg("%s was not asked for", more);
    summary_destroy(&s);
    say(c, "summary");
}

static const char *name_of(const ModelFile *file, int weight) {
    return modelfile_tensor(file, weight)->path + strlen("/weights/");
}

// How far a weight is from the reference's, as a share of what training has changed in it. moved: the most that any of
// the product has changed; what does not change but for rounding is measured against that.
static void check_weight(Case *c, const char *product, const ModelFile *file, int i, double moved) {
    const char *name = name_of(file, i);
    const SafeTensor *want = get(c, "weights.%s.%s", product, name);
    const double own = value(get(c, "moved.%s.%s", product, name), 0);
    float *x = MEM_NEW(float, want->count);
    double square = 0;
    if (modelfile_read(file, i, DS_F32, 0, want->count, x)) fail_msg("%s", err_text());
    for (int64_t e = 0; e < want->count; e++) square += (x[e] - value(want, e)) * (x[e] - value(want, e));
    note(c, sqrt(square) / fmax(own, 0.05 * moved), 1e-4, "%s.%s", product, name);
    mem_free(x);
}

static void check_product(Case *c, const char *product) {
    char path[160];
    ModelFile *file = NULL;
    double moved = 0;
    snprintf(path, sizeof path, "%s/models/%s.h5", c->out, product);
    if (modelfile_open(path, &file)) fail_msg("%s", err_text());
    const int n = modelfile_count(file);
    for (int i = 0; i < n; i++) moved = fmax(moved, value(get(c, "moved.%s.%s", product, name_of(file, i)), 0));
    for (int i = 0; i < n; i++) check_weight(c, product, file, i, moved);
    snprintf(path, sizeof path, "score.%s", product);
    const SafeTensor *score = safetensors_find(&c->ref, path);
    if (score) {
        note(c, distance(modelfile_arch(file)->score_mean, value(score, 0)), reported, "mean of the scores kept");
        note(c, distance(modelfile_arch(file)->score_std, value(score, 1)), reported, "deviation of the scores kept");
    }
    modelfile_close(&file);
}

// The weights that the reference has of a product.
static int wanted(const Case *c, const char *product) {
    char prefix[64];
    int n = 0;
    snprintf(prefix, sizeof prefix, "weights.%s.", product);
    for (int i = 0; i < c->ref.n; i++) n += !strncmp(c->ref.t[i].name, prefix, strlen(prefix));
    return n;
}

static int there(const char *path) {
    ModelFile *file = NULL;
    if (!file_exists(path)) return 0;
    if (modelfile_open(path, &file)) fail_msg("%s", err_text());
    const int n = modelfile_count(file);
    modelfile_close(&file);
    return n;
}

static void check_products(Case *c) {
    static const char *const products[] = {"sft", "rm", "critic", "actor_ema", "actor"};
    for (int p = 0; p < DS_COUNT(products); p++) {
        char path[160];
        snprintf(path, sizeof path, "%s/models/%s.h5", c->out, products[p]);
        if (there(path) != wanted(c, products[p]))
            fail_msg("%s has %d weights, expected %d", path, there(path), wanted(c, products[p]));
        if (wanted(c, products[p])) check_product(c, products[p]);
    }
    say(c, "weights");
}

static void whole_job(void **state) {
    static bool begun, ended; // the job before this one; with TEST_FIRST one that failed is the last
    Case *c = *state;
    if (getenv("TEST_FIRST") && begun && !ended) skip();
    begun = true, ended = false;
    print_message("  %s, %d ranks %s\n", c->name, c->ranks, c->keys);
    snprintf(c->out, sizeof c->out, HERE "%s-%s", c->name, c->way);
    char path[128];
    snprintf(path, sizeof path, REFS "%s.safetensors", c->name);
    if (safetensors_open(path, &c->ref)) fail_msg("%s", err_text());
    check_data(c);
    run("rm -rf %s", c->out);
    run("mpirun -np %d ./dschat " REFS "%s.in job.out=%s %s >%s.log 2>&1 || { tail -n 3 %s.log; false; }", c->ranks,
        c->name, c->out, c->keys, c->out, c->out);
    check_rollouts(c);
    check_history(c);
    check_summary(c);
    check_products(c);
    safetensors_close(&c->ref);
    if (c->wrong) fail_msg("%d numbers differ from the reference", c->wrong);
    ended = true;
}

// An argument: only the jobs whose names it is, with * and ? as in a shell.
int main(int argc, char **argv) {
    struct CMUnitTest tests[DS_COUNT(cases)];
    char names[DS_COUNT(cases)][64];
    for (int i = 0; i < DS_COUNT(cases); i++) {
        snprintf(names[i], sizeof names[i], "%s_%s", cases[i].name, cases[i].way);
        tests[i] = (struct CMUnitTest){names[i], whole_job, NULL, NULL, &cases[i]};
    }
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("steps", tests, make_inputs, NULL);
}
