// comm_mpi.h: what the files of this room share. Not for other rooms. Not collective.
#ifndef DS_COMM_MPI_H
#define DS_COMM_MPI_H

#include <mpi.h>

#include "comm/group.h"

struct Group {
    MPI_Comm comm;
    int rank, size;
    bool dry; // of a plan: nothing travels, only the bytes are counted
};

#endif
