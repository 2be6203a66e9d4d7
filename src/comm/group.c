// group.c: a group is an MPI communicator of its own.
#include "comm/group.h"

#include "base/mem.h"
#include "comm/comm_mpi.h"
#include "comm/world.h"

const Group *group_world(void) {
    static Group all;
    static int64_t sent[COLL_KINDS];
    all.sent = sent;
    all.comm = *(const MPI_Comm *)world_comm();
    all.rank = world_rank();
    all.size = world_size();
    return &all;
}

Group *group_split(const Group *g, int color, int key) {
    Group *part = MEM_NEW(Group, 1);
    if (MPI_Comm_split(g->comm, color, key, &part->comm) != MPI_SUCCESS) err_fatal("MPI_Comm_split failed");
    MPI_Comm_rank(part->comm, &part->rank);
    MPI_Comm_size(part->comm, &part->size);
    part->sent = MEM_NEW(int64_t, COLL_KINDS);
    return part;
}

Group *group_range(const Group *g, int first, int size) {
    return g->dry ? group_dry(g->rank - first, size) : group_split(g, first, g->rank);
}

Group *group_split_node(const Group *g) {
    Group *part = MEM_NEW(Group, 1);
    if (MPI_Comm_split_type(g->comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &part->comm) != MPI_SUCCESS)
        err_fatal("MPI_Comm_split_type failed");
    MPI_Comm_rank(part->comm, &part->rank);
    MPI_Comm_size(part->comm, &part->size);
    part->sent = MEM_NEW(int64_t, COLL_KINDS);
    return part;
}

void group_destroy(Group **g) {
    if (!*g) return;
    if (!(*g)->dry) MPI_Comm_free(&(*g)->comm);
    mem_free((*g)->sent);
    MEM_FREE(*g);
}

Group *group_dry(int rank, int size) {
    Group *g = MEM_NEW(Group, 1);
    *g = (Group){.comm = MPI_COMM_NULL, .rank = rank, .size = size, .dry = true, .sent = MEM_NEW(int64_t, COLL_KINDS)};
    return g;
}

int group_rank(const Group *g) { return g->rank; }
int group_size(const Group *g) { return g->size; }
