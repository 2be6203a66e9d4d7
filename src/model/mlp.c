// mlp.c: up (and gate), activation, down.
#include "model/layer.h"

static KernelAct kernel_act(const Arch *r) {
    static const KernelAct map[] = {[ARCH_ACT_RELU] = KERNEL_ACT_RELU,
                                    [ARCH_ACT_GELU] = KERNEL_ACT_GELU,
                                    [ARCH_ACT_GELU_TANH] = KERNEL_ACT_GELU_TANH,
                                    [ARCH_ACT_SILU] = KERNEL_ACT_SILU};
    return map[r->act];
}

// Gate and up are adjacent: one matrix of 2 ffn rows.
static WeightRole first_role(const Arch *r) { return r->glu ? W_GATE : W_UP; }

static void activate(const Model *m, Acts *a, const LayerActs *l) {
    const Arch *r = &m->part.own;
    if (r->glu) m->k->glu_fwd(m->dt, kernel_act(r), a->act, l->up, a->n, r->ffn);
    else m->k->act_fwd(m->dt, kernel_act(r), a->act, l->up, a->n * r->ffn);
}

void mlp_fwd(const Model *m, Acts *a, int64_t i, Dev *out, const Dev *in) {
    const Arch *r = &m->part.own;
    LayerActs *l = &a->layer[i];
    const int block = (int)i + 1;
    const int64_t rows = r->glu ? 2 * r->ffn : r->ffn;
    m->k->linear_fwd(m->dt, m->dt, l->up, model_rows_in(m, a, in, r->width), model_weight(m, block, first_role(r)),
                     model_weight(m, block, W_UP_B), a->n, rows, r->width);
    activate(m, a, l);
    m->k->linear_fwd(m->dt, m->dt, acts_whole(a, out), a->act, model_weight(m, block, W_DOWN),
                     layer_bias(m, block, W_DOWN_B), a->n, r->width, r->ffn);
    model_rows_out(m, a, out, r->width);
}

void mlp_bwd(Model *m, Acts *a, int64_t i, Dev *din, const Dev *dout, const Dev *in) {
    const Arch *r = &m->part.own;
    LayerActs *l = &a->layer[i];
    const int block = (int)i + 1;
    const int64_t rows = r->glu ? 2 * r->ffn : r->ffn;
    dout = model_rows_in(m, a, dout, r->width);
    activate(m, a, l);
    m->k->linear_bwd_w(m->dt, model_grad(m, block, W_DOWN), model_grad(m, block, W_DOWN_B), dout, a->act, a->n,
                       r->width, r->ffn);
    m->k->linear_bwd_x(m->dt, a->dact, false, dout, model_weight(m, block, W_DOWN), a->n, r->width, r->ffn);
    if (r->glu) m->k->glu_bwd(m->dt, kernel_act(r), a->dup, a->dact, l->up, a->n, r->ffn);
    else m->k->act_bwd(m->dt, kernel_act(r), a->dup, a->dact, l->up, a->n * r->ffn);
    m->k->linear_bwd_w(m->dt, model_grad(m, block, first_role(r)), model_grad(m, block, W_UP_B), a->dup,
                       model_rows_in(m, a, in, r->width), a->n, rows, r->width);
    m->k->linear_bwd_x(m->dt, acts_whole(a, din), false, a->dup, model_weight(m, block, first_role(r)), a->n, rows,
                       r->width);
    model_rows_out(m, a, din, r->width);
}
