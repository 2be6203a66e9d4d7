// attn_fwd.c: causal attention over packed sequences and the blocked cache, exact by row.
//
// One piece of work is (sequence, key head, some queries). Its keys are turned into panels [dim][TILE_COLS keys], its
// values into rows of pairs of keys or of fp32; then tiles of TILE_BLOCK rows pass in three steps:
//
//   scores  [rows][keys]   each one chain over dim in order (tile.h)
//   softmax                the row's largest score, e^(s - max), and their sum: lanes by position from 0, then one tree
//   output  [rows][dim]    each one chain over the keys in order of position; masked keys add p = 0
//
// Positions decide every order, so a row is the same bits from packed rows, from the cache, alone or among others. Keys
// outside a window are skipped by whole panels, which changes nothing: their p is 0. Pairs of keys, and AMX's steps of
// 16 pairs, begin with panels, so they are the same keys for every row.
#include <math.h>

#include "kernels/cpu/attn.h"
#include "kernels/cpu/vmath.h"

enum { PIECE_ROWS = 192 }; // rows (queries x group) of a piece: enough to pay for packing the keys

typedef struct {
    DType dt;
    AttnShape a;
    AttnDot dot;
    void *o;
    float *lse;
    HeadView q, k, v;
    const int32_t *starts, *first;
    const KvCache *past;
    int64_t group, pad, total; // q heads a key head; head_dim in whole vectors; rows of all sequences
} Fwd;

// Queries [q0, q1) of sequence `seq` (counted inside the packed rows), key head `head`; keys [key0, key1) by position.
typedef struct {
    int64_t seq, head, q0, q1, offset, key0, key1;
    float *kt, *v, *s; // panels, rows, scores
    int64_t ld_s;
} Piece;

// The row of the key (value) at `pos`: in the cache before the sequence's first packed position, else in the packed
// rows.
static const void *row_at(const Fwd *f, const Piece *p, bool is_value, int64_t pos) {
    if (pos >= p->offset) return head_at(f->dt, is_value ? f->v : f->k, f->starts[p->seq] + pos - p->offset, p->head);
    const KvCache *c = f->past;
    const int32_t *table = cpu_ptr(c->table);
    const int64_t block = table[p->seq * c->table_ld + pos / c->block];
    return elem_at(f->dt, cpu_ptr(is_value ? c->v : c->k),
                   ((p->head * c->blocks + block) * c->block + pos % c->block) * f->a.head_dim);
}

// The rows of the n keys (values) from `pos` on, if they are *stride elements apart; NULL: they are not.
static const void *rows_at(const Fwd *f, const Piece *p, bool is_value, int64_t pos, int64_t n, int64_t *stride) {
    *stride = pos >= p->offset ? (is_value ? f->v : f->k).token_stride : f->a.head_dim;
    if (pos < p->offset && (pos + n > p->offset || pos % f->past->block + n > f->past->block)) return NULL;
    return row_at(f, p, is_value, pos);
}

// n <= LANES keys from `pos` on into one half of a panel; the other columns of the half are zeros.
static void pack_keys(const Fwd *f, const Piece *p, float *dst, int64_t pos, int64_t n) {
    const AttnDot d = f->dot;
    int64_t stride;
    const void *k = rows_at(f, p, false, pos, n, &stride);
    if (k) {
        pack_rows(d, dst, k, attn_units(d, stride), n);
        return;
    }
    float *rows = cpu_scratch_f32(SCRATCH_E, LANES * f->pad);
    for (int64_t i = 0; i < n; i++)
        dot_row(d, f->dt, rows + i * f->pad, row_at(f, p, false, pos + i), f->a.head_dim, f->pad);
    tile_pack(DS_F32, dst, TILE_COLS, rows, f->pad, n, d.steps, 0);
}

// n <= LANES values from `pos` on: a row for each, or for each pair of neighbours. Without one there are zeros.
static void pack_values(const Fwd *f, const Piece *p, float *dst, int64_t pos, int64_t n) {
    int64_t stride;
    const char *v = rows_at(f, p, true, pos, n, &stride);
    const void *row[LANES + 1] = {0};
    for (int64_t i = 0; i < n; i++) row[i] = v ? elem_at(f->dt, v, i * stride) : row_at(f, p, true, pos + i);
    if (f->dot.math == TILE_F32)
        for (int64_t i = 0; i < n; i++) widen_row(f->dt, dst + i * f->pad, row[i], f->a.head_dim, f->pad);
    else
        for (int64_t i = 0; i < n; i += 2) pair_rows(dst + i / 2 * f->pad, row[i], row[i + 1], f->a.head_dim, f->pad);
}

// Asks memory for the keys and values of LANES positions from `pos` on. (Inlined: GCC takes a function that only
// fetches for one without effect, and leaves its calls out.)
VEC_INLINE void fetch(const Fwd *f, const Piece *p, int64_t pos) {
    const int64_t n = ds_min(LANES, p->key1 - pos), bytes = f->a.head_dim * (int64_t)dtype_bytes(f->dt);
    for (int is_value = 0; n > 0 && is_value < 2; is_value++) {
        int64_t stride;
        const void *at = rows_at(f, p, is_value, pos, n, &stride);
        for (int64_t i = 0; at && i < n; i++)
            for (int64_t b = 0; b < bytes; b += LINE_BYTES)
                __builtin_prefetch((const char *)elem_at(f->dt, at, i * stride) + b, 0, 3);
    }
}

// next: the piece that the thread takes after this one (NULL: none). Its keys and values are asked for meanwhile: a
// decoded token has little to compute with many of them.
static void pack_piece(const Fwd *f, Piece *p, const Piece *next) {
    const int64_t n = p->key1 - p->key0, keys = ds_round_up(n, TILE_COLS), steps = tile_steps(f->dot.math, n);
    const int64_t of_row = f->dot.math == TILE_F32 ? 1 : 2; // values in a row
    p->ld_s = keys + LANES; // rows 2^n bytes apart would meet in the same lines of the first cache
    p->kt = cpu_scratch_f32(SCRATCH_A, keys * f->dot.steps);
    p->v = cpu_scratch_f32(SCRATCH_B, steps * f->pad);
    p->s = cpu_scratch_f32(SCRATCH_C, TILE_BLOCK * p->ld_s);
    for (int64_t j = 0; j < n; j += LANES) {
        const int64_t some = ds_min(LANES, n - j);
        if (next) fetch(f, next, next->key0 + j);
        pack_keys(f, p, p->kt + j / TILE_COLS * TILE_COLS * f->dot.steps + j % TILE_COLS, p->key0 + j, some);
        pack_values(f, p, p->v + j / of_row * f->pad, p->key0 + j, some);
    }
    const int64_t filled = ds_ceil_div(n, of_row);
    memset(p->v + filled * f->pad, 0, (size_t)((steps - filled) * f->pad) * sizeof(float));
}

// What is left of a row's scores beside e^(score - max).
typedef struct {
    float max, sum, weights; // sum: of e^(score - max); weights: of the same as they are multiplied
} Softmax;

// Scores of one row in place -> e^(score - max), masked ones 0: fp32, or bf16 one after the other. The output is
// divided by the sum of the rounded ones, whose mean it then is: an error that they have in common cancels.
VEC_INLINE Softmax softmax(DType p_dt, const Fwd *f, float *s, int64_t key0, int64_t keys, int64_t pos, float slope) {
    Vec m = vec_set(-INFINITY), sum = {0}, weights = {0};
    for (int64_t j = 0; j < keys; j += LANES) {
        const Vec v = attn_score(vec_load(DS_F32, s, j), f->a.scale, slope, key0 + j, pos, f->a.window);
        vec_store(DS_F32, s, j, v);
        m = vec_max(v, m);
    }
    const float max = vec_max_lane(m);
    for (int64_t j = 0; j < keys; j += LANES) {
        const Vec e = vec_exp(vec_load(DS_F32, s, j) - max); // e^-inf is 0
        vec_store(p_dt, s, j, e);
        sum += e;
        if (p_dt == DS_BF16) weights += vec_load(DS_BF16, s, j);
    }
    const float total = vec_sum(sum);
    return (Softmax){max, total, p_dt == DS_BF16 ? vec_sum(weights) : total};
}

static Softmax softmax_row(const Fwd *f, float *s, int64_t key0, int64_t keys, int64_t pos, float slope) {
    if (f->dot.math == TILE_F32) return softmax(DS_F32, f, s, key0, keys, pos, slope);
    return softmax(DS_BF16, f, s, key0, keys, pos, slope);
}

// Rows [r0, r0 + rows) of a piece, and the keys that they see: `keys` from position key0 on, which is `skip` keys into
// the piece.
typedef struct {
    int64_t r0, rows, key0, keys, skip;
} Tile;

static Tile tile_of(const Fwd *f, const Piece *p, int64_t r0, int64_t rows) {
    const int64_t first = p->offset + p->q0 + r0 / f->group, last = p->offset + p->q0 + (r0 + rows - 1) / f->group;
    const int64_t key0 = ds_max(p->key0, attn_first_key(first, f->a.window));
    return (Tile){r0, rows, key0, last + 1 - key0, key0 - p->key0};
}

static int64_t query_of(const Fwd *f, const Piece *p, int64_t row) { return p->q0 + row / f->group; }
static int64_t head_of(const Fwd *f, const Piece *p, int64_t row) { return p->head * f->group + row % f->group; }

static void run_scores(const Fwd *f, const Piece *p, Tile t) {
    float *q = cpu_scratch_f32(SCRATCH_W, TILE_BLOCK * f->pad);
    for (int64_t r = 0; r < t.rows; r++) {
        const int64_t token = f->starts[p->seq] + query_of(f, p, t.r0 + r);
        dot_row(f->dot, f->dt, q + r * f->pad, head_at(f->dt, f->q, token, head_of(f, p, t.r0 + r)), f->a.head_dim,
                f->pad);
    }
    tile_product(&(TileProduct){.math = f->dot.math,
                                .rows = t.rows,
                                .cols = ds_round_up(t.keys, TILE_COLS),
                                .k = f->dot.steps,
                                .acc = p->s,
                                .ld_acc = p->ld_s,
                                .x = q,
                                .ldx = f->pad,
                                .w = p->kt + t.skip * f->dot.steps,
                                .ldw = TILE_COLS,
                                .panel = f->dot.steps * TILE_COLS});
}

static void run_output(const Fwd *f, const Piece *p, Tile t, const Softmax *row) {
    const int64_t dim = f->a.head_dim, pad = f->pad;
    float *acc = cpu_scratch_f32(SCRATCH_ACC, TILE_BLOCK * pad);
    tile_product(&(TileProduct){.math = f->dot.math,
                                .rows = t.rows,
                                .cols = pad,
                                .k = tile_steps(f->dot.math, t.keys),
                                .acc = acc,
                                .ld_acc = pad,
                                .x = p->s,
                                .ldx = p->ld_s,
                                .w = p->v + attn_units(f->dot, t.skip) * pad,
                                .ldw = pad,
                                .panel = TILE_COLS});
    for (int64_t r = 0; r < t.rows; r++) {
        const int64_t token = f->starts[p->seq] + query_of(f, p, t.r0 + r);
        const float inverse = 1.0f / row[r].weights;
        // Sums of pairs may underflow to -0, which a step of zeros, had there been one more, would make 0.
        for (int64_t i = 0; i < pad; i += LANES)
            vec_store(DS_F32, acc, r * pad + i, (vec_load(DS_F32, acc, r * pad + i) + (Vec){0}) * inverse);
        narrow_row(f->dt, elem_ptr(f->dt, f->o, (token * f->q.heads + head_of(f, p, t.r0 + r)) * dim), acc + r * pad,
                   dim);
    }
}

static void run_tile(const Fwd *f, const Piece *p, Tile t) {
    const float *slopes = cpu_ptr(f->a.slopes);
    Softmax row[TILE_BLOCK];
    run_scores(f, p, t);
    for (int64_t r = 0; r < t.rows; r++) {
        const int64_t query = query_of(f, p, t.r0 + r), head = head_of(f, p, t.r0 + r);
        row[r] = softmax_row(f, p->s + r * p->ld_s, t.key0, ds_round_up(t.keys, TILE_COLS), p->offset + query,
                             slopes ? slopes[head] : 0.0f);
        if (f->lse)
            f->lse[head * f->total + f->starts[p->seq] + query] = (float)((double)row[r].max + log((double)row[r].sum));
    }
    run_output(f, p, t, row);
}

static void run_piece(const Fwd *f, Piece *p, const Piece *next) {
    pack_piece(f, p, next);
    tile_open();
    const int64_t rows = (p->q1 - p->q0) * f->group, tiles = ds_ceil_div(rows, TILE_BLOCK);
    for (int64_t t = 0; t < tiles; t++) {
        int64_t r0, r1;
        cpu_share(rows, tiles, t, &r0, &r1);
        run_tile(f, p, tile_of(f, p, r0, r1 - r0));
    }
    tile_close();
}

// All pieces of a call: sequences x key heads x cuts of `span` queries.
typedef struct {
    int64_t heads, cuts, span, n;
    int64_t taken; // by a thread
} Pieces;

// The next piece that has queries and that no thread has taken; false: none is left. Pieces differ in cost by their
// keys, so threads take one after the other; what a piece computes does not depend on who does.
static bool take_piece(const Fwd *f, Pieces *all, Piece *p) {
    do {
        int64_t i;
#pragma omp atomic capture
        i = all->taken++;
        if (i >= all->n) return false;
        *p = (Piece){
            .seq = i / all->cuts / all->heads, .head = i / all->cuts % all->heads, .q0 = i % all->cuts * all->span};
        p->q1 = ds_min(p->q0 + all->span, f->starts[p->seq + 1] - f->starts[p->seq]);
    } while (p->q0 >= p->q1);
    p->offset = f->first ? f->first[p->seq] : 0;
    p->key0 = attn_first_key(p->offset + p->q0, f->a.window);
    p->key1 = p->offset + p->q1;
    return true;
}

static void run_pieces(const Fwd *f, Pieces *all) {
    Piece p, next;
    for (bool one = take_piece(f, all, &p); one; p = next) {
        one = take_piece(f, all, &next);
        run_piece(f, &p, one ? &next : NULL);
    }
}

void attn_fwd_cpu(DType dt, AttnShape a, Dev *o, Dev *lse, HeadView q, HeadView k, HeadView v, const int32_t *starts,
                  int64_t n_seq, const int32_t *first, const KvCache *past) {
    if (n_seq <= 0) return;
    const Fwd f = {dt,
                   a,
                   attn_dot(dt, a.head_dim, k.token_stride),
                   cpu_ptr(o),
                   cpu_ptr(lse),
                   q,
                   k,
                   v,
                   starts,
                   past ? first : NULL,
                   past,
                   q.heads / k.heads,
                   ds_round_up(a.head_dim, LANES),
                   starts[n_seq]};
    Pieces all = {.heads = k.heads, .span = ds_max(1, PIECE_ROWS / f.group)};
    int64_t longest = 0;
    for (int64_t s = 0; s < n_seq; s++) longest = ds_max(longest, starts[s + 1] - starts[s]);
    all.cuts = ds_ceil_div(longest, all.span);
    all.n = n_seq * all.heads * all.cuts;
#pragma omp parallel num_threads(all.n > 1 ? cpu_threads : 1)
    run_pieces(&f, &all);
}
