// test_tensor.c: five training steps and a generation of models of every family, of shapes that divide by nothing, with
// and without low-rank adapters, split over tensor groups and ZeRO stages, with and without sequence parallelism:
// losses, norms and weights are those of one rank, to rounding.
#include <stdlib.h>

#include "tiny.h"

// Families, and how they share heads. Nothing divides: 9 heads, 3 key heads, width 27, ffn 37, vocabulary 61.
typedef struct {
    const char *name;
    ArchFamily family;
    int64_t heads, kv_heads, embed_width;
    bool post_norm, tied, scalar;
    int recomputed; // of 3 layers, in micro-batches of few rows
} Shape;

static const Shape shapes[] = {
    {.name = "llama, grouped heads", .family = ARCH_LLAMA, .heads = 9, .kv_heads = 3, .tied = true},
    {.name = "qwen3, one key head", .family = ARCH_QWEN3, .heads = 5, .kv_heads = 1, .recomputed = 2},
    {.name = "qwen2, biases, shared key heads", .family = ARCH_QWEN2, .heads = 8, .kv_heads = 2},
    {.name = "gpt2", .family = ARCH_GPT2, .heads = 5, .kv_heads = 5, .tied = true},
    {.name = "gpt_neox", .family = ARCH_NEOX, .heads = 5, .kv_heads = 5, .recomputed = 1},
    {.name = "bloom", .family = ARCH_BLOOM, .heads = 6, .kv_heads = 6, .tied = true},
    {.name = "opt-350m's form",
     .family = ARCH_OPT,
     .heads = 5,
     .kv_heads = 5,
     .embed_width = 19,
     .post_norm = true,
     .tied = true},
    {.name = "opt with a scalar head", .family = ARCH_OPT, .heads = 4, .kv_heads = 4, .scalar = true, .recomputed = 1},
};

static Arch odd_arch(const Shape *s) {
    Arch a;
    arch_family_defaults(&a, s->family);
    a.layers = 3, a.width = 27, a.embed_width = s->embed_width ? s->embed_width : 27;
    a.heads = s->heads, a.kv_heads = s->kv_heads, a.head_dim = 6;
    if (a.pos == ARCH_POS_ROPE) a.rotary_dim = s->family == ARCH_NEOX ? 2 : 6;
    a.ffn = 37, a.vocab = VOCAB, a.max_positions = 64, a.init_std = 0.15, a.tied = s->tied;
    if (s->post_norm) a.pre_norm = a.final_norm = 0;
    if (s->scalar) a.head = ARCH_HEAD_SCALAR;
    return a;
}

enum { STEPS = 5 };
typedef struct {
    double loss[STEPS], norm[STEPS];
    float *weights; // whole, in the order of the list
    int64_t n;
} Run5;

// The whole of every weight: each tensor rank puts its part, what several keep once.
static void whole_weights(const Model *m, const Layout *l, Run5 *r) {
    r->n = arch_param_count(&m->arch);
    double *all = MEM_NEW(double, r->n);
    float *part = MEM_NEW(float, r->n);
    int64_t at = 0;
    model_gather(m);
    for (int i = 0; i < m->weights.n; i++) {
        const Weight *w = &m->weights.w[i];
        WeightPiece piece[WEIGHT_PIECES];
        const int pieces = weights_pieces(w, 0, w->count, piece);
        model_weight_get(m, w, 0, w->count, part);
        for (int p = 0; p < pieces && w->mine; p++)
            for (int64_t e = 0; e < piece[p].count; e++)
                all[at + weights_whole(w, &piece[p], e)] = part[piece[p].at + e];
        at += w->shape[0] * w->shape[1];
    }
    model_release(m);
    coll_sum_f64(l->tensor, all, r->n);
    r->weights = part;
    for (int64_t e = 0; e < r->n; e++) part[e] = (float)all[e];
    mem_free(all);
}

// Adapters of the i-th kind; 0: none.
static AdapterCfg adapters(int i) {
    static char attention[] = "attention", mlp[] = "mlp", *all[] = {attention, mlp};
    return (AdapterCfg){.rank = i ? 3 : 0, .alpha = 6, .modules = all, .n_modules = i, .only = i == 2};
}
enum { ADAPTERS = 3 };

static Run5 train(const Shape *s, int adapted, const Group *g, LayoutWish wish, bool sequence, int stage,
                  int recomputed) {
    const Arch arch = odd_arch(s);
    const AdapterCfg lora = adapters(adapted);
    Model m;
    Optim o;
    Layout l;
    Run5 r;
    layout_create(&l, g, wish);
    l.sequence = sequence;
    model_create(&m, kernels, &arch, DS_F32, &l, (ZeroKeep){stage, ZERO_TRAINED, {0}}, &lora);
    model_init_random(&m, 5, -1);
    OptimCfg cfg = tiny_optim;
    cfg.sched.lr = 2e-3;
    cfg.eps = 1e-4; // a gradient that is nothing but rounding, a key bias's, must not become a full step
    cfg.adapter_lr = 5e-3;
    optim_create(&o, &m.zero, &cfg, -1);
    for (int i = 0; i < STEPS; i++) {
        optim_begin(&o);
        r.loss[i] = backward(&m, &l, 2, arch.layers - recomputed);
        coll_sum_f64(l.data, &r.loss[i], 1);
        r.norm[i] = optim_reduce(&o);
        optim_apply(&o);
    }
    whole_weights(&m, &l, &r);
    optim_destroy(&o);
    model_destroy(&m);
    layout_destroy(&l);
    return r;
}

static double relative(const Run5 *a, const Run5 *b) {
    double worst = 0;
    for (int i = 0; i < STEPS; i++) {
        worst = fmax(worst, fabs(a->loss[i] - b->loss[i]) / fabs(b->loss[i]));
        worst = fmax(worst, 0.1 * fabs(a->norm[i] - b->norm[i]) / b->norm[i]);
    }
    return isfinite(worst) ? worst : INFINITY;
}

static double distance(const Run5 *a, const Run5 *b) {
    double diff = 0, norm = 0;
    for (int64_t e = 0; e < b->n; e++) {
        diff += pow((double)a->weights[e] - b->weights[e], 2);
        norm += pow(b->weights[e], 2);
    }
    return sqrt(diff / norm);
}

// How models are trained: their number picks shape and adapters.
typedef struct {
    int number;
    const Shape *shape;
    int adapted, lanes;
    Run5 want;            // one rank's
    double loss, weights; // the farthest from it
    int layouts;
} Case;

// Every stage, zero groups of one and of all data ranks, none to two of three layers recomputed: near one rank's, and
// all of the same bits. Returns the first.
static Run5 every_stage(Case *c, const Group *g, int tensor, bool sequence) {
    const int ranks = group_size(g);
    Run5 first = {0};
    for (int stage = 0; stage < 4; stage++)
        for (int zero = 0; zero < 2; zero++) {
            const LayoutWish wish = {tensor, zero ? 1 : 0, c->lanes};
            if (ranks % tensor || (zero && ranks == tensor) || layout_check(ranks, wish)) continue;
            if (!getenv("DSCHAT_TEST_ALL") && (stage + zero + tensor + c->number) % 3) continue; // a third of them
            Run5 got = train(c->shape, c->adapted, g, wish, sequence, stage, (stage + zero) % 3);
            const double loss = relative(&got, &c->want), weights = distance(&got, &c->want);
            if (loss > 1e-6 || weights > 1e-6)
                fail_msg("%s, adapters %d, tensor %d of %d%s, stage %d: loss off by %.2e, weights by %.2e",
                         c->shape->name, c->adapted, tensor, ranks, sequence ? ", sequence" : "", stage, loss, weights);
            c->loss = fmax(c->loss, loss), c->weights = fmax(c->weights, weights);
            if (c->layouts++, first.weights) {
                assert_memory_equal(got.norm, first.norm, sizeof got.norm);
                assert_memory_equal(got.weights, first.weights, (size_t)got.n * sizeof(float));
                mem_free(got.weights);
            } else first = got;
        }
    return first;
}

// Every tensor size that the ranks and the model's heads allow. With sequence parallelism the forward pass has the same
// bits: so has the first loss, before the gradients of norms, summed in another order, have changed a weight.
static void same_training(void **state) {
    (void)state;
    const Group *g = group_world();
    const int ranks = group_size(g);
    Group *alone = group_split(g, group_rank(g), 0);
    Case c = {.lanes = ranks > 4 ? 8 : 4};
    for (c.number = 0; c.number < ADAPTERS * DS_COUNT(shapes); c.number++) {
        c.shape = &shapes[c.number / ADAPTERS];
        c.adapted = c.number % ADAPTERS;
        const Arch arch = odd_arch(c.shape);
        c.want = train(c.shape, c.adapted, alone, (LayoutWish){.lanes = c.lanes}, false, 0, 0);
        assert_true(c.want.loss[STEPS - 1] < c.want.loss[0]);
        for (int tensor = 1; tensor <= ranks && tensor <= arch_part_limit(&arch); tensor *= 2) {
            Run5 whole = every_stage(&c, g, tensor, false);
            if (tensor > 1 && whole.weights) {
                Run5 rows = every_stage(&c, g, tensor, true);
                assert_memory_equal(rows.loss, whole.loss, sizeof rows.loss[0]);
                mem_free(rows.weights);
            }
            mem_free(whole.weights);
        }
        mem_free(c.want.weights);
    }
    err_clear();
    printf("    %d ranks: %d layouts; worst loss %.2e, weights %.2e from one rank's\n", ranks, c.layouts, c.loss,
           c.weights);
    assert_true(c.layouts > 0);
    group_destroy(&alone);
}

// One step on micro-batches of so few rows that some tensor ranks have none, the last of them empty.
static double few_rows(const Shape *s, DType dt, bool sequence, double *norm) {
    const Arch arch = odd_arch(s);
    Model m;
    Optim o;
    Layout l;
    Acts a;
    Batch b = {0};
    TinyLoss loss = {.scale = 0.1};
    layout_create(&l, group_world(), (LayoutWish){.tensor = group_size(group_world())});
    l.sequence = sequence;
    model_create(&m, kernels, &arch, dt, &l, (ZeroKeep){2, ZERO_TRAINED, {0}}, NULL);
    model_init_random(&m, 5, -1);
    optim_create(&o, &m.zero, &tiny_optim, -1);
    acts_create(&a, kernels, &m.part, m.dt, true, m.arch.layers - s->recomputed);
    optim_begin(&o);
    for (int64_t n = 5; n > 0; n--) {
        fill(&b, 1, 1);
        b.n = b.starts[1] = (int32_t)n;
        if (n == 1) batch_empty(&b);
        model_fwd(&m, &a, &b, b.n, NULL);
        if (arch.head == ARCH_HEAD_LM) tiny_lm(&m, &a, &b, &loss);
        else tiny_scalar(&m, &a, &b, &loss);
        model_bwd(&m, &a);
    }
    *norm = optim_reduce(&o);
    acts_destroy(&a);
    batch_free(&b);
    optim_destroy(&o);
    model_destroy(&m);
    layout_destroy(&l);
    return loss.sum;
}

static void fewer_rows_than_ranks(void **state) {
    (void)state;
    for (int i = 0; i < 2 * DS_COUNT(shapes); i++) {
        const Shape *s = &shapes[i / 2];
        const DType dt = i % 2 ? DS_BF16 : DS_F32;
        const Arch arch = odd_arch(s);
        if (group_size(group_world()) > arch_part_limit(&arch)) continue;
        double norm, want_norm;
        const double want = few_rows(s, dt, false, &want_norm), loss = few_rows(s, dt, true, &norm);
        if (memcmp(&loss, &want, sizeof loss) || fabs(norm - want_norm) > 1e-6 * want_norm)
            fail_msg("%s, %s: loss %.9g against %.9g, norm %.9g against %.9g", s->name, i % 2 ? "bf16" : "fp32", loss,
                     want, norm, want_norm);
    }
}

// Bytes of the activations of `layers` layers on the last of `tensor` ranks.
static size_t kept_bytes(int64_t layers, int tensor, bool sequence) {
    Arch arch;
    ArchPart part;
    Acts a;
    arch_family_defaults(&arch, ARCH_OPT);
    arch.layers = layers, arch.width = arch.embed_width = 128, arch.ffn = 512, arch.vocab = 256;
    arch.heads = arch.kv_heads = 8, arch.head_dim = 16;
    arch_part(&part, &arch, tensor - 1, tensor);
    part.sequence = sequence;
    acts_create(&a, &kernels_dry, &part, DS_BF16, true, layers);
    acts_reserve(&a, 1024, 16);
    const size_t bytes = a.arena_bytes;
    acts_destroy(&a);
    return bytes;
}

// What a layer keeps falls as 1 / tensor.
static void kept_activations(void **state) {
    (void)state;
    const size_t one = kept_bytes(3, 1, false) - kept_bytes(2, 1, false);
    for (int tensor = 2; tensor <= 8; tensor *= 2) {
        const size_t rows = kept_bytes(3, tensor, true) - kept_bytes(2, tensor, true),
                     whole = kept_bytes(3, tensor, false) - kept_bytes(2, tensor, false);
        assert_int_equal(rows * (size_t)tensor, one);
        assert_true(whole > rows);
        printf("    tensor %d: %zu of %zu bytes a layer, %zu without sequence\n", tensor, rows, one, whole);
    }
}

typedef struct {
    int32_t ids[PROMPTS * NEW];
    float logp[PROMPTS * NEW];
    int64_t count[PROMPTS];
} Answers;

static void answer(const Shape *s, const Group *g, int tensor, bool sequence, Answers *x) {
    const Arch arch = odd_arch(s);
    Model m;
    Layout l;
    layout_create(&l, g, (LayoutWish){.tensor = tensor});
    l.sequence = sequence;
    model_create(&m, kernels, &arch, DS_F32, &l, (ZeroKeep){0}, NULL);
    model_init_random(&m, 5, -1);
    generate(&m, 0, 1, 7, 40, x->ids, x->logp, x->count);
    if (tensor > 1) same_as_training(&m, x->ids, x->logp, x->count);
    model_destroy(&m);
    layout_destroy(&l);
}

// Every rank of a tensor group draws the tokens that one rank draws, and the log-probs are those of training, to the
// bit; with sequence parallelism they are those without it, to the bit.
static void same_answers(void **state) {
    (void)state;
    const Group *g = group_world();
    static Answers want, whole, rows;
    Group *alone = group_split(g, group_rank(g), 0);
    double worst = 0;
    for (int i = 0; i < DS_COUNT(shapes); i++) {
        const Arch arch = odd_arch(&shapes[i]);
        if (shapes[i].scalar) continue;
        answer(&shapes[i], alone, 1, false, &want);
        for (int tensor = 2; tensor <= group_size(g) && tensor <= arch_part_limit(&arch); tensor *= 2) {
            if (group_size(g) % tensor) continue;
            answer(&shapes[i], g, tensor, false, &whole);
            answer(&shapes[i], g, tensor, true, &rows);
            assert_memory_equal(whole.ids, want.ids, sizeof want.ids);
            assert_memory_equal(whole.count, want.count, sizeof want.count);
            assert_memory_equal(&rows, &whole, sizeof rows);
            for (int at = 0; at < PROMPTS * NEW; at++)
                worst = fmax(worst, fabs((double)whole.logp[at] - want.logp[at]));
        }
    }
    printf("    %d ranks: log-probs differ from one rank's by %.2e at most\n", group_size(g), worst);
    assert_true(worst < 1e-5);
    group_destroy(&alone);
}

int main(void) {
    world_init();
    entropy_bonus = 0.1;
    if (kernels_open("cpu", "auto", 1, &kernels)) return DS_ERR_BUG;
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_training), cmocka_unit_test(fewer_rows_than_ranks),
                                       cmocka_unit_test(kept_activations), cmocka_unit_test(same_answers)};
    int failed = cmocka_run_group_tests_name("tensor", tests, NULL, NULL);
    world_finalize();
    return failed;
}
