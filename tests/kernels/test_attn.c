// test_attn.c: attention against PyTorch, double and finite differences; rows bitwise the same from packed rows, from
// the cache, and decoded one at a time; and that nothing past an operand's end is touched.
#include "attn_ref.h"

// q, k, v as views into one fused matrix [n][row], as the model has them, `gap` elements between rows: with an odd one
// pairs of bf16 do not stand where they could be read as one.
enum { EVEN_GAP = 4, ODD_GAP = 3 };
typedef struct {
    Dev *p;
    HeadView q, k, v;
} Fused;

static Fused fuse(const Kernels *t, DType dt, const float *q, const float *k, const float *v, int64_t n, int64_t hq,
                  int64_t hk, int64_t dim, int64_t gap) {
    const int64_t row = (hq + 2 * hk) * dim + gap;
    const size_t e = dtype_bytes(dt);
    float *all = mem_array(n * row, sizeof *all);
    for (int64_t r = 0; q && r < n; r++) {
        memcpy(all + r * row, q + r * hq * dim, (size_t)(hq * dim) * sizeof *q);
        memcpy(all + r * row + hq * dim, k + r * hk * dim, (size_t)(hk * dim) * sizeof *k);
        memcpy(all + r * row + (hq + hk) * dim, v + r * hk * dim, (size_t)(hk * dim) * sizeof *v);
    }
    Dev *p = dev_floats(t, dt, all, n * row);
    mem_free(all);
    return (Fused){p,
                   {p, row, dim, hq},
                   {dev_at(p, (size_t)(hq * dim) * e), row, dim, hk},
                   {dev_at(p, (size_t)((hq + hk) * dim) * e), row, dim, hk}};
}

static void expect_heads(const Kernels *t, const char *what, DType dt, const Fused *f, int64_t from, int64_t n,
                         const float *want, const Bounded *b, double limit) {
    const int64_t row = f->q.token_stride, count = b->n / n;
    float *all = host_floats(t, dt, f->p, n * row), *got = mem_array(b->n, sizeof *got);
    for (int64_t r = 0; r < n; r++) memcpy(got + r * count, all + r * row + from, (size_t)count * sizeof *got);
    expect_bounded(what, dt, got, want, b, limit);
    mem_free(all), mem_free(got);
}

// What a problem's results are: PyTorch's, or those of double.
typedef struct {
    float *o, *lse, *dq, *dk, *dv; // lse NULL: not compared
} Wanted;

static void one(const Kernels *t, DType dt, const Problem *p, const Attention *a, const Wanted *want, int64_t gap) {
    const int64_t n = p->starts[p->n_seq], hq = p->hq, hk = p->hk, dim = p->dim;
    Fused f = fuse(t, dt, p->q, p->k, p->v, n, hq, hk, dim, gap),
          d = fuse(t, dt, NULL, NULL, NULL, n, hq, hk, dim, gap);
    Dev *slopes = p->slopes ? dev_floats(t, DS_F32, p->slopes, hq) : NULL, *o = dev_new(t, dt, n * hq * dim),
        *lse = dev_new(t, DS_F32, n * hq), *do_ = dev_floats(t, dt, p->do_, n * hq * dim),
        *delta = dev_new(t, DS_F32, n * hq);
    const AttnShape shape = {.head_dim = dim, .window = p->window, .scale = (float)p->scale, .slopes = slopes};
    t->attn_fwd(dt, shape, o, lse, f.q, f.k, f.v, p->starts, p->n_seq, NULL, NULL);
    float *got = host_floats(t, dt, o, n * hq * dim), *got_lse = host_floats(t, DS_F32, lse, n * hq);
    expect_bounded("attn_fwd o", dt, got, want->o, &a->o, 8.0);
    if (want->lse) expect_floats("attn_fwd lse", DS_F32, got_lse, want->lse, n * hq, 4.0);
    t->attn_bwd(dt, shape, d.q, d.k, d.v, delta, do_, o, lse, f.q, f.k, f.v, p->starts, p->n_seq);
    expect_heads(t, "attn_bwd dq", dt, &d, 0, n, want->dq, &a->dq, 32.0);
    expect_heads(t, "attn_bwd dk", dt, &d, hq * dim, n, want->dk, &a->dk, 32.0);
    expect_heads(t, "attn_bwd dv", dt, &d, (hq + hk) * dim, n, want->dv, &a->dv, 32.0);
    mem_free(got), mem_free(got_lse);
    DEV_FREE(t, f.p, d.p, slopes, o, lse, do_, delta);
}

static void all_ways(const Problem *p, const Attention *a, const Wanted *want) {
    for (int threads = 1; threads <= 2; threads++)
        for (int d = 0; d < DS_COUNT(ref_dtypes); d++)
            for (int64_t gap = ODD_GAP; gap <= EVEN_GAP; gap++) one(ref_open(threads), ref_dtypes[d], p, a, want, gap);
}

static void against_pytorch(void **state) {
    (void)state;
    json_t *cases = ref_load("attn");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        float *q = ref_floats(c, "q"), *k = ref_floats(c, "k"), *v = ref_floats(c, "v"), *do_ = ref_floats(c, "do"),
              *slopes = ref_floats(c, "slopes");
        int32_t *starts = ref_ints(c, "starts");
        const Problem p = {ref_int(c, "heads"),
                           ref_int(c, "kv_heads"),
                           ref_int(c, "dim"),
                           ref_int(c, "window"),
                           ref_count(c, "starts") - 1,
                           ref_num(c, "scale"),
                           starts,
                           json_is_true(ref_get(c, "alibi")) ? slopes : NULL,
                           q,
                           k,
                           v,
                           do_};
        const Wanted want = {ref_floats(c, "o"), ref_floats(c, "lse"), ref_floats(c, "dq"), ref_floats(c, "dk"),
                             ref_floats(c, "dv")};
        Attention a = attention(&p);
        all_ways(&p, &a, &want);
        attention_free(&a);
        mem_free(want.o), mem_free(want.lse), mem_free(want.dq), mem_free(want.dk), mem_free(want.dv);
        mem_free(q), mem_free(k), mem_free(v), mem_free(do_), mem_free(slopes), mem_free(starts);
    }
    json_decref(cases);
}

static float *to_floats(const Bounded *b) {
    float *x = mem_array(b->n, sizeof *x);
    for (int64_t i = 0; i < b->n; i++) x[i] = (float)b->x[i];
    return x;
}

// More sizes of heads, groups, sequences and windows than the references have.
static void against_double(void **state) {
    (void)state;
    static const float slopes[] = {0.5f, 0.25f, 0.125f, 0.0625f, 0.03125f};
    static const int32_t starts[] = {0, 1, 34, 99, 164};
    static const struct {
        int64_t hq, hk, dim, window;
        bool alibi;
    } shapes[] = {
        {5, 1, 80, 0, false}, {3, 3, 27, 0, true}, {4, 2, 96, 40, false}, {2, 1, 128, 0, false}, {3, 1, 34, 33, true}};
    for (int i = 0; i < DS_COUNT(shapes); i++) {
        const int64_t n = starts[4], nq = n * shapes[i].hq * shapes[i].dim, nk = n * shapes[i].hk * shapes[i].dim;
        float *q = rand_floats(nq, 1.0, 61), *k = rand_floats(nk, 1.0, 62), *v = rand_floats(nk, 1.0, 63),
              *do_ = rand_floats(nq, 1.0, 64);
        const Problem p = {shapes[i].hq,
                           shapes[i].hk,
                           shapes[i].dim,
                           shapes[i].window,
                           4,
                           1.0 / sqrt((double)shapes[i].dim),
                           starts,
                           shapes[i].alibi ? slopes : NULL,
                           q,
                           k,
                           v,
                           do_};
        Attention a = attention(&p);
        const Wanted want = {to_floats(&a.o), NULL, to_floats(&a.dq), to_floats(&a.dk), to_floats(&a.dv)};
        all_ways(&p, &a, &want);
        attention_free(&a);
        mem_free(want.o), mem_free(want.dq), mem_free(want.dk), mem_free(want.dv);
        mem_free(q), mem_free(k), mem_free(v), mem_free(do_);
    }
}

// ---- packed, cached, decoded ----
enum { SEQS = 3, BLOCK = 32, TABLE = 26 }; // TABLE: enough blocks of 5 positions, the smallest
static const int64_t lengths[SEQS] = {1, 77, 130};

typedef struct {
    int64_t hq, hk, dim, window;
    bool alibi;
    int64_t gap;
    int64_t block; // of the cache
} Shape;

typedef struct {
    const Kernels *t;
    DType dt;
    Shape s;
    AttnShape a;
    Fused f;
    Dev *want; // o of the whole sequences packed
    KvCache cache;
    Dev *pool_k, *pool_v, *table, *slopes;
} Run;

static int64_t first_row(int64_t seq) {
    int64_t at = 0;
    for (int64_t i = 0; i < seq; i++) at += lengths[i];
    return at;
}

// Rows [from, to) of a fused matrix.
static HeadView rows_from(const Run *r, HeadView x, int64_t from) {
    x.p = dev_at(x.p, (size_t)(from * x.token_stride) * dtype_bytes(r->dt));
    return x;
}

static void open_run(Run *r, const Kernels *t, DType dt, Shape s) {
    const int64_t n = first_row(SEQS), blocks = SEQS * TABLE;
    int32_t table[SEQS * TABLE], starts[SEQS + 1];
    float slopes[16], *q = rand_floats(n * s.hq * s.dim, 1.0, 41), *k = rand_floats(n * s.hk * s.dim, 1.0, 42),
                      *v = rand_floats(n * s.hk * s.dim, 1.0, 43);
    for (int i = 0; i <= SEQS; i++) starts[i] = (int32_t)first_row(i);
    for (int i = 0; i < blocks; i++) table[i] = (int32_t)((i * 7 + 3) % blocks); // blocks lie anywhere
    for (int i = 0; i < 16; i++) slopes[i] = ldexpf(1.0f, -i - 1);
    *r = (Run){.t = t,
               .dt = dt,
               .s = s,
               .f = fuse(t, dt, q, k, v, n, s.hq, s.hk, s.dim, s.gap),
               .want = dev_new(t, dt, n * s.hq * s.dim)};
    r->pool_k = dev_new(t, dt, blocks * s.hk * s.block * s.dim),
    r->pool_v = dev_new(t, dt, blocks * s.hk * s.block * s.dim);
    r->table = dev_ints(t, table, blocks), r->slopes = dev_floats(t, DS_F32, slopes, 16);
    r->cache = (KvCache){r->pool_k, r->pool_v, s.hk, blocks, s.block, r->table, TABLE};
    r->a = (AttnShape){.head_dim = s.dim, .window = s.window, .scale = 0.3f, .slopes = s.alibi ? r->slopes : NULL};
    t->attn_fwd(dt, r->a, r->want, NULL, r->f.q, r->f.k, r->f.v, starts, SEQS, NULL, NULL);
    mem_free(q), mem_free(k), mem_free(v);
}

static void close_run(Run *r) { DEV_FREE(r->t, r->f.p, r->want, r->pool_k, r->pool_v, r->table, r->slopes); }

// Attends `count` queries of each sequence from position first[s] on (clipped to its length), all sequences in one
// call, and compares.
static void step(const Run *r, const int32_t *first, int64_t count, bool write_before) {
    const int64_t width = r->s.hq * r->s.dim, row = r->f.q.token_stride;
    const size_t e = dtype_bytes(r->dt);
    int32_t starts[SEQS + 1] = {0};
    for (int i = 0; i < SEQS; i++) starts[i + 1] = starts[i] + (int32_t)ds_max(0, ds_min(count, lengths[i] - first[i]));
    const int64_t n = starts[SEQS];
    Dev *packed = dev_new(r->t, r->dt, n * row), *o = dev_new(r->t, r->dt, n * width);
    for (int i = 0; i < SEQS; i++)
        r->t->copy(dev_at(packed, (size_t)(starts[i] * row) * e),
                   dev_at(r->f.p, (size_t)((first_row(i) + first[i]) * row) * e),
                   (size_t)((starts[i + 1] - starts[i]) * row) * e);
    HeadView q = r->f.q, k = r->f.k, v = r->f.v;
    const size_t to_k = (size_t)(r->s.hq * r->s.dim) * e, to_v = to_k + (size_t)(r->s.hk * r->s.dim) * e;
    q.p = packed, k.p = dev_at(packed, to_k), v.p = dev_at(packed, to_v);
    if (write_before) r->t->kv_write(r->dt, r->cache, k, v, r->s.dim, starts, SEQS, first);
    r->t->attn_fwd(r->dt, r->a, o, NULL, q, k, v, starts, SEQS, first, &r->cache);
    if (!write_before) r->t->kv_write(r->dt, r->cache, k, v, r->s.dim, starts, SEQS, first);
    for (int i = 0; i < SEQS; i++)
        expect_same_bits(r->t, "attention rows", dev_at(o, (size_t)(starts[i] * width) * e),
                         dev_at(r->want, (size_t)((first_row(i) + first[i]) * width) * e),
                         (size_t)((starts[i + 1] - starts[i]) * width) * e);
    DEV_FREE(r->t, packed, o);
}

static void steps_of(const Kernels *t, DType dt, Shape s, int64_t count, bool write_before) {
    Run r;
    open_run(&r, t, dt, s);
    for (int64_t at = 0; at < 130; at += count) {
        int32_t first[SEQS];
        for (int i = 0; i < SEQS; i++) first[i] = (int32_t)ds_min(at, lengths[i]);
        step(&r, first, count, write_before);
    }
    close_run(&r);
}

static void rows_are_exact(void **state) {
    (void)state;
    static const Shape shapes[] = {{9, 3, 64, 0, false, EVEN_GAP, BLOCK},  {9, 3, 64, 0, false, ODD_GAP, BLOCK},
                                   {2, 2, 20, 0, true, EVEN_GAP, BLOCK},   {4, 1, 8, 0, false, EVEN_GAP, BLOCK},
                                   {4, 2, 16, 40, false, EVEN_GAP, BLOCK}, {12, 12, 80, 0, false, EVEN_GAP, BLOCK},
                                   {3, 1, 27, 33, true, ODD_GAP, BLOCK},   {10, 2, 96, 50, true, EVEN_GAP, BLOCK},
                                   {9, 3, 64, 0, false, EVEN_GAP, 5},      {4, 2, 16, 40, false, EVEN_GAP, 24},
                                   {3, 1, 27, 33, true, ODD_GAP, 6}};
    static const int64_t counts[] = {1, 5, 21, 64};
    for (int threads = 1; threads <= 2; threads++) {
        const Kernels *t = ref_open(threads);
        for (int d = 0; d < DS_COUNT(ref_dtypes); d++)
            for (int i = 0; i < DS_COUNT(shapes); i++)
                for (int j = 0; j < DS_COUNT(counts); j++) steps_of(t, ref_dtypes[d], shapes[i], counts[j], j % 2 == 0);
    }
}

// A sequence alone, at the start of the rows, gives the bits that it has among others.
static void alone_or_among_others(void **state) {
    (void)state;
    const Kernels *t = ref_open(2);
    for (int d = 0; d < DS_COUNT(ref_dtypes); d++) {
        Run r;
        open_run(&r, t, ref_dtypes[d], (Shape){6, 2, 32, 0, false, EVEN_GAP, BLOCK});
        const int64_t n = lengths[2], width = 6 * 32;
        const int32_t starts[2] = {0, (int32_t)n};
        Dev *o = dev_new(t, ref_dtypes[d], n * width);
        t->attn_fwd(ref_dtypes[d], r.a, o, NULL, rows_from(&r, r.f.q, first_row(2)), rows_from(&r, r.f.k, first_row(2)),
                    rows_from(&r, r.f.v, first_row(2)), starts, 1, NULL, NULL);
        const size_t e = dtype_bytes(ref_dtypes[d]);
        expect_same_bits(t, "a sequence alone", o, dev_at(r.want, (size_t)(first_row(2) * width) * e),
                         (size_t)(n * width) * e);
        t->mem_destroy(o);
        close_run(&r);
    }
}

// ---- bounds ----
// Rows of q, k and v, the cache, dO and every result end where a page begins that nobody may touch.
static void edge_shape(const Kernels *t, DType dt, Shape s) {
    const size_t e = dtype_bytes(dt);
    const int64_t n = first_row(SEQS), row = (s.hq + 2 * s.hk) * s.dim, pool = SEQS * TABLE * s.hk * s.block * s.dim;
    Run r;
    open_run(&r, t, dt, s);
    int32_t starts[SEQS + 1], first[SEQS] = {0};
    for (int i = 0; i <= SEQS; i++) starts[i] = (int32_t)first_row(i);
    Edge f = edge_copy(t, r.f.p, (size_t)(n * row) * e), d = edge_create(t, (size_t)(n * row) * e),
         o = edge_create(t, (size_t)(n * s.hq * s.dim) * e), do_ = edge_copy(t, r.want, o.bytes),
         lse = edge_create(t, (size_t)(n * s.hq) * sizeof(float)), delta = edge_create(t, lse.bytes),
         pool_k = edge_create(t, (size_t)pool * e), pool_v = edge_create(t, (size_t)pool * e);
    HeadView v[] = {r.f.q, r.f.k, r.f.v, r.f.q, r.f.k, r.f.v};
    const int64_t from[] = {0, s.hq * s.dim, (s.hq + s.hk) * s.dim};
    for (int i = 0; i < 6; i++) v[i].p = dev_at(i < 3 ? f.p : d.p, (size_t)from[i % 3] * e);
    KvCache cache = r.cache;
    cache.k = pool_k.p, cache.v = pool_v.p;
    t->attn_fwd(dt, r.a, o.p, lse.p, v[0], v[1], v[2], starts, SEQS, NULL, NULL);
    expect_same_bits(t, "attention at a page's end", o.p, r.want, o.bytes);
    t->attn_bwd(dt, r.a, v[3], v[4], v[5], delta.p, do_.p, o.p, lse.p, v[0], v[1], v[2], starts, SEQS);
    t->kv_write(dt, cache, v[1], v[2], s.dim, starts, SEQS, first);
    for (int i = 0; i < SEQS; i++) first[i] = (int32_t)lengths[i] - 1; // the last row again, from the cache
    for (int i = 0; i < SEQS; i++) {
        HeadView last[3];
        const int32_t alone[] = {0, 1};
        const int64_t at = first_row(i + 1) - 1;
        for (int j = 0; j < 3; j++) last[j] = v[j], last[j].p = dev_at(v[j].p, (size_t)(at * row) * e);
        KvCache mine = cache;
        mine.table = dev_cat(cache.table, (size_t)(i * TABLE) * sizeof(int32_t));
        Dev *to = dev_at(o.p, (size_t)(at * s.hq * s.dim) * e);
        t->attn_fwd(dt, r.a, to, NULL, last[0], last[1], last[2], alone, 1, first + i, &mine);
    }
    expect_same_bits(t, "decoded at a page's end", o.p, r.want, o.bytes);
    Edge *const all[] = {&f, &d, &o, &do_, &lse, &delta, &pool_k, &pool_v};
    for (int i = 0; i < DS_COUNT(all); i++) {
        for (size_t j = 0; j < all[i]->room - all[i]->bytes; j++) assert_int_equal(all[i]->map[j], 0);
        edge_destroy(all[i]);
    }
    close_run(&r);
}

static void stays_inside(void **state) {
    (void)state;
    static const Shape shapes[] = {{9, 3, 64, 0, false, 0, BLOCK},
                                   {3, 1, 27, 0, true, 0, BLOCK},
                                   {2, 2, 20, 40, false, 0, BLOCK},
                                   {5, 1, 6, 0, false, 0, BLOCK},
                                   {2, 1, 80, 33, true, 0, BLOCK}};
    for (int d = 0; d < DS_COUNT(ref_dtypes); d++)
        for (int i = 0; i < DS_COUNT(shapes); i++) edge_shape(ref_open(2), ref_dtypes[d], shapes[i]);
}

// ---- finite differences on the fused rows: loss = <c, o> ----
enum { FD_N = 45, FD_HQ = 4, FD_HK = 2, FD_DIM = 10, FD_ROW = (FD_HQ + 2 * FD_HK) * FD_DIM };
typedef struct {
    const Kernels *t;
    const float *c;
    int64_t window;
} Loss;

static Fused fd_views(Dev *p) {
    return (Fused){p,
                   {p, FD_ROW, FD_DIM, FD_HQ},
                   {dev_at(p, FD_HQ * FD_DIM * 4), FD_ROW, FD_DIM, FD_HK},
                   {dev_at(p, (FD_HQ + FD_HK) * FD_DIM * 4), FD_ROW, FD_DIM, FD_HK}};
}
static const int32_t fd_starts[] = {0, 4, FD_N};

static double loss_of(void *state, const float *x) {
    const Loss *l = state;
    Dev *p = dev_floats(l->t, DS_F32, x, FD_N * FD_ROW), *o = dev_new(l->t, DS_F32, FD_N * FD_HQ * FD_DIM);
    const Fused f = fd_views(p);
    l->t->attn_fwd(DS_F32, (AttnShape){FD_DIM, l->window, 0.4f, NULL}, o, NULL, f.q, f.k, f.v, fd_starts, 2, NULL,
                   NULL);
    float *h = host_floats(l->t, DS_F32, o, FD_N * FD_HQ * FD_DIM);
    double sum = 0.0;
    for (int i = 0; i < FD_N * FD_HQ * FD_DIM; i++) sum += (double)h[i] * l->c[i];
    mem_free(h);
    DEV_FREE(l->t, p, o);
    return sum;
}

static void against_differences(void **state) {
    (void)state;
    const Kernels *t = ref_open(2);
    float *x = rand_floats(FD_N * FD_ROW, 1.0, 51), *c = rand_floats(FD_N * FD_HQ * FD_DIM, 1.0, 52);
    for (int64_t window = 0; window <= 20; window += 20) {
        const AttnShape a = {FD_DIM, window, 0.4f, NULL};
        Dev *p = dev_floats(t, DS_F32, x, FD_N * FD_ROW), *dp = dev_new(t, DS_F32, FD_N * FD_ROW),
            *o = dev_new(t, DS_F32, FD_N * FD_HQ * FD_DIM);
        Dev *lse = dev_new(t, DS_F32, FD_N * FD_HQ), *delta = dev_new(t, DS_F32, FD_N * FD_HQ),
            *pc = dev_floats(t, DS_F32, c, FD_N * FD_HQ * FD_DIM);
        const Fused f = fd_views(p), d = fd_views(dp);
        t->attn_fwd(DS_F32, a, o, lse, f.q, f.k, f.v, fd_starts, 2, NULL, NULL);
        t->attn_bwd(DS_F32, a, d.q, d.k, d.v, delta, pc, o, lse, f.q, f.k, f.v, fd_starts, 2);
        float *g = host_floats(t, DS_F32, dp, FD_N * FD_ROW);
        expect_slope("attention", loss_of, &(Loss){t, c, window}, x, g, FD_N * FD_ROW, 0.002, 1e-4);
        mem_free(g);
        DEV_FREE(t, p, dp, o, lse, delta, pc);
    }
    mem_free(x), mem_free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_pytorch),       cmocka_unit_test(against_double),
                                       cmocka_unit_test(stays_inside),          cmocka_unit_test(rows_are_exact),
                                       cmocka_unit_test(alone_or_among_others), cmocka_unit_test(against_differences)};
    return cmocka_run_group_tests_name("attn", tests, NULL, NULL);
}
