// launch.h: what the launcher says of this process before MPI has started. Not collective.
#ifndef DS_LAUNCH_H
#define DS_LAUNCH_H

// The rank that this process will have, by the launcher's environment (MPICH, Open MPI, PMIx, Slurm); -1: nobody says.
int launch_rank(void);

#endif
