// lora.c: see lora.h. Layers have effective weights in the order of m->weights; embedding and head have no adapters and
// are used where they are.
#include "model/lora.h"

#include "base/mem.h"

static bool is_layer(const Model *m, int block) { return block > 0 && block < m->weights.blocks - 1; }

void lora_create(Model *m, const Layout *layout, ZeroKeep keep, const AdapterCfg *cfg) {
    const ZeroKeep frozen = {
        .stage = keep.stage, .training = ZERO_FROZEN, .quant = {.weight_bits = keep.quant.weight_bits}};
    Lora *l = m->lora = MEM_NEW(Lora, 1);
    int64_t *count = MEM_NEW(int64_t, m->weights.blocks), most = 0;
    l->scale = (float)(cfg->alpha / (double)cfg->rank);
    adapters_split(&m->weights, cfg, &l->frozen, &l->trained);
    zero_state_create(&l->base, m->k, &l->frozen, layout, m->kv, m->dt, frozen);
    zero_state_create(&m->zero, m->k, &l->trained, layout, m->kv, m->dt, keep);
    for (int b = 0; b < m->weights.blocks; b++) {
        count[b] = is_layer(m, b) ? m->weights.block_count[b] : 0;
        most = ds_max(most, count[b]);
    }
    shard_create(&l->map, m->weights.blocks, count, 1);
    mem_free(count);
    for (int p = 0; p < LORA_PLACES; p++) {
        l->place[p].data = m->k->mem_create((size_t)most * dtype_bytes(m->dt), MEM_COMM);
        l->place[p].block = -1;
    }
    l->grad = m->k->mem_create((size_t)most * sizeof(float), MEM_GRADIENTS);
}

void lora_destroy(Model *m) {
    Lora *l = m->lora;
    if (!l) return;
    store_destroy(&l->all);
    for (int p = 0; p < LORA_PLACES; p++) m->k->mem_destroy(l->place[p].data);
    m->k->mem_destroy(l->grad);
    shard_destroy(&l->map);
    zero_state_destroy(&l->base);
    weights_free(&l->frozen);
    weights_free(&l->trained);
    MEM_FREE(m->lora);
}

// ---- effective weights ----

// Both states' parts of the block are whole, those of `next` travel.
static void open_parts(const Model *m, int block, int next) {
    zero_open(&m->lora->base, block, next);
    zero_open(&m->zero, block, next);
}

static Dev *part(const Model *m, int block, WeightRole role) {
    Dev *frozen = zero_weight(&m->lora->base, block, role);
    return frozen ? frozen : zero_weight(&m->zero, block, role);
}

// The effective weights of an open layer.
static void compose(const Model *m, int block, Dev *to) {
    const Lora *l = m->lora;
    const size_t e = dtype_bytes(m->dt);
    for (int i = 0; i < m->weights.n; i++) {
        const Weight *w = &m->weights.w[i];
        if (w->block != block) continue;
        Dev *y = dev_at(to, (size_t)w->offset * e), *from = part(m, block, w->role);
        const Dev *a = zero_weight(&m->zero, block, weights_adapter_a(w->role));
        int64_t rows, cols, rank;
        if (!a) {
            m->k->copy(y, from, (size_t)w->count * e);
            continue;
        }
        weights_part_shape(w, &rows, &cols);
        rank = weights_find(&l->trained, block, weights_adapter_a(w->role))->shape[0];
        m->k->low_rank_fwd(m->dt, y, from, zero_weight(&m->zero, block, weights_adapter_b(w->role)), a, l->scale, rows,
                           rank, cols);
    }
}

void lora_open(const Model *m, int block, int next) {
    Lora *l = m->lora;
    if (!is_layer(m, block) || !l->all.data) open_parts(m, block, l->all.data ? -1 : next);
    if (!is_layer(m, block) || l->all.data) return;
    const int p = block % LORA_PLACES;
    const int64_t version = l->base.version + m->zero.version;
    if (l->place[p].block == block && l->place[p].version == version) return;
    compose(m, block, l->place[p].data);
    l->place[p].block = block;
    l->place[p].version = version;
}

Dev *lora_weight(const Model *m, int block, WeightRole role) {
    const Lora *l = m->lora;
    const Weight *w = weights_find(&m->weights, block, role);
    if (!w || !is_layer(m, block)) return w ? part(m, block, role) : NULL;
    const int p = block % LORA_PLACES;
    if (!l->all.data && l->place[p].block != block)
        err_fatal("the weights of block %d are used, those of block %d are open", block, l->place[p].block);
    Dev *whole = l->all.data ? store_at(&l->all, block, 0) : l->place[p].data;
    return dev_at(whole, (size_t)w->offset * dtype_bytes(m->dt));
}

void lora_gather(const Model *m) {
    Lora *l = m->lora;
    const int head = m->weights.blocks - 1;
    if (l->all.data) return;
    Store all;
    store_create(&all, m->k, &l->map, m->dt, false, MEM_COMM);
    for (int b = 1; b < head; b++) {
        open_parts(m, b, b + 1 < head ? b + 1 : -1);
        compose(m, b, store_at(&all, b, 0));
    }
    open_parts(m, 0, -1);
    open_parts(m, head, -1);
    l->all = all;
}

void lora_release(const Model *m) { store_destroy(&m->lora->all); }

// ---- gradients ----

Dev *lora_grad(const Model *m, int block, WeightRole role) {
    const Weight *w = weights_find(&m->weights, block, role);
    if (!w) return NULL;
    if (!is_layer(m, block)) return zero_grad(&m->zero, block, role);
    return dev_at(m->lora->grad, (size_t)w->offset * sizeof(float));
}

void lora_grad_open(Model *m, int block) {
    zero_grad_open(&m->zero, block);
    if (is_layer(m, block)) m->k->zero(m->lora->grad, (size_t)m->weights.block_count[block] * sizeof(float));
}

// From the gradients of a layer's effective weights to those of what is trained.
static void project(Model *m, int block) {
    const Lora *l = m->lora;
    for (int i = 0; i < m->weights.n; i++) {
        const Weight *w = &m->weights.w[i];
        if (w->block != block) continue;
        const WeightRole a = weights_adapter_a(w->role), b = weights_adapter_b(w->role);
        const Dev *dw = dev_at(l->grad, (size_t)w->offset * sizeof(float));
        Dev *own = zero_grad(&m->zero, block, w->role);
        if (own) m->k->axpy(own, 1, dw, w->count);
        if (!weights_find(&l->trained, block, a)) continue;
        int64_t rows, cols;
        weights_part_shape(w, &rows, &cols);
        m->k->low_rank_bwd(m->dt, zero_grad(&m->zero, block, b), zero_grad(&m->zero, block, a), dw,
                           zero_weight(&m->zero, block, b), zero_weight(&m->zero, block, a), l->scale, rows,
                           weights_find(&l->trained, block, a)->shape[0], cols);
    }
}

void lora_grad_close(Model *m, int block) {
    if (is_layer(m, block)) project(m, block);
    zero_grad_close(&m->zero, block);
}

ZeroState *lora_home(Model *m, const Weight *w, const Weight **there) {
    Lora *l = m->lora;
    *there = weights_find(&l->frozen, w->block, w->role);
    if (*there) return &l->base;
    *there = weights_find(&l->trained, w->block, w->role);
    return &m->zero;
}
