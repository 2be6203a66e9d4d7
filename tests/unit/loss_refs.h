// loss_refs.h: what the tests of src/loss and src/optim share: cases out of tests/refs/*.json, and the comparison.
#ifndef DS_TESTS_LOSS_REFS_H
#define DS_TESTS_LOSS_REFS_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/mem.h"

// Arrays of the case at hand; refs_free_arrays ends their life.
static void *refs_pool[64];
static int refs_pool_n;

static inline void *refs_keep(void *p) {
    assert_true(refs_pool_n < DS_COUNT(refs_pool));
    return refs_pool[refs_pool_n++] = p;
}
static inline void refs_free_arrays(void) {
    while (refs_pool_n) mem_free(refs_pool[--refs_pool_n]);
}

static inline json_t *refs_load(const char *path) {
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    if (!root) fail_msg("%s: %s", path, error.text);
    return root;
}

static inline json_t *refs_get(const json_t *o, const char *name) {
    json_t *v = json_object_get(o, name);
    if (!v) fail_msg("the reference has no \"%s\"", name);
    return v;
}
static inline double refs_number(const json_t *o, const char *name) {
    json_t *v = refs_get(o, name);
    return json_is_boolean(v) ? json_is_true(v) : json_number_value(v);
}
static inline int64_t refs_count(const json_t *o, const char *name) {
    return (int64_t)json_array_size(refs_get(o, name));
}

#define REFS_ARRAY(NAME, TYPE)                                                                                         \
    static inline TYPE *NAME(const json_t *o, const char *name) {                                                      \
        json_t *v = refs_get(o, name);                                                                                 \
        int64_t n = refs_count(o, name);                                                                               \
        TYPE *x = refs_keep(MEM_NEW(TYPE, n));                                                                         \
        for (int64_t i = 0; i < n; i++) x[i] = (TYPE)json_number_value(json_array_get(v, (size_t)i));                  \
        return x;                                                                                                      \
    }
REFS_ARRAY(refs_doubles, double)
REFS_ARRAY(refs_floats, float)
REFS_ARRAY(refs_ints, int32_t)
REFS_ARRAY(refs_bytes, uint8_t)

// An output array of n floats that holds rubbish.
static inline float *refs_out(int64_t n) {
    float *x = refs_keep(MEM_NEW(float, n));
    for (int64_t i = 0; i < n; i++) x[i] = -12345;
    return x;
}

// The largest relative error (norms) that a test saw under a label, and the worst element of that array.
typedef struct {
    const char *label;
    double error;
    int64_t arrays, element;
    double got, want;
} RefsWorst;

static inline void refs_report(const RefsWorst *w) {
    print_message("  %-20s %3lld arrays, relative error %.1e, worst element %lld: %.9g, reference %.9g\n", w->label,
                  (long long)w->arrays, w->error, (long long)w->element, w->got, w->want);
}

// Asserts ||got - want|| <= limit ||want||, both of n elements; a reference of zeros asks for zeros.
static inline void refs_compare(RefsWorst *w, int64_t n, const double *got, const double *want, double limit) {
    double off = 0, all = 0, far = -1;
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs(got[i] - want[i]);
        off += d * d;
        all += want[i] * want[i];
        if (!(d <= far)) far = d, at = i;
    }
    double error = off == 0 ? 0 : sqrt(off / all);
    w->arrays++;
    if (n > 0 && (w->arrays == 1 || !(error <= w->error))) {
        w->error = error;
        w->element = at;
        w->got = got[at];
        w->want = want[at];
    }
    if (!(error <= limit)) {
        refs_report(w);
        fail_msg("%s, case %lld: relative error %g, limit %g", w->label, (long long)w->arrays - 1, error, limit);
    }
}

// The same for an array of floats against the case's array `name`, to 1e-6.
static inline void refs_compare_floats(RefsWorst *w, const json_t *o, const char *name, const float *got) {
    int64_t n = refs_count(o, name);
    double *wide = refs_keep(MEM_NEW(double, n));
    for (int64_t i = 0; i < n; i++) wide[i] = (double)got[i];
    refs_compare(w, n, wide, refs_doubles(o, name), 1e-6);
}

// The same for one number computed in double, to 1e-12.
static inline void refs_compare_number(RefsWorst *w, const json_t *o, const char *name, double got) {
    double want = refs_number(o, name);
    refs_compare(w, 1, &got, &want, 1e-12);
}

#endif
