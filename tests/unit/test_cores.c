// test_cores.c: shares of hardware threads do not overlap, keep cores and memories whole where they can, and are
// refused where there are too few; threads of the kernels stay where they are told.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <omp.h>
#include <sched.h>
#include <stdlib.h>

#include "base/mem.h"
#include "comm/cores.h"
#include "comm/world.h"
#include "kernels/kernels.h"

enum { MOST = 64 };

// `memories` of `cores` each, with `twins` hardware threads a core. The system numbers twins far apart, as it does.
static int machine(int memories, int cores, int twins, CoresThread *t) {
    int n = 0;
    for (int c = 0; c < memories * cores; c++)
        for (int i = 0; i < twins; i++) t[n++] = (CoresThread){c + i * memories * cores, c, c / cores};
    return n;
}

// The shares of all ranks: at least `threads` each and none twice; `whole`: none in two memories.
static void check(int memories, int cores, int twins, int ranks, int threads, bool whole) {
    CoresThread t[MOST];
    int cpu[MOST], taken[MOST] = {0};
    const int n = machine(memories, cores, twins, t);
    for (int r = 0; r < ranks; r++) {
        const int count = cores_divide(t, n, ranks, r, threads, cpu);
        assert_true(count >= threads);
        for (int i = 0; i < count; i++) {
            assert_int_equal(taken[cpu[i]]++, 0);
            const int all = memories * cores, memory = cpu[i] % all / cores, first = cpu[0] % all / cores;
            assert_true(!whole || memory == first);
        }
    }
    for (int c = 0; twins == 2 && ranks * threads <= memories * cores && c < memories * cores; c++)
        assert_int_equal(taken[c], taken[c + memories * cores]); // twins stay together
}

static void divides_a_node(void **state) {
    (void)state;
    check(1, 2, 1, 2, 1, true);
    check(1, 2, 1, 1, 2, true);
    check(2, 8, 1, 4, 4, true);
    check(2, 8, 2, 4, 4, true);   // a core each
    check(2, 8, 2, 4, 8, true);   // both threads of a core
    check(2, 8, 2, 3, 5, false);  // the middle one needs both memories
    check(2, 8, 1, 3, 5, false);  // the same of cores with one thread each
    check(2, 8, 1, 3, 2, true);   // the middle one keeps to one
    check(1, 8, 1, 1, 3, true);   // more cores than threads
    check(2, 6, 2, 1, 12, false); // all of it
    check(4, 4, 1, 16, 1, true);
}

static void refuses_too_few(void **state) {
    (void)state;
    CoresThread t[MOST];
    int cpu[MOST];
    assert_int_equal(cores_divide(t, machine(1, 2, 1, t), 2, 0, 2, cpu), 0);
    assert_int_equal(cores_divide(t, machine(1, 2, 2, t), 2, 0, 2, cpu), 2); // twins suffice
    assert_int_equal(cores_divide(t, machine(1, 2, 2, t), 5, 4, 1, cpu), 0);
    assert_int_equal(cores_divide(t, 0, 1, 0, 1, cpu), 0);
}

// A rank alone has all that it may run on if it fills it; OpenMP's variables and too many threads leave it unbound.
static void shares_this_machine(void **state) {
    (void)state;
    cpu_set_t may;
    int *cpu = NULL;
    assert_int_equal(sched_getaffinity(0, sizeof may, &may), 0);
    assert_int_equal(cores_count(), CPU_COUNT(&may));
    const int n = cores_share(CPU_COUNT(&may), &cpu);
    assert_int_equal(n, CPU_COUNT(&may));
    for (int i = 0; i < n; i++) assert_true(CPU_ISSET(cpu[i], &may));
    mem_free(cpu);
    assert_int_equal(cores_share(CPU_COUNT(&may) + 1, &cpu), 0);
    assert_null(cpu);
    if (n > 2) assert_int_equal(cores_share(1, &cpu), 0); // with two threads a core, half of them fill the cores
    setenv("OMP_PROC_BIND", "close", 1);
    assert_int_equal(cores_share(n, &cpu), 0);
    unsetenv("OMP_PROC_BIND");
}

static void binds_threads(void **state) {
    (void)state;
    int *cpu = NULL, wrong = 0;
    const Kernels *k;
    const int n = cores_share(cores_count(), &cpu);
    assert_int_equal(n, cores_count());
    assert_int_equal(kernels_open("cpu", "auto", n, &k), DS_OK);
    kernels_bind(cpu, n);
#pragma omp parallel num_threads(n) reduction(+ : wrong)
    {
        const int i = omp_get_thread_num();
        cpu_set_t set;
        sched_getaffinity(0, sizeof set, &set);
        wrong += CPU_COUNT(&set) != (i ? 1 : n) || !CPU_ISSET(cpu[i], &set);
    }
    assert_int_equal(wrong, 0);
    mem_free(cpu);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(divides_a_node), cmocka_unit_test(refuses_too_few),
                                       cmocka_unit_test(shares_this_machine), cmocka_unit_test(binds_threads)};
    world_init();
    const int failed = cmocka_run_group_tests_name("cores", tests, NULL, NULL);
    world_finalize();
    return failed;
}
