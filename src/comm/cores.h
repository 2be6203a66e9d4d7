// cores.h: the hardware threads of a node, divided among the ranks of this job that run there.
#ifndef DS_CORES_H
#define DS_CORES_H

#include "base/types.h"

// How many hardware threads this rank has for itself: those that it may run on, divided by the ranks of its node if
// these may run on the same (a launcher that does not bind), or all of them if it has been given its own. At least 1.
// Collective on world.
int cores_count(void);

// Which ones its `threads` threads (the same on all ranks of a node) should run on: *cpu (fresh, owner: caller,
// mem_free) = the system's numbers, neighbours in the machine next to each other; returns how many, at least `threads`.
// 0, with *cpu NULL, where it is better to leave all to the system: OpenMP's own variables say where threads go
// (OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY), threads are fewer than cores (another job may have the others) or
// more than hardware threads, or ranks may run on some of the same but not on all. Collective on world.
int cores_share(int threads, int **cpu);

// A hardware thread: the system's number; its core and its memory (NUMA node), numbered in the order in which they
// appear.
typedef struct {
    int cpu, core, memory;
} CoresThread;

// The rule: t[n], in the machine's order, divided among `ranks`: cpu[n] = the share of `rank`, at least `threads`;
// returns how many, 0 if there are too few. Shares do not overlap. Cores are not divided where there is one for each
// thread; a share that spans memories shrinks to one of them that has enough for its threads. Not collective.
int cores_divide(const CoresThread *t, int n, int ranks, int rank, int threads, int *cpu);

#endif
