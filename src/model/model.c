// model.c: embedding and the chain of layers.
//
// Pre-norm:   mid = x + attn(norm1 x)      x' = mid + mlp(norm2 mid)
// Parallel:   x' = x + attn(norm1 x) + mlp(norm2 x)
// Post-norm:  mid = norm1(x + attn x)      x' = norm2(mid + mlp mid)
#include "model/model.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/watchdog.h"
#include "comm/coll.h"
#include "model/layer.h"
#include "model/lora.h"
#include "model/tables.h"

// Everything but where the weights are.
static void create_shape(Model *m, const Kernels *k, const Arch *arch, DType dt, const Layout *layout) {
    *m = (Model){.arch = *arch, .k = k, .dt = dt};
    arch_part(&m->part, arch, group_rank(layout->tensor), group_size(layout->tensor));
    m->part.sequence = layout->sequence;
    weights_build_part(&m->arch, &m->part, &m->weights);
    if (m->part.size > arch->kv_heads)
        m->kv = group_range(layout->tensor, m->part.rank - m->part.kv_rank, m->part.kv_size);
    m->slopes = tables_alibi(k, &m->arch, &m->part);
    m->rope = tables_rope(k, &m->arch);
}

void model_create(Model *m, const Kernels *k, const Arch *arch, DType dt, const Layout *layout, ZeroKeep keep,
                  const AdapterCfg *adapters) {
    create_shape(m, k, arch, dt, layout);
    if (adapters && adapters->rank > 0) lora_create(m, layout, keep, adapters);
    else zero_state_create(&m->zero, k, &m->weights, layout, m->kv, dt, keep);
}

void model_create_beside(Model *m, const Model *with, const Layout *layout, ZeroKeep keep) {
    create_shape(m, with->k, &with->arch, with->dt, layout);
    m->shared = &with->lora->base;
    weights_without(&m->weights, &with->lora->frozen, &m->own);
    zero_state_create(&m->zero, m->k, &m->own, layout, m->kv, m->dt, keep);
}

bool model_keeps(const Model *m, const Weight *w) {
    return !m->shared || weights_find(&m->own, w->block, w->role) != NULL;
}

void model_destroy(Model *m) {
    if (!m->k) return;
    zero_state_destroy(&m->zero);
    lora_destroy(m);
    group_destroy(&m->kv);
    weights_free(&m->weights);
    weights_free(&m->own);
    if (m->rope) m->k->mem_destroy(m->rope);
    if (m->slopes) m->k->mem_destroy(m->slopes);
    *m = (Model){0};
}

void model_open(const Model *m, int block, int next) {
    watchdog_tick();
    if (m->shared) zero_open(m->shared, block, next);
    if (m->lora) lora_open(m, block, next);
    else zero_open(&m->zero, block, next);
}

Dev *model_weight(const Model *m, int block, WeightRole role) {
    if (m->lora) return lora_weight(m, block, role);
    Dev *shared = m->shared ? zero_weight(m->shared, block, role) : NULL;
    return shared ? shared : zero_weight(&m->zero, block, role);
}

void model_grad_open(Model *m, int block) {
    if (m->lora) lora_grad_open(m, block);
    else zero_grad_open(&m->zero, block);
}

Dev *model_grad(const Model *m, int block, WeightRole role) {
    return m->lora ? lora_grad(m, block, role) : zero_grad(&m->zero, block, role);
}

void model_grad_close(Model *m, int block) {
    if (m->lora) lora_grad_close(m, block);
    else zero_grad_close(&m->zero, block);
}

void model_widen(const Model *m, int layers) {
    zero_widen(&m->zero, layers);
    if (m->lora) zero_widen(&m->lora->base, layers);
    if (m->shared) zero_widen(m->shared, layers);
}

void model_prefetch(const Model *m, int block) {
    zero_prefetch(&m->zero, block);
    if (m->lora) zero_prefetch(&m->lora->base, block);
    if (m->shared) zero_prefetch(m->shared, block);
}

void model_gather(const Model *m) {
    if (m->shared) zero_gather(m->shared);
    if (m->lora) lora_gather(m);
    else zero_gather(&m->zero);
}

void model_release(const Model *m) {
    if (m->shared) zero_release(m->shared);
    if (m->lora) lora_release(m);
    else zero_release(&m->zero);
}

static KernelNorm kernel_norm(const Arch *r) { return r->norm == ARCH_NORM_LN ? KERNEL_NORM_LN : KERNEL_NORM_RMS; }

static void norm_fwd(const Model *m, Acts *a, int block, WeightRole w, Dev *y, Dev *stats, const Dev *x) {
    m->k->norm_fwd(m->dt, kernel_norm(&m->arch), y, stats, x, model_weight(m, block, w), model_weight(m, block, w + 1),
                   a->own, m->arch.width, (float)m->arch.norm_eps);
}

static void norm_bwd(Model *m, Acts *a, int block, WeightRole w, Dev *dx, bool accumulate, const Dev *dy, const Dev *x,
                     const Dev *stats) {
    m->k->norm_bwd(m->dt, kernel_norm(&m->arch), dx, accumulate, model_grad(m, block, w), model_grad(m, block, w + 1),
                   dy, x, model_weight(m, block, w), stats, a->own, m->arch.width);
}

void model_sum(const Model *m, Dev *x, int64_t n) { coll_allreduce(m->zero.layout->tensor, m->k, m->dt, x, n); }

// Where own rows lie among all rows.
static Dev *own_rows(const Model *m, const Acts *a, int64_t width) {
    return dev_at(a->whole, (size_t)(a->own_first * width) * dtype_bytes(m->dt));
}

const Dev *model_rows_in(const Model *m, const Acts *a, const Dev *own, int64_t width) {
    if (!m->part.sequence) return own;
    m->k->copy(own_rows(m, a, width), own, (size_t)(a->own * width) * dtype_bytes(m->dt));
    coll_allgather_dev(m->zero.layout->tensor, a->whole, a->share * width, dtype_bytes(m->dt));
    return a->whole;
}

void model_rows_out(const Model *m, const Acts *a, Dev *own, int64_t width) {
    if (m->part.sequence)
        coll_reduce_scatter_dt(m->zero.layout->tensor, m->k, m->dt, a->whole, a->share * m->part.size * width);
    else model_sum(m, own, a->n * width);
    model_rows_cut(m, a, own, width);
}

void model_rows_cut(const Model *m, const Acts *a, Dev *own, int64_t width) {
    if (m->part.sequence) m->k->copy(own, own_rows(m, a, width), (size_t)(a->own * width) * dtype_bytes(m->dt));
}

// Tables of angles and of learned positions end where the model's positions do, and kernels do not know their length.
static void check_positions(const Arch *r, const Batch *b) {
    for (int64_t t = 0; t < b->n; t++)
        if (b->pos[t] < 0 || b->pos[t] >= r->max_positions)
            err_fatal("a token is at position %d of its sequence, the model has %lld positions", b->pos[t],
                      (long long)r->max_positions);
}

static void upload(Acts *a, const Arch *r, const Batch *b) {
    size_t bytes = (size_t)b->n * sizeof(int32_t);
    check_positions(r, b);
    acts_set_rows(a, b->n);
    a->n_seq = b->n_seq;
    if (a->starts_cap < b->n_seq + 1) {
        mem_free(a->starts);
        a->starts_cap = b->n_seq + 1;
        a->starts = MEM_NEW(int32_t, a->starts_cap);
    }
    memcpy(a->starts, b->starts, (size_t)(b->n_seq + 1) * sizeof(int32_t));
    a->k->copy_in(a->ids, b->ids, bytes);
    a->k->copy_in(a->pos, b->pos, bytes);
    if (r->pos != ARCH_POS_LEARNED || r->embed_width == r->width) return;
    int32_t *rows = MEM_NEW(int32_t, a->own);
    for (int64_t t = 0; t < a->own; t++) rows[t] = b->pos[a->own_first + t] + (int32_t)r->pos_offset;
    a->k->copy_in(a->pos_rows, rows, (size_t)a->own * sizeof *rows);
    mem_free(rows);
}

// The rows of other ranks' tokens come by the sum, and the positions by rank 0's share of it.
static void embed_fwd(const Model *m, Acts *a) {
    const Arch *r = &m->arch;
    Dev *x = r->embed_norm ? a->embed_raw : a->x[0];
    const bool narrow = r->embed_width != r->width;
    Dev *rows = narrow ? a->embed : x;
    m->k->embed_fwd(m->dt, acts_whole(a, rows), model_weight(m, 0, W_TOK), m->part.vocab_first, m->part.own.vocab,
                    a->ids, narrow || m->part.rank > 0 ? NULL : model_weight(m, 0, W_POS), a->pos, r->pos_offset, a->n,
                    r->embed_width);
    model_rows_out(m, a, rows, r->embed_width);
    if (narrow) {
        m->k->linear_fwd(m->dt, m->dt, x, a->embed, model_weight(m, 0, W_PROJ_IN), NULL, a->own, r->width,
                         r->embed_width);
        if (r->pos == ARCH_POS_LEARNED) {
            m->k->embed_fwd(m->dt, a->t1, model_weight(m, 0, W_POS), 0, r->max_positions + r->pos_offset, a->pos_rows,
                            NULL, NULL, 0, a->own, r->width);
            m->k->add(m->dt, x, a->t1, a->own * r->width);
        }
    }
    if (r->embed_norm) norm_fwd(m, a, 0, W_ENORM_W, a->x[0], a->embed_stats, x);
}

static void embed_bwd(Model *m, Acts *a) {
    const Arch *r = &m->arch;
    if (r->embed_norm) norm_bwd(m, a, 0, W_ENORM_W, a->dx, false, a->dx, a->embed_raw, a->embed_stats);
    const Dev *dx = model_rows_in(m, a, a->dx, r->width);
    if (r->pos == ARCH_POS_LEARNED)
        m->k->embed_bwd(m->dt, model_grad(m, 0, W_POS), r->max_positions + r->pos_offset, dx, a->pos, r->pos_offset,
                        a->n, r->width);
    if (r->embed_width != r->width) {
        m->k->linear_bwd_w(m->dt, model_grad(m, 0, W_PROJ_IN), NULL, a->dx, a->embed, a->own, r->width, r->embed_width);
        m->k->linear_bwd_x(m->dt, a->t3, false, dx, model_weight(m, 0, W_PROJ_IN), a->n, r->width, r->embed_width);
        dx = a->t3;
    }
    m->k->embed_bwd(m->dt, model_grad(m, 0, W_TOK), m->part.own.vocab, dx, a->ids, -m->part.vocab_first, a->n,
                    r->embed_width);
}

// to = from + t
static void sum_into(const Model *m, Acts *a, Dev *to, const Dev *from, const Dev *t) {
    m->k->copy(to, from, (size_t)(a->own * m->arch.width) * dtype_bytes(m->dt));
    m->k->add(m->dt, to, t, a->own * m->arch.width);
}

static void layer_fwd(const Model *m, Acts *a, int64_t i, const ModelCache *cache) {
    const Arch *r = &m->arch;
    LayerActs *l = &a->layer[i];
    const int block = (int)i + 1;
    Dev *x = a->x[i], *next = a->x[i + 1];
    if (!r->pre_norm) {
        attention_fwd(m, a, i, a->t1, x, cache);
        sum_into(m, a, l->sum1, x, a->t1);
        norm_fwd(m, a, block, W_NORM1_W, l->mid, l->stats1, l->sum1);
        mlp_fwd(m, a, i, a->t1, l->mid);
        sum_into(m, a, l->sum2, l->mid, a->t1);
        norm_fwd(m, a, block, W_NORM2_W, next, l->stats2, l->sum2);
        return;
    }
    norm_fwd(m, a, block, W_NORM1_W, a->normed, l->stats1, x);
    attention_fwd(m, a, i, a->t1, a->normed, cache);
    sum_into(m, a, l->mid, x, a->t1);
    norm_fwd(m, a, block, W_NORM2_W, a->normed, l->stats2, r->parallel_residual ? x : l->mid);
    mlp_fwd(m, a, i, a->t1, a->normed);
    sum_into(m, a, next, l->mid, a->t1);
}

static void layer_bwd(Model *m, Acts *a, int64_t i) {
    const Arch *r = &m->arch;
    LayerActs *l = &a->layer[i];
    const int block = (int)i + 1;
    const int64_t n = a->own * r->width;
    Dev *x = a->x[i], *dx = a->dx;
    if (!r->pre_norm) {
        norm_bwd(m, a, block, W_NORM2_W, dx, false, dx, l->sum2, l->stats2);
        mlp_bwd(m, a, i, a->t1, dx, l->mid);
        m->k->add(m->dt, dx, a->t1, n);
        norm_bwd(m, a, block, W_NORM1_W, dx, false, dx, l->sum1, l->stats1);
        attention_bwd(m, a, i, a->t1, dx, x);
        m->k->add(m->dt, dx, a->t1, n);
        return;
    }
    const Dev *mid = r->parallel_residual ? x : l->mid;
    norm_fwd(m, a, block, W_NORM2_W, a->normed, l->stats2, mid);
    mlp_bwd(m, a, i, a->t1, dx, a->normed);
    if (!r->parallel_residual) norm_bwd(m, a, block, W_NORM2_W, dx, true, a->t1, mid, l->stats2);
    norm_fwd(m, a, block, W_NORM1_W, a->normed, l->stats1, x);
    attention_bwd(m, a, i, a->t2, dx, a->normed);
    if (r->parallel_residual) norm_bwd(m, a, block, W_NORM2_W, dx, true, a->t1, mid, l->stats2);
    norm_bwd(m, a, block, W_NORM1_W, dx, true, a->t2, x, l->stats1);
}

void model_fwd(const Model *m, Acts *a, const Batch *b, int64_t rows, const ModelCache *cache) {
    acts_reserve(a, b->n, rows);
    upload(a, &m->arch, b);
    model_open(m, 0, 1);
    embed_fwd(m, a);
    for (int64_t i = 0; i < m->arch.layers; i++) {
        model_open(m, (int)i + 1, (int)i + 2);
        layer_fwd(m, a, i, cache);
    }
}

void model_bwd(Model *m, Acts *a) {
    for (int64_t i = m->arch.layers - 1; i >= 0; i--) {
        const int block = (int)i + 1;
        model_open(m, block, block - 1);
        model_grad_open(m, block);
        if (i < m->arch.layers - a->kept) layer_fwd(m, a, i, NULL);
        layer_bwd(m, a, i);
        model_grad_close(m, block);
    }
    embed_bwd(m, a);
    model_grad_close(m, 0);
}

void model_weight_set(Model *m, const Weight *w, int64_t first, int64_t n, const float *values) {
    ZeroState *z = &m->zero;
    int64_t own_first = 0, own_n = n;
    if (!model_keeps(m, w)) return;
    if (m->lora) z = lora_home(m, w, &w);
    if (m->shared) w = weights_find(&m->own, w->block, w->role);
    if (z->w.owned_only) shard_cut(&z->map, w->block, z->shard, w->offset + first, n, &own_first, &own_n);
    if (own_n == 0) return;
    const void *from = values + own_first;
    uint16_t *half = NULL;
    if (z->w.dtype == DS_BF16) {
        half = MEM_NEW(uint16_t, own_n);
        for (int64_t i = 0; i < own_n; i++) half[i] = f32_to_bf16(values[own_first + i]);
        from = half;
    }
    zero_set(z, w->block, w->offset + first + own_first, own_n, from);
    mem_free(half);
}

void model_weight_get(const Model *m, const Weight *w, int64_t first, int64_t n, float *values) {
    const DType dt = m->zero.w.dtype;
    const Dev *from = dev_cat(model_weight(m, w->block, w->role), (size_t)first * dtype_bytes(dt));
    if (dt == DS_F32) {
        m->k->copy_out(values, from, (size_t)n * sizeof(float));
        return;
    }
    uint16_t *half = MEM_NEW(uint16_t, n);
    m->k->copy_out(half, from, (size_t)n * sizeof *half);
    for (int64_t i = 0; i < n; i++) values[i] = bf16_to_f32(half[i]);
    mem_free(half);
}
