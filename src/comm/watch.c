// watch.c: the board is memory without a name, which the first rank of the node makes and the others open through it.
#include "comm/watch.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/output.h"
#include "base/watch_files.h"
#include "comm/agree.h"
#include "comm/comm_mpi.h"

static WatchBoard *board;
static int *board_local, board_ranks; // of this node

// Where the board is, as its maker tells the others.
typedef struct {
    uint64_t mark;
    int pid, fd;
} Place;

static const char sharing[] = "sharing a board";

// Another one for every board, of this start and of earlier ones.
static uint64_t new_mark(const void *of) {
    uint64_t mark = 0;
    if (getrandom(&mark, sizeof mark, 0) != sizeof mark) mark = (uint64_t)(uintptr_t)of ^ (uint64_t)getpid() << 32;
    return mark;
}

static WatchBoard *map_board(int fd, size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

// NULL: it cannot be made.
static WatchBoard *make_board(int size, Place *place) {
    const size_t bytes = watch_board_bytes(size);
    WatchBoard *b = NULL;
    place->pid = getpid();
    place->fd = memfd_create("dschat-watch", MFD_CLOEXEC);
    if (place->fd < 0) return NULL;
    if (fchmod(place->fd, 0600) == 0 && ftruncate(place->fd, (off_t)bytes) == 0) b = map_board(place->fd, bytes);
    if (b) place->mark = b->mark = new_mark(b);
    return b;
}

// NULL: it cannot be seen from here.
static WatchBoard *open_board(int size, const Place *place) {
    char path[64];
    const size_t bytes = watch_board_bytes(size);
    struct stat st;
    WatchBoard *b = NULL;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", place->pid, place->fd);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return NULL;
    if (fstat(fd, &st) == 0 && st.st_size == (off_t)bytes) b = map_board(fd, bytes);
    close(fd);
    if (b && b->mark != place->mark) { // the number means another process here
        munmap(b, bytes);
        b = NULL;
    }
    return b;
}

void watch_node(MPI_Comm node, int rank, int size) {
    Place place = {.fd = -1};
    int at, n;
    MPI_Comm_rank(node, &at);
    MPI_Comm_size(node, &n);
    int *local = MEM_NEW(int, n); // for the life of the process, as the board
    WatchBoard *b = at == 0 ? make_board(size, &place) : NULL;
    COMM_WATCHED(MPI_Bcast(&place, sizeof place, MPI_BYTE, 0, node), "MPI_Bcast", sharing);
    if (at > 0) b = open_board(size, &place);
    int all = b != NULL;
    COMM_WATCHED(MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_MIN, node), "MPI_Allreduce", sharing);
    COMM_WATCHED(MPI_Allgather(&rank, 1, MPI_INT, local, 1, MPI_INT, node), "MPI_Allgather", sharing);
    if (place.fd >= 0 && at == 0) close(place.fd); // all have it by now
    if (!all) {
        b = map_board(-1, watch_board_bytes(size));
        if (!b) err_fatal("out of memory: %zu bytes asked for", watch_board_bytes(size));
        b->mark = new_mark(b);
        local[0] = rank;
    }
    b->size = size;
    board = b;
    board_local = local;
    board_ranks = all ? n : 1;
    watchdog_join(b, rank, local, board_ranks);
}

// The first rank of each node, on all ranks; how many.
static int find_nodes(int *nodes) {
    const Group *world = group_world();
    int *first = MEM_NEW(int, world->size), n = 0;
    coll_allgather(world, &board_local[0], sizeof(int), first);
    for (int r = 0; r < world->size; r++)
        if (first[r] == r) nodes[n++] = r;
    mem_free(first);
    return n;
}

Err watch_share(const char *out) {
    Err err = DS_OK;
    const Group *world = group_world();
    int *nodes = MEM_NEW(int, world->size);
    const int n_nodes = find_nodes(nodes);
    uint64_t mark = board->mark;
    char *folder = mem_printf("%s/.watch", out);
    coll_bcast(world, &mark, sizeof mark, 0);
    if (world->rank == 0) err = file_remove_tree(folder); // of a start that was killed
    if (world->rank == 0 && !err && n_nodes > 1) err = output_folder_inside(folder);
    DS_TRY(agree_root(world, err));
    if (n_nodes > 1) {
        watch_files_start(board, folder, mark, world->rank, board_local, board_ranks, nodes, n_nodes);
        nodes = NULL; // the courier's, for the life of the process
    }
done:
    mem_free(folder);
    mem_free(nodes);
    return err;
}
