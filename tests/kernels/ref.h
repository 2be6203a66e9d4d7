// ref.h: what the kernel tests share: PyTorch's numbers (tests/refs/kernels_*.json), device buffers, comparison.
#ifndef DS_TEST_REF_H
#define DS_TEST_REF_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/rng.h"
#include "kernels/kernels.h"

#define REF_INLINE static inline __attribute__((unused))

static const DType ref_dtypes[] = {DS_F32, DS_BF16};

REF_INLINE const Kernels *ref_open(int threads) {
    const Kernels *k = NULL;
    assert_int_equal(kernels_open("cpu", "auto", threads, &k), DS_OK);
    return k;
}

// ---- reference files ----
REF_INLINE json_t *ref_load(const char *op) {
    char path[128];
    json_error_t e;
    snprintf(path, sizeof path, "tests/refs/kernels_%s.json", op);
    json_t *cases = json_load_file(path, 0, &e);
    if (!cases) fail_msg("%s: %s", path, e.text);
    assert_true(json_array_size(cases) > 0);
    return cases;
}

REF_INLINE json_t *ref_get(const json_t *c, const char *key) {
    json_t *v = json_object_get(c, key);
    if (!v) fail_msg("the reference has no \"%s\"", key);
    return v;
}
REF_INLINE int64_t ref_int(const json_t *c, const char *key) { return json_integer_value(ref_get(c, key)); }
REF_INLINE double ref_num(const json_t *c, const char *key) { return json_number_value(ref_get(c, key)); }
REF_INLINE const char *ref_str(const json_t *c, const char *key) { return json_string_value(ref_get(c, key)); }
REF_INLINE int64_t ref_count(const json_t *c, const char *key) { return (int64_t)json_array_size(ref_get(c, key)); }

// Owner: caller, mem_free.
REF_INLINE float *ref_floats(const json_t *c, const char *key) {
    const json_t *a = ref_get(c, key);
    const int64_t n = (int64_t)json_array_size(a);
    float *p = mem_array(n, sizeof *p);
    for (int64_t i = 0; i < n; i++) p[i] = (float)json_number_value(json_array_get(a, (size_t)i));
    return p;
}

REF_INLINE int32_t *ref_ints(const json_t *c, const char *key) {
    const json_t *a = ref_get(c, key);
    const int64_t n = (int64_t)json_array_size(a);
    int32_t *p = mem_array(n, sizeof *p);
    for (int64_t i = 0; i < n; i++) p[i] = (int32_t)json_integer_value(json_array_get(a, (size_t)i));
    return p;
}

// ---- device buffers ----
REF_INLINE Dev *dev_floats(const Kernels *k, DType dt, const float *x, int64_t n) {
    Dev *p = k->mem_create((size_t)n * dtype_bytes(dt), MEM_WEIGHTS);
    uint16_t *h = mem_array(n, sizeof *h);
    for (int64_t i = 0; i < n; i++) h[i] = f32_to_bf16(x[i]);
    k->copy_in(p, dt == DS_F32 ? (const void *)x : h, (size_t)n * dtype_bytes(dt));
    mem_free(h);
    return p;
}

REF_INLINE Dev *dev_ints(const Kernels *k, const int32_t *x, int64_t n) {
    Dev *p = k->mem_create((size_t)n * sizeof *x, MEM_WEIGHTS);
    k->copy_in(p, x, (size_t)n * sizeof *x);
    return p;
}

REF_INLINE Dev *dev_ref(const Kernels *k, DType dt, const json_t *c, const char *key) {
    float *x = ref_floats(c, key);
    Dev *p = dev_floats(k, dt, x, ref_count(c, key));
    mem_free(x);
    return p;
}

REF_INLINE Dev *dev_ref_ints(const Kernels *k, const json_t *c, const char *key) {
    int32_t *x = ref_ints(c, key);
    Dev *p = dev_ints(k, x, ref_count(c, key));
    mem_free(x);
    return p;
}

REF_INLINE Dev *dev_new(const Kernels *k, DType dt, int64_t n) {
    return k->mem_create((size_t)n * dtype_bytes(dt), MEM_WEIGHTS);
}

// Normal numbers, the same for the same id; rounded to bf16 so that they mean the same in both dtypes.
REF_INLINE float *rand_floats(int64_t n, double scale, uint64_t id) {
    float *x = mem_array(n, sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = bf16_to_f32(f32_to_bf16((float)(scale * rng_normal(7, RNG_INIT, id, (uint64_t)i))));
    return x;
}

REF_INLINE Dev *dev_rand(const Kernels *k, DType dt, int64_t n, double scale, uint64_t id) {
    float *x = rand_floats(n, scale, id);
    Dev *p = dev_floats(k, dt, x, n);
    mem_free(x);
    return p;
}

// fp32 copy on the host. Owner: caller, mem_free.
REF_INLINE float *host_floats(const Kernels *k, DType dt, const Dev *p, int64_t n) {
    float *x = mem_array(n, sizeof *x);
    uint16_t *h = mem_array(n, sizeof *h);
    k->copy_out(dt == DS_F32 ? (void *)x : h, p, (size_t)n * dtype_bytes(dt));
    for (int64_t i = 0; dt == DS_BF16 && i < n; i++) x[i] = bf16_to_f32(h[i]);
    mem_free(h);
    return x;
}

// ---- comparison ----
// Error of each element relative to itself plus the tensor's rms, in units of the dtype's epsilon; at most `limit`
// units.
REF_INLINE void expect_floats(const char *what, DType dt, const float *got, const float *want, int64_t n,
                              double limit) {
    const double eps = dt == DS_F32 ? 1.1920929e-7 : 3.90625e-3;
    double rms = 0.0, worst = -1.0;
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) rms += (double)want[i] * want[i];
    rms = sqrt(rms / (double)(n ? n : 1));
    for (int64_t i = 0; i < n; i++) {
        const double d = fabs((double)got[i] - want[i]), size = fabs((double)want[i]) + rms;
        const double e = got[i] == want[i] ? 0.0 : size > 0.0 ? d / size / eps : HUGE_VAL;
        if (!(e <= worst)) worst = e, at = i; // NaN too
        if (e != e) break;
    }
    printf("  %-28s %-4s worst %7.2f eps at %lld of %lld (%.7g, expected %.7g)\n", what, dtype_name(dt), worst,
           (long long)at, (long long)n, (double)got[at], (double)want[at]);
    if (!(worst <= limit)) fail_msg("%s %s: %.2f eps, at most %.2f allowed", what, dtype_name(dt), worst, limit);
}

REF_INLINE void expect_dev(const Kernels *k, const char *what, DType dt, const Dev *got, const json_t *c,
                           const char *key, double limit) {
    const int64_t n = ref_count(c, key);
    float *g = host_floats(k, dt, got, n), *w = ref_floats(c, key);
    expect_floats(what, dt, g, w, n, limit);
    mem_free(g);
    mem_free(w);
}

// fp32 results of bf16 inputs: compared as fp32, or as bf16 where bf16 rounding happens inside.
REF_INLINE void expect_dev_f32(const Kernels *k, const char *what, DType like, const Dev *got, const json_t *c,
                               const char *key, double limit) {
    const int64_t n = ref_count(c, key);
    float *g = host_floats(k, DS_F32, got, n), *w = ref_floats(c, key);
    expect_floats(what, like, g, w, n, limit);
    mem_free(g);
    mem_free(w);
}

REF_INLINE void expect_same_bits(const Kernels *k, const char *what, const Dev *a, const Dev *b, size_t bytes) {
    unsigned char *x = mem_alloc(bytes), *y = mem_alloc(bytes);
    k->copy_out(x, a, bytes);
    k->copy_out(y, b, bytes);
    for (size_t i = 0; i < bytes; i++)
        if (x[i] != y[i]) fail_msg("%s: byte %zu of %zu differs", what, i, bytes);
    mem_free(x);
    mem_free(y);
}

// Gives back up to eight buffers.
#define DEV_FREE(k, ...)                                                                                               \
    do {                                                                                                               \
        Dev *list_[] = {__VA_ARGS__};                                                                                  \
        for (int i_ = 0; i_ < DS_COUNT(list_); i_++) (k)->mem_destroy(list_[i_]);                                      \
    } while (0)

// ---- bounds ----
// Memory that ends where a page begins that nobody may touch: of tiles that are read in one instruction a sanitizer
// sees nothing.
typedef struct {
    Dev *p;
    char *map;
    size_t bytes, room; // of the array, and of the pages before the forbidden one
} Edge;

REF_INLINE Edge edge_create(const Kernels *k, size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page;
    char *map = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(map != MAP_FAILED);
    assert_int_equal(mprotect(map + room, page, PROT_NONE), 0);
    Dev *other = k->mem_create(1, MEM_WEIGHTS); // tells what is added to addresses of the device
    const uintptr_t bias = (uintptr_t)other - (uintptr_t)kernels_comm_ptr(other);
    k->mem_destroy(other);
    return (Edge){(Dev *)((uintptr_t)map + room - bytes + bias), map, bytes, room};
}

REF_INLINE void edge_destroy(Edge *e) { munmap(e->map, e->room + (size_t)sysconf(_SC_PAGESIZE)); }

REF_INLINE Edge edge_copy(const Kernels *k, const Dev *from, size_t bytes) {
    Edge e = edge_create(k, bytes);
    k->copy(e.p, from, bytes);
    return e;
}

// ---- finite differences ----
// Central difference of `loss` along direction d against the gradient's <grad, d>: relative error at most tol.
typedef double (*RefLoss)(void *state, const float *x);
REF_INLINE void expect_slope(const char *what, RefLoss loss, void *state, const float *x, const float *grad, int64_t n,
                             double step, double tol) {
    float *d = rand_floats(n, 1.0, 991), *a = mem_array(n, sizeof *a), *b = mem_array(n, sizeof *b);
    double dot = 0.0, size = 0.0;
    for (int64_t i = 0; i < n; i++) {
        a[i] = (float)(x[i] + step * d[i]);
        b[i] = (float)(x[i] - step * d[i]);
        dot += (double)grad[i] * ((double)a[i] - b[i]);
        size += fabs((double)grad[i] * ((double)a[i] - b[i]));
    }
    const double difference = loss(state, a) - loss(state, b), error = fabs(difference - dot) / size;
    printf("  %-28s slope %.6g, gradient %.6g: error %.1e\n", what, difference, dot, error);
    if (!(error <= tol)) fail_msg("%s: slope and gradient differ by %.2e, at most %.1e allowed", what, error, tol);
    mem_free(a);
    mem_free(b);
    mem_free(d);
}

#endif
