// cores.c: what each rank of the node may run on (the system's mask), in the order that hwloc finds in the machine.
#include "comm/cores.h"

#include <hwloc.h>
#include <sched.h>
#include <stdlib.h>

#include "base/mem.h"
#include "comm/coll.h"

// What the ranks of the node may run on.
typedef struct {
    int ranks, rank;
    cpu_set_t *may;   // [ranks]; empty: the system does not say
    bool same, apart; // all the same; no two share one
} NodeMasks;

static NodeMasks find_masks(void) {
    NodeMasks m = {.same = true, .apart = true};
    Group *node = group_split_node(group_world());
    cpu_set_t mine, both;
    if (sched_getaffinity(0, sizeof mine, &mine)) CPU_ZERO(&mine);
    m.ranks = group_size(node), m.rank = group_rank(node);
    m.may = MEM_NEW(cpu_set_t, m.ranks);
    coll_allgather(node, &mine, sizeof mine, m.may);
    group_destroy(&node);
    for (int a = 0; a < m.ranks; a++)
        for (int b = 0; b < a; b++) {
            CPU_AND(&both, &m.may[a], &m.may[b]);
            m.same = m.same && CPU_EQUAL(&m.may[a], &m.may[b]);
            m.apart = m.apart && CPU_COUNT(&both) == 0;
        }
    m.same = m.same && m.ranks > 1; // a rank alone has its own
    return m;
}

int cores_count(void) {
    NodeMasks m = find_masks();
    const int count = CPU_COUNT(&m.may[m.rank]) / (m.apart ? 1 : m.ranks);
    mem_free(m.may);
    return count > 1 ? count : 1;
}

// The hardware threads in `may`; returns how many. *out: fresh.
static int find_threads(const cpu_set_t *may, CoresThread **out) {
    hwloc_topology_t machine;
    int n = 0, core = -1;
    hwloc_obj_t last = NULL;
    *out = MEM_NEW(CoresThread, CPU_SETSIZE);
    if (hwloc_topology_init(&machine)) return 0;
    if (!hwloc_topology_load(machine))
        for (hwloc_obj_t x = NULL; (x = hwloc_get_next_obj_by_type(machine, HWLOC_OBJ_PU, x));) {
            if (x->os_index >= CPU_SETSIZE || !CPU_ISSET(x->os_index, may)) continue;
            hwloc_obj_t of = hwloc_get_ancestor_obj_by_type(machine, HWLOC_OBJ_CORE, x);
            if (!of || of != last) core++;
            last = of;
            (*out)[n++] = (CoresThread){(int)x->os_index, core, x->nodeset ? hwloc_bitmap_first(x->nodeset) : 0};
        }
    hwloc_topology_destroy(machine);
    return n;
}

// The part of t[first .. last) in the memory that has most of it, if its `unit`s are enough for the threads.
static void keep_one_memory(const CoresThread *t, bool by_core, int threads, int *first, int *last) {
    int best = 0, best_first = 0, best_last = 0;
    for (int i = *first, units = 0, begin = i; i < *last; i++) {
        if (t[i].memory != t[begin].memory) begin = i, units = 0;
        units += !by_core || i == begin || t[i].core != t[i - 1].core;
        if (units > best) best = units, best_first = begin;
        if (best_first == begin) best_last = i + 1;
    }
    if (best >= threads) *first = best_first, *last = best_last;
}

static int count_cores(const CoresThread *t, int n) {
    int cores = 0;
    for (int i = 0; i < n; i++) cores += i == 0 || t[i].core != t[i - 1].core;
    return cores;
}

int cores_divide(const CoresThread *t, int n, int ranks, int rank, int threads, int *cpu) {
    const int cores = count_cores(t, n);
    const bool by_core = cores >= ranks * threads;
    const int units = by_core ? cores : n, begin = (int)((int64_t)units * rank / ranks),
              end = (int)((int64_t)units * (rank + 1) / ranks);
    int first = n, last = 0, count = 0;
    if (units < ranks * threads) return 0;
    for (int i = 0, unit = -1; i < n; i++) {
        unit += !by_core || i == 0 || t[i].core != t[i - 1].core;
        if (unit < begin || unit >= end) continue;
        first = (int)ds_min(first, i);
        last = i + 1;
    }
    keep_one_memory(t, by_core, threads, &first, &last);
    for (int i = first; i < last; i++) cpu[count++] = t[i].cpu;
    return count;
}

int cores_share(int threads, int **cpu) {
    NodeMasks m = find_masks();
    int count = 0;
    const bool asked = getenv("OMP_PROC_BIND") || getenv("OMP_PLACES") || getenv("GOMP_CPU_AFFINITY");
    *cpu = NULL;
    if (!asked && (m.same || m.apart)) {
        CoresThread *t = NULL;
        const int n = find_threads(&m.may[m.rank], &t), ranks = m.apart ? 1 : m.ranks, all = ranks * threads;
        *cpu = MEM_NEW(int, n);
        if (all == n || all == count_cores(t, n)) // else another job may have its threads on the others
            count = cores_divide(t, n, ranks, m.apart ? 0 : m.rank, threads, *cpu);
        mem_free(t);
    }
    if (count == 0) MEM_FREE(*cpu);
    mem_free(m.may);
    return count;
}
