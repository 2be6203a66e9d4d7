// comm_mpi.h: what the files of this room share. Not for other rooms. Not collective.
#ifndef DS_COMM_MPI_H
#define DS_COMM_MPI_H

#include <mpi.h>

#include "comm/coll.h"

struct Group {
    MPI_Comm comm;
    int rank, size;
    bool dry;      // of a plan: nothing travels, only the bytes are counted
    int64_t *sent; // [COLL_KINDS] bytes that this rank has sent within the group
};

#endif
