// job.h: the run on one page.
#ifndef DS_JOB_H
#define DS_JOB_H

#include "base/err.h"

// Runs (or goes on with) the job of a params file with overrides; starts and ends MPI. Returns the exit code.
// Collective on world.
Err job_run(const char *params_path, int n_overrides, char **overrides);

// The commit the program was built from. Not collective.
const char *job_commit(void);

#endif
