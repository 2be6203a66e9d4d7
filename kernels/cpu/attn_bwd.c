// attn_bwd.c: gradient of causal attention over packed sequences. The probabilities are made again from the kept
// log-sum-exp.
//
// One piece of work is (sequence, key head), so that dk and dv have one writer: deterministic for any number of
// threads. BLOCK rows (query, head in the group) at a time, with P = e^(s - lse) and dS = P (dO v^T - delta) scale:
//
//   dq [rows][dim] = dS k        dk [keys][dim] += dS^T q        dv [keys][dim] += P^T dO        delta = sum over dim
//   of dO o
#include <math.h>

#include "kernels/cpu/attn.h"
#include "kernels/cpu/vmath.h"

enum { BLOCK = 4 * TILE_ROWS };

typedef struct {
    DType dt;
    AttnShape a;
    AttnDot dot; // of q and k, dO and v
    HeadView dq, dk, dv, q, k, v;
    float *delta;
    const void *do_, *o;
    const float *lse;
    const int32_t *starts;
    int64_t group, pad, total;
} Bwd;

// One sequence and key head: panels of k and v, rows of k, sums of dk and dv, all fp32; the block's rows, P and dS.
typedef struct {
    int64_t start, n, head;
    float *kt, *vt, *k, *dk, *dv;
    float *q, *do_, *dq, *p, *ds;
    float *q_dot, *do_dot; // the same rows as the products with panels take them
    int64_t ld;            // of p and ds
} Piece;

static int64_t query_of(const Bwd *b, int64_t row) { return row / b->group; }
static int64_t head_of(const Bwd *b, const Piece *w, int64_t row) { return w->head * b->group + row % b->group; }

// n floats out of one scratch buffer, each start on a whole vector.
static float *take(float **at, int64_t n) {
    float *p = *at;
    *at += ds_round_up(n, LANES);
    return p;
}

static void open_piece(const Bwd *b, Piece *w) {
    const int64_t keys = ds_round_up(w->n, TILE_COLS), dim = b->dot.dim, pad = b->pad;
    float *at = cpu_scratch_f32(SCRATCH_A, keys * (2 * dim + 3 * pad) + BLOCK * (5 * pad + 2 * keys) + 16 * LANES);
    w->ld = keys;
    w->kt = take(&at, keys * dim), w->vt = take(&at, keys * dim);
    w->k = take(&at, keys * pad), w->dk = take(&at, keys * pad), w->dv = take(&at, keys * pad);
    w->q = take(&at, BLOCK * pad), w->do_ = take(&at, BLOCK * pad), w->dq = take(&at, BLOCK * pad);
    w->q_dot = w->q, w->do_dot = w->do_;
    if (b->dot.math == TILE_PAIRS) w->q_dot = take(&at, BLOCK * pad), w->do_dot = take(&at, BLOCK * pad);
    w->p = take(&at, BLOCK * keys), w->ds = take(&at, BLOCK * keys);
    memset(w->dk, 0, (size_t)(keys * pad) * sizeof(float));
    memset(w->dv, 0, (size_t)(keys * pad) * sizeof(float));
    for (int64_t j = 0; j < w->n; j += LANES) {
        const int64_t rows = ds_min(LANES, w->n - j), to = j / TILE_COLS * TILE_COLS * dim + j % TILE_COLS;
        tile_pack(b->dot.unit, w->kt + to, TILE_COLS, head_at(b->dt, b->k, w->start + j, w->head),
                  attn_units(b->dot, b->k.token_stride), rows, dim, 0);
        tile_pack(b->dot.unit, w->vt + to, TILE_COLS, head_at(b->dt, b->v, w->start + j, w->head),
                  attn_units(b->dot, b->v.token_stride), rows, dim, 0);
    }
    for (int64_t j = 0; j < w->n; j++)
        widen_row(b->dt, w->k + j * pad, head_at(b->dt, b->k, w->start + j, w->head), b->a.head_dim, pad);
}

// q and dO of the block's rows, and delta.
static void load_rows(const Bwd *b, const Piece *w, int64_t r0, int64_t rows) {
    const int64_t dim = b->a.head_dim, pad = b->pad;
    float *o = cpu_scratch_f32(SCRATCH_W, pad);
    for (int64_t r = 0; r < rows; r++) {
        const int64_t token = w->start + query_of(b, r0 + r), head = head_of(b, w, r0 + r),
                      at = (token * b->q.heads + head) * dim;
        Vec sum = {0};
        widen_row(b->dt, w->q + r * pad, head_at(b->dt, b->q, token, head), dim, pad);
        widen_row(b->dt, w->do_ + r * pad, elem_at(b->dt, b->do_, at), dim, pad);
        if (b->dot.math == TILE_PAIRS) {
            memcpy(w->q_dot + r * pad, head_at(b->dt, b->q, token, head), (size_t)dim * sizeof(uint16_t));
            memcpy(w->do_dot + r * pad, elem_at(b->dt, b->do_, at), (size_t)dim * sizeof(uint16_t));
        }
        widen_row(b->dt, o, elem_at(b->dt, b->o, at), dim, pad);
        for (int64_t i = 0; i < pad; i += LANES)
            sum = vec_fma(vec_load(DS_F32, o, i), vec_load(DS_F32, w->do_ + r * pad, i), sum);
        b->delta[head * b->total + token] = vec_sum(sum);
    }
}

// s (in ds) and dO v^T (in p) of one row -> P (in p) and dS (in ds).
static void probabilities(const Bwd *b, const Piece *w, int64_t row, int64_t at, int64_t key0, int64_t keys) {
    const int64_t query = query_of(b, row), head = head_of(b, w, row), i = head * b->total + w->start + query;
    const float slope = b->a.slopes ? ((const float *)cpu_ptr(b->a.slopes))[head] : 0.0f, lse = b->lse[i],
                delta = b->delta[i];
    float *p = w->p + at * w->ld, *ds = w->ds + at * w->ld;
    for (int64_t j = 0; j < keys; j += LANES) {
        const Vec e =
            vec_exp(attn_score(vec_load(DS_F32, ds, j), b->a.scale, slope, key0 + j, query, b->a.window) - lse);
        const Vec g = e * (vec_load(DS_F32, p, j) - delta) * b->a.scale;
        vec_store(DS_F32, p, j, e);
        vec_store(DS_F32, ds, j, g);
    }
}

// dst [rows][ld] = x rows times the panels from key0 on.
static void times_panels(const Bwd *b, float *dst, int64_t ld, const float *x_rows, int64_t rows, const float *panels,
                         int64_t keys) {
    const int64_t dim = b->dot.dim;
    float *x = cpu_scratch_f32(SCRATCH_X, dim * TILE_LD);
    for (int64_t r = 0; r < rows; r += TILE_ROWS) {
        const int64_t n = ds_min(TILE_ROWS, rows - r);
        tile_pack(DS_F32, x, TILE_LD, x_rows + r * b->pad, b->pad, n, dim, 0);
        for (int64_t j = 0; j < n; j++) memset(dst + (r + j) * ld, 0, (size_t)keys * sizeof(float));
        for (int64_t j = 0; j < keys; j += TILE_COLS)
            tile_packed((int)n, TILE_COLS, dst + r * ld + j, ld, x, TILE_LD, panels + j * dim, TILE_COLS, dim,
                        b->dot.math);
    }
}

// dst [keys][pad] += s^T x, s [rows][ld], x [rows][pad].
static void add_transposed(const Bwd *b, float *dst, const float *s, int64_t ld, const float *x, int64_t rows,
                           int64_t keys) {
    for (int64_t c = 0; c < b->pad; c += TILE_COLS)
        for (int64_t j = 0; j < keys; j += TILE_ROWS)
            tile_packed((int)ds_min(TILE_ROWS, keys - j), b->pad - c >= TILE_COLS ? TILE_COLS : LANES,
                        dst + j * b->pad + c, b->pad, s + j, ld, x + c, b->pad, rows, TILE_F32);
}

static void run_block(const Bwd *b, const Piece *w, int64_t r0, int64_t rows) {
    const int64_t dim = b->a.head_dim, panel = b->dot.dim, pad = b->pad,
                  key0 = attn_first_key(query_of(b, r0), b->a.window);
    const int64_t keys = query_of(b, r0 + rows - 1) + 1 - key0, whole = ds_round_up(keys, TILE_COLS);
    load_rows(b, w, r0, rows);
    times_panels(b, w->ds, w->ld, w->q_dot, rows, w->kt + key0 * panel, whole);
    times_panels(b, w->p, w->ld, w->do_dot, rows, w->vt + key0 * panel, whole);
    for (int64_t r = 0; r < rows; r++) probabilities(b, w, r0 + r, r, key0, whole);
    memset(w->dq, 0, (size_t)(rows * pad) * sizeof(float));
    for (int64_t r = 0; r < rows; r += TILE_ROWS)
        for (int64_t c = 0; c < pad; c += TILE_COLS)
            tile_rows((int)ds_min(TILE_ROWS, rows - r), pad - c >= TILE_COLS ? TILE_COLS : LANES, w->dq + r * pad + c,
                      pad, w->ds + r * w->ld, w->ld, w->k + key0 * pad + c, pad, keys, TILE_F32);
    for (int64_t r = 0; r < rows; r++)
        narrow_row(b->dt, head_at(b->dt, b->dq, w->start + query_of(b, r0 + r), head_of(b, w, r0 + r)), w->dq + r * pad,
                   dim);
    add_transposed(b, w->dk + key0 * pad, w->ds, w->ld, w->q, rows, keys);
    add_transposed(b, w->dv + key0 * pad, w->p, w->ld, w->do_, rows, keys);
}

static void run_piece(const Bwd *b, Piece *w) {
    open_piece(b, w);
    for (int64_t r = 0; r < w->n * b->group; r += BLOCK) run_block(b, w, r, ds_min(BLOCK, w->n * b->group - r));
    for (int64_t j = 0; j < w->n; j++) {
        narrow_row(b->dt, head_at(b->dt, b->dk, w->start + j, w->head), w->dk + j * b->pad, b->a.head_dim);
        narrow_row(b->dt, head_at(b->dt, b->dv, w->start + j, w->head), w->dv + j * b->pad, b->a.head_dim);
    }
}

void attn_bwd_cpu(DType dt, AttnShape a, HeadView dq, HeadView dk, HeadView dv, Dev *delta, const Dev *do_,
                  const Dev *o, const Dev *lse, HeadView q, HeadView k, HeadView v, const int32_t *starts,
                  int64_t n_seq) {
    if (n_seq <= 0) return;
    const Bwd b = {dt,
                   a,
                   attn_dot(dt, a.head_dim, k.token_stride | v.token_stride),
                   dq,
                   dk,
                   dv,
                   q,
                   k,
                   v,
                   cpu_ptr(delta),
                   cpu_ptr(do_),
                   cpu_ptr(o),
                   cpu_ptr(lse),
                   starts,
                   q.heads / k.heads,
                   ds_round_up(a.head_dim, LANES),
                   starts[n_seq]};
    const int64_t pieces = n_seq * k.heads;
#pragma omp parallel for schedule(dynamic) num_threads(pieces > 1 ? cpu_threads : 1)
    for (int64_t i = 0; i < pieces; i++) {
        Piece w = {
            .start = starts[i / k.heads], .n = starts[i / k.heads + 1] - starts[i / k.heads], .head = i % k.heads};
        if (w.n > 0) run_piece(&b, &w);
    }
}
