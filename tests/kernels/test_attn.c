// test_attn.c: attention against PyTorch and finite differences; rows bitwise the same from packed rows, from the
// cache, and decoded one at a time.
#include "ref.h"

// q, k, v as views into one fused matrix [n][row], as the model has them.
typedef struct {
    Dev *p;
    HeadView q, k, v;
} Fused;

static Fused fuse(const Kernels *t, DType dt, const float *q, const float *k, const float *v, int64_t n, int64_t hq,
                  int64_t hk, int64_t dim) {
    const int64_t row = (hq + 2 * hk) * dim + 3;
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

static void expect_heads(const Kernels *t, const char *what, DType dt, const Fused *f, int64_t from, int64_t count,
                         int64_t n, const json_t *c, const char *key, double limit) {
    const int64_t row = f->q.token_stride;
    float *all = host_floats(t, dt, f->p, n * row), *got = mem_array(n * count, sizeof *got),
          *want = ref_floats(c, key);
    for (int64_t r = 0; r < n; r++) memcpy(got + r * count, all + r * row + from, (size_t)count * sizeof *got);
    expect_floats(what, dt, got, want, n * count, limit);
    mem_free(all), mem_free(got), mem_free(want);
}

static void one(const Kernels *t, DType dt, const json_t *c) {
    const int64_t hq = ref_int(c, "heads"), hk = ref_int(c, "kv_heads"), dim = ref_int(c, "dim"),
                  n_seq = ref_count(c, "starts") - 1;
    float *q = ref_floats(c, "q"), *k = ref_floats(c, "k"), *v = ref_floats(c, "v");
    int32_t *starts = ref_ints(c, "starts");
    const int64_t n = starts[n_seq];
    Fused f = fuse(t, dt, q, k, v, n, hq, hk, dim), d = fuse(t, dt, NULL, NULL, NULL, n, hq, hk, dim);
    Dev *slopes = dev_ref(t, DS_F32, c, "slopes"), *o = dev_new(t, dt, n * hq * dim), *lse = dev_new(t, DS_F32, n * hq);
    Dev *do_ = dev_ref(t, dt, c, "do"), *delta = dev_new(t, DS_F32, n * hq);
    const AttnShape a = {.head_dim = dim,
                         .window = ref_int(c, "window"),
                         .scale = (float)ref_num(c, "scale"),
                         .slopes = json_is_true(ref_get(c, "alibi")) ? slopes : NULL};
    t->attn_fwd(dt, a, o, lse, f.q, f.k, f.v, starts, n_seq, NULL, NULL);
    expect_dev(t, "attn_fwd o", dt, o, c, "o", dt == DS_F32 ? 8.0 : 1.0);
    expect_dev_f32(t, "attn_fwd lse", DS_F32, lse, c, "lse", 4.0);
    t->attn_bwd(dt, a, d.q, d.k, d.v, delta, do_, o, lse, f.q, f.k, f.v, starts, n_seq);
    const double limit = dt == DS_F32 ? 16.0 : 4.0;
    expect_heads(t, "attn_bwd dq", dt, &d, 0, hq * dim, n, c, "dq", limit);
    expect_heads(t, "attn_bwd dk", dt, &d, hq * dim, hk * dim, n, c, "dk", limit);
    expect_heads(t, "attn_bwd dv", dt, &d, (hq + hk) * dim, hk * dim, n, c, "dv", limit);
    mem_free(q), mem_free(k), mem_free(v), mem_free(starts);
    DEV_FREE(t, f.p, d.p, slopes, o, lse, do_, delta);
}

static void against_pytorch(void **state) {
    (void)state;
    json_t *cases = ref_load("attn");
    for (int threads = 1; threads <= 2; threads++) {
        const Kernels *t = ref_open(threads);
        for (int d = 0; d < DS_COUNT(ref_dtypes); d++)
            for (size_t i = 0; i < json_array_size(cases); i++) one(t, ref_dtypes[d], json_array_get(cases, i));
    }
    json_decref(cases);
}

// ---- packed, cached, decoded ----
enum { SEQS = 3, BLOCK = 32, TABLE = 8 };
static const int64_t lengths[SEQS] = {1, 77, 130};

typedef struct {
    int64_t hq, hk, dim, window;
    bool alibi;
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
               .f = fuse(t, dt, q, k, v, n, s.hq, s.hk, s.dim),
               .want = dev_new(t, dt, n * s.hq * s.dim)};
    r->pool_k = dev_new(t, dt, blocks * s.hk * BLOCK * s.dim),
    r->pool_v = dev_new(t, dt, blocks * s.hk * BLOCK * s.dim);
    r->table = dev_ints(t, table, blocks), r->slopes = dev_floats(t, DS_F32, slopes, 16);
    r->cache = (KvCache){r->pool_k, r->pool_v, s.hk, blocks, BLOCK, r->table, TABLE};
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
    static const Shape shapes[] = {
        {9, 3, 64, 0, false}, {2, 2, 20, 0, true}, {4, 1, 8, 0, false}, {4, 2, 16, 40, false}, {12, 12, 80, 0, false}};
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
        open_run(&r, t, ref_dtypes[d], (Shape){6, 2, 32, 0, false});
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_pytorch), cmocka_unit_test(rows_are_exact),
                                       cmocka_unit_test(alone_or_among_others), cmocka_unit_test(against_differences)};
    return cmocka_run_group_tests_name("attn", tests, NULL, NULL);
}
