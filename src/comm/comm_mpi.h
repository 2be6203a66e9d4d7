// comm_mpi.h: what the files of this room share. Not for other rooms. Not collective.
#ifndef DS_COMM_MPI_H
#define DS_COMM_MPI_H

#include <mpi.h>

#include "base/watchdog.h"
#include "comm/coll.h"

typedef struct {
    int64_t sent[COLL_KINDS]; // bytes that this rank has sent within the group
    uint64_t calls, parts;    // exchanges; groups made of it
    WatchGroup watch;
} GroupCount;

struct Group {
    MPI_Comm comm;
    int rank, size;
    bool dry; // of a plan: nothing travels, only the bytes are counted
    GroupCount *count;
};

// Gives the ranks of `node` one board of `size` slots (base/watchdog.h); where memory cannot be shared each has its
// own. world.c calls it. Collective on node.
void watch_node(MPI_Comm node, int rank, int size);

// Fatal, with the library's words, unless rc is MPI_SUCCESS.
void comm_check(int rc, const char *what);

// One blocking call of MPI, under watch.
#define COMM_WATCHED(call, name, what)                                                                                 \
    do {                                                                                                               \
        watchdog_enter(WATCH_WAIT, (name), (what));                                                                    \
        comm_check((call), (name));                                                                                    \
        watchdog_leave();                                                                                              \
    } while (0)

#endif
