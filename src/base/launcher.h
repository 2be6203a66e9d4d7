// launcher.h: what started this process (mpirun, srun, ...) and as how many tasks, by the environment that it left. A
// program whose MPI does not speak the launcher's protocol becomes so many jobs of one rank each, side by side.
#ifndef DS_LAUNCHER_H
#define DS_LAUNCHER_H

#include "base/err.h"

// After MPI has started, with its number of ranks. DS_ERR_PARAMS if the launcher started more tasks than that: the
// first of them has the words (err_text), the others none, so that it is said once. Not collective: the same on all
// ranks of a job.
Err launcher_check(int ranks);

// The rank that this process will have, as the launcher says, -1 if it says nothing: for the time before MPI has
// started. Not collective.
int launcher_rank(void);

// The same of another process, by its environment as /proc/<pid>/environ shows it: block[n], entries that end in NUL,
// and one behind the last. Not collective.
int launcher_rank_in(const char *block, size_t n);

// Before the job is ended: waits until what this process wrote to stderr is past the launcher, which loses what it
// still holds when it ends a job (Hydra: about one message in 300 on a loaded machine). Not collective.
void launcher_pass_on(void);

#endif
