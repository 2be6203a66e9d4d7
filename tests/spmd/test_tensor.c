// test_tensor.c: five training steps and a generation of models of every family, of shapes that divide by nothing, with
// and without low-rank adapters, split over tensor groups and ZeRO stages: losses, norms and weights are those of one
// rank, to rounding.
#include <stdlib.h>

#include "tiny.h"

// Families, and how they share heads. Nothing divides: 9 heads, 3 key heads, width 27, ffn 37, vocabulary 61.
typedef struct {
    const char *name;
    ArchFamily family;
    int64_t heads, kv_heads, embed_width;
    bool post_norm, tied, scalar;
    int recomputed; // of 3 layers
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

static Run5 train(const Shape *s, int adapted, const Group *g, LayoutWish wish, int stage) {
    const Arch arch = odd_arch(s);
    const AdapterCfg lora = adapters(adapted);
    Model m;
    Optim o;
    Layout l;
    Run5 r;
    layout_create(&l, g, wish);
    model_create(&m, kernels, &arch, DS_F32, &l, (ZeroKeep){stage, ZERO_TRAINED, {0}}, &lora);
    model_init_random(&m, 5, -1);
    OptimCfg cfg = tiny_optim;
    cfg.sched.lr = 2e-3;
    cfg.adapter_lr = 5e-3;
    optim_create(&o, &m.zero, &cfg, -1);
    for (int i = 0; i < STEPS; i++) {
        optim_begin(&o);
        r.loss[i] = backward(&m, &l, 2, arch.layers - s->recomputed);
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

// Every tensor size that the ranks and the model's heads allow, every stage, zero groups of one and of all data ranks.
static void same_training(void **state) {
    (void)state;
    const Group *g = group_world();
    const int ranks = group_size(g), lanes = ranks > 4 ? 8 : 4;
    Group *alone = group_split(g, group_rank(g), 0);
    double worst = 0, farthest = 0;
    int cases = 0;
    for (int i = 0; i < ADAPTERS * DS_COUNT(shapes); i++) {
        const Shape *s = &shapes[i / ADAPTERS];
        const int adapted = i % ADAPTERS;
        const Arch arch = odd_arch(s);
        Run5 want = train(s, adapted, alone, (LayoutWish){.lanes = lanes}, 0);
        assert_true(want.loss[STEPS - 1] < want.loss[0]);
        for (int tensor = 1; tensor <= ranks && tensor <= arch_part_limit(&arch); tensor *= 2) {
            Run5 first = {0}; // of this tensor size: every ZeRO layout gives its bits
            for (int stage = 0; stage < 4; stage++)
                for (int zero = 0; zero < 2; zero++) {
                    const LayoutWish wish = {tensor, zero ? 1 : 0, lanes};
                    if (ranks % tensor || (zero && ranks == tensor) || layout_check(ranks, wish)) continue;
                    if (!getenv("DSCHAT_TEST_ALL") && (stage + zero + tensor + i) % 3) continue; // a third of them
                    Run5 got = train(s, adapted, g, wish, stage);
                    const double loss = relative(&got, &want), weights = distance(&got, &want);
                    // A key bias has no gradient but rounding, which Adam brings to full size: so not nearer.
                    if (loss > 1e-5 || weights > 1e-3)
                        fail_msg("%s, adapters %d, tensor %d of %d, stage %d: loss off by %.2e, weights by %.2e",
                                 s->name, adapted, tensor, ranks, stage, loss, weights);
                    worst = fmax(worst, loss), farthest = fmax(farthest, weights);
                    if (cases++, first.weights) {
                        assert_memory_equal(got.norm, first.norm, sizeof got.norm);
                        assert_memory_equal(got.weights, first.weights, (size_t)got.n * sizeof(float));
                        mem_free(got.weights);
                    } else first = got;
                }
            mem_free(first.weights);
        }
        mem_free(want.weights);
    }
    err_clear();
    printf("    %d ranks: %d layouts; worst loss %.2e, weights %.2e from one rank's\n", ranks, cases, worst, farthest);
    assert_true(cases > 0);
    group_destroy(&alone);
}

// Every rank of a tensor group draws the tokens that one rank draws, and the log-probs are those of training, to the
// bit.
static void same_answers(void **state) {
    (void)state;
    const Group *g = group_world();
    static int32_t want[PROMPTS * NEW], ids[PROMPTS * NEW];
    static float want_logp[PROMPTS * NEW], logp[PROMPTS * NEW];
    static int64_t want_count[PROMPTS], count[PROMPTS];
    Group *alone = group_split(g, group_rank(g), 0);
    double worst = 0;
    for (int i = 0; i < DS_COUNT(shapes); i++)
        for (int tensor = 1; tensor <= group_size(g); tensor *= 2) {
            const Arch arch = odd_arch(&shapes[i]);
            if (group_size(g) % tensor || tensor > arch_part_limit(&arch) || shapes[i].scalar) continue;
            Model m;
            Layout l;
            layout_create(&l, tensor == 1 ? alone : g, (LayoutWish){.tensor = tensor});
            model_create(&m, kernels, &arch, DS_F32, &l, (ZeroKeep){0}, NULL);
            model_init_random(&m, 5, -1);
            generate(&m, 0, 1, 7, 40, tensor == 1 ? want : ids, tensor == 1 ? want_logp : logp,
                     tensor == 1 ? want_count : count);
            if (tensor > 1) {
                same_as_training(&m, ids, logp, count);
                assert_memory_equal(ids, want, sizeof want);
                assert_memory_equal(count, want_count, sizeof count);
                for (int64_t at = 0; at < PROMPTS * NEW; at++)
                    worst = fmax(worst, fabs((double)logp[at] - want_logp[at]));
            }
            model_destroy(&m);
            layout_destroy(&l);
        }
    printf("    %d ranks: log-probs differ from one rank's by %.2e at most\n", group_size(g), worst);
    assert_true(worst < 1e-5);
    group_destroy(&alone);
}

int main(void) {
    world_init();
    entropy_bonus = 0.1;
    if (kernels_open("cpu", 1, &kernels)) return DS_ERR_BUG;
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_training), cmocka_unit_test(same_answers)};
    int failed = cmocka_run_group_tests_name("tensor", tests, NULL, NULL);
    world_finalize();
    return failed;
}
