// launcher.c: see launcher.h. Launchers may be nested (mpirun in a Slurm job starts one helper a node as a Slurm step,
// which starts the ranks): the first row of the table that the environment has is the innermost.
#include "base/launcher.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { PASS_ON_MS = 300 };

static const struct {
    const char *size, *rank; // names of variables
    const char *name;        // of what sets them
} launchers[] = {
    {"PMI_SIZE", "PMI_RANK", "the launcher"}, // Hydra, srun --mpi=pmi2, PALS
    {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "Open MPI's mpirun"},
    {"MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "MVAPICH2's mpirun"},
    {"JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK", "jsrun"},
    {"FLUX_JOB_SIZE", "FLUX_TASK_RANK", "flux run"},
    // Of a step, which srun starts. SLURM_NTASKS and SLURM_PROCID are also in the environment of a batch script.
    {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "srun"},
};

// An environment as /proc shows it; no block: that of this process.
typedef struct {
    const char *block;
    size_t n;
} Environment;

static const char *get(Environment e, const char *name) {
    const size_t m = strlen(name);
    if (!e.block) return getenv(name);
    for (const char *s = e.block; s < e.block + e.n; s += strlen(s) + 1)
        if (!strncmp(s, name, m) && s[m] == '=') return s + m + 1;
    return NULL;
}

static long number_in(Environment e, const char *name) {
    const char *text = get(e, name);
    char *end = NULL;
    const long n = text && *text ? strtol(text, &end, 10) : -1;
    return end && !*end ? n : -1;
}

static long number(const char *name) { return number_in((Environment){0}, name); }

static int rank_in(Environment e) {
    for (int i = 0; i < DS_COUNT(launchers); i++)
        if (number_in(e, launchers[i].size) >= 1) return (int)number_in(e, launchers[i].rank);
    return (int)number_in(e, "PMIX_RANK");
}

int launcher_rank(void) { return rank_in((Environment){0}); }

int launcher_rank_in(const char *block, size_t n) { return rank_in((Environment){block, n}); }

Err launcher_check(int ranks) {
    for (int i = 0; i < DS_COUNT(launchers); i++) {
        const long tasks = number(launchers[i].size);
        if (tasks < 1) continue;
        if (tasks <= ranks) return DS_OK;
        if (number(launchers[i].rank) > 0) return DS_ERR_PARAMS;
        return err_set(DS_ERR_PARAMS,
                       "%s started %ld tasks (%s), but MPI has %d rank%s: each task would run the whole job by itself. "
                       "The launcher and this program's MPI do not speak the same protocol; in Slurm: srun --mpi=pmi2 "
                       "(srun --mpi=list shows what there is), elsewhere the mpirun that belongs to this MPI",
                       launchers[i].name, tasks, launchers[i].size, ranks, ranks == 1 ? "" : "s");
    }
    // PMIx (srun --mpi=pmix, prun) tells no size; a second task is seen by its rank.
    if (number("PMIX_RANK") < ranks) return DS_OK;
    return err_set(
        DS_ERR_PARAMS,
        "the launcher started more tasks (PMIX_RANK = %ld) than MPI has ranks (%d): each would run the whole "
        "job by itself; this program's MPI does not speak PMIx: srun --mpi=pmi2, or its own mpirun",
        number("PMIX_RANK"), ranks);
}

void launcher_pass_on(void) { poll(NULL, 0, PASS_ON_MS); } // nothing tells when it is through
