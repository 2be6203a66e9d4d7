// coll.c: non-blocking starts and the one wait.
//
// Device sums: every rank sends the parts of its buffer to the ranks that own them and adds what arrives in a binary
// tree over rank numbers. The volume is the least possible, (d-1)/d of the buffer, the order of the sum does not depend
// on timing, and any number of ranks works. Large buffers go in segments, so that the staging memory stays small.
#include "comm/coll.h"

#include <sched.h>
#include <string.h>

#include "base/mem.h"
#include "comm/comm_mpi.h"
#include "kernels/kernels.h"

static struct { int64_t sent, sent_as[COLL_KINDS]; } coll;

int64_t coll_bytes_sent(void) { return coll.sent; }
int64_t coll_bytes_sent_as(CollKind kind) { return coll.sent_as[kind]; }

int64_t coll_group_sent_as(const Group *g, CollKind kind) { return g->count->sent[kind]; }

static void count_sent(const Group *g, CollKind kind, int64_t bytes) {
    g->count->sent[kind] += bytes;
    coll.sent += bytes;
    coll.sent_as[kind] += bytes;
}

// An exchange begins; returns its number in the group.
static uint64_t enter(const Group *g, const char *what) {
    watchdog_wait(what, NULL, &g->count->watch, ++g->count->calls);
    return g->count->calls;
}

void coll_outside(const Group *g, const char *doing, const char *what) {
    watchdog_wait(doing, what, &g->count->watch, g->count->calls);
}

// The one wait; the exchange ends with it.
static void wait_all(MPI_Request *req, int n, const char *what) {
    for (int64_t tries = 0;; tries++) {
        int done;
        comm_check(MPI_Testall(n, req, &done, MPI_STATUSES_IGNORE), what);
        if (done) break;
        if (tries >= 32) sched_yield();
    }
    watchdog_leave();
}

static int as_int(size_t n, const char *what) {
    if (n > INT32_MAX) err_fatal("%s of %zu elements in one call", what, n);
    return (int)n;
}

void coll_barrier(const Group *g) {
    if (g->size == 1) return;
    MPI_Request req;
    enter(g, "barrier");
    comm_check(MPI_Ibarrier(g->comm, &req), "barrier");
    wait_all(&req, 1, "barrier");
}

void coll_bcast(const Group *g, void *data, size_t bytes, int root) {
    if (g->size == 1) return;
    const size_t piece = (size_t)1 << 30;
    for (size_t at = 0; at < bytes; at += piece) {
        size_t n = bytes - at < piece ? bytes - at : piece;
        MPI_Request req;
        enter(g, "broadcast");
        comm_check(MPI_Ibcast((char *)data + at, (int)n, MPI_BYTE, root, g->comm, &req), "broadcast");
        wait_all(&req, 1, "broadcast");
    }
    if (g->rank == root) count_sent(g, COLL_HOST, (int64_t)bytes * (g->size - 1));
}

void coll_allgather(const Group *g, const void *mine, size_t bytes, void *all) {
    if (g->size == 1) {
        memcpy(all, mine, bytes);
        return;
    }
    int n = as_int(bytes, "all-gather");
    MPI_Request req;
    enter(g, "all-gather");
    comm_check(MPI_Iallgather(mine, n, MPI_BYTE, all, n, MPI_BYTE, g->comm, &req), "all-gather");
    wait_all(&req, 1, "all-gather");
    count_sent(g, COLL_HOST, (int64_t)bytes * (g->size - 1));
}

void coll_allgatherv(const Group *g, const void *mine, size_t bytes, void **all, size_t *offset) {
    uint64_t my_bytes = bytes, *each = MEM_NEW(uint64_t, g->size);
    coll_allgather(g, &my_bytes, sizeof my_bytes, each);
    int *count = MEM_NEW(int, g->size), *start = MEM_NEW(int, g->size);
    offset[0] = 0;
    for (int r = 0; r < g->size; r++) {
        offset[r + 1] = offset[r] + each[r];
        count[r] = as_int(each[r], "all-gather");
        start[r] = as_int(offset[r], "all-gather");
    }
    *all = mem_alloc(offset[g->size]);
    MPI_Request req;
    enter(g, "all-gather");
    comm_check(MPI_Iallgatherv(mine, (int)bytes, MPI_BYTE, *all, count, start, MPI_BYTE, g->comm, &req), "all-gather");
    wait_all(&req, 1, "all-gather");
    count_sent(g, COLL_HOST, (int64_t)bytes * (g->size - 1));
    mem_free(each);
    mem_free(count);
    mem_free(start);
}

void coll_sum_f64(const Group *g, double *x, int64_t n) {
    if (g->size == 1) return;
    double *all = MEM_NEW(double, n * g->size);
    coll_allgather(g, x, (size_t)n * sizeof *x, all);
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int r = 0; r < g->size; r++) sum += all[r * n + i];
        x[i] = sum;
    }
    mem_free(all);
}

static void reduce_host(const Group *g, void *x, int64_t n, MPI_Datatype type, MPI_Op op) {
    if (g->size == 1) return;
    MPI_Request req;
    enter(g, "reduction");
    comm_check(MPI_Iallreduce(MPI_IN_PLACE, x, as_int((size_t)n, "reduction"), type, op, g->comm, &req), "reduction");
    wait_all(&req, 1, "reduction");
    count_sent(g, COLL_HOST, n * 8);
}

void coll_sum_i64(const Group *g, int64_t *x, int64_t n) { reduce_host(g, x, n, MPI_INT64_T, MPI_SUM); }
void coll_max_f64(const Group *g, double *x, int64_t n) { reduce_host(g, x, n, MPI_DOUBLE, MPI_MAX); }
void coll_max_i64(const Group *g, int64_t *x, int64_t n) { reduce_host(g, x, n, MPI_INT64_T, MPI_MAX); }

enum { SEGMENT = 1 << 20 }; // elements of each rank's part that travel at a time

// Staging for what arrives: one segment from each rank. Kept for the life of the process.
static Dev *staging(const Kernels *k, int size) {
    static Dev *buffer;
    static int have;
    static const Kernels *owner;
    if (have < size || owner != k) {
        if (buffer) owner->mem_destroy(buffer);
        owner = k;
        buffer = k->mem_create((size_t)size * SEGMENT * sizeof(float), MEM_COMM);
        have = size;
    }
    return buffer;
}

// slot[0] = sum of slot[0 .. size) in a binary tree, neighbours first.
static void add_tree(const Kernels *k, DType dt, Dev *stage, int size, int64_t n) {
    const size_t slot = SEGMENT * sizeof(float);
    for (int step = 1; step < size; step *= 2)
        for (int r = 0; r + step < size; r += 2 * step)
            k->add(dt, dev_at(stage, (size_t)r * slot), dev_cat(stage, (size_t)(r + step) * slot), n);
}

// n elements of every rank's part, from element `at` on: all to all, summed, put in place.
static void reduce_segment(const Group *g, const Kernels *k, DType dt, Dev *x, Dev *stage, int64_t part, int64_t at,
                           int64_t n) {
    const size_t slot = SEGMENT * sizeof(float), e = dtype_bytes(dt), bytes = (size_t)n * e;
    MPI_Request *req = MEM_NEW(MPI_Request, 2 * g->size);
    int n_req = 0;
    enter(g, "reduce-scatter");
    for (int r = 0; r < g->size; r++) {
        Dev *own = dev_at(x, (size_t)(r * part + at) * e);
        if (r == g->rank) {
            k->copy(dev_at(stage, (size_t)r * slot), own, bytes);
            continue;
        }
        void *in = kernels_comm_ptr(dev_at(stage, (size_t)r * slot));
        comm_check(MPI_Irecv(in, (int)bytes, MPI_BYTE, r, 0, g->comm, &req[n_req++]), "reduce-scatter");
        comm_check(MPI_Isend(kernels_comm_ptr(own), (int)bytes, MPI_BYTE, r, 0, g->comm, &req[n_req++]),
                   "reduce-scatter");
    }
    wait_all(req, n_req, "reduce-scatter");
    add_tree(k, dt, stage, g->size, n);
    k->copy(dev_at(x, (size_t)(g->rank * part + at) * e), stage, bytes);
    mem_free(req);
}

void coll_reduce_scatter_dt(const Group *g, const Kernels *k, DType dt, Dev *x, int64_t n) {
    if (g->size == 1 || n == 0) return;
    if (n % g->size) err_fatal("reduce-scatter of %lld elements over %d ranks", (long long)n, g->size);
    const int64_t part = n / g->size;
    Dev *stage = staging(k, g->size);
    count_sent(g, COLL_REDUCE_SCATTER, part * (g->size - 1) * (int64_t)dtype_bytes(dt));
    for (int64_t at = 0; at < part && !g->dry; at += SEGMENT)
        reduce_segment(g, k, dt, x, stage, part, at, ds_min(SEGMENT, part - at));
}

void coll_reduce_scatter(const Group *g, const Kernels *k, Dev *x, int64_t n) {
    coll_reduce_scatter_dt(g, k, DS_F32, x, n);
}

void coll_reduce_scatter_library(const Group *g, const Kernels *k, Dev *x, int64_t n) {
    if (g->size == 1 || n == 0) return;
    if (n % g->size) err_fatal("reduce-scatter of %lld elements over %d ranks", (long long)n, g->size);
    const int64_t part = n / g->size;
    count_sent(g, COLL_REDUCE_SCATTER, part * (g->size - 1) * (int64_t)sizeof(float));
    if (g->dry) return;
    MPI_Request req;
    enter(g, "reduce-scatter");
    comm_check(MPI_Ireduce_scatter_block(MPI_IN_PLACE, kernels_comm_ptr(x), as_int((size_t)part, "reduce-scatter"),
                                         MPI_FLOAT, MPI_SUM, g->comm, &req),
               "reduce-scatter");
    wait_all(&req, 1, "reduce-scatter");
    if (g->rank > 0) k->copy(dev_at(x, (size_t)(g->rank * part) * sizeof(float)), x, (size_t)part * sizeof(float));
}

void coll_allgather_start(const Group *g, Dev *x, int64_t part, size_t elem_bytes, CollPending *p) {
    *p = (CollPending){.g = g};
    if (g->size == 1 || part == 0) return;
    if (g->dry) {
        count_sent(g, COLL_ALLGATHER, part * (int64_t)elem_bytes * (g->size - 1));
        return;
    }
    const int64_t piece = ((int64_t)1 << 30) / (int64_t)elem_bytes;
    char *base = kernels_comm_ptr(x);
    MPI_Request *req = MEM_NEW(MPI_Request, 2 * g->size * ds_ceil_div(part, piece));
    p->call = enter(g, "all-gather");
    for (int64_t at = 0; at < part; at += piece) {
        int bytes = (int)(ds_min(piece, part - at) * (int64_t)elem_bytes);
        char *mine = base + (size_t)(g->rank * part + at) * elem_bytes;
        for (int r = 0; r < g->size; r++) {
            if (r == g->rank) continue;
            char *in = base + (size_t)(r * part + at) * elem_bytes;
            comm_check(MPI_Irecv(in, bytes, MPI_BYTE, r, 1, g->comm, &req[p->n++]), "all-gather");
            comm_check(MPI_Isend(mine, bytes, MPI_BYTE, r, 1, g->comm, &req[p->n++]), "all-gather");
        }
        count_sent(g, COLL_ALLGATHER, (int64_t)bytes * (g->size - 1));
    }
    p->requests = req;
    watchdog_leave();
}

void coll_finish(CollPending *p) {
    if (p->n) {
        watchdog_wait("all-gather", NULL, &p->g->count->watch, p->call);
        wait_all(p->requests, p->n, "all-gather");
    }
    mem_free(p->requests);
    *p = (CollPending){0};
}

void coll_allgather_dev(const Group *g, Dev *x, int64_t part, size_t elem_bytes) {
    CollPending p;
    coll_allgather_start(g, x, part, elem_bytes, &p);
    coll_finish(&p);
}

// Slot r of every rank's staging = the first `bytes` of rank r's slot r.
static void gather_rest(const Group *g, Dev *stage, int bytes, size_t slot) {
    char *base = kernels_comm_ptr(stage), *mine = base + (size_t)g->rank * slot;
    MPI_Request *req = MEM_NEW(MPI_Request, 2 * g->size);
    int n_req = 0;
    enter(g, "all-reduce");
    for (int r = 0; r < g->size; r++) {
        if (r == g->rank) continue;
        comm_check(MPI_Irecv(base + (size_t)r * slot, bytes, MPI_BYTE, r, 2, g->comm, &req[n_req++]), "all-reduce");
        comm_check(MPI_Isend(mine, bytes, MPI_BYTE, r, 2, g->comm, &req[n_req++]), "all-reduce");
    }
    wait_all(req, n_req, "all-reduce");
    count_sent(g, COLL_ALLGATHER, (int64_t)bytes * (g->size - 1));
    mem_free(req);
}

void coll_allreduce(const Group *g, const Kernels *k, DType dt, Dev *x, int64_t n) {
    if (g->size == 1) return;
    const int64_t part = n / g->size, even = part * g->size;
    const size_t e = dtype_bytes(dt);
    coll_reduce_scatter_dt(g, k, dt, x, even);
    coll_allgather_dev(g, x, part, e);
    if (n == even || g->dry) return;
    // The few elements left over: every rank sums all of them in the same tree.
    Dev *stage = staging(k, g->size), *rest = dev_at(x, (size_t)even * e);
    const size_t bytes = (size_t)(n - even) * e, slot = SEGMENT * sizeof(float);
    k->copy(dev_at(stage, (size_t)g->rank * slot), rest, bytes);
    gather_rest(g, stage, (int)bytes, slot);
    add_tree(k, dt, stage, g->size, n - even);
    k->copy(rest, stage, bytes);
}

void coll_exchange_dev(const Group *g, CollKind kind, Dev *out, Dev *in, size_t bytes) {
    const int n = as_int(bytes, "exchange");
    if (g->size == 1 || n == 0) return;
    count_sent(g, kind, (int64_t)bytes * (g->size - 1));
    if (g->dry) return;
    char *to = kernels_comm_ptr(out), *from = kernels_comm_ptr(in);
    MPI_Request *req = MEM_NEW(MPI_Request, 2 * g->size);
    int n_req = 0;
    enter(g, "exchange");
    for (int r = 0; r < g->size; r++) {
        if (r == g->rank) continue;
        comm_check(MPI_Irecv(from + (size_t)r * bytes, n, MPI_BYTE, r, 3, g->comm, &req[n_req++]), "exchange");
        comm_check(MPI_Isend(to + (size_t)r * bytes, n, MPI_BYTE, r, 3, g->comm, &req[n_req++]), "exchange");
    }
    wait_all(req, n_req, "exchange");
    mem_free(req);
}
