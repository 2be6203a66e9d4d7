// acts.c: one arena, laid out by one function that is run twice: to measure, and to hand out addresses.
//
// With 2 of 5 layers kept: layers 0, 1, 2 and 3 write the same buffers in turn, which layer 3 leaves behind for the
// backward pass; layer 4 has its own. Backward begins with 4, whose activations so live the shortest; when it is done
// with 3, its buffers are free for 2 to be computed again.
#include "model/acts.h"

#include "base/mem.h"

enum { ALIGN = 64, LOGITS_BYTES = 96 << 20 };

typedef struct {
    Dev *base;
    size_t at;
} Cursor;

// The next `n` elements; only counts while there is no arena.
static Dev *take(Cursor *c, int64_t n, size_t elem_bytes) {
    Dev *p = dev_at(c->base, c->at);
    c->at += ((size_t)n * elem_bytes + ALIGN - 1) / ALIGN * ALIGN;
    return p;
}

// Of n rows, how many a tensor rank has.
static int64_t share_of(const ArchPart *p, int64_t n) { return p->sequence ? ds_ceil_div(n, p->size) : n; }

static void lay_layer(LayerActs *l, const Arch *r, DType dt, Cursor *c, int64_t n, int64_t own, bool keep) {
    const size_t e = dtype_bytes(dt), f = sizeof(float);
    const int64_t hd = r->heads * r->head_dim, kvd = r->kv_heads * r->head_dim;
    if (!r->pre_norm) {
        l->sum1 = take(c, own * r->width, e);
        l->sum2 = take(c, own * r->width, e);
    }
    l->qkv = take(c, n * (hd + 2 * kvd), e);
    l->o = take(c, n * hd, e);
    l->mid = take(c, own * r->width, e);
    l->up = take(c, n * r->ffn * (r->glu ? 2 : 1), e);
    if (!keep) return;
    l->stats1 = take(c, own * 2, f);
    l->stats2 = take(c, own * 2, f);
    l->lse = take(c, n * r->heads, f);
    if (!r->qk_norm) return;
    l->q_raw = take(c, n * hd, e);
    l->k_raw = take(c, n * kvd, e);
    l->q_rstd = take(c, n * r->heads, f);
    l->k_rstd = take(c, n * r->kv_heads, f);
}

static void lay_layers(Acts *a, Cursor *c, int64_t n) {
    const Arch *r = &a->part->own;
    const size_t e = dtype_bytes(a->dt);
    const int64_t own = share_of(a->part, n), first = r->layers - a->kept;
    for (int64_t i = 0; i <= r->layers; i++) a->x[i] = a->keep || i < 2 ? take(c, own * r->width, e) : a->x[i - 2];
    for (int64_t i = first; i < r->layers; i++) lay_layer(&a->layer[i], r, a->dt, c, n, own, a->keep);
    for (int64_t i = 0; i < first; i++) a->layer[i] = a->layer[first];
}

static void lay_backward(Acts *a, Cursor *c, int64_t n) {
    const Arch *r = &a->part->own;
    const size_t e = dtype_bytes(a->dt);
    const int64_t hd = r->heads * r->head_dim, kvd = r->kv_heads * r->head_dim, own = share_of(a->part, n);
    a->dx = take(c, own * r->width, e);
    a->t2 = take(c, own * r->width, e);
    a->t3 = take(c, n * r->embed_width, e);
    a->d_o = take(c, n * hd, e);
    a->dqkv = take(c, n * (hd + 2 * kvd), e);
    a->delta = take(c, n * r->heads, sizeof(float));
    a->dact = take(c, n * r->ffn, e);
    a->dup = take(c, n * r->ffn * (r->glu ? 2 : 1), e);
}

static void lay_head(Acts *a, Cursor *c, int64_t rows) {
    const Arch *r = &a->part->own;
    const size_t e = dtype_bytes(a->dt), f = sizeof(float);
    a->rows = take(c, rows, sizeof(int32_t));
    a->targets = take(c, rows, sizeof(int32_t));
    a->hx = take(c, rows * r->width, e);
    a->hstats = take(c, rows * 2, f);
    a->hf = take(c, rows * r->width, e);
    a->hp = r->embed_width != r->width ? take(c, rows * r->embed_width, e) : a->hf;
    a->scalars = take(c, rows * 6, f);
    a->chunk = ds_min(rows, ds_max(1, LOGITS_BYTES / (a->part->vocab * (int64_t)f)));
    if (r->head == ARCH_HEAD_LM) a->logits = take(c, a->chunk * r->vocab, f);
    if (!a->keep) {
        if (r->head == ARCH_HEAD_SCALAR || a->part->size == 1) return;
        a->parts = take(c, a->part->size * a->chunk * ds_ceil_div(a->part->vocab, a->part->size), f);
        a->all_logits = take(c, a->chunk * a->part->vocab, f);
        return;
    }
    a->dhf = take(c, rows * r->width, e);
    a->dhp = r->embed_width != r->width ? take(c, rows * r->embed_width, e) : a->dhf;
    if (r->head == ARCH_HEAD_LM) a->dlogits = a->dt == DS_F32 ? a->logits : take(c, a->chunk * r->vocab, e);
}

// Hands out every address from `base` (NULL: only counts). Returns the bytes used.
static size_t lay_out(Acts *a, Dev *base, int64_t n, int64_t rows) {
    const Arch *r = &a->part->own;
    const size_t e = dtype_bytes(a->dt);
    const int64_t own = share_of(a->part, n);
    Cursor c = {base, 0};
    a->ids = take(&c, n, sizeof(int32_t));
    a->pos = take(&c, n, sizeof(int32_t));
    a->pos_rows = take(&c, own, sizeof(int32_t));
    if (r->embed_width != r->width) a->embed = take(&c, own * r->embed_width, e);
    if (r->embed_norm) {
        a->embed_raw = take(&c, own * r->width, e);
        a->embed_stats = take(&c, own * 2, sizeof(float));
    }
    a->t1 = take(&c, own * r->width, e);
    if (r->pre_norm) a->normed = take(&c, own * r->width, e);
    a->act = take(&c, n * r->ffn, e);
    if (a->part->sequence) a->whole = take(&c, own * a->part->size * ds_max(r->width, r->embed_width), e);
    lay_layers(a, &c, n);
    if (a->keep) lay_backward(a, &c, n);
    lay_head(a, &c, rows);
    return c.at;
}

void acts_create(Acts *a, const Kernels *k, const ArchPart *part, DType dt, bool keep, int64_t kept) {
    if (kept < 1 || kept > part->own.layers)
        err_fatal("acts_create: %lld of %lld layers kept", (long long)kept, (long long)part->own.layers);
    *a = (Acts){.k = k,
                .part = part,
                .dt = dt,
                .keep = keep,
                .kept = kept,
                .x = MEM_NEW(Dev *, part->own.layers + 1),
                .layer = MEM_NEW(LayerActs, part->own.layers)};
}

int64_t acts_kept(const ModelParams *keys, int64_t layers) {
    return keys->recompute == RECOMPUTE_NONE ? layers : ds_min(keys->keep_layers, layers);
}

void acts_share(Acts *a, Workspace *shared, size_t at) {
    a->shared = shared;
    a->shared_at = at;
}

static void release(Acts *a) {
    if (a->arena && !a->shared) a->k->mem_destroy(a->arena);
    MEM_FREE(a->host);
    MEM_FREE(a->own_targets);
    a->arena = NULL;
}

void acts_destroy(Acts *a) {
    if (!a->k) return;
    release(a);
    mem_free(a->x);
    mem_free(a->layer);
    mem_free(a->starts);
    *a = (Acts){0};
}

void acts_reserve(Acts *a, int64_t n, int64_t rows) {
    if (n > a->cap || rows > a->row_cap) {
        release(a);
        a->cap = ds_max(a->cap, n);
        a->row_cap = ds_max(a->row_cap, rows);
        a->arena_bytes = lay_out(a, NULL, a->cap, a->row_cap);
        a->host = MEM_NEW(float, 4 * a->row_cap);
        a->own_targets = MEM_NEW(int32_t, a->row_cap);
    }
    Dev *at = a->arena;
    if (a->shared) {
        workspace_need(a->shared, a->shared_at + a->arena_bytes);
        at = dev_at(a->shared->data, a->shared_at);
    } else if (!at) at = a->k->mem_create(a->arena_bytes, MEM_ACTIVATIONS);
    if (at == a->arena) return;
    a->arena = at;
    lay_out(a, at, a->cap, a->row_cap);
}

void acts_set_rows(Acts *a, int64_t n) {
    a->n = n;
    a->share = share_of(a->part, n);
    a->own_first = a->part->sequence ? ds_min(n, a->part->rank * a->share) : 0;
    a->own = ds_min(a->share, n - a->own_first);
}
