// head.c: rows -> final norm -> (projection, OPT-350M) -> logits or one value.
#include "model/head.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "comm/coll.h"

typedef struct {
    int head;          // number of the head's block
    int64_t width, ew; // of the trunk and of what the head reads
    int64_t vocab;     // own part
    const Dev *table;  // [vocab, ew], or [1, ew] for the scalar head
    Dev *dtable;
} HeadInfo;

static HeadInfo head_info(const Model *m) {
    const Arch *r = &m->arch;
    HeadInfo h = {.head = (int)r->layers + 1, .width = r->width, .ew = r->embed_width, .vocab = m->part.own.vocab};
    bool tied = r->head == ARCH_HEAD_LM && r->tied;
    int block = tied ? 0 : h.head;
    model_open(m, h.head, -1);
    model_open(m, 0, -1);
    WeightRole role = r->head == ARCH_HEAD_SCALAR ? W_V_HEAD : tied ? W_TOK : W_LM_HEAD;
    h.table = model_weight(m, block, role);
    h.dtable = model_grad(m, block, role);
    return h;
}

static KernelNorm kernel_norm(const Arch *r) { return r->norm == ARCH_NORM_LN ? KERNEL_NORM_LN : KERNEL_NORM_RMS; }

// hp = projection(norm(x[rows]))
static void rows_fwd(const Model *m, Acts *a, const HeadInfo *h, const int32_t *rows, int64_t n) {
    const Arch *r = &m->arch;
    a->n_rows = n;
    m->k->copy_in(a->rows, rows, (size_t)n * sizeof *rows);
    m->k->gather_rows(m->dt, a->hx, model_rows_in(m, a, a->x[r->layers], h->width), a->rows, n, h->width);
    if (r->final_norm)
        m->k->norm_fwd(m->dt, kernel_norm(r), a->hf, a->hstats, a->hx, model_weight(m, h->head, W_FNORM_W),
                       model_weight(m, h->head, W_FNORM_B), n, h->width, (float)r->norm_eps);
    else m->k->copy(a->hf, a->hx, (size_t)(n * h->width) * dtype_bytes(m->dt));
    if (h->ew != h->width)
        m->k->linear_fwd(m->dt, m->dt, a->hp, a->hf, model_weight(m, h->head, W_PROJ_OUT), NULL, n, h->ew, h->width);
}

// A micro-batch's backward pass begins: the head's weights, which may be the embedding's, get gradients.
static void grads_open(Model *m, const HeadInfo *h) {
    model_grad_open(m, 0);
    model_grad_open(m, h->head);
}

// From a->dhp to gradients and a->dx.
static void rows_bwd(Model *m, Acts *a, const HeadInfo *h) {
    const Arch *r = &m->arch;
    const int64_t n = a->n_rows;
    if (h->ew != h->width) {
        m->k->linear_bwd_w(m->dt, model_grad(m, h->head, W_PROJ_OUT), NULL, a->dhp, a->hf, n, h->ew, h->width);
        m->k->linear_bwd_x(m->dt, a->dhf, false, a->dhp, model_weight(m, h->head, W_PROJ_OUT), n, h->ew, h->width);
    }
    if (r->final_norm)
        m->k->norm_bwd(m->dt, kernel_norm(r), a->dhf, false, model_grad(m, h->head, W_FNORM_W),
                       model_grad(m, h->head, W_FNORM_B), a->dhf, a->hx, model_weight(m, h->head, W_FNORM_W), a->hstats,
                       n, h->width);
    Dev *dx = acts_whole(a, a->dx);
    m->k->zero(dx, (size_t)(a->n * h->width) * dtype_bytes(m->dt));
    m->k->scatter_rows(m->dt, dx, a->dhf, a->rows, n, h->width);
    model_rows_cut(m, a, a->dx, h->width);
    model_grad_close(m, h->head);
}

// The six fp32 vectors of a->scalars.
typedef enum { LOGP, LSE, ENTROPY, DLOGP, DENTROPY, VALUE } Scalar;
static Dev *scalar(const Acts *a, Scalar s) { return dev_at(a->scalars, (size_t)(s * a->row_cap) * sizeof(float)); }

static Dev *row_at(const Model *m, Dev *p, int64_t row, int64_t width) {
    return dev_at(p, (size_t)(row * width) * dtype_bytes(m->dt));
}

// ---- the language model's head ----

static void set_targets(const Model *m, Acts *a, const int32_t *targets, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const int64_t own = targets[i] - m->part.vocab_first;
        a->own_targets[i] = own >= 0 && own < m->part.own.vocab ? (int32_t)own : -1;
    }
    m->k->copy_in(a->targets, a->own_targets, (size_t)n * sizeof *targets);
}

// From each tensor rank's log-prob (-inf where the target is another's), log-sum and entropy over its part of the
// vocabulary, all[size][3][n], to those over the whole, x[3][n]. Row by row, in the order of ranks: row exact.
static void join_parts(const float *all, int size, int64_t n, float *x) {
    for (int64_t i = 0; i < n; i++) {
        double most = -INFINITY, sum = 0, logp = -INFINITY, mean = 0;
        for (int r = 0; r < size; r++) most = fmax(most, all[(3 * r + 1) * n + i]);
        for (int r = 0; r < size; r++) sum += exp(all[(3 * r + 1) * n + i] - most);
        const double lse = most + log(sum);
        for (int r = 0; r < size; r++) {
            const float *part = all + 3 * r * n + i;
            const double part_lse = part[n];
            if (part[0] > -INFINITY || isnan(part[0])) logp = part[0] + (part_lse - lse);
            mean += exp(part_lse - lse) * (part_lse - part[2 * n]); // the part's share of sum p ln
        }
        x[i] = (float)logp;
        x[n + i] = (float)lse;
        x[2 * n + i] = (float)(lse - mean);
    }
}

// LOGP, LSE and ENTROPY of n rows become those over the whole vocabulary. Collective on the tensor group.
static void join(const Model *m, Acts *a, int64_t n) {
    static const Scalar parts[] = {LOGP, LSE, ENTROPY};
    const int size = m->part.size;
    if (size == 1) return;
    float *mine = MEM_NEW(float, 3 * n * (size + 1)), *all = mine + 3 * n;
    for (int i = 0; i < 3; i++) m->k->copy_out(mine + i * n, scalar(a, parts[i]), (size_t)n * sizeof(float));
    coll_allgather(m->zero.layout->tensor, mine, (size_t)(3 * n) * sizeof(float), all);
    join_parts(all, size, n, mine);
    for (int i = 0; i < 3; i++) m->k->copy_in(scalar(a, parts[i]), mine + i * n, (size_t)n * sizeof(float));
    mem_free(mine);
}

static void logits_fwd(const Model *m, Acts *a, const HeadInfo *h, int64_t first, int64_t n) {
    m->k->linear_fwd(m->dt, DS_F32, a->logits, row_at(m, a->hp, first, h->ew), h->table, NULL, n, h->vocab, h->ew);
}

// LOGP, LSE and (entropy) ENTROPY of the targets of rows first .. first + n, whose logits have been computed.
static void logprob_fwd(const Model *m, Acts *a, const HeadInfo *h, int64_t first, int64_t n, float inv_temperature,
                        bool entropy) {
    m->k->logprob_fwd(scalar(a, LOGP), scalar(a, LSE), entropy ? scalar(a, ENTROPY) : NULL, a->logits,
                      dev_at(a->targets, (size_t)first * sizeof(int32_t)), n, h->vocab, h->vocab, inv_temperature);
    join(m, a, n);
}

// logits of rows first .. first + n, and their log-probs and entropies on the host.
static void chunk_fwd(const Model *m, Acts *a, const HeadInfo *h, int64_t first, int64_t n, float inv_temperature) {
    logits_fwd(m, a, h, first, n);
    logprob_fwd(m, a, h, first, n, inv_temperature, true);
    m->k->copy_out(a->host, scalar(a, LOGP), (size_t)n * sizeof(float));
    m->k->copy_out(a->host + a->row_cap, scalar(a, ENTROPY), (size_t)n * sizeof(float));
}

void head_lm_score(const Model *m, Acts *a, const int32_t *rows, const int32_t *targets, int64_t n,
                   float inv_temperature, float *logp, float *entropy) {
    HeadInfo h = head_info(m);
    rows_fwd(m, a, &h, rows, n);
    set_targets(m, a, targets, n);
    for (int64_t first = 0; first < n; first += a->chunk) {
        int64_t count = ds_min(a->chunk, n - first);
        chunk_fwd(m, a, &h, first, count, inv_temperature);
        memcpy(logp + first, a->host, (size_t)count * sizeof(float));
        if (entropy) memcpy(entropy + first, a->host + a->row_cap, (size_t)count * sizeof(float));
    }
}

void head_lm_train(Model *m, Acts *a, const int32_t *rows, const int32_t *targets, int64_t n, float inv_temperature,
                   HeadLoss loss, void *user) {
    HeadInfo h = head_info(m);
    float *logp = a->host, *entropy = logp + a->row_cap, *dlogp = entropy + a->row_cap, *dentropy = dlogp + a->row_cap;
    grads_open(m, &h);
    rows_fwd(m, a, &h, rows, n);
    set_targets(m, a, targets, n);
    for (int64_t first = 0; first < n; first += a->chunk) {
        const int64_t count = ds_min(a->chunk, n - first);
        const size_t bytes = (size_t)count * sizeof(float);
        chunk_fwd(m, a, &h, first, count, inv_temperature);
        memset(dlogp, 0, bytes);
        memset(dentropy, 0, bytes);
        loss(user, first, count, logp, entropy, dlogp, dentropy);
        m->k->copy_in(scalar(a, DLOGP), dlogp, bytes);
        m->k->copy_in(scalar(a, DENTROPY), dentropy, bytes);
        m->k->logprob_bwd(m->dt, a->dlogits, a->logits, scalar(a, LSE),
                          dev_at(a->targets, (size_t)first * sizeof(int32_t)), scalar(a, DLOGP), scalar(a, DENTROPY),
                          scalar(a, ENTROPY), count, h.vocab, h.vocab, inv_temperature);
        m->k->linear_bwd_w(m->dt, h.dtable, NULL, a->dlogits, row_at(m, a->hp, first, h.ew), count, h.vocab, h.ew);
        m->k->linear_bwd_x(m->dt, row_at(m, a->dhp, first, h.ew), false, a->dlogits, h.table, count, h.vocab, h.ew);
    }
    model_sum(m, a->dhp, n * h.ew);
    rows_bwd(m, a, &h);
}

// The logits of n rows over the whole vocabulary, on every tensor rank. Collective on the tensor group.
static const Dev *whole_logits(const Model *m, Acts *a, int64_t n) {
    const int64_t vocab = m->part.vocab;
    const int size = m->part.size;
    if (size == 1) return a->logits;
    const size_t part = (size_t)(n * ds_ceil_div(vocab, size)) * sizeof(float);
    m->k->copy(dev_at(a->parts, (size_t)m->part.rank * part), a->logits,
               (size_t)(n * m->part.own.vocab) * sizeof(float));
    coll_allgather_dev(m->zero.layout->tensor, a->parts, (int64_t)part, 1);
    for (int r = 0; r < size; r++) {
        ArchPart p;
        arch_part(&p, &m->arch, r, size);
        const size_t width = (size_t)p.own.vocab * sizeof(float);
        m->k->copy_2d(dev_at(a->all_logits, (size_t)p.vocab_first * sizeof(float)), (size_t)vocab * sizeof(float),
                      dev_at(a->parts, (size_t)r * part), width, width, n);
    }
    return a->all_logits;
}

float head_inv_temperature(double temperature) { return 1 / (float)temperature; }

void head_lm_sample(const Model *m, Acts *a, const int32_t *rows, int64_t n, const SampleCfg *cfg, const float *u,
                    int32_t *ids, float *logp) {
    HeadInfo h = head_info(m);
    const int64_t vocab = m->part.vocab;
    rows_fwd(m, a, &h, rows, n);
    for (int64_t first = 0; first < n; first += a->chunk) {
        const int64_t count = ds_min(a->chunk, n - first);
        logits_fwd(m, a, &h, first, count);
        m->k->copy_in(scalar(a, VALUE), u + first, (size_t)count * sizeof(float));
        m->k->sample(a->targets, whole_logits(m, a, count), scalar(a, VALUE), count, vocab, vocab,
                     cfg->greedy ? 0 : cfg->temperature, cfg->top_k, cfg->top_p);
        m->k->copy_out(ids + first, a->targets, (size_t)count * sizeof(int32_t));
        set_targets(m, a, ids + first, count);
        logprob_fwd(m, a, &h, 0, count, head_inv_temperature(cfg->temperature), false);
        m->k->copy_out(logp + first, scalar(a, LOGP), (size_t)count * sizeof(float));
    }
}

// ---- the scalar head ----

void head_scalar_fwd(const Model *m, Acts *a, const int32_t *rows, int64_t n, float *values) {
    HeadInfo h = head_info(m);
    rows_fwd(m, a, &h, rows, n);
    m->k->linear_fwd(m->dt, DS_F32, scalar(a, VALUE), a->hp, h.table, NULL, n, 1, h.ew);
    m->k->copy_out(values, scalar(a, VALUE), (size_t)n * sizeof(float));
}

void head_scalar_bwd(Model *m, Acts *a, const float *dvalues) {
    HeadInfo h = head_info(m);
    const int64_t n = a->n_rows;
    grads_open(m, &h);
    m->k->copy_in(scalar(a, VALUE), dvalues, (size_t)n * sizeof(float));
    m->k->cast(m->dt, scalar(a, DLOGP), DS_F32, scalar(a, VALUE), n);
    m->k->linear_bwd_w(m->dt, h.dtable, NULL, scalar(a, DLOGP), a->hp, n, 1, h.ew);
    m->k->linear_bwd_x(m->dt, a->dhp, false, scalar(a, DLOGP), h.table, n, 1, h.ew);
    rows_bwd(m, a, &h);
}
