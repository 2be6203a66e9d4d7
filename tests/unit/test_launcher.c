// test_launcher.c: more tasks than ranks is refused and said once; what nests or is no step of a launcher is not.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/launcher.h"

static void clear(void) {
    static const char *const names[] = {"PMI_SIZE",
                                        "PMI_RANK",
                                        "PMIX_RANK",
                                        "OMPI_COMM_WORLD_SIZE",
                                        "OMPI_COMM_WORLD_RANK",
                                        "SLURM_STEP_NUM_TASKS",
                                        "SLURM_STEP_ID",
                                        "SLURM_NTASKS",
                                        "SLURM_NPROCS",
                                        "SLURM_PROCID",
                                        "MV2_COMM_WORLD_SIZE",
                                        "JSM_NAMESPACE_SIZE",
                                        "FLUX_JOB_SIZE"};
    for (int i = 0; i < DS_COUNT(names); i++) unsetenv(names[i]);
    err_clear();
}

// settings: "NAME=value NAME=value"; words: of the refusal, "" for one without, NULL: accepted.
static void check(const char *settings, int ranks, const char *words) {
    clear();
    char name[64], value[64];
    for (const char *s = settings; sscanf(s, "%63[^=]=%63s", name, value) == 2; s += strspn(s, " ")) {
        setenv(name, value, 1);
        s += strcspn(s, " ");
    }
    const Err err = launcher_check(ranks);
    if (!words) assert_int_equal(err, DS_OK);
    else assert_int_equal(err, DS_ERR_PARAMS);
    if (words && *words) assert_non_null(strstr(err_text(), words));
    else assert_string_equal(err_text(), "");
    clear();
}

static void test_refused(void **state) {
    (void)state;
    check("SLURM_STEP_NUM_TASKS=2 SLURM_STEP_ID=0 SLURM_NTASKS=2 SLURM_PROCID=0", 1, "srun --mpi=pmi2");
    check("SLURM_STEP_NUM_TASKS=2 SLURM_STEP_ID=0 SLURM_NTASKS=2 SLURM_PROCID=1", 1, "");
    check("PMI_SIZE=4 PMI_RANK=0", 1, "started 4 tasks (PMI_SIZE), but MPI has 1 rank:");
    check("PMI_SIZE=4 PMI_RANK=3", 2, "");
    check("OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=0", 1, "Open MPI's mpirun");
    check("PMIX_RANK=1", 1, "PMIX_RANK = 1");
}

static void test_accepted(void **state) {
    (void)state;
    check("", 1, NULL);
    check("", 64, NULL);
    check("SLURM_NTASKS=8 SLURM_NPROCS=8 SLURM_PROCID=0", 1, NULL); // in a batch script, or salloc's shell
    check("SLURM_STEP_NUM_TASKS=1 SLURM_NTASKS=8 SLURM_PROCID=0", 1, NULL);
    check("PMI_SIZE=1 PMI_RANK=0 SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1", 1,
          NULL); // mpirun -np 1 with helpers on two nodes
    check("PMI_SIZE=8 PMI_RANK=5 SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1", 8, NULL);
    check("SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1", 2, NULL);
    check("PMIX_RANK=0", 1, NULL);
    check("PMI_SIZE=two PMI_RANK=0", 1, NULL);
}

// The rank of this process, and of another one by its environment.
static void test_rank(void **state) {
    (void)state;
    static const char hydra[] = "XPMI_RANK=7\0PMI_RANK=2\0PMI_SIZE=4\0SLURM_PROCID=1\0", batch[] = "SLURM_PROCID=0\0",
                      srun[] = "SLURM_STEP_NUM_TASKS=8\0SLURM_PROCID=5\0", pmix[] = "PMIX_RANK=3\0";
    assert_int_equal(launcher_rank_in(hydra, sizeof hydra - 1), 2);
    assert_int_equal(launcher_rank_in(batch, sizeof batch - 1), -1);
    assert_int_equal(launcher_rank_in(srun, sizeof srun - 1), 5);
    assert_int_equal(launcher_rank_in(pmix, sizeof pmix - 1), 3);
    assert_int_equal(launcher_rank_in("", 0), -1);
    clear();
    assert_int_equal(launcher_rank(), -1);
    setenv("MV2_COMM_WORLD_SIZE", "4", 1);
    setenv("MV2_COMM_WORLD_RANK", "3", 1);
    assert_int_equal(launcher_rank(), 3);
    clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_refused), cmocka_unit_test(test_accepted),
                                       cmocka_unit_test(test_rank)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
