// kernels.c: choosing a backend, and what is said about it.
#include "kernels/kernels.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

uintptr_t cpu_bias;
int cpu_threads = 1;

// A backend that forgot an operation must not start: the table is a row of pointers.
static bool is_complete(const Kernels *table) {
    for (size_t at = 0; at < sizeof *table; at += sizeof(void *)) {
        void *slot;
        memcpy(&slot, (const char *)table + at, sizeof slot);
        if (!slot) return false;
    }
    return true;
}

Err kernels_open(const char *device, int threads, const Kernels **out) {
    Err err = DS_OK;
    const char *guard = getenv("DSCHAT_GUARD");
    DS_CHECK(strcmp(device, "cpu") == 0, DS_ERR_PARAMS, "device \"%s\": this program was built for \"cpu\" only",
             device);
    DS_CHECK(threads >= 1, DS_ERR_PARAMS, "threads = %d: expected 1 or more", threads);
    DS_CHECK(is_complete(&cpu_kernels), DS_ERR_BUG, "the cpu backend lacks an operation");
    cpu_bias = guard && strcmp(guard, "1") == 0 ? CPU_GUARD_BIAS : 0;
    cpu_threads = threads;
    omp_set_num_threads(threads);
    *out = &cpu_kernels;
done:
    return err;
}

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

bool kernels_has_bf16(void) { return linear_bf16_is_native(); }

const char *kernels_describe(void) { return cpu_describe(); }

void *kernels_comm_ptr(const Dev *p) { return cpu_ptr(p); }
