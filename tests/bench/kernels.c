// kernels.c: what the kernels reach of what the machine can do, at the shapes of SmolLM2-135M in bf16: GFLOP/s of
// matrix products beside the peak of the same instructions, GB/s of passes beside the bandwidth of a copy. One line an
// operation, best of REPEATS; it reports and asserts nothing.
//
// usage: kernels [threads]
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "kernels/kernels.h"

enum {
    REPEATS = 7,
    TOKENS = 4096,
    HEAD_ROWS = 512,
    WIDTH = 576,
    FFN = 1536,
    VOCAB = 49152,
    HEADS = 9,
    KV_HEADS = 3,
    DIM = 64
};

static const Kernels *k;
static double peak_flops, peak_bytes;

// ---- what the machine can do ----
#ifdef __x86_64__
// Sixteen chains of one instruction, named registers: nothing but the instruction is measured.
#define CHAINS(ins)                                                                                                    \
    ins " %%zmm0,%%zmm1,%%zmm2\n" ins " %%zmm0,%%zmm1,%%zmm3\n" ins " %%zmm0,%%zmm1,%%zmm4\n" ins                      \
        " %%zmm0,%%zmm1,%%zmm5\n" ins " %%zmm0,%%zmm1,%%zmm6\n" ins " %%zmm0,%%zmm1,%%zmm7\n" ins                      \
        " %%zmm0,%%zmm1,%%zmm8\n" ins " %%zmm0,%%zmm1,%%zmm9\n" ins " %%zmm0,%%zmm1,%%zmm10\n" ins                     \
        " %%zmm0,%%zmm1,%%zmm11\n" ins " %%zmm0,%%zmm1,%%zmm12\n" ins " %%zmm0,%%zmm1,%%zmm13\n" ins                   \
        " %%zmm0,%%zmm1,%%zmm14\n" ins " %%zmm0,%%zmm1,%%zmm15\n" ins " %%zmm0,%%zmm1,%%zmm16\n" ins                   \
        " %%zmm0,%%zmm1,%%zmm17\n"
#define CLOBBERED                                                                                                      \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",         \
        "xmm13", "xmm14", "xmm15", "xmm16", "xmm17"
__attribute__((target("avx512f,avx512bf16"))) static void dots(int64_t n) {
    __asm__ volatile("vpxord %%zmm0,%%zmm0,%%zmm0\nvpxord %%zmm1,%%zmm1,%%zmm1\n" ::: "xmm0", "xmm1");
    for (int64_t i = 0; i < n; i++) __asm__ volatile(CHAINS("vdpbf16ps")::: CLOBBERED);
}
#endif

// Flops a second of all threads; 0 where these instructions are not there.
static double measure_flops(int threads) {
#ifdef __x86_64__
    const int64_t n = 10000000;
    double best = INFINITY;
    if (!__builtin_cpu_supports("avx512bf16")) return 0;
    for (int i = 0; i < REPEATS; i++) {
        const double start = clock_now();
#pragma omp parallel num_threads(threads)
        dots(n);
        best = fmin(best, clock_now() - start);
    }
    return 16.0 * 16 * 4 * (double)n * threads / best;
#else
    (void)threads;
    return 0;
#endif
}

static double measure_bytes(void) {
    const size_t n = (size_t)512 << 20;
    Dev *a = k->mem_create(n, MEM_COMM), *b = k->mem_create(n, MEM_COMM);
    double best = INFINITY;
    for (int i = 0; i < REPEATS; i++) {
        const double start = clock_now();
        k->copy(a, b, n);
        best = fmin(best, clock_now() - start);
    }
    k->mem_destroy(a);
    k->mem_destroy(b);
    return 2.0 * (double)n / best;
}

// ---- operations ----
static Dev *fill(DType dt, int64_t n) {
    float *x = malloc((size_t)n * sizeof *x);
    Dev *f = k->mem_create((size_t)n * sizeof *x, MEM_COMM), *p = f;
    for (int64_t i = 0; i < n; i++) x[i] = (float)((i * 7919) % 2003 - 1001) * 1e-3f;
    k->copy_in(f, x, (size_t)n * sizeof *x);
    free(x);
    if (dt == DS_BF16) {
        p = k->mem_create((size_t)n * 2, MEM_COMM);
        k->cast(DS_BF16, p, DS_F32, f, n);
        k->mem_destroy(f);
    }
    return p;
}

#define BEST(best, call)                                                                                               \
    do {                                                                                                               \
        best = INFINITY;                                                                                               \
        for (int i_ = 0; i_ < REPEATS; i_++) {                                                                         \
            const double start_ = clock_now();                                                                         \
            call;                                                                                                      \
            best = fmin(best, clock_now() - start_);                                                                   \
        }                                                                                                              \
    } while (0)

static void show(const char *name, double s, double flops, double bytes) {
    printf("%-40s %9.3f ms", name, s * 1e3);
    if (flops > 0) {
        printf(" %8.1f GFLOP/s", flops / s * 1e-9);
        if (peak_flops > 0) printf(" %5.1f %% of peak", 100 * flops / s / peak_flops);
    }
    if (bytes > 0) printf(" %8.1f GB/s %5.1f %% of a copy", bytes / s * 1e-9, 100 * bytes / s / peak_bytes);
    printf("\n");
}

static void linear(const char *what, int64_t m, int64_t out, int64_t in, bool backward) {
    const DType y_dt = out == VOCAB ? DS_F32 : DS_BF16;
    Dev *x = fill(DS_BF16, m * in), *w = fill(DS_BF16, out * in), *y = fill(y_dt, m * out),
        *dy = fill(DS_BF16, m * out);
    Dev *dw = fill(DS_F32, out * in);
    const double flops = 2.0 * (double)m * (double)out * (double)in;
    const double weights = m <= 64 ? 2.0 * (double)out * (double)in : 0; // bound by them
    char name[96];
    double s;
    BEST(s, k->linear_fwd(DS_BF16, y_dt, y, x, w, NULL, m, out, in));
    snprintf(name, sizeof name, "linear_fwd   %s, %lld rows", what, (long long)m);
    show(name, s, flops, weights);
    if (backward) {
        BEST(s, k->linear_bwd_x(DS_BF16, x, false, dy, w, m, out, in));
        snprintf(name, sizeof name, "linear_bwd_x %s, %lld rows", what, (long long)m);
        show(name, s, flops, 0);
        BEST(s, k->linear_bwd_w(DS_BF16, dw, NULL, dy, x, m, out, in));
        snprintf(name, sizeof name, "linear_bwd_w %s, %lld rows", what, (long long)m);
        show(name, s, flops, 0);
    }
    Dev *all[] = {x, w, y, dy, dw};
    for (int i = 0; i < DS_COUNT(all); i++) k->mem_destroy(all[i]);
}

static void attention(int64_t n_seq, int64_t length) {
    const int64_t n = n_seq * length, row = (HEADS + 2 * KV_HEADS) * DIM;
    Dev *qkv = fill(DS_BF16, n * row), *d = fill(DS_BF16, n * row), *o = fill(DS_BF16, n * HEADS * DIM),
        *lse = fill(DS_F32, n * HEADS), *delta = fill(DS_F32, n * HEADS);
    HeadView v[2][3];
    int32_t *starts = malloc((size_t)(n_seq + 1) * sizeof *starts);
    for (int64_t s = 0; s <= n_seq; s++) starts[s] = (int32_t)(s * length);
    for (int i = 0; i < 2; i++) {
        Dev *p = i ? d : qkv;
        v[i][0] = (HeadView){p, row, DIM, HEADS};
        v[i][1] = (HeadView){dev_at(p, HEADS * DIM * 2), row, DIM, KV_HEADS};
        v[i][2] = (HeadView){dev_at(p, (HEADS + KV_HEADS) * DIM * 2), row, DIM, KV_HEADS};
    }
    const AttnShape a = {.head_dim = DIM, .scale = 0.125f};
    const double pairs = (double)n_seq * (double)length * (double)(length + 1) / 2 * HEADS * DIM * 2;
    char name[96];
    double s;
    BEST(s, k->attn_fwd(DS_BF16, a, o, lse, v[0][0], v[0][1], v[0][2], starts, n_seq, NULL, NULL));
    snprintf(name, sizeof name, "attn_fwd     %lld x %lld", (long long)n_seq, (long long)length);
    show(name, s, 2 * pairs, 0);
    BEST(s, k->attn_bwd(DS_BF16, a, v[1][0], v[1][1], v[1][2], delta, o, o, lse, v[0][0], v[0][1], v[0][2], starts,
                        n_seq));
    snprintf(name, sizeof name, "attn_bwd     %lld x %lld", (long long)n_seq, (long long)length);
    show(name, s, 5 * pairs, 0);
    free(starts);
    Dev *all[] = {qkv, d, o, lse, delta};
    for (int i = 0; i < DS_COUNT(all); i++) k->mem_destroy(all[i]);
}

static void passes(void) {
    const int64_t n = TOKENS, big = 32 << 20;
    Dev *x = fill(DS_BF16, n * 2 * FFN), *y = fill(DS_BF16, n * FFN), *w = fill(DS_BF16, WIDTH),
        *stats = fill(DS_F32, 2 * n);
    Dev *f[4];
    double s;
    for (int i = 0; i < 4; i++) f[i] = fill(DS_F32, big);
    BEST(s, k->glu_fwd(DS_BF16, KERNEL_ACT_SILU, y, x, n, FFN));
    show("glu_fwd", s, 0, 2.0 * 3 * (double)n * FFN);
    BEST(s, k->glu_bwd(DS_BF16, KERNEL_ACT_SILU, x, y, x, n, FFN));
    show("glu_bwd", s, 0, 2.0 * 5 * (double)n * FFN);
    BEST(s, k->norm_fwd(DS_BF16, KERNEL_NORM_RMS, y, stats, x, w, NULL, n, WIDTH, 1e-5f));
    show("norm_fwd", s, 0, 2.0 * 2 * (double)n * WIDTH);
    BEST(s, k->norm_bwd(DS_BF16, KERNEL_NORM_RMS, y, false, f[0], NULL, y, x, w, stats, n, WIDTH));
    show("norm_bwd", s, 0, 2.0 * 3 * (double)n * WIDTH);
    BEST(s, k->add(DS_BF16, y, x, n * WIDTH));
    show("add", s, 0, 2.0 * 3 * (double)n * WIDTH);
    BEST(s, k->adamw(DS_BF16, x, f[0], f[1], f[2], f[3], n * FFN,
                     (AdamwArgs){1e-6, 0.9, 0.95, 1e-8, 0.0, 0.1, 0.05, 1.0}));
    show("adamw", s, 0, 30.0 * (double)n * FFN);
    Dev *all[] = {x, y, w, stats, f[0], f[1], f[2], f[3]};
    for (int i = 0; i < DS_COUNT(all); i++) k->mem_destroy(all[i]);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int64_t out, in;
    } shapes[] = {{"qkv 960x576", 960, WIDTH},
                  {"o 576x576", WIDTH, WIDTH},
                  {"gate+up 3072x576", 2 * FFN, WIDTH},
                  {"down 576x1536", WIDTH, FFN},
                  {"LM head 49152x576", VOCAB, WIDTH}};
    const int threads = argc > 1 ? atoi(argv[1]) : omp_get_max_threads();
    if (kernels_open("cpu", threads, &k)) return DS_ERR_PARAMS;
    peak_flops = measure_flops(threads);
    peak_bytes = measure_bytes();
    printf("%s, %d threads: %.0f GFLOP/s of bf16 pairs, copy at %.1f GB/s\n", kernels_describe(), threads,
           peak_flops * 1e-9, peak_bytes * 1e-9);
    for (int i = 0; i < DS_COUNT(shapes); i++) {
        for (int64_t m = 1; m <= 64; m *= m == 1 ? 16 : 4)
            linear(shapes[i].name, m, shapes[i].out, shapes[i].in, false);
        linear(shapes[i].name, shapes[i].out == VOCAB ? HEAD_ROWS : TOKENS, shapes[i].out, shapes[i].in, true);
    }
    attention(16, 256);
    attention(2, 2048);
    passes();
    return 0;
}
