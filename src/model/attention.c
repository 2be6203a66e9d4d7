// attention.c: fused q, k, v projection, rotary, attention, output projection.
#include "model/layer.h"

#include <math.h>

typedef struct {
    HeadView q, k, v;
} Qkv;

// Where q, k and v lie in a row of the fused projection.
static Qkv split(const Arch *r, DType dt, Dev *p) {
    const int64_t d = r->head_dim, hd = r->heads * d, kvd = r->kv_heads * d, row = hd + 2 * kvd;
    const size_t e = dtype_bytes(dt);
    if (r->qkv == ARCH_QKV_HEADS)
        return (Qkv){{p, row, 3 * d, r->heads},
                     {dev_at(p, (size_t)d * e), row, 3 * d, r->heads},
                     {dev_at(p, (size_t)(2 * d) * e), row, 3 * d, r->heads}};
    return (Qkv){{p, row, d, r->heads},
                 {dev_at(p, (size_t)hd * e), row, d, r->kv_heads},
                 {dev_at(p, (size_t)(hd + kvd) * e), row, d, r->kv_heads}};
}

static AttnShape shape(const Model *m) {
    return (AttnShape){.head_dim = m->arch.head_dim,
                       .window = m->arch.window,
                       .scale = (float)(1.0 / sqrt((double)m->arch.head_dim)),
                       .slopes = m->slopes};
}

static WeightRole qkv_role(const Arch *r) { return r->qkv == ARCH_QKV_SPLIT ? W_Q : W_QKV; }
static WeightRole qkv_bias_role(const Arch *r) { return r->qkv == ARCH_QKV_SPLIT ? W_Q_B : W_QKV_B; }

void attention_fwd(const Model *m, Acts *a, int64_t i, Dev *out, const Dev *in, const ModelCache *cache) {
    const Arch *r = &m->part.own;
    LayerActs *l = &a->layer[i];
    const int block = (int)i + 1;
    const int64_t hd = r->heads * r->head_dim, row = hd + 2 * r->kv_heads * r->head_dim;
    Qkv s = split(r, m->dt, l->qkv);
    m->k->linear_fwd(m->dt, m->dt, l->qkv, model_rows_in(m, a, in, r->width), model_weight(m, block, qkv_role(r)),
                     model_weight(m, block, qkv_bias_role(r)), a->n, row, r->width);
    if (r->qk_norm) {
        m->k->head_norm_fwd(m->dt, s.q, l->q_raw, l->q_rstd, model_weight(m, block, W_QNORM), a->n, r->head_dim,
                            (float)r->norm_eps);
        m->k->head_norm_fwd(m->dt, s.k, l->k_raw, l->k_rstd, model_weight(m, block, W_KNORM), a->n, r->head_dim,
                            (float)r->norm_eps);
    }
    if (m->rope) {
        m->k->rope(m->dt, s.q, m->rope, a->pos, a->n, r->rotary_dim, 1);
        m->k->rope(m->dt, s.k, m->rope, a->pos, a->n, r->rotary_dim, 1);
    }
    if (cache) m->k->kv_write(m->dt, cache->layer[i], s.k, s.v, r->head_dim, a->starts, a->n_seq, cache->first);
    m->k->attn_fwd(m->dt, shape(m), l->o, l->lse, s.q, s.k, s.v, a->starts, a->n_seq, cache ? cache->first : NULL,
                   cache ? &cache->layer[i] : NULL);
    m->k->linear_fwd(m->dt, m->dt, acts_whole(a, out), l->o, model_weight(m, block, W_O), layer_bias(m, block, W_O_B),
                     a->n, r->width, hd);
    model_rows_out(m, a, out, r->width);
}

void attention_bwd(Model *m, Acts *a, int64_t i, Dev *din, const Dev *dout, const Dev *in) {
    const Arch *r = &m->part.own;
    LayerActs *l = &a->layer[i];
    const int block = (int)i + 1;
    const int64_t hd = r->heads * r->head_dim, row = hd + 2 * r->kv_heads * r->head_dim;
    Qkv s = split(r, m->dt, l->qkv), d = split(r, m->dt, a->dqkv);
    dout = model_rows_in(m, a, dout, r->width);
    m->k->linear_bwd_w(m->dt, model_grad(m, block, W_O), model_grad(m, block, W_O_B), dout, l->o, a->n, r->width, hd);
    m->k->linear_bwd_x(m->dt, a->d_o, false, dout, model_weight(m, block, W_O), a->n, r->width, hd);
    m->k->attn_bwd(m->dt, shape(m), d.q, d.k, d.v, a->delta, a->d_o, l->o, l->lse, s.q, s.k, s.v, a->starts, a->n_seq);
    if (m->rope) {
        m->k->rope(m->dt, d.q, m->rope, a->pos, a->n, r->rotary_dim, -1);
        m->k->rope(m->dt, d.k, m->rope, a->pos, a->n, r->rotary_dim, -1);
    }
    if (r->qk_norm) {
        m->k->head_norm_bwd(m->dt, d.q, model_grad(m, block, W_QNORM), l->q_raw, l->q_rstd,
                            model_weight(m, block, W_QNORM), a->n, r->head_dim);
        m->k->head_norm_bwd(m->dt, d.k, model_grad(m, block, W_KNORM), l->k_raw, l->k_rstd,
                            model_weight(m, block, W_KNORM), a->n, r->head_dim);
    }
    m->k->linear_bwd_w(m->dt, model_grad(m, block, qkv_role(r)), model_grad(m, block, qkv_bias_role(r)), a->dqkv,
                       model_rows_in(m, a, in, r->width), a->n, row, r->width);
    m->k->linear_bwd_x(m->dt, acts_whole(a, din), false, a->dqkv, model_weight(m, block, qkv_role(r)), a->n, row,
                       r->width);
    model_rows_out(m, a, din, r->width);
}
