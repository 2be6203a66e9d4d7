// linear_bf16.c: the bf16 products of linear's backward by oneDNN's matmul, for CPUs with bf16 instructions (AVX-512
// bf16, AMX).
//
// A primitive is made for a shape once and kept in a table of CACHE places; a shape that falls on a used place takes it
// over (oneDNN keeps the code of those it made lately, so making one again is cheap). Its working memory is our
// scratch.
#include <oneapi/dnnl/dnnl.h>

#include "kernels/cpu/cpu.h"

enum { CACHE = 256 };

typedef struct {
    bool is_dw; // dw += dy^T x, else dx = (+=) dy w
    bool accumulate;
    int64_t m, out, in;
} Key;

typedef struct {
    Key key;
    dnnl_primitive_t run;
    dnnl_memory_desc_t src, weights, dst, scratch;
} Product;

static dnnl_engine_t engine;
static dnnl_stream_t stream;

#define CHECK_DNNL(call)                                                                                               \
    do {                                                                                                               \
        const dnnl_status_t status_ = (call);                                                                          \
        if (status_ != dnnl_success) err_fatal("oneDNN: status %d in " #call, (int)status_);                           \
    } while (0)

static dnnl_memory_desc_t matrix(int64_t rows, int64_t cols, dnnl_data_type_t type, bool transposed) {
    dnnl_memory_desc_t d;
    const dnnl_dims_t dims = {rows, cols}, strides = {transposed ? 1 : cols, transposed ? rows : 1};
    CHECK_DNNL(dnnl_memory_desc_init_by_strides(&d, 2, dims, type, strides));
    return d;
}

static void make(Product *p, Key k) {
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_attr_t attr;
    dnnl_post_ops_t ops;
    if (p->run) CHECK_DNNL(dnnl_primitive_destroy(p->run));
    p->key = k;
    p->src = k.is_dw ? matrix(k.out, k.m, dnnl_bf16, true) : matrix(k.m, k.out, dnnl_bf16, false);
    p->weights = k.is_dw ? matrix(k.m, k.in, dnnl_bf16, false) : matrix(k.out, k.in, dnnl_bf16, false);
    p->dst = k.is_dw ? matrix(k.out, k.in, dnnl_f32, false) : matrix(k.m, k.in, dnnl_bf16, false);
    CHECK_DNNL(dnnl_primitive_attr_create(&attr));
    CHECK_DNNL(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    CHECK_DNNL(dnnl_post_ops_create(&ops));
    if (k.accumulate) CHECK_DNNL(dnnl_post_ops_append_sum(ops, 1.0f));
    CHECK_DNNL(dnnl_primitive_attr_set_post_ops(attr, ops));
    CHECK_DNNL(dnnl_matmul_desc_init(&desc, &p->src, &p->weights, NULL, &p->dst));
    CHECK_DNNL(dnnl_primitive_desc_create(&pd, &desc, attr, engine, NULL));
    p->scratch = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    CHECK_DNNL(dnnl_primitive_create(&p->run, pd));
    CHECK_DNNL(dnnl_primitive_desc_destroy(pd));
    CHECK_DNNL(dnnl_post_ops_destroy(ops));
    CHECK_DNNL(dnnl_primitive_attr_destroy(attr));
}

static Product *find(Key k) {
    static Product table[CACHE];
    const uint64_t mix = ((uint64_t)k.m * 31 + (uint64_t)k.out) * 0x9e3779b97f4a7c15u + (uint64_t)k.in * 2654435761u +
                         k.is_dw * 2u + k.accumulate;
    Product *p = &table[(mix >> 20 ^ mix) % CACHE];
    const Key *q = &p->key;
    if (!p->run || q->is_dw != k.is_dw || q->accumulate != k.accumulate || q->m != k.m || q->out != k.out ||
        q->in != k.in)
        make(p, k);
    return p;
}

static dnnl_memory_t wrap(const dnnl_memory_desc_t *d, const void *p) {
    dnnl_memory_t m;
    CHECK_DNNL(dnnl_memory_create(&m, d, engine, (void *)(uintptr_t)p));
    return m;
}

static void execute(Key k, const void *src, const void *weights, void *dst) {
    if (!engine) {
        CHECK_DNNL(dnnl_engine_create(&engine, dnnl_cpu, 0));
        CHECK_DNNL(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    }
    const Product *p = find(k);
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, wrap(&p->src, src)},
        {DNNL_ARG_WEIGHTS, wrap(&p->weights, weights)},
        {DNNL_ARG_DST, wrap(&p->dst, dst)},
        {DNNL_ARG_SCRATCHPAD, wrap(&p->scratch, cpu_scratch(SCRATCH_A, dnnl_memory_desc_get_size(&p->scratch)))}};
    CHECK_DNNL(dnnl_primitive_execute(p->run, stream, DS_COUNT(args), args));
    CHECK_DNNL(dnnl_stream_wait(stream));
    for (int i = 0; i < DS_COUNT(args); i++) CHECK_DNNL(dnnl_memory_destroy(args[i].memory));
}

void linear_bf16_bwd_x(uint16_t *dx, bool accumulate, const uint16_t *dy, const uint16_t *w, int64_t m, int64_t out,
                       int64_t in) {
    execute((Key){false, accumulate, m, out, in}, dy, w, dx);
}

void linear_bf16_bwd_w(float *dw, const uint16_t *dy, const uint16_t *x, int64_t m, int64_t out, int64_t in) {
    execute((Key){true, true, m, out, in}, dy, x, dw);
}
