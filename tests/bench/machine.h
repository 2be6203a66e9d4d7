// machine.h: what this machine can do at most, measured: products of matrices in the arithmetic of a dtype, and memory.
// The shares that the benchmark prints are shares of these.
//
// Products: loops that touch no memory, of multiply-adds into more registers than the instruction has cycles of
// latency. In assembly, so that no compiler keeps the sums elsewhere or sees that nobody reads them.
#ifndef DS_BENCH_MACHINE_H
#define DS_BENCH_MACHINE_H

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "kernels/kernels.h"

// One thread's loop of n turns; `flops` a turn.
typedef struct {
    const char *name;
    void (*loop)(int64_t n);
    double flops;
} MachineMath;

typedef struct {
    MachineMath math;
    double flops; // a second, all threads
    // Bytes a second, all threads, of three kinds of traffic: read; copied (those read and those written); and of
    // y += x (x read, y read and written), which is the fastest where memory reads and writes at the same time.
    double read, copy, update;
} Machine;

#define MACHINE_12(f) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13)
#define MACHINE_16(f) MACHINE_12(f) f(14) f(15) f(16) f(17)

#if defined(__x86_64__)
// The two operands are ones: sums of ones stay finite and are no denormals, which some CPUs are slow at.
#define MACHINE_ONES(reg) "vbroadcastss %1, %%" reg "0\n\tvbroadcastss %1, %%" reg "1\n\t"
#define MACHINE_CLEAR_512(r) "vpxord %%zmm" #r ", %%zmm" #r ", %%zmm" #r "\n\t"
#define MACHINE_CLEAR_256(r) "vxorps %%ymm" #r ", %%ymm" #r ", %%ymm" #r "\n\t"
#define MACHINE_FMA_512(r) "vfmadd231ps %%zmm0, %%zmm1, %%zmm" #r "\n\t"
#define MACHINE_FMA_256(r) "vfmadd231ps %%ymm0, %%ymm1, %%ymm" #r "\n\t"
#define MACHINE_PAIRS_512(r) "vdpbf16ps %%zmm0, %%zmm1, %%zmm" #r "\n\t"
#define MACHINE_LOW_CLOBBERS                                                                                           \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13"

__attribute__((target("avx2,fma"))) static void machine_fma_256(int64_t n) {
    const float one = 1;
    __asm__ volatile(MACHINE_ONES("ymm") MACHINE_12(MACHINE_CLEAR_256) //
                     "1:\n\t" MACHINE_12(MACHINE_FMA_256) "dec %0\n\tjnz 1b\n\tvzeroupper"
                     : "+r"(n)
                     : "m"(one)
                     : MACHINE_LOW_CLOBBERS, "cc");
}

__attribute__((target("avx512f"))) static void machine_fma_512(int64_t n) {
    const float one = 1;
    __asm__ volatile(MACHINE_ONES("zmm") MACHINE_16(MACHINE_CLEAR_512) //
                     "1:\n\t" MACHINE_16(MACHINE_FMA_512) "dec %0\n\tjnz 1b\n\tvzeroupper"
                     : "+r"(n)
                     : "m"(one)
                     : MACHINE_LOW_CLOBBERS, "xmm14", "xmm15", "xmm16", "xmm17", "cc");
}

__attribute__((target("avx512f,avx512bf16"))) static void machine_pairs_512(int64_t n) {
    const uint16_t ones[2] = {0x3f80, 0x3f80};
    __asm__ volatile(MACHINE_ONES("zmm") MACHINE_16(MACHINE_CLEAR_512) //
                     "1:\n\t" MACHINE_16(MACHINE_PAIRS_512) "dec %0\n\tjnz 1b\n\tvzeroupper"
                     : "+r"(n)
                     : "m"(ones)
                     : MACHINE_LOW_CLOBBERS, "xmm14", "xmm15", "xmm16", "xmm17", "cc");
}

// Tiles of 16 rows of 32 bf16: sums in tmm0 .. tmm5, operands in tmm6 and tmm7.
static void machine_tiles(int64_t n) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } cfg = {.palette = 1};
    uint16_t ones[16 * 32];
    for (int i = 0; i < 16 * 32; i++) ones[i] = 0x3f80;
    for (int t = 0; t < 8; t++) cfg.row_bytes[t] = 64, cfg.rows[t] = 16;
    __asm__ volatile("ldtilecfg %1\n\t"
                     "tileloadd (%2, %3, 1), %%tmm6\n\t"
                     "tileloadd (%2, %3, 1), %%tmm7\n\t"
                     "1:\n\t"
                     "tdpbf16ps %%tmm7, %%tmm6, %%tmm0\n\t"
                     "tdpbf16ps %%tmm7, %%tmm6, %%tmm1\n\t"
                     "tdpbf16ps %%tmm7, %%tmm6, %%tmm2\n\t"
                     "tdpbf16ps %%tmm7, %%tmm6, %%tmm3\n\t"
                     "tdpbf16ps %%tmm7, %%tmm6, %%tmm4\n\t"
                     "tdpbf16ps %%tmm7, %%tmm6, %%tmm5\n\t"
                     "dec %0\n\tjnz 1b\n\ttilerelease"
                     : "+r"(n)
                     : "m"(cfg), "r"(ones), "r"((int64_t)64)
                     : "memory", "cc");
}

// The kernels' own answer, which also asks the system for the tiles' registers.
static bool machine_has_tiles(void) {
    int isa;
    const bool has = kernels_isa("amx", &isa) == DS_OK;
    err_clear();
    return has;
}
#endif

// Without an instruction set that is known here: what a C compiler makes of it, which is a low estimate of the most.
static void machine_plain(int64_t n) {
    typedef float V __attribute__((vector_size(16)));
    volatile float seen = 1; // so that the compiler does not know that it multiplies by one
    const V one = {seen, seen, seen, seen};
    V a = one, b = one, c = one, d = one, e = one, f = one, g = one, h = one;
    for (; n > 0; n--) {
        a = a * one + one, b = b * one + one, c = c * one + one, d = d * one + one;
        e = e * one + one, f = f * one + one, g = g * one + one, h = h * one + one;
    }
    volatile V sink = a + b + c + d + e + f + g + h;
    (void)sink;
}

// The fastest way to multiply matrices of dt here. The kernels have AMX only where they say so: amx = false measures
// what AVX-512 can do on a CPU that has both.
static MachineMath machine_math(DType dt, bool amx) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (dt == DS_BF16 && amx && machine_has_tiles()) return (MachineMath){"amx bf16", machine_tiles, 6 * 16384.0};
    if (dt == DS_BF16 && __builtin_cpu_supports("avx512bf16"))
        return (MachineMath){"avx512 bf16 pairs", machine_pairs_512, 16 * 64.0};
    if (__builtin_cpu_supports("avx512f")) return (MachineMath){"avx512 fp32", machine_fma_512, 16 * 32.0};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (MachineMath){"avx2 fp32", machine_fma_256, 12 * 16.0};
#endif
    (void)dt, (void)amx;
    return (MachineMath){"plain C fp32", machine_plain, 8 * 8.0};
}

// Flops a second of all threads: the best of several turns of about 50 ms.
static double machine_flops(const MachineMath *math, int threads, int repeats) {
    int64_t n = 1 << 16;
    double best = 0;
    for (int i = 0; i < repeats + 1; i++) {
        const double start = clock_now();
#pragma omp parallel num_threads(threads)
        math->loop(n);
        const double seconds = clock_now() - start;
        if (i > 0) best = fmax(best, math->flops * (double)n * threads / seconds);
        else n = (int64_t)((double)n * fmax(1, 0.05 / seconds)); // the first finds how many turns that takes
    }
    return best;
}

// What touches memory is compiled for registers as wide as there are; n is a multiple of 32.
#if defined(__x86_64__)
#define MACHINE_WIDE __attribute__((target_clones("avx512f", "avx2", "default"), noinline))
#else
#define MACHINE_WIDE __attribute__((noinline))
#endif
typedef uint64_t MachineVec __attribute__((vector_size(64)));

MACHINE_WIDE static uint64_t machine_sum(const uint64_t *p, int64_t n) {
    MachineVec a = {0}, b = {0}, c = {0}, d = {0};
    for (const MachineVec *v = (const MachineVec *)p, *end = (const MachineVec *)(p + n); v < end; v += 4)
        a += v[0], b += v[1], c += v[2], d += v[3];
    a += b + c + d;
    return a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
}

MACHINE_WIDE static void machine_update(uint64_t *y, const uint64_t *x, int64_t n) {
    MachineVec *to = (MachineVec *)y;
    const MachineVec *from = (const MachineVec *)x;
    for (int64_t i = 0; i < n / 8; i++) to[i] += from[i];
}

// Memory in pages as large as they come, as the kernels' operands have it: with small ones the translation of
// addresses would be measured. Not touched yet. Owner: caller, free.
static uint64_t *machine_pages(size_t bytes) {
    enum { HUGE_PAGE = 2 << 20 };
    void *p = aligned_alloc(HUGE_PAGE, (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    if (!p) err_fatal("no memory to measure memory with: %zu bytes", bytes);
#ifdef MADV_HUGEPAGE
    madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

enum { MACHINE_READ, MACHINE_COPY, MACHINE_UPDATE };

// Bytes a second of one kind of traffic between two arrays of threads * share words.
static double machine_traffic(int kind, uint64_t *to, const uint64_t *from, int64_t share, int threads) {
    static const double moved[] = {8, 16, 24};
    uint64_t sum = 0;
    const double start = clock_now();
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(+ : sum)
    for (int t = 0; t < threads; t++) {
        const uint64_t *x = from + t * share;
        uint64_t *y = to + t * share;
        if (kind == MACHINE_READ) sum += machine_sum(x, share);
        if (kind == MACHINE_COPY) memcpy(y, x, (size_t)share * sizeof *y);
        if (kind == MACHINE_UPDATE) machine_update(y, x, share);
    }
    const double seconds = clock_now() - start;
    volatile uint64_t sink = sum;
    (void)sink;
    return moved[kind] * (double)(share * threads) / seconds;
}

static void machine_memory(Machine *m, int threads, int repeats) {
    const int64_t share = ((int64_t)512 << 20) / 8 / threads / 32 * 32, n = share * threads;
    uint64_t *from = machine_pages((size_t)n * 8), *to = machine_pages((size_t)n * 8);
    // Pages lie near the thread that touches them first.
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        memset(from + t * share, 1, (size_t)share * sizeof *from);
        memset(to + t * share, 2, (size_t)share * sizeof *to);
    }
    for (int i = 0; i < repeats; i++) {
        m->read = fmax(m->read, machine_traffic(MACHINE_READ, to, from, share, threads));
        m->copy = fmax(m->copy, machine_traffic(MACHINE_COPY, to, from, share, threads));
        m->update = fmax(m->update, machine_traffic(MACHINE_UPDATE, to, from, share, threads));
    }
    free(from);
    free(to);
}

// The best of what m says already (zero: nothing) and what is measured now: neighbours can only slow a machine down.
static void machine_measure(Machine *m, int threads, DType dt, bool amx) {
    m->math = machine_math(dt, amx);
    m->flops = fmax(m->flops, machine_flops(&m->math, threads, 8));
    machine_memory(m, threads, 10);
}

#endif
