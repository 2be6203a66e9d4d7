// world.h: the processes of this job. Only src/comm names MPI or NCCL.
#ifndef DS_WORLD_H
#define DS_WORLD_H

#include "base/err.h"

// Starts MPI, installs MPI_Abort behind err_fatal, tells the log its rank. Collective on world. A second call does
// nothing.
void world_init(void);

// Ends MPI; after world_init only. Collective on world.
void world_finalize(void);

// Not collective. Before world_init: rank 0 of 1.
int world_rank(void);
int world_size(void);
int world_node_ranks(void); // ranks of this job on this rank's node
int world_node_count(void);

// The version of the MPI library as loaded, one line. Not collective.
const char *world_mpi_version(void);

// The communicator and info object that parallel file libraries want (MPI_Comm *, MPI_Info *). Not collective.
const void *world_comm(void);

#endif
