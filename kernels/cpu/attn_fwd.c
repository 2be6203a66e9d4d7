// attn_fwd.c: causal attention over packed sequences and the blocked cache, exact by row.
//
// One piece of work is (sequence, key head, some queries). Its keys are turned into panels [dim][TILE_COLS keys], its
// values into fp32 rows; then tiles of TILE_ROWS rows pass in three steps:
//
//   scores  [rows][keys]   each one chain over dim in order (tile.h)
//   softmax                the row's largest score, e^(s - max), and their sum: lanes by position from 0, then one tree
//   output  [rows][dim]    each one chain over the keys in order of position; masked keys add p = 0
//
// Positions decide every order, so a row is the same bits from packed rows, from the cache, alone or among others. Keys
// outside a window are skipped by whole panels, which changes nothing: their p is 0.
#include <math.h>

#include "kernels/cpu/attn.h"
#include "kernels/cpu/vmath.h"

enum { PIECE_ROWS = 192 }; // rows (queries x group) of a piece: enough to pay for packing the keys

typedef struct {
    DType dt;
    AttnShape a;
    AttnDot dot; // of q and k
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

// LANES keys from `pos` on (positions from key1 on are zeros) into one half of a panel.
static void pack_keys(const Fwd *f, const Piece *p, float *dst, int64_t pos) {
    const int64_t dim = f->a.head_dim, n = ds_min(LANES, p->key1 - pos);
    const AttnDot d = f->dot;
    if (pos >= p->offset) {
        tile_pack(d.unit, dst, TILE_COLS, row_at(f, p, false, pos), attn_units(d, f->k.token_stride), n, d.dim, 0);
    } else if (pos + n <= p->offset) { // a cache block holds them side by side
        tile_pack(d.unit, dst, TILE_COLS, row_at(f, p, false, pos), d.dim, n, d.dim, 0);
    } else {
        float *rows = cpu_scratch_f32(SCRATCH_E, LANES * f->pad);
        for (int64_t i = 0; i < n; i++) dot_row(d, f->dt, rows + i * f->pad, row_at(f, p, false, pos + i), dim, f->pad);
        tile_pack(DS_F32, dst, TILE_COLS, rows, f->pad, n, d.dim, 0);
    }
}

static void pack_piece(const Fwd *f, Piece *p) {
    const int64_t dim = f->a.head_dim, keys = ds_round_up(p->key1 - p->key0, TILE_COLS);
    p->kt = cpu_scratch_f32(SCRATCH_A, keys * f->dot.dim);
    p->v = cpu_scratch_f32(SCRATCH_B, keys * f->pad);
    p->s = cpu_scratch_f32(SCRATCH_C, TILE_ROWS * keys);
    p->ld_s = keys;
    for (int64_t j = 0; j < keys && p->key0 + j < p->key1; j += LANES)
        pack_keys(f, p, p->kt + j / TILE_COLS * TILE_COLS * f->dot.dim + j % TILE_COLS, p->key0 + j);
    for (int64_t j = p->key0; j < p->key1; j++)
        widen_row(f->dt, p->v + (j - p->key0) * f->pad, row_at(f, p, true, j), dim, f->pad);
}

// Scores of one row in place -> e^(score - max), masked ones 0. Returns their sum.
static float softmax_row(const Fwd *f, float *s, int64_t key0, int64_t keys, int64_t pos, float slope, float *row_max) {
    Vec m = vec_set(-INFINITY), total = {0};
    for (int64_t j = 0; j < keys; j += LANES) {
        const Vec v = attn_score(vec_load(DS_F32, s, j), f->a.scale, slope, key0 + j, pos, f->a.window);
        vec_store(DS_F32, s, j, v);
        m = vec_max(v, m);
    }
    const float max = vec_max_lane(m);
    for (int64_t j = 0; j < keys; j += LANES) {
        const Vec e = vec_exp(vec_load(DS_F32, s, j) - max); // e^-inf is 0
        vec_store(DS_F32, s, j, e);
        total += e;
    }
    *row_max = max;
    return vec_sum(total);
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
    const int64_t dim = f->dot.dim, pad = f->pad, panels = ds_ceil_div(t.keys, TILE_COLS);
    float *x = cpu_scratch_f32(SCRATCH_X, dim * TILE_LD), *q = cpu_scratch_f32(SCRATCH_W, TILE_ROWS * pad);
    for (int64_t r = 0; r < t.rows; r++) {
        const int64_t token = f->starts[p->seq] + query_of(f, p, t.r0 + r);
        dot_row(f->dot, f->dt, q + r * pad, head_at(f->dt, f->q, token, head_of(f, p, t.r0 + r)), f->a.head_dim, pad);
        memset(p->s + r * p->ld_s, 0, (size_t)(panels * TILE_COLS) * sizeof(float));
    }
    tile_pack(DS_F32, x, TILE_LD, q, pad, t.rows, dim, 0);
    for (int64_t j = 0; j < panels; j++)
        tile_packed((int)t.rows, TILE_COLS, p->s + j * TILE_COLS, p->ld_s, x, TILE_LD,
                    p->kt + (t.skip + j * TILE_COLS) * dim, TILE_COLS, dim, f->dot.math);
}

static void run_output(const Fwd *f, const Piece *p, Tile t, const float *sum) {
    const int64_t dim = f->a.head_dim, pad = f->pad;
    float *acc = cpu_scratch_f32(SCRATCH_ACC, TILE_ROWS * pad);
    memset(acc, 0, (size_t)(TILE_ROWS * pad) * sizeof(float));
    for (int64_t c = 0; c < pad; c += TILE_COLS)
        tile_rows((int)t.rows, pad - c >= TILE_COLS ? TILE_COLS : LANES, acc + c, pad, p->s, p->ld_s,
                  p->v + t.skip * pad + c, pad, t.keys, TILE_F32);
    for (int64_t r = 0; r < t.rows; r++) {
        const int64_t token = f->starts[p->seq] + query_of(f, p, t.r0 + r);
        const float inverse = 1.0f / sum[r];
        for (int64_t i = 0; i < pad; i += LANES)
            vec_store(DS_F32, acc, r * pad + i, vec_load(DS_F32, acc, r * pad + i) * inverse);
        narrow_row(f->dt, elem_ptr(f->dt, f->o, (token * f->q.heads + head_of(f, p, t.r0 + r)) * dim), acc + r * pad,
                   dim);
    }
}

static void run_tile(const Fwd *f, const Piece *p, Tile t) {
    const float *slopes = cpu_ptr(f->a.slopes);
    float sum[TILE_ROWS];
    run_scores(f, p, t);
    for (int64_t r = 0; r < t.rows; r++) {
        const int64_t query = query_of(f, p, t.r0 + r), head = head_of(f, p, t.r0 + r);
        float max;
        sum[r] = softmax_row(f, p->s + r * p->ld_s, t.key0, ds_round_up(t.keys, TILE_COLS), p->offset + query,
                             slopes ? slopes[head] : 0.0f, &max);
        if (f->lse) f->lse[head * f->total + f->starts[p->seq] + query] = (float)((double)max + log((double)sum[r]));
    }
    run_output(f, p, t, sum);
}

static void run_piece(const Fwd *f, Piece *p) {
    p->offset = f->first ? f->first[p->seq] : 0;
    p->key0 = attn_first_key(p->offset + p->q0, f->a.window);
    p->key1 = p->offset + p->q1;
    pack_piece(f, p);
    const int64_t rows = (p->q1 - p->q0) * f->group, tiles = ds_ceil_div(rows, TILE_ROWS);
    for (int64_t t = 0; t < tiles; t++) {
        int64_t r0, r1;
        cpu_share(rows, tiles, t, &r0, &r1);
        run_tile(f, p, tile_of(f, p, r0, r1 - r0));
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
    const int64_t span = ds_max(1, PIECE_ROWS / f.group);
    int64_t longest = 0;
    for (int64_t s = 0; s < n_seq; s++) longest = ds_max(longest, starts[s + 1] - starts[s]);
    const int64_t cuts = ds_ceil_div(longest, span), pieces = n_seq * k.heads * cuts;
    // Pieces differ in cost by their keys, so threads take the next one; what a piece computes does not depend on who
    // does.
#pragma omp parallel for schedule(dynamic) num_threads(pieces > 1 ? cpu_threads : 1)
    for (int64_t i = 0; i < pieces; i++) {
        Piece p = {.seq = i / cuts / k.heads, .head = i / cuts % k.heads, .q0 = i % cuts * span};
        p.q1 = ds_min(p.q0 + span, starts[p.seq + 1] - starts[p.seq]);
        if (p.q0 < p.q1) run_piece(&f, &p);
    }
}
