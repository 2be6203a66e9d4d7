// low_rank.c: a product of low rank added to a weight, and its gradients, by oneDNN's sgemm. Deterministic at equal
// shapes and threads.
#include <oneapi/dnnl/dnnl.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

enum { ROW_CUT = 1024 }; // rows of a bf16 weight at a time

// c [m, n] = beta c + alpha op(a) op(b); row-major, dense.
static void multiply(char trans_a, char trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                     const float *b, float beta, float *c) {
    const int64_t lda = trans_a == 'T' ? m : k, ldb = trans_b == 'T' ? k : n;
    const dnnl_status_t s = dnnl_sgemm(trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, n);
    if (s != dnnl_success)
        err_fatal("oneDNN sgemm %lld x %lld x %lld: status %d", (long long)m, (long long)n, (long long)k, (int)s);
}

// Elements as fp32: where they are, or widened into a scratch.
static const float *as_f32(DType dt, const Dev *x, int64_t n, Scratch slot) {
    const void *from = cpu_ptr(x);
    if (dt == DS_F32) return from;
    float *to = cpu_scratch_f32(slot, n);
    for (int64_t i = 0; i < n; i += LANES) vec_store_n(DS_F32, to, i, vec_load_n(DS_BF16, from, i, n - i), n - i);
    return to;
}

static void add_bf16(uint16_t *y, const uint16_t *w, const float *sum, int64_t n) {
#pragma omp parallel for schedule(static) num_threads(cpu_team(n))
    for (int64_t i = 0; i < n; i += LANES)
        vec_store_n(DS_BF16, y, i, vec_load_n(DS_BF16, w, i, n - i) + vec_load_n(DS_F32, sum, i, n - i), n - i);
}

void low_rank_fwd_cpu(DType dt, Dev *y, const Dev *w, const Dev *b, const Dev *a, float scale, int64_t out,
                      int64_t rank, int64_t in) {
    if (out <= 0 || in <= 0) return;
    const float *fa = as_f32(dt, a, rank * in, SCRATCH_A), *fb = as_f32(dt, b, out * rank, SCRATCH_B);
    if (dt == DS_F32) {
        if (y != w) copy_cpu(y, w, (size_t)(out * in) * sizeof(float));
        multiply('N', 'N', out, in, rank, scale, fb, fa, 1, cpu_ptr(y));
        return;
    }
    float *sum = cpu_scratch_f32(SCRATCH_C, ds_min(out, ROW_CUT) * in);
    for (int64_t o = 0; o < out; o += ROW_CUT) {
        const int64_t n = ds_min(ROW_CUT, out - o);
        multiply('N', 'N', n, in, rank, scale, fb + o * rank, fa, 0, sum);
        add_bf16((uint16_t *)cpu_ptr(y) + o * in, (const uint16_t *)cpu_ptr(w) + o * in, sum, n * in);
    }
}

void low_rank_bwd_cpu(DType dt, Dev *db, Dev *da, const Dev *dy, const Dev *b, const Dev *a, float scale, int64_t out,
                      int64_t rank, int64_t in) {
    if (out <= 0 || in <= 0) return;
    const float *fa = as_f32(dt, a, rank * in, SCRATCH_A), *fb = as_f32(dt, b, out * rank, SCRATCH_B);
    multiply('N', 'T', out, rank, in, scale, cpu_ptr(dy), fa, 1, cpu_ptr(db));
    multiply('T', 'N', rank, in, out, scale, fb, cpu_ptr(dy), 1, cpu_ptr(da));
}
