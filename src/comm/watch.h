// watch.h: how the watchdogs of a job (base/watchdog.h) find each other.
#ifndef DS_WATCH_H
#define DS_WATCH_H

#include <mpi.h>

// Gives the ranks of `node` one board of `size` slots; where memory cannot be shared each has its own. world.c calls
// it. Collective on node.
void watch_node(MPI_Comm node, int rank, int size);

#endif
