// attn_bwd.c: gradient of causal attention over packed sequences. The probabilities are made again from the kept
// log-sum-exp.
//
// One piece of work is (sequence, key head), so that dk and dv have one writer: deterministic for any number of
// threads. BLOCK rows (query, head in the group) at a time, with P = e^(s - lse) and dS = P (dO v^T - delta) scale:
//
//   dq [rows][dim] = dS k        dk^T [dim][keys] += q^T dS      dv^T [dim][keys] += dO^T P      delta = sum over dim
//   of dO o
//
// dk and dv are summed as columns of keys, so that of both factors it is the small one, q or dO, that is turned.
#include <math.h>

#include "kernels/cpu/attn.h"
#include "kernels/cpu/vmath.h"

// Rows of a block: whole tiles, and with AMX whole steps of pairs of rows. TURNED: the same in whole vectors.
enum { BLOCK = TILE_STEP > 1 ? 2 * TILE_BLOCK : 4 * TILE_BLOCK, TURNED = (BLOCK + LANES - 1) / LANES * LANES };

typedef struct {
    DType dt;
    AttnShape a;
    AttnDot dot;
    HeadView dq, dk, dv, q, k, v;
    float *delta;
    const void *do_, *o;
    const float *lse;
    const int32_t *starts;
    int64_t group, pad, total;
} Bwd;

// One sequence and key head. With pairs k_rows are pairs of keys, q_t and do_t pairs of rows, and P and dS lie as
// probabilities_pairs leaves them; else all these are fp32.
typedef struct {
    int64_t start, n, head;
    float *kt, *vt, *k_rows; // panels of k and v, rows of k
    float *dk, *dv;          // sums [pad][ld]
    float *q, *do_, *dq;     // the block's rows
    float *q_t, *do_t;       // the same turned, [pad][TURNED]
    float *p, *ds;           // [BLOCK][ld]
    int64_t ld;
} Piece;

static int64_t query_of(const Bwd *b, int64_t row) { return row / b->group; }
static int64_t head_of(const Bwd *b, const Piece *w, int64_t row) { return w->head * b->group + row % b->group; }

// n floats out of one scratch buffer, each start on a whole vector.
static float *take(float **at, int64_t n) {
    float *p = *at;
    *at += ds_round_up(n, LANES);
    return p;
}

// Row i of k_rows: a key, or the pair of keys 2i and 2i + 1, zeros from n on.
static void pack_key(const Bwd *b, const Piece *w, int64_t i) {
    float *dst = w->k_rows + i * b->pad;
    if (b->dot.math == TILE_F32) {
        widen_row(b->dt, dst, head_at(b->dt, b->k, w->start + i, w->head), b->a.head_dim, b->pad);
    } else {
        const void *k = 2 * i < w->n ? head_at(b->dt, b->k, w->start + 2 * i, w->head) : NULL,
                   *next = 2 * i + 1 < w->n ? head_at(b->dt, b->k, w->start + 2 * i + 1, w->head) : NULL;
        pair_rows(dst, k, next, b->a.head_dim, b->pad);
    }
}

static void open_piece(const Bwd *b, Piece *w) {
    const int64_t keys = ds_round_up(w->n, TILE_COLS), steps = b->dot.steps, pad = b->pad;
    w->ld = keys + LANES; // rows 2^n bytes apart would meet in the same lines of the first cache
    float *at = cpu_scratch_f32(SCRATCH_A, keys * (2 * steps + pad) + 2 * pad * w->ld + (3 * BLOCK + 2 * TURNED) * pad +
                                               2 * BLOCK * w->ld + 16 * LANES);
    w->kt = take(&at, keys * steps), w->vt = take(&at, keys * steps), w->k_rows = take(&at, keys * pad);
    w->dk = take(&at, pad * w->ld), w->dv = take(&at, pad * w->ld);
    w->q = take(&at, BLOCK * pad), w->do_ = take(&at, BLOCK * pad), w->dq = take(&at, BLOCK * pad);
    w->q_t = take(&at, pad * TURNED), w->do_t = take(&at, pad * TURNED);
    w->p = take(&at, BLOCK * w->ld), w->ds = take(&at, BLOCK * w->ld);
    memset(w->dk, 0, (size_t)(pad * w->ld) * sizeof(float));
    memset(w->dv, 0, (size_t)(pad * w->ld) * sizeof(float));
    for (int64_t j = 0; j < keys; j += LANES) {
        const int64_t n = ds_max(0, ds_min(LANES, w->n - j)), to = j / TILE_COLS * TILE_COLS * steps + j % TILE_COLS;
        pack_rows(b->dot, w->kt + to, head_at(b->dt, b->k, w->start + j, w->head),
                  attn_units(b->dot, b->k.token_stride), n);
        pack_rows(b->dot, w->vt + to, head_at(b->dt, b->v, w->start + j, w->head),
                  attn_units(b->dot, b->v.token_stride), n);
    }
    for (int64_t i = 0; i < tile_steps(b->dot.math, w->n); i++) pack_key(b, w, i);
}

// The sum over dim of x y.
VEC_INLINE float row_dot(DType dt, const void *x, const void *y, int64_t dim) {
    Vec sum = {0};
    for (int64_t i = 0; i < dim; i += LANES)
        sum = vec_fma(vec_load_n(dt, x, i, dim - i), vec_load_n(dt, y, i, dim - i), sum);
    return vec_sum(sum);
}

// dst [pad][TURNED] = the block's rows at src turned, with pairs: of rows, zeros where there is none.
static void turn_rows(const Bwd *b, float *dst, const float *src, int64_t rows) {
    const int64_t pad = b->pad, n = b->dot.math == TILE_F32 ? rows : ds_ceil_div(rows, 2);
    if (b->dot.math == TILE_PAIRS) {
        float *pairs = cpu_scratch_f32(SCRATCH_X, BLOCK * pad);
        for (int64_t i = 0; i < n; i++)
            pair_rows(pairs + i * pad, src + 2 * i * pad, 2 * i + 1 < rows ? src + (2 * i + 1) * pad : NULL,
                      b->a.head_dim, pad);
        src = pairs;
    }
    for (int64_t i = 0; i < n; i += LANES)
        tile_pack(DS_F32, dst + i, TURNED, src + i * pad, pad, ds_min(LANES, n - i), pad, 0);
}

// q and dO of the block's rows, also turned, and delta.
static void load_rows(const Bwd *b, const Piece *w, int64_t r0, int64_t rows) {
    const int64_t dim = b->a.head_dim, pad = b->pad;
    for (int64_t r = 0; r < rows; r++) {
        const int64_t token = w->start + query_of(b, r0 + r), head = head_of(b, w, r0 + r),
                      at = (token * b->q.heads + head) * dim;
        const void *o = elem_at(b->dt, b->o, at), *do_ = elem_at(b->dt, b->do_, at);
        dot_row(b->dot, b->dt, w->q + r * pad, head_at(b->dt, b->q, token, head), dim, pad);
        dot_row(b->dot, b->dt, w->do_ + r * pad, do_, dim, pad);
        b->delta[head * b->total + token] =
            b->dt == DS_F32 ? row_dot(DS_F32, o, do_, dim) : row_dot(DS_BF16, o, do_, dim);
    }
    turn_rows(b, w->q_t, w->q, rows);
    turn_rows(b, w->do_t, w->do_, rows);
}

typedef struct {
    int64_t query;
    float slope, lse, delta;
} Row;

static Row row_of(const Bwd *b, const Piece *w, int64_t row) {
    const int64_t query = query_of(b, row), head = head_of(b, w, row), i = head * b->total + w->start + query;
    return (Row){query, b->a.slopes ? ((const float *)cpu_ptr(b->a.slopes))[head] : 0.0f, b->lse[i], b->delta[i]};
}

// s and dO v^T at *p of keys from j on -> dS and P.
VEC_INLINE void weigh(const Bwd *b, const Row *r, int64_t j, Vec *s, Vec *p) {
    const Vec e = vec_exp(attn_score(*s, b->a.scale, r->slope, j, r->query, b->a.window) - r->lse);
    *s = e * (*p - r->delta) * b->a.scale;
    *p = e;
}

static void probabilities_f32(const Bwd *b, const Piece *w, int64_t r0, int64_t rows, int64_t key0, int64_t keys) {
    for (int64_t i = 0; i < rows; i++) {
        const Row r = row_of(b, w, r0 + i);
        float *p = w->p + i * w->ld, *ds = w->ds + i * w->ld;
        for (int64_t j = 0; j < keys; j += LANES) {
            Vec s = vec_load(DS_F32, ds, j), e = vec_load(DS_F32, p, j);
            weigh(b, &r, key0 + j, &s, &e);
            vec_store(DS_F32, ds, j, s);
            vec_store(DS_F32, p, j, e);
        }
    }
}

// Rounded to bf16 and in place: rows of ds hold dS one after the other, for dS k; rows 2i of p the pairs of P of rows
// 2i and 2i + 1, rows 2i + 1 those of dS, for P^T dO and dS^T q.
static void probabilities_pairs(const Bwd *b, const Piece *w, int64_t r0, int64_t rows, int64_t key0, int64_t keys) {
    for (int64_t i = 0; i < rows; i += 2) {
        const bool both = i + 1 < rows;
        const Row r = row_of(b, w, r0 + i), next = row_of(b, w, r0 + i + (both ? 1 : 0));
        float *p = w->p + i * w->ld, *p2 = p + w->ld, *ds = w->ds + i * w->ld, *ds2 = ds + w->ld;
        for (int64_t j = 0; j < keys; j += LANES) {
            Vec s = vec_load(DS_F32, ds, j), e = vec_load(DS_F32, p, j), s2 = {0}, e2 = {0};
            weigh(b, &r, key0 + j, &s, &e);
            if (both) {
                s2 = vec_load(DS_F32, ds2, j), e2 = vec_load(DS_F32, p2, j);
                weigh(b, &next, key0 + j, &s2, &e2);
            }
            vec_store(DS_BF16, ds, j, s);
            vec_store(DS_BF16, ds2, j, s2);
            vec_store(DS_F32, p, j, pair_lanes(round_lanes(e), round_lanes(e2)));
            vec_store(DS_F32, p2, j, pair_lanes(round_lanes(s), round_lanes(s2)));
        }
    }
    for (int64_t i = ds_round_up(rows, 2); i < 2 * tile_steps(TILE_PAIRS, rows); i++)
        memset(w->p + i * w->ld, 0, (size_t)keys * sizeof(float));
}

// dst [rows][ld] = x [rows][pad] times the panels at w, dim summed.
static void times_panels(const Bwd *b, float *dst, int64_t ld, const float *x, int64_t rows, const float *w,
                         int64_t keys) {
    tile_product(&(TileProduct){.math = b->dot.math,
                                .rows = rows,
                                .cols = keys,
                                .k = b->dot.steps,
                                .acc = dst,
                                .ld_acc = ld,
                                .x = x,
                                .ldx = b->pad,
                                .w = w,
                                .ldw = TILE_COLS,
                                .panel = b->dot.steps * TILE_COLS});
}

// dst [dim][ld] += x_t [dim][TURNED] times the rows [keys] at w, the block's rows summed.
static void add_turned(const Bwd *b, float *dst, int64_t ld, const float *x_t, const float *w, int64_t ldw,
                       int64_t rows, int64_t keys) {
    tile_product(&(TileProduct){.math = b->dot.math,
                                .add = true,
                                .rows = b->a.head_dim,
                                .cols = keys,
                                .k = tile_steps(b->dot.math, rows),
                                .acc = dst,
                                .ld_acc = ld,
                                .x = x_t,
                                .ldx = TURNED,
                                .w = w,
                                .ldw = ldw,
                                .panel = TILE_COLS});
}

// dq = dS k of the block's rows.
static void query_gradient(const Bwd *b, const Piece *w, int64_t r0, int64_t rows, int64_t key0, int64_t keys) {
    tile_product(&(TileProduct){.math = b->dot.math,
                                .rows = rows,
                                .cols = b->pad,
                                .k = tile_steps(b->dot.math, keys),
                                .acc = w->dq,
                                .ld_acc = b->pad,
                                .x = w->ds,
                                .ldx = w->ld,
                                .w = w->k_rows + attn_units(b->dot, key0) * b->pad,
                                .ldw = b->pad,
                                .panel = TILE_COLS});
    for (int64_t r = 0; r < rows; r++)
        narrow_row(b->dt, head_at(b->dt, b->dq, w->start + query_of(b, r0 + r), head_of(b, w, r0 + r)),
                   w->dq + r * b->pad, b->a.head_dim);
}

static void run_block(const Bwd *b, const Piece *w, int64_t r0, int64_t rows) {
    const int64_t key0 = attn_first_key(query_of(b, r0), b->a.window), keys = query_of(b, r0 + rows - 1) + 1 - key0,
                  whole = ds_round_up(keys, TILE_COLS);
    load_rows(b, w, r0, rows);
    times_panels(b, w->ds, w->ld, w->q, rows, w->kt + key0 * b->dot.steps, whole);
    times_panels(b, w->p, w->ld, w->do_, rows, w->vt + key0 * b->dot.steps, whole);
    if (b->dot.math == TILE_F32) {
        probabilities_f32(b, w, r0, rows, key0, whole);
        add_turned(b, w->dk + key0, w->ld, w->q_t, w->ds, w->ld, rows, whole);
        add_turned(b, w->dv + key0, w->ld, w->do_t, w->p, w->ld, rows, whole);
    } else {
        probabilities_pairs(b, w, r0, rows, key0, whole);
        add_turned(b, w->dk + key0, w->ld, w->q_t, w->p + w->ld, 2 * w->ld, rows, whole);
        add_turned(b, w->dv + key0, w->ld, w->do_t, w->p, 2 * w->ld, rows, whole);
    }
    query_gradient(b, w, r0, rows, key0, keys);
}

// Rows of dst = the columns [pad][ld] at src.
static void store_turned(const Bwd *b, const Piece *w, HeadView dst, const float *src) {
    float *rows = cpu_scratch_f32(SCRATCH_X, LANES * b->pad);
    for (int64_t j = 0; j < w->n; j += LANES) {
        for (int64_t i = 0; i < b->pad; i += LANES)
            tile_pack(DS_F32, rows + i, b->pad, src + i * w->ld + j, w->ld, LANES, LANES, 0);
        for (int64_t k = j; k < ds_min(j + LANES, w->n); k++)
            narrow_row(b->dt, head_at(b->dt, dst, w->start + k, w->head), rows + (k - j) * b->pad, b->a.head_dim);
    }
}

static void run_piece(const Bwd *b, Piece *w) {
    open_piece(b, w);
    tile_open();
    for (int64_t r = 0; r < w->n * b->group; r += BLOCK) run_block(b, w, r, ds_min(BLOCK, w->n * b->group - r));
    tile_close();
    store_turned(b, w, b->dk, w->dk);
    store_turned(b, w, b->dv, w->dv);
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
