// zero_grad.c: from a micro-batch's gradients to the step's.
#include "base/mem.h"
#include "comm/coll_quant.h"
#include "zero/zero_work.h"

void zero_step_begin(ZeroState *z) {
    z->turn = 0;
    if (z->sum.data) store_zero(&z->sum);
    else store_zero(&z->g);
}

static size_t block_bytes(const ZeroState *z, int block) {
    return (size_t)(z->grad_map.start[block + 1] - z->grad_map.start[block]) * sizeof(float);
}

void zero_grad_open(ZeroState *z, int block) {
    if (z->sum.data) z->k->zero(zero_work_grads(z, block), block_bytes(z, block));
}

// Adds this rank's part of lane number `at` of its `turns` lanes to the tree over them, and the tree's root to the sum.
static void fold(ZeroState *z, int block, Dev *part, int64_t n) {
    const int turns = z->layout->turns, at = (int)(z->turn % turns);
    const bool last = at == turns - 1;
    int k = 0;
    for (; last ? at >> k : at >> k & 1; k++) {
        if (!(at >> k & 1)) continue;
        Dev *waiting = store_at(&z->level[k], block, 0);
        z->k->add(DS_F32, waiting, part, n);
        part = waiting;
    }
    if (last) z->k->add(DS_F32, store_at(&z->sum, block, 0), part, n);
    else z->k->copy(store_at(&z->level[k], block, 0), part, (size_t)n * sizeof(float));
}

// What tensor ranks that keep the same weights have computed of their gradients, each from its own heads.
static void sum_shared(ZeroState *z, int block) {
    for (int i = 0; i < z->weights->n; i++) {
        const Weight *w = &z->weights->w[i];
        if (w->block != block || w->grad == W_GRAD_SAME) continue;
        coll_allreduce(w->grad == W_GRAD_SUM_KV ? z->kv : z->layout->tensor, z->k, DS_F32, zero_grad(z, block, w->role),
                       w->count);
    }
}

void zero_grad_close(ZeroState *z, int block) {
    if (z->sum.data) {
        sum_shared(z, block);
        const Layout *l = z->layout;
        const int64_t part = z->grad_map.part[block];
        Dev *g = zero_work_grads(z, block), *own = dev_at(g, (size_t)(group_rank(l->zero) * part) * sizeof(float));
        const int64_t n = part * z->grad_map.shards;
        if (z->room) coll_quant_reduce_scatter(l->zero, z->k, z->quant.gradient_bits, g, n, z->room);
        else coll_reduce_scatter(l->zero, z->k, g, n);
        coll_allreduce(l->copies, z->k, DS_F32, own, part);
        fold(z, block, own, part);
    }
    if (block == 0) z->turn++;
}

// What this rank owns of a block is summed in its place among the whole block's gradients.
static void sum_by_library(ZeroState *z, Dev *whole, Dev *own, int64_t part) {
    coll_reduce_scatter_library(z->layout->zero, z->k, whole, part * z->grad_map.shards);
    coll_allreduce(z->layout->copies, z->k, DS_F32, own, part);
}

void zero_grad_finish(ZeroState *z) {
    const int rank = group_rank(z->layout->zero);
    for (int b = 0; z->g.data && b < z->grad_map.blocks; b++) {
        const int64_t part = z->grad_map.part[b];
        Dev *whole = store_at(&z->g, b, 0), *own = dev_at(whole, (size_t)(rank * part) * sizeof(float));
        if (!z->sum.data) {
            sum_shared(z, b);
            sum_by_library(z, whole, own, part);
        }
        if (z->stage > 0) continue;
        if (z->sum.data) z->k->copy(own, store_at(&z->sum, b, 0), (size_t)part * sizeof(float));
        coll_allgather_dev(z->layout->zero, whole, part, sizeof(float));
    }
}

// part[c] += sum of squares of the gradients [from, to) of a block that lie in its chunk c. out: scratch as long as
// part.
static void add_range(const ZeroState *z, int block, int64_t from, int64_t to, double *part, double *out) {
    while (from < to) {
        // To the end of a chunk; or, from the beginning of one, as many chunks as there are, the last one shorter.
        const int64_t rest = SHARD_QUANTUM - from % SHARD_QUANTUM,
                      n = rest == SHARD_QUANTUM ? to - from : ds_min(rest, to - from);
        z->k->sumsq(out, zero_grad_sum(z, block, from), n, SHARD_QUANTUM);
        for (int64_t c = 0; c < ds_ceil_div(n, SHARD_QUANTUM); c++) part[from / SHARD_QUANTUM + c] += out[c];
        from += n;
    }
}

// The same for what this rank owns of the weights that it counts: neighbours among them are one range.
static void add_block(const ZeroState *z, int block, double *part, double *out) {
    const WeightList *list = z->weights;
    int64_t first, count;
    shard_range(&z->map, block, z->shard, &first, &count);
    for (int i = 0; i < list->n; i++) {
        if (list->w[i].block != block || !list->w[i].mine) continue;
        const int64_t from = list->w[i].offset;
        while (i + 1 < list->n && list->w[i + 1].block == block && list->w[i + 1].mine) i++;
        add_range(z, block, ds_max(from, first), ds_min(list->w[i].offset + list->w[i].count, first + count), part,
                  out);
    }
}

double zero_grad_sumsq(const ZeroState *z) {
    const ShardMap *m = &z->map;
    int64_t chunks = 0, at = 0;
    for (int b = 0; b < m->blocks; b++) chunks += ds_ceil_div(m->count[b], SHARD_QUANTUM);
    double *part = MEM_NEW(double, 2 * chunks), sum = 0;
    for (int b = 0; b < m->blocks; at += ds_ceil_div(m->count[b++], SHARD_QUANTUM))
        add_block(z, b, part + at, part + chunks);
    // A chunk has one owner, so that the sum over ranks adds zeros to it and changes no bit.
    if (m->shards > 1) coll_sum_f64(z->layout->zero, part, chunks);
    for (int64_t c = 0; c < chunks; c++) sum += part[c];
    coll_sum_f64(z->layout->tensor, &sum, 1);
    mem_free(part);
    return sum;
}
