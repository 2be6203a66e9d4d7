// kernels.c: choosing a backend and its instruction set, and what is said about it.
#include "kernels/kernels.h"

#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/cpu/cpu.h"

uintptr_t cpu_bias;
int cpu_threads = 1;

// ---- instruction sets: SETS of the Makefile, in this order ----

extern const CpuSet cpu_set_generic;
static bool has_generic(void) { return true; }

#ifdef __x86_64__
extern const CpuSet cpu_set_avx2, cpu_set_avx512, cpu_set_avx512_bf16, cpu_set_amx;
#define SET(name)                                                                                                      \
    { #name, &cpu_set_##name, has_##name }

static bool has_avx2(void) { return __builtin_cpu_supports("x86-64-v3"); }
static bool has_avx512(void) { return __builtin_cpu_supports("x86-64-v4"); }
static bool has_avx512_bf16(void) { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

// The system gives the tiles' registers to processes that ask for them.
static bool has_amx(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return has_avx512_bf16() && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#else
#define SET(name)                                                                                                      \
    { #name, NULL, NULL }
#endif

static const struct {
    const char *name;
    const CpuSet *set; // NULL: not for this architecture
    bool (*runs)(void);
} isas[] = {
    {"generic", &cpu_set_generic, has_generic}, SET(avx2), SET(avx512), SET(avx512_bf16), SET(amx),
};
static int chosen;

const char *kernels_isa_name(int isa) { return isa >= 0 && isa < DS_COUNT(isas) ? isas[isa].name : NULL; }

bool kernels_isa_runs(int isa) { return isa >= 0 && isa < DS_COUNT(isas) && isas[isa].set && isas[isa].runs(); }

bool kernels_isa_has_bf16(int isa) {
    return isa >= 0 && isa < DS_COUNT(isas) && isas[isa].set && isas[isa].set->has_bf16;
}

static int best_isa(void) {
    int isa = DS_COUNT(isas) - 1;
    while (!kernels_isa_runs(isa)) isa--;
    return isa;
}

static int find_isa(const char *name) {
    for (int i = 0; i < DS_COUNT(isas); i++)
        if (!strcmp(isas[i].name, name)) return i;
    return -1;
}

Err kernels_isa(const char *wish, int *isa) {
    Err err = DS_OK;
    const char *from = "isa", *name = wish;
    if (!strcmp(wish, "auto")) {
        from = "DSCHAT_ISA", name = getenv(from);
        if (!name || !*name) name = isas[best_isa()].name;
    }
    const int found = find_isa(name);
    DS_CHECK(found >= 0, DS_ERR_PARAMS, "%s = %s: no such instruction set; this CPU's best is %s", from, name,
             isas[best_isa()].name);
    DS_CHECK(kernels_isa_runs(found), DS_ERR_PARAMS, "%s = %s: this CPU cannot run it; its best is %s", from, name,
             isas[best_isa()].name);
    *isa = found;
done:
    return err;
}

// ---- the backend ----

// A backend that forgot an operation must not start: the table is a row of pointers.
static bool is_complete(const Kernels *table) {
    for (size_t at = 0; at < sizeof *table; at += sizeof(void *)) {
        void *slot;
        memcpy(&slot, (const char *)table + at, sizeof slot);
        if (!slot) return false;
    }
    return true;
}

Err kernels_open(const char *device, const char *isa, int threads, const Kernels **out) {
    Err err = DS_OK;
    const char *guard = getenv("DSCHAT_GUARD");
    DS_CHECK(strcmp(device, "cpu") == 0, DS_ERR_PARAMS, "device \"%s\": this program was built for \"cpu\" only",
             device);
    DS_CHECK(threads >= 1, DS_ERR_PARAMS, "threads = %d: expected 1 or more", threads);
    DS_TRY(kernels_isa(isa, &chosen));
    const CpuSet *set = isas[chosen].set;
    DS_CHECK(is_complete(set->table), DS_ERR_BUG, "the cpu backend lacks an operation");
    set->start();
    cpu_bias = guard && strcmp(guard, "1") == 0 ? CPU_GUARD_BIAS : 0;
    cpu_threads = threads;
    omp_set_num_threads(threads);
    *out = set->table;
done:
    return err;
}

// The first thread may use all of them: OpenMP ends threads that a small team does not need, and those that it makes
// later begin where the first may run; on one core they would all be there.
void kernels_bind(const int *cpus, int n) {
#pragma omp parallel num_threads(cpu_threads)
    {
        const int i = omp_get_thread_num();
        int64_t first = 0, last = n;
        cpu_set_t set;
        if (i > 0) cpu_share(n, cpu_threads, i, &first, &last);
        CPU_ZERO(&set);
        for (int64_t c = first; c < last; c++) CPU_SET(cpus[c], &set);
        sched_setaffinity(0, sizeof set, &set); // a wish: threads that cannot be bound are slower, not wrong
    }
}

bool kernels_has_bf16(void) { return isas[chosen].set->has_bf16; }

const char *kernels_describe(void) {
    static char text[96];
    snprintf(text, sizeof text, "cpu %s, %s", isas[chosen].name, isas[chosen].set->library());
    return text;
}

void *kernels_comm_ptr(const Dev *p) { return cpu_ptr(p); }

// ---- accounts ----

static struct { int64_t now, peak; } account[MEM_TAGS];

size_t kernels_quant_bytes(int bits, int64_t n) {
    return (size_t)ds_ceil_div(n, KERNEL_QUANT_BLOCK) * (sizeof(float) + KERNEL_QUANT_BLOCK / 8 * (size_t)bits);
}

const char *kernels_mem_name(MemTag tag) {
    static const char *const names[] = {"weights", "gradients",     "optimizer", "activations",
                                        "kv",      "communication", "host"};
    return names[tag];
}

int64_t kernels_mem_peak(MemTag tag) { return account[tag].peak; }

void kernels_mem_forget(void) {
    for (int tag = 0; tag < MEM_TAGS; tag++) account[tag].peak = account[tag].now;
}

void kernels_mem_count(MemTag tag, int64_t bytes) {
    account[tag].now += bytes;
    account[tag].peak = ds_max(account[tag].peak, account[tag].now);
}
