// group.c: a group is an MPI communicator of its own.
#include "comm/group.h"

#include "base/mem.h"
#include "comm/comm_mpi.h"
#include "comm/world.h"

void comm_check(int rc, const char *what) {
    char text[MPI_MAX_ERROR_STRING] = "no words for this error";
    int n;
    if (rc == MPI_SUCCESS) return;
    MPI_Error_string(rc, text, &n);
    err_fatal("%s failed: %s", what, text);
}

const Group *group_world(void) {
    static Group all;
    static GroupCount count;
    if (count.watch.n != world_size()) {
        int *ranks = MEM_NEW(int, world_size());
        for (int r = 0; r < world_size(); r++) ranks[r] = r;
        count.watch = (WatchGroup){1, world_size(), ranks};
    }
    all.count = &count;
    all.comm = *(const MPI_Comm *)world_comm();
    all.rank = world_rank();
    all.size = world_size();
    return &all;
}

// The ranks of a new part of g, numbered as the world does.
static void name_ranks(const Group *g, Group *part) {
    MPI_Group whole, own;
    int *in_own = MEM_NEW(int, part->size), *in_world = MEM_NEW(int, part->size);
    for (int r = 0; r < part->size; r++) in_own[r] = r;
    comm_check(MPI_Comm_group(group_world()->comm, &whole), "MPI_Comm_group");
    comm_check(MPI_Comm_group(part->comm, &own), "MPI_Comm_group");
    comm_check(MPI_Group_translate_ranks(own, part->size, in_own, whole, in_world), "MPI_Group_translate_ranks");
    MPI_Group_free(&whole);
    MPI_Group_free(&own);
    mem_free(in_own);
    part->count->watch = (WatchGroup){g->count->watch.id * 1000003 + g->count->parts, part->size, in_world};
}

static Group *finish_split(const Group *g, Group *part) {
    MPI_Comm_rank(part->comm, &part->rank);
    MPI_Comm_size(part->comm, &part->size);
    part->count = MEM_NEW(GroupCount, 1);
    g->count->parts++;
    name_ranks(g, part);
    watchdog_leave();
    return part;
}

Group *group_split(const Group *g, int color, int key) {
    Group *part = MEM_NEW(Group, 1);
    watchdog_wait("MPI_Comm_split", NULL, &g->count->watch, ++g->count->calls);
    comm_check(MPI_Comm_split(g->comm, color, key, &part->comm), "MPI_Comm_split");
    return finish_split(g, part);
}

Group *group_range(const Group *g, int first, int size) {
    return g->dry ? group_dry(g->rank - first, size) : group_split(g, first, g->rank);
}

Group *group_split_node(const Group *g) {
    Group *part = MEM_NEW(Group, 1);
    watchdog_wait("MPI_Comm_split_type", NULL, &g->count->watch, ++g->count->calls);
    comm_check(MPI_Comm_split_type(g->comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &part->comm),
               "MPI_Comm_split_type");
    return finish_split(g, part);
}

void group_destroy(Group **g) {
    if (!*g) return;
    GroupCount *count = (*g)->count;
    if (!(*g)->dry) {
        watchdog_wait("MPI_Comm_free", NULL, &count->watch, ++count->calls);
        comm_check(MPI_Comm_free(&(*g)->comm), "MPI_Comm_free");
        watchdog_leave();
    }
    mem_free((void *)(uintptr_t)count->watch.ranks);
    mem_free(count);
    MEM_FREE(*g);
}

Group *group_dry(int rank, int size) {
    Group *g = MEM_NEW(Group, 1);
    *g = (Group){.comm = MPI_COMM_NULL, .rank = rank, .size = size, .dry = true, .count = MEM_NEW(GroupCount, 1)};
    return g;
}

int group_rank(const Group *g) { return g->rank; }
int group_size(const Group *g) { return g->size; }
