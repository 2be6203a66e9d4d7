// world.c: start and end of MPI.
#include "comm/world.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "comm/comm_mpi.h"

static struct {
    bool started;
    int rank, size, node_ranks, node_count;
    MPI_Comm comm;
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
} world = {.size = 1, .node_ranks = 1, .node_count = 1};

static void abort_job(int code) { MPI_Abort(MPI_COMM_WORLD, code); }

// In place of the library's own, by whose second name parts of it end the job when they give up (ROMIO, when it is out
// of memory), with codes of theirs.
int PMPI_Abort(MPI_Comm comm, int code) {
    static bool again;
    (void)comm;
    if (again) exit(DS_ERR_BUG); // lint: a library whose MPI_Abort comes here
    again = true;
    err_fatal("the MPI library gives up with code %d, for want of memory if it says nothing else", code);
}

// Errors come back as codes from here on: the words are ours, and so is the exit code.
static void start_mpi(void) {
    int provided = -1;
    COMM_WATCHED(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread", NULL);
    MPI_Comm_rank(MPI_COMM_WORLD, &world.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world.size);
    err_set_abort(abort_job, world.rank);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
    if (provided < MPI_THREAD_FUNNELED)
        err_fatal("this MPI library does not let a program have threads: MPI_Init_thread gives level %d, needed is %d "
                  "(MPI_THREAD_FUNNELED)",
                  provided, MPI_THREAD_FUNNELED);
}

static void look_around(void) {
    MPI_Comm node;
    int node_rank;
    COMM_WATCHED(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node),
                 "MPI_Comm_split_type", NULL);
    MPI_Comm_size(node, &world.node_ranks);
    MPI_Comm_rank(node, &node_rank);
    int first = node_rank == 0;
    COMM_WATCHED(MPI_Allreduce(&first, &world.node_count, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD), "MPI_Allreduce", NULL);
    watch_node(node, world.rank, world.size);
    COMM_WATCHED(MPI_Comm_free(&node), "MPI_Comm_free", NULL);
}

void world_init(void) {
    if (world.started) return;
    start_mpi();
    COMM_WATCHED(MPI_Comm_dup(MPI_COMM_WORLD, &world.comm), "MPI_Comm_dup", NULL);
    int n;
    MPI_Get_library_version(world.version, &n);
    world.version[strcspn(world.version, "\n")] = 0;
    for (char *c = world.version; *c; c++)
        if (*c == '\t') *c = ' ';
    world.started = true;
    log_init(world.rank);
    look_around();
}

void world_finalize(void) {
    if (!world.started) return;
    coll_outside(group_world(), "MPI_Comm_free", "of all ranks");
    comm_check(MPI_Comm_free(&world.comm), "MPI_Comm_free");
    watchdog_leave();
    coll_outside(group_world(), "MPI_Finalize", NULL);
    comm_check(MPI_Finalize(), "MPI_Finalize");
    watchdog_leave();
    world.started = false;
}

int world_rank(void) { return world.rank; }
int world_size(void) { return world.size; }
int world_node_ranks(void) { return world.node_ranks; }
int world_node_count(void) { return world.node_count; }
const char *world_mpi_version(void) { return world.version; }
const void *world_comm(void) { return &world.comm; }
