// bind.c: threads of the OpenMP team to hardware threads.
#include <omp.h>
#include <sched.h>

#include "kernels/cpu/cpu.h"

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
