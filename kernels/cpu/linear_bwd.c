// linear_bwd.c: gradients of a linear map, by oneDNN. Deterministic at equal shapes and threads; rows are not exact and
// need not be.
//
// fp32 goes to oneDNN's sgemm. bf16 is widened to fp32 in cuts of OUT_CUT outputs (a large vocabulary then needs little
// scratch) and multiplied there; a CPU with bf16 instructions is served by linear_bf16.c instead.
#include <oneapi/dnnl/dnnl.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/tile.h"

enum { OUT_CUT = 4096, SUM_ROWS = 64 };

// c [m, n] (ldc) = beta c + op(a) b; row-major.
static void multiply(char trans_a, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                     int64_t ldb, float beta, float *c, int64_t ldc) {
    const dnnl_status_t s = dnnl_sgemm(trans_a, 'N', m, n, k, 1.0f, a, lda, b, ldb, beta, c, ldc);
    if (s != dnnl_success)
        err_fatal("oneDNN sgemm %lld x %lld x %lld: status %d", (long long)m, (long long)n, (long long)k, (int)s);
}

// dst fp32 [rows, cols] = src bf16, rows of stride ld.
static void widen(float *dst, const uint16_t *src, int64_t ld, int64_t rows, int64_t cols) {
#pragma omp parallel for schedule(static) num_threads(cpu_team(rows *cols))
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < cols; i += LANES)
            vec_store_n(DS_F32, dst + r * cols, i, vec_load_n(DS_BF16, src + r * ld, i, cols - i), cols - i);
}

static void bwd_x_bf16(uint16_t *dx, bool accumulate, const uint16_t *dy, const uint16_t *w, int64_t m, int64_t out,
                       int64_t in) {
    const int64_t cut = ds_min(out, OUT_CUT);
    float *sum = cpu_scratch_f32(SCRATCH_A, m * in), *fy = cpu_scratch_f32(SCRATCH_B, m * cut);
    float *fw = cpu_scratch_f32(SCRATCH_C, cut * in);
    for (int64_t o = 0; o < out; o += cut) {
        const int64_t n = ds_min(cut, out - o);
        widen(fy, dy + o, out, m, n);
        widen(fw, w + o * in, in, n, in);
        multiply('N', m, in, n, fy, n, fw, in, o ? 1.0f : 0.0f, sum, in);
    }
#pragma omp parallel for schedule(static) num_threads(cpu_team(m *in))
    for (int64_t i = 0; i < m * in; i += LANES) {
        Vec v = vec_load_n(DS_F32, sum, i, m * in - i);
        if (accumulate) v += vec_load_n(DS_BF16, dx, i, m * in - i);
        vec_store_n(DS_BF16, dx, i, v, m * in - i);
    }
}

static void bwd_w_bf16(float *dw, const uint16_t *dy, const uint16_t *x, int64_t m, int64_t out, int64_t in) {
    const int64_t cut = ds_min(out, OUT_CUT);
    float *fx = cpu_scratch_f32(SCRATCH_A, m * in), *fy = cpu_scratch_f32(SCRATCH_B, m * cut);
    widen(fx, x, in, m, in);
    for (int64_t o = 0; o < out; o += cut) {
        const int64_t n = ds_min(cut, out - o);
        widen(fy, dy + o, out, m, n);
        multiply('T', n, in, m, fy, n, fx, in, 1.0f, dw + o * in, in);
    }
}

void linear_bwd_x_cpu(DType dt, Dev *dx, bool accumulate, const Dev *dy, const Dev *w, int64_t m, int64_t out,
                      int64_t in) {
    if (m <= 0 || in <= 0) return;
    if (dt == DS_F32)
        multiply('N', m, in, out, cpu_ptr(dy), out, cpu_ptr(w), in, accumulate ? 1.0f : 0.0f, cpu_ptr(dx), in);
    else if (TILE_HAS_PAIRS) linear_bf16_bwd_x(cpu_ptr(dx), accumulate, cpu_ptr(dy), cpu_ptr(w), m, out, in);
    else bwd_x_bf16(cpu_ptr(dx), accumulate, cpu_ptr(dy), cpu_ptr(w), m, out, in);
}

// dbias += column sums, a few vectors of columns at a time, rows in blocks of SUM_ROWS so that rounding stays small.
VEC_INLINE Vec column_sum(DType dt, const void *dy, int64_t i, int64_t m, int64_t out) {
    Vec total = {0};
    for (int64_t r = 0; r < m; r += SUM_ROWS) {
        Vec s = {0};
        for (int64_t j = r; j < ds_min(r + SUM_ROWS, m); j++) s += vec_load_n(dt, dy, j * out + i, out - i);
        total += s;
    }
    return total;
}

static void sum_columns(DType dt, float *dbias, const void *dy, int64_t m, int64_t out) {
#pragma omp parallel for schedule(static) num_threads(cpu_team(m *out))
    for (int64_t i = 0; i < out; i += LANES) {
        const Vec s = dt == DS_F32 ? column_sum(DS_F32, dy, i, m, out) : column_sum(DS_BF16, dy, i, m, out);
        vec_store_n(DS_F32, dbias, i, vec_load_n(DS_F32, dbias, i, out - i) + s, out - i);
    }
}

static void bwd_w(DType dt, Dev *dw, const Dev *dy, const Dev *x, int64_t m, int64_t out, int64_t in) {
    if (dt == DS_F32) multiply('T', out, in, m, cpu_ptr(dy), out, cpu_ptr(x), in, 1.0f, cpu_ptr(dw), in);
    else if (TILE_HAS_PAIRS) linear_bf16_bwd_w(cpu_ptr(dw), cpu_ptr(dy), cpu_ptr(x), m, out, in);
    else bwd_w_bf16(cpu_ptr(dw), cpu_ptr(dy), cpu_ptr(x), m, out, in);
}

void linear_bwd_w_cpu(DType dt, Dev *dw, Dev *dbias, const Dev *dy, const Dev *x, int64_t m, int64_t out, int64_t in) {
    if (m <= 0 || out <= 0) return;
    if (dw) bwd_w(dt, dw, dy, x, m, out, in);
    if (dbias) sum_columns(dt, cpu_ptr(dbias), cpu_ptr(dy), m, out);
}
