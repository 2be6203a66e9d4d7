// coll.h: every exchange between ranks.
//
// One wait: nothing blocks inside MPI. Each operation starts non-blocking and is waited for in one loop that tests and
// yields the core, as a section of the watchdog (base/watchdog.h), which ends the job if the others do not come.
// All functions are Collective on their group: every rank calls them in the same order with matching sizes. MPI errors
// are fatal.
#ifndef DS_COLL_H
#define DS_COLL_H

#include "comm/group.h"

struct Kernels;

// Bytes this rank has sent so far to other ranks, by what the algorithm sends: in all, and of one kind. Not collective.
typedef enum { COLL_HOST, COLL_REDUCE_SCATTER, COLL_ALLGATHER, COLL_KINDS } CollKind;
int64_t coll_bytes_sent(void);
int64_t coll_bytes_sent_as(CollKind kind);
// The same within one group.
int64_t coll_group_sent_as(const Group *g, CollKind kind);

// A call of another library (PnetCDF) begins in which the ranks of g may wait for each other; watchdog_leave ends it.
// As watchdog_enter. Not collective.
void coll_outside(const Group *g, const char *doing, const char *what);

void coll_barrier(const Group *g);

// ---- host memory ----
void coll_bcast(const Group *g, void *data, size_t bytes, int root);
// x[n] = sum over ranks in rank order (the same bits everywhere). For a few scalars.
void coll_sum_f64(const Group *g, double *x, int64_t n);
void coll_sum_i64(const Group *g, int64_t *x, int64_t n);
void coll_max_f64(const Group *g, double *x, int64_t n);
void coll_max_i64(const Group *g, int64_t *x, int64_t n);
// all[size * bytes] = each rank's `mine`, in rank order.
void coll_allgather(const Group *g, const void *mine, size_t bytes, void *all);
// Ragged: *all (fresh, owner: caller, mem_free) = the ranks' bytes end to end in rank order; offset[size + 1] where
// each begins.
void coll_allgatherv(const Group *g, const void *mine, size_t bytes, void **all, size_t *offset);

// ---- device memory, fp32 unless a dtype is given ----
// Sum over ranks in one fixed binary tree (neighbours first: ((0+1)+(2+3))+...), whatever the group's size.
// x[n], n a multiple of the group's size: rank r ends with the sum in x[r * n/size ..); the rest of x is left
// undefined.
void coll_reduce_scatter(const Group *g, const struct Kernels *k, Dev *x, int64_t n);
// The same of x[n] dt (bf16 is also added in bf16).
void coll_reduce_scatter_dt(const Group *g, const struct Kernels *k, DType dt, Dev *x, int64_t n);
// The same by MPI's own sum, in its order.
void coll_reduce_scatter_library(const Group *g, const struct Kernels *k, Dev *x, int64_t n);
// Rank r gives x[r * part ..); all get x[size * part]. Elements of `elem_bytes`.
void coll_allgather_dev(const Group *g, Dev *x, int64_t part, size_t elem_bytes);
// The same, begun and not waited for: x must be left alone until coll_finish. All ranks begin and finish in the same
// order. *p must be zero or finished. coll_finish accepts a zero one.
typedef struct {
    const Group *g;
    void *requests;
    int n;
    uint64_t call;
} CollPending;
void coll_allgather_start(const Group *g, Dev *x, int64_t part, size_t elem_bytes, CollPending *p);
void coll_finish(CollPending *p);
// x[n] dt (fp32 or bf16, which is also added in bf16) = sum in the same tree, the same bits on every rank
// (reduce-scatter, then all-gather). Any n.
void coll_allreduce(const Group *g, const struct Kernels *k, DType dt, Dev *x, int64_t n);
// Slot r of `in` = this rank's slot of rank r's `out`; slots of `bytes` < 2 GiB, one a rank. The own slot of `in` is
// left alone. Counted as `kind`.
void coll_exchange_dev(const Group *g, CollKind kind, Dev *out, Dev *in, size_t bytes);

#endif
