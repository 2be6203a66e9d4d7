// kernels.c: seconds of every costly operation of the table of kernels at the shapes of SmolLM2-135M, beside what the
// machine can do (machine.h). Prints one JSON line for the machine and one an operation.
//
// usage: kernels [threads] [dtype]        KERNEL_SECONDS: time an operation (0.3)        ONLY: names that hold this
//
// Operands that a run finds in memory, not in a cache, are found there here too: each call takes the next of several
// copies, which together are much larger than the caches. What is best is the best of all calls.
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "kernels/kernels.h"
#include "tests/bench/machine.h"

enum {
    WIDTH = 576,
    FFN = 1536,
    HEADS = 9,
    KV_HEADS = 3,
    HEAD_DIM = 64,
    QKV = (HEADS + 2 * KV_HEADS) * HEAD_DIM,
    VOCAB = 49152,
    TOKENS = 4096,            // of a micro-batch
    CHUNK = 512,              // rows of logits at a time
    ELEMENTS = VOCAB * WIDTH, // of the largest weight
    SUM_CHUNK = 1 << 16,      // of the norm's partial sums
    COPIES_BYTES = 256 << 20
};

// An operand: `copies` of n elements end to end.
typedef struct {
    Dev *p;
    size_t bytes; // of one
    int64_t copies;
} Buf;

typedef struct Case Case;
struct Case {
    const char *op;
    char shape[64];
    void (*call)(Case *c, int64_t turn);
    double flops, bytes; // 0: not of interest
    double seconds;      // result
    int traffic;         // of the bytes: MACHINE_READ, ...
    Buf a, b, c, d, e;   // operands, as the call says
    int64_t m, out, in;
    DType y_dt;
    int32_t starts[17], first[16];
    int64_t n_seq;
    KvCache cache;
};

static const Kernels *k;
static DType dt;
static Machine machine;
static double least_seconds = 0.3;
static const char *only;

// What is measured is printed at the end, when the machine has been measured once more.
static Case done[128];
static int n_done;

// ---- operands ----

static Dev *at(Buf b, int64_t turn) { return dev_at(b.p, (size_t)(turn % b.copies) * b.bytes); }

// As many copies as make COPIES_BYTES, filled with numbers in (-1, 1).
static Buf buf_of(DType type, int64_t n, bool one) {
    enum { BLOCK = 1 << 16 };
    static float values[BLOCK];
    const size_t bytes = (size_t)n * dtype_bytes(type);
    Buf b = {.bytes = (bytes + 63) / 64 * 64};
    b.copies = one ? 1 : ds_max(1, ds_ceil_div(COPIES_BYTES, (int64_t)b.bytes));
    const size_t all = b.bytes * (size_t)b.copies, block = BLOCK * dtype_bytes(type);
    uint32_t state = 1;
    for (int i = 0; i < BLOCK; i++) {
        state = state * 1664525 + 1013904223;
        const float v = (float)(int32_t)state * 0x1p-31f;
        if (type == DS_BF16) ((uint16_t *)values)[i] = f32_to_bf16(v);
        else values[i] = v;
    }
    b.p = k->mem_create(all, MEM_WEIGHTS);
    for (size_t from = 0; from < all; from += block)
        k->copy_in(dev_at(b.p, from), values, all - from < block ? all - from : block);
    return b;
}
static Buf many(DType type, int64_t n) { return buf_of(type, n, false); }
static Buf one(DType type, int64_t n) { return buf_of(type, n, true); }

// Written to, so that its pages are there.
static Buf zeros(DType type, int64_t n) {
    Buf b = one(type, n);
    k->zero(b.p, b.bytes);
    return b;
}

static Buf constants(int64_t n, float value) {
    float *v = MEM_NEW(float, n);
    for (int64_t i = 0; i < n; i++) v[i] = value;
    Buf b = one(DS_F32, n);
    k->copy_in(b.p, v, (size_t)n * sizeof *v);
    mem_free(v);
    return b;
}

// Whole numbers: i * step % below.
static Buf numbers(int64_t n, int64_t step, int64_t below) {
    int32_t *v = MEM_NEW(int32_t, n);
    for (int64_t i = 0; i < n; i++) v[i] = (int32_t)(i * step % below);
    Buf b = one(DS_I32, n);
    k->copy_in(b.p, v, (size_t)n * sizeof *v);
    mem_free(v);
    return b;
}

// ---- measuring ----

static void print_share(const char *name, const char *share, double amount, double seconds, double most) {
    if (amount > 0)
        printf(", \"%s\": %.2f, \"%s\": %.4f", name, amount / seconds / 1e9, share, amount / seconds / most);
    else printf(", \"%s\": null, \"%s\": null", name, share);
}

static void print_case(const Case *c) {
    static const double *const rates[] = {&machine.read, &machine.copy, &machine.update};
    static const char *const names[] = {"read", "copy", "update"};
    printf("{\"op\": \"%s\", \"shape\": \"%s\", \"seconds\": %.4g", c->op, c->shape, c->seconds);
    print_share("gflops", "matmul_share", c->flops, c->seconds, machine.flops);
    print_share("gbs", "bandwidth_share", c->bytes, c->seconds, *rates[c->traffic]);
    printf(", \"traffic\": \"%s\"}\n", c->bytes > 0 ? names[c->traffic] : "none");
}

static double measure(Case *c) {
    double best = INFINITY, all = 0;
    c->call(c, 0); // the first pays for scratch
    for (int64_t turn = 1; turn <= 3 || (all < least_seconds && turn < 100000); turn++) {
        const double start = clock_now();
        c->call(c, turn);
        const double seconds = clock_now() - start;
        best = fmin(best, seconds);
        all += seconds;
    }
    return best;
}

static bool wanted(const char *op) { return !only || strstr(op, only); }

// Measures, and gives the operands back.
static void finish(Case *c) {
    c->seconds = measure(c);
    if (n_done < DS_COUNT(done)) done[n_done++] = *c;
    Buf *const list[] = {&c->a, &c->b, &c->c, &c->d, &c->e};
    for (int i = 0; i < DS_COUNT(list); i++)
        if (list[i]->p) k->mem_destroy(list[i]->p);
}

// ---- linear: a = y or dy, b = x, c = w ----

static void linear_fwd(Case *c, int64_t i) {
    k->linear_fwd(dt, c->y_dt, c->a.p, at(c->b, i), at(c->c, i), NULL, c->m, c->out, c->in);
}
static void linear_bwd_x(Case *c, int64_t i) {
    k->linear_bwd_x(dt, c->b.p, false, at(c->a, i), at(c->c, i), c->m, c->out, c->in);
}
static void linear_bwd_w(Case *c, int64_t i) {
    k->linear_bwd_w(dt, c->c.p, NULL, at(c->a, i), at(c->b, i), c->m, c->out, c->in);
}

typedef struct {
    const char *name;
    int64_t out, in;
} Product;
static const Product products[] = {{"qkv", QKV, WIDTH},
                                   {"o", WIDTH, WIDTH},
                                   {"gate+up", 2 * FFN, WIDTH},
                                   {"down", WIDTH, FFN},
                                   {"head", VOCAB, WIDTH}};
static bool is_head(const Product *p) { return p->out == VOCAB; }

static Case linear_case(const char *op, const Product *p, int64_t m, void (*call)(Case *, int64_t)) {
    Case c = {.op = op, .call = call, .m = m, .out = p->out, .in = p->in, .y_dt = is_head(p) ? DS_F32 : dt};
    snprintf(c.shape, sizeof c.shape, "%s %lld x %lld x %lld", p->name, (long long)m, (long long)p->out,
             (long long)p->in);
    c.flops = 2.0 * (double)(m * p->out * p->in);
    return c;
}

static void run_linear(const Product *p) {
    const int64_t m = is_head(p) ? CHUNK : TOKENS;
    if (wanted("linear_fwd")) {
        Case c = linear_case("linear_fwd", p, m, linear_fwd);
        c.a = one(c.y_dt, m * p->out), c.b = many(dt, m * p->in), c.c = one(dt, p->out * p->in);
        finish(&c);
    }
    if (wanted("linear_bwd_x")) {
        Case c = linear_case("linear_bwd_x", p, m, linear_bwd_x);
        c.a = many(dt, m * p->out), c.b = one(dt, m * p->in), c.c = one(dt, p->out * p->in);
        finish(&c);
    }
    if (wanted("linear_bwd_w")) {
        Case c = linear_case("linear_bwd_w", p, m, linear_bwd_w);
        c.a = many(dt, m * p->out), c.b = many(dt, m * p->in), c.c = zeros(DS_F32, p->out * p->in);
        finish(&c);
    }
}

// Few rows: what counts is how fast the weights come from memory.
static void run_decode_linear(const Product *p, int64_t m) {
    if (!wanted("linear_fwd")) return;
    Case c = linear_case("linear_fwd", p, m, linear_fwd);
    c.a = one(c.y_dt, m * p->out), c.b = one(dt, m * p->in), c.c = many(dt, p->out * p->in);
    c.bytes = (double)(p->out * p->in) * (double)dtype_bytes(dt);
    finish(&c);
}

// ---- attention: a = o or its gradient, b = qkv, c = lse or the cache, d = dqkv, e = delta or the table ----

static HeadView view(Dev *qkv, int64_t first, int64_t heads) {
    return (HeadView){dev_at(qkv, (size_t)(first * HEAD_DIM) * dtype_bytes(dt)), QKV, HEAD_DIM, heads};
}
static HeadView view_q(Dev *qkv) { return view(qkv, 0, HEADS); }
static HeadView view_k(Dev *qkv) { return view(qkv, HEADS, KV_HEADS); }
static HeadView view_v(Dev *qkv) { return view(qkv, HEADS + KV_HEADS, KV_HEADS); }
static const AttnShape attn_shape = {.head_dim = HEAD_DIM, .scale = 0.125f};

static void attn_fwd(Case *c, int64_t i) {
    Dev *qkv = at(c->b, i);
    k->attn_fwd(dt, attn_shape, c->a.p, c->c.p, view_q(qkv), view_k(qkv), view_v(qkv), c->starts, c->n_seq, NULL, NULL);
}
static void attn_bwd(Case *c, int64_t i) {
    Dev *qkv = at(c->b, i), *dqkv = c->d.p;
    k->attn_bwd(dt, attn_shape, view_q(dqkv), view_k(dqkv), view_v(dqkv), c->e.p, at(c->a, i), at(c->a, i + 1), c->c.p,
                view_q(qkv), view_k(qkv), view_v(qkv), c->starts, c->n_seq);
}
static void attn_decode(Case *c, int64_t i) {
    KvCache cache = c->cache;
    cache.k = at(c->c, 2 * i), cache.v = at(c->c, 2 * i + 1);
    k->attn_fwd(dt, attn_shape, c->a.p, NULL, view_q(c->b.p), view_k(c->b.p), view_v(c->b.p), c->starts, c->n_seq,
                c->first, &cache);
}

static Case attn_case(const char *op, int64_t n_seq, int64_t length, void (*call)(Case *, int64_t)) {
    Case c = {.op = op, .call = call, .n_seq = n_seq, .m = n_seq * length};
    snprintf(c.shape, sizeof c.shape, "%lld x %lld", (long long)n_seq, (long long)length);
    for (int64_t s = 0; s < n_seq; s++) c.starts[s + 1] = (int32_t)((s + 1) * length);
    // q k^T and p v, over the keys that a query sees.
    c.flops = 4.0 * HEADS * HEAD_DIM * (double)n_seq * (double)length * (double)(length + 1) / 2;
    return c;
}

static void run_attn(int64_t n_seq, int64_t length) {
    if (wanted("attn_fwd")) {
        Case c = attn_case("attn_fwd", n_seq, length, attn_fwd);
        c.a = one(dt, c.m * HEADS * HEAD_DIM), c.b = many(dt, c.m * QKV), c.c = one(DS_F32, c.m * HEADS);
        finish(&c);
    }
    if (wanted("attn_bwd")) {
        Case c = attn_case("attn_bwd", n_seq, length, attn_bwd);
        c.flops *= 2.5; // five products: q k^T once more, and one for each of dv, dp, dq, dk
        c.a = many(dt, c.m * HEADS * HEAD_DIM), c.b = many(dt, c.m * QKV), c.c = one(DS_F32, c.m * HEADS);
        c.d = one(dt, c.m * QKV), c.e = one(DS_F32, c.m * HEADS);
        finish(&c);
    }
}

// Sequences with `keys` keys each, of which the last is the query's own.
static void run_attn_decode(int64_t n_seq, int64_t keys) {
    enum { BLOCK = 16 };
    if (!wanted("attn_decode")) return;
    Case c = attn_case("attn_decode", n_seq, 1, attn_decode);
    const int64_t ld = ds_ceil_div(keys, BLOCK), blocks = n_seq * ld;
    for (int64_t s = 0; s < n_seq; s++) c.first[s] = (int32_t)(keys - 1);
    snprintf(c.shape, sizeof c.shape, "%lld x 1, %lld keys", (long long)n_seq, (long long)keys);
    c.flops = 4.0 * HEADS * HEAD_DIM * (double)(n_seq * keys);
    c.bytes = 2.0 * KV_HEADS * HEAD_DIM * (double)(n_seq * keys) * (double)dtype_bytes(dt);
    c.a = one(dt, c.m * HEADS * HEAD_DIM), c.b = one(dt, c.m * QKV),
    c.c = many(dt, blocks * KV_HEADS * BLOCK * HEAD_DIM);
    c.e = numbers(blocks, 1, blocks);
    c.cache = (KvCache){.kv_heads = KV_HEADS, .blocks = blocks, .block = BLOCK, .table = c.e.p, .table_ld = ld};
    finish(&c);
}

// ---- the rest, bound by memory. `words`: how often an element of dt moves ----

static double moved(double words) { return words * (double)dtype_bytes(dt); }

static void norm_fwd(Case *c, int64_t i) {
    k->norm_fwd(dt, KERNEL_NORM_RMS, at(c->a, i), c->c.p, at(c->b, i), c->d.p, NULL, TOKENS, WIDTH, 1e-5f);
}
static void norm_bwd(Case *c, int64_t i) { // as a layer calls it: dx +=
    k->norm_bwd(dt, KERNEL_NORM_RMS, at(c->a, i), true, c->e.p, NULL, at(c->b, i), at(c->b, i + 1), c->d.p, c->c.p,
                TOKENS, WIDTH);
}
static void rope(Case *c, int64_t i) {
    k->rope(dt, view_q(at(c->a, i)), c->b.p, c->c.p, TOKENS, HEAD_DIM, 1);
    k->rope(dt, view_k(at(c->a, i)), c->b.p, c->c.p, TOKENS, HEAD_DIM, 1);
}
static void glu_fwd(Case *c, int64_t i) { k->glu_fwd(dt, KERNEL_ACT_SILU, at(c->a, i), at(c->b, i), TOKENS, FFN); }
static void glu_bwd(Case *c, int64_t i) {
    k->glu_bwd(dt, KERNEL_ACT_SILU, at(c->a, i), at(c->c, i), at(c->b, i), TOKENS, FFN);
}
static void add(Case *c, int64_t i) { k->add(dt, at(c->a, i), at(c->b, i), TOKENS * WIDTH); }
static void embed_fwd(Case *c, int64_t i) {
    k->embed_fwd(dt, at(c->a, i), c->b.p, 0, VOCAB, c->c.p, NULL, NULL, 0, TOKENS, WIDTH);
}
static void embed_bwd(Case *c, int64_t i) { k->embed_bwd(dt, c->b.p, VOCAB, at(c->a, i), c->c.p, 0, TOKENS, WIDTH); }

static Case plain(const char *op, const char *shape, void (*call)(Case *, int64_t), int traffic, double bytes) {
    Case c = {.op = op, .call = call, .bytes = bytes, .traffic = traffic};
    snprintf(c.shape, sizeof c.shape, "%s", shape);
    return c;
}

static void run_rows(void) {
    const int64_t n = TOKENS * WIDTH, inner = (int64_t)TOKENS * FFN;
    if (wanted("norm_fwd")) {
        Case c = plain("norm_fwd", "4096 x 576", norm_fwd, MACHINE_COPY, moved(2.0 * n));
        c.a = many(dt, n), c.b = many(dt, n), c.c = one(DS_F32, 2 * TOKENS), c.d = one(dt, WIDTH);
        finish(&c);
    }
    if (wanted("norm_bwd")) {
        Case c = plain("norm_bwd", "4096 x 576", norm_bwd, MACHINE_UPDATE, moved(4.0 * n));
        c.a = many(dt, n), c.b = many(dt, n), c.c = zeros(DS_F32, 2 * TOKENS), c.d = one(dt, WIDTH);
        c.e = zeros(DS_F32, WIDTH);
        finish(&c);
    }
    if (wanted("rope")) {
        Case c =
            plain("rope", "4096 x 12 heads", rope, MACHINE_UPDATE, moved(2.0 * TOKENS * (HEADS + KV_HEADS) * HEAD_DIM));
        c.a = many(dt, TOKENS * QKV), c.c = numbers(TOKENS, 1, 256);
        c.b = constants(2048 * HEAD_DIM, 0.70710678f); // cos = sin: a rotation, which keeps the numbers' size
        finish(&c);
    }
    if (wanted("glu_fwd")) {
        Case c = plain("glu_fwd", "4096 x 1536", glu_fwd, MACHINE_COPY, moved(3.0 * (double)inner));
        c.a = many(dt, inner), c.b = many(dt, 2 * inner);
        finish(&c);
    }
    if (wanted("glu_bwd")) {
        Case c = plain("glu_bwd", "4096 x 1536", glu_bwd, MACHINE_COPY, moved(5.0 * (double)inner));
        c.a = many(dt, 2 * inner), c.b = many(dt, 2 * inner), c.c = many(dt, inner);
        finish(&c);
    }
    if (wanted("add")) {
        Case c = plain("add", "4096 x 576", add, MACHINE_UPDATE, moved(3.0 * n));
        c.a = many(dt, n), c.b = many(dt, n);
        finish(&c);
    }
    if (wanted("embed_fwd")) {
        Case c = plain("embed_fwd", "4096 x 576", embed_fwd, MACHINE_COPY, moved(2.0 * n));
        c.a = many(dt, n), c.b = one(dt, ELEMENTS), c.c = numbers(TOKENS, 7919, VOCAB);
        finish(&c);
    }
    if (wanted("embed_bwd")) {
        Case c = plain("embed_bwd", "4096 x 576", embed_bwd, MACHINE_UPDATE, moved(1.0 * n) + 8.0 * n);
        c.a = many(dt, n), c.b = zeros(DS_F32, ELEMENTS), c.c = numbers(TOKENS, 7919, VOCAB);
        finish(&c);
    }
}

// ---- the head: a = logits, b = dlogits or ids, c = targets or u, d = lse, e = log-probs or their gradients ----

static void logprob_fwd(Case *c, int64_t i) {
    k->logprob_fwd(c->e.p, c->d.p, NULL, at(c->a, i), c->c.p, CHUNK, VOCAB, VOCAB, 1);
}
static void logprob_bwd(Case *c, int64_t i) {
    k->logprob_bwd(dt, at(c->b, i), at(c->a, i), c->d.p, c->c.p, c->e.p, NULL, NULL, CHUNK, VOCAB, VOCAB, 1);
}
static void sample(Case *c, int64_t i) { k->sample(c->b.p, at(c->a, i), c->c.p, c->m, VOCAB, VOCAB, 1, 0, 1); }
static void sample_cut(Case *c, int64_t i) { k->sample(c->b.p, at(c->a, i), c->c.p, c->m, VOCAB, VOCAB, 1, 50, 0.9f); }

static void run_sample(const char *shape, void (*call)(Case *, int64_t)) {
    if (!wanted("sample")) return;
    Case c = plain("sample", shape, call, MACHINE_READ, 4.0 * 16 * VOCAB);
    float u[16];
    for (int i = 0; i < 16; i++) u[i] = ((float)i + 0.5f) / 16;
    c.m = 16;
    c.a = many(DS_F32, c.m * VOCAB), c.b = numbers(c.m, 1, 1), c.c = one(DS_F32, c.m);
    k->copy_in(c.c.p, u, sizeof u);
    finish(&c);
}

static void run_head(void) {
    const int64_t n = (int64_t)CHUNK * VOCAB;
    if (wanted("logprob_fwd")) {
        Case c = plain("logprob_fwd", "512 x 49152", logprob_fwd, MACHINE_READ, 4.0 * (double)n);
        c.a = many(DS_F32, n), c.c = numbers(CHUNK, 7919, VOCAB), c.d = one(DS_F32, CHUNK), c.e = one(DS_F32, CHUNK);
        finish(&c);
    }
    if (wanted("logprob_bwd")) {
        Case c = plain("logprob_bwd", "512 x 49152", logprob_bwd, MACHINE_COPY, 4.0 * (double)n + moved((double)n));
        c.a = many(DS_F32, n), c.b = many(dt, n), c.c = numbers(CHUNK, 7919, VOCAB);
        c.d = constants(CHUNK, 10.9f), c.e = one(DS_F32, CHUNK); // about the log-sum of such logits
        finish(&c);
    }
    run_sample("16 x 49152", sample);
    run_sample("16 x 49152, top_k 50, top_p 0.9", sample_cut);
}

// ---- flat stores ----

static void adamw(Case *c, int64_t i) {
    (void)i;
    const AdamwArgs a = {
        .lr = 1e-6, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .correction1 = 0.1, .correction2 = 0.05, .grad_scale = 1};
    k->adamw(dt, c->a.p, c->b.p, c->c.p, c->d.p, c->e.p, ELEMENTS, a);
}
static void sumsq(Case *c, int64_t i) {
    static double out[ELEMENTS / SUM_CHUNK + 1];
    (void)i;
    k->sumsq(out, c->a.p, ELEMENTS, SUM_CHUNK);
}
static void cast_down(Case *c, int64_t i) {
    (void)i;
    k->cast(DS_BF16, c->a.p, DS_F32, c->b.p, ELEMENTS);
}
static void cast_up(Case *c, int64_t i) {
    (void)i;
    k->cast(DS_F32, c->a.p, DS_BF16, c->b.p, ELEMENTS);
}

static void run_flat(void) {
    if (wanted("adamw")) {
        Case c = plain("adamw", "28.3 M", adamw, MACHINE_UPDATE, 7 * 4.0 * ELEMENTS);
        c.a = one(dt, ELEMENTS);
        if (dt != DS_F32) c.b = zeros(dt, ELEMENTS);
        c.c = zeros(DS_F32, ELEMENTS), c.d = zeros(DS_F32, ELEMENTS);
        c.e = one(DS_F32, ELEMENTS);
        finish(&c);
    }
    if (wanted("sumsq")) {
        Case c = plain("sumsq", "28.3 M", sumsq, MACHINE_READ, 4.0 * ELEMENTS);
        c.a = one(DS_F32, ELEMENTS);
        finish(&c);
    }
    if (wanted("cast")) {
        Case down = plain("cast", "28.3 M fp32 to bf16", cast_down, MACHINE_COPY, 6.0 * ELEMENTS);
        down.a = one(DS_BF16, ELEMENTS), down.b = one(DS_F32, ELEMENTS);
        finish(&down);
        Case up = plain("cast", "28.3 M bf16 to fp32", cast_up, MACHINE_COPY, 6.0 * ELEMENTS);
        up.a = one(DS_F32, ELEMENTS), up.b = one(DS_BF16, ELEMENTS);
        finish(&up);
    }
}

static void print_machine(int threads) {
    printf("{\"machine\": \"%s\", \"threads\": %d, \"dtype\": \"%s\", \"arithmetic\": \"%s\", \"matmul_gflops\": %.1f, "
           "\"read_gbs\": %.2f, \"copy_gbs\": %.2f, \"update_gbs\": %.2f}\n",
           kernels_describe(), threads, dtype_name(dt), machine.math.name, machine.flops / 1e9, machine.read / 1e9,
           machine.copy / 1e9, machine.update / 1e9);
}

int main(int argc, char **argv) {
    const int threads = argc > 1 ? atoi(argv[1]) : 2;
    static const int64_t decode_rows[] = {1, 16, 64};
    dt = argc > 2 && !strcmp(argv[2], "bf16") ? DS_BF16 : DS_F32;
    only = getenv("ONLY");
    if (getenv("KERNEL_SECONDS")) least_seconds = atof(getenv("KERNEL_SECONDS"));
    // The instruction set of the kernels would be asked for here (argv[3]); then machine_measure's amx says the same.
    if (kernels_open("cpu", "auto", threads, &k)) return DS_ERR_PARAMS;
    machine_measure(&machine, threads, dt, true);
    for (int i = 0; i < DS_COUNT(products); i++) run_linear(&products[i]);
    for (int r = 0; r < DS_COUNT(decode_rows); r++)
        for (int i = 0; i < DS_COUNT(products); i++) run_decode_linear(&products[i], decode_rows[r]);
    run_attn(16, 256);
    run_attn(2, 2048);
    run_attn_decode(16, 256);
    run_rows();
    run_head();
    run_flat();
    machine_measure(&machine, threads, dt, true);
    print_machine(threads);
    for (int i = 0; i < n_done; i++) print_case(&done[i]);
    return 0;
}
