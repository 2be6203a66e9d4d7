// world.c: start and end of MPI.
#include "comm/world.h"

#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static struct {
    bool started;
    int rank, size, node_ranks, node_count;
    MPI_Comm comm;
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
} world = {.size = 1, .node_ranks = 1, .node_count = 1};

static void abort_job(int code) { MPI_Abort(MPI_COMM_WORLD, code); }

static void count_nodes(void) {
    MPI_Comm node;
    int node_rank;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
    MPI_Comm_size(node, &world.node_ranks);
    MPI_Comm_rank(node, &node_rank);
    int first = node_rank == 0;
    MPI_Allreduce(&first, &world.node_count, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    MPI_Comm_free(&node);
}

void world_init(void) {
    if (world.started) return;
    int provided;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_dup(MPI_COMM_WORLD, &world.comm);
    MPI_Comm_rank(world.comm, &world.rank);
    MPI_Comm_size(world.comm, &world.size);
    int n;
    MPI_Get_library_version(world.version, &n);
    world.version[strcspn(world.version, "\n")] = 0;
    for (char *c = world.version; *c; c++)
        if (*c == '\t') *c = ' ';
    world.started = true;
    err_set_abort(abort_job, world.rank);
    log_init(world.rank);
    count_nodes();
}

void world_finalize(void) {
    if (!world.started) return;
    MPI_Comm_free(&world.comm);
    MPI_Finalize();
    world.started = false;
}

int world_rank(void) { return world.rank; }
int world_size(void) { return world.size; }
int world_node_ranks(void) { return world.node_ranks; }
int world_node_count(void) { return world.node_count; }
const char *world_mpi_version(void) { return world.version; }
const void *world_comm(void) { return &world.comm; }
