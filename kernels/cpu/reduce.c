// reduce.c: sums of squares by chunk, in double.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

typedef double VecD __attribute__((vector_size(8 * LANES)));

// Four vectors of lanes in double over the chunk, then lane after lane. The squares are exact: two fp32 factors fit a
// double.
static double chunk_sumsq(const float *x, int64_t n) {
    VecD sum[4] = {{0}};
    double total = 0.0;
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            const VecD d = __builtin_convertvector(vec_load(DS_F32, x, i + v * LANES), VecD);
            sum[v] += d * d;
        }
    }
    for (; i < n; i += LANES) {
        const VecD d = __builtin_convertvector(vec_load_n(DS_F32, x, i, n - i), VecD);
        sum[0] += d * d;
    }
    sum[0] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    for (int l = 0; l < LANES; l++) total += sum[0][l];
    return total;
}

void sumsq_cpu(double *out_host, const Dev *x, int64_t n, int64_t chunk) {
    const float *p = cpu_ptr(x);
    const int64_t chunks = ds_ceil_div(n, chunk);
#pragma omp parallel for schedule(static) num_threads(cpu_team(n))
    for (int64_t c = 0; c < chunks; c++) out_host[c] = chunk_sumsq(p + c * chunk, ds_min(chunk, n - c * chunk));
}
