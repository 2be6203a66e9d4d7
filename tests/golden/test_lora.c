// test_lora.c: models with low-rank adapters. Against PyTorch, which adds (alpha / rank) (x A^T) B^T to activations
// (tools/refs/lora.py): log-probs, loss and gradients within 1e-5. What is frozen stays as it is: in training, and when
// weights are made for generation and dropped a thousand times. With B = 0 there is no difference.
#include "case.h"

#include "base/hash.h"
#include "base/rng.h"
#include "gen/decode.h"
#include "model/lora.h"
#include "optim/optim.h"

static char attention[] = "attention", mlp[] = "mlp", q_proj[] = "q_proj", v_proj[] = "v_proj",
            down_proj[] = "down_proj";
static char *some[] = {attention}, *every[] = {attention, mlp}, *named[] = {q_proj, v_proj, down_proj};

// ---- against PyTorch ----

typedef struct {
    const char *family;
    AdapterCfg cfg;
} Adapted;

static const Adapted cases[] = {{"llama", {.rank = 3, .alpha = 7, .modules = some, .n_modules = 1}},
                                {"opt", {.rank = 5, .alpha = 4, .modules = every, .n_modules = 2}},
                                {"gpt2", {.rank = 4, .alpha = 6, .modules = every, .n_modules = 2}},
                                {"gpt_neox", {.rank = 2, .alpha = 5, .modules = some, .n_modules = 1}},
                                {"llama-tied", {.rank = 1, .alpha = 3, .modules = named, .n_modules = 3}},
                                {"bloom", {.rank = 3, .alpha = 2, .modules = every, .n_modules = 2}}};

// The reference's adapters, all of them.
static void load_adapters(Case *c) {
    int there = 0, taken = 0;
    for (int i = 0; i < c->ref.n; i++)
        there += strstr(c->ref.t[i].name, ".lora_") && strncmp(c->ref.t[i].name, "grad.", 5) != 0;
    for (int i = 0; i < c->m.zero.weights->n; i++) {
        const Weight *w = &c->m.zero.weights->w[i];
        if (!w->adapter) continue;
        const SafeTensor *t = safetensors_find(&c->ref, w->name);
        if (!t) fail_msg("the reference has no %s", w->name);
        assert_true(t->shape[0] == w->shape[0] && t->shape[1] == w->shape[1]);
        float *values = MEM_NEW(float, w->count);
        assert_int_equal(safetensors_read_f32(&c->ref, t, 0, w->count, values), DS_OK);
        model_weight_set(&c->m, w, 0, w->count, values);
        mem_free(values);
        taken++;
    }
    assert_int_equal(taken, there);
}

// What has adapters has no gradient, and the reference none of it.
static void check_frozen(const Case *c) {
    const ZeroState *base = &c->m.lora->base;
    char name[160];
    assert_true(!base->trained && !base->g.data && !base->m.data && !base->v.data);
    assert_true(base->weights->n > 0);
    for (int i = 0; i < base->weights->n; i++) {
        const Weight *w = &base->weights->w[i];
        assert_null(zero_grad(&c->m.zero, w->block, w->role));
        assert_null(zero_grad(base, w->block, w->role));
        snprintf(name, sizeof name, "grad.%s", w->name);
        if (safetensors_find(&c->ref, name)) fail_msg("%s is frozen, the reference trains it", w->name);
    }
}

static void against_pytorch(void **state) {
    const Adapted *x = *state;
    printf("  %s\n", x->family);
    Case *c = open_case(x->family, "lora", ARCH_HEAD_LM, &x->cfg);
    load_adapters(c);
    check_language_model(c);
    check_frozen(c);
    close_case(c);
}

// ---- what is trained ----

typedef struct {
    char *bytes;
    size_t n;
} Copy;

// Of a store that is whole here. Owner: caller, mem_free(bytes).
static Copy copy(const ZeroState *z, const Store *s) {
    Copy x = {.n = (size_t)shard_total(&z->map) * dtype_bytes(s->dtype)};
    x.bytes = mem_alloc(x.n);
    kernels->copy_out(x.bytes, s->data, x.n);
    return x;
}

static void random_adapters(Model *m) {
    for (int i = 0; i < m->zero.weights->n; i++) {
        const Weight *w = &m->zero.weights->w[i];
        if (!w->adapter) continue;
        float *values = MEM_NEW(float, w->count);
        for (int64_t e = 0; e < w->count; e++)
            values[e] = (float)(0.3 * rng_normal(11, RNG_INIT, hash_string(w->name), (uint64_t)e));
        model_weight_set(m, w, 0, w->count, values);
        mem_free(values);
    }
}

static void backward(Case *c) {
    float values[TOKENS];
    zero_step_begin(&c->m.zero);
    model_fwd(&c->m, &c->a, &c->b, c->b.n, NULL);
    if (c->m.arch.head == ARCH_HEAD_LM) {
        head_lm_train(&c->m, &c->a, c->rows, c->targets, c->n_rows, 1, mean_nll, c);
    } else {
        head_scalar_fwd(&c->m, &c->a, c->rows, c->n_rows, values);
        head_scalar_bwd(&c->m, &c->a, values);
    }
    model_bwd(&c->m, &c->a);
}

static float *gradient(const Case *c, const Weight *w) {
    float *g = MEM_NEW(float, w->count);
    kernels->copy_out(g, zero_grad(&c->m.zero, w->block, w->role), (size_t)w->count * sizeof *g);
    return g;
}

// Of every weight that both train.
static void expect_same_gradients(const Case *a, const Case *b, int expected) {
    int n = 0;
    for (int i = 0; i < a->m.zero.weights->n; i++) {
        const Weight *w = &a->m.zero.weights->w[i];
        if (!weights_find(b->m.zero.weights, w->block, w->role)) continue;
        float *x = gradient(a, w), *y = gradient(b, w);
        if (memcmp(x, y, (size_t)w->count * sizeof *x)) fail_msg("the gradients of %s differ", w->name);
        mem_free(x);
        mem_free(y);
        n++;
    }
    assert_int_equal(n, expected);
}

// One step: every weight that is trained moves, no other.
static void step(Case *c) {
    OptimCfg cfg = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .sched = {.form = SCHED_CONSTANT, .lr = 1e-2}};
    Optim o;
    cfg.sched.total_steps = 1;
    cfg.adapter_lr = 2e-2;
    optim_create(&o, &c->m.zero, &cfg, -1);
    Copy base = copy(&c->m.lora->base, &c->m.lora->base.w), own = copy(&c->m.zero, &c->m.zero.w);
    optim_begin(&o);
    backward(c);
    optim_reduce(&o);
    optim_apply(&o);
    Copy base_now = copy(&c->m.lora->base, &c->m.lora->base.w), own_now = copy(&c->m.zero, &c->m.zero.w);
    assert_memory_equal(base.bytes, base_now.bytes, base.n);
    for (int i = 0; i < c->m.zero.weights->n; i++) {
        const Weight *w = &c->m.zero.weights->w[i];
        const size_t at = (size_t)(c->m.zero.map.start[w->block] + w->offset) * sizeof(float);
        if (!memcmp(own.bytes + at, own_now.bytes + at, (size_t)w->count * sizeof(float)))
            fail_msg("%s did not move", w->name);
    }
    mem_free(base.bytes), mem_free(own.bytes), mem_free(base_now.bytes), mem_free(own_now.bytes);
    optim_destroy(&o);
}

// only_optimize_lora: adapters and a scalar head alone are trained, with the gradients that they have otherwise.
static void check_only(const char *family, ArchHead head) {
    AdapterCfg cfg = {.rank = 2, .alpha = 3, .modules = every, .n_modules = 2};
    Case *both = open_case(family, "families", head, &cfg);
    cfg.only = true;
    Case *only = open_case(family, "families", head, &cfg);
    const WeightList *list = only->m.zero.weights;
    int adapters = 0, heads = 0;
    for (int i = 0; i < list->n; i++) {
        adapters += list->w[i].adapter;
        heads += list->w[i].role == W_V_HEAD;
    }
    assert_int_equal(adapters + heads, list->n);
    assert_int_equal(heads, head == ARCH_HEAD_SCALAR);
    assert_true(both->m.zero.weights->n > list->n);
    model_init_random(&both->m, 3, both->m.weights.blocks - 1);
    model_init_random(&only->m, 3, only->m.weights.blocks - 1);
    random_adapters(&both->m);
    random_adapters(&only->m);
    backward(both);
    backward(only);
    expect_same_gradients(both, only, list->n);
    step(only);
    close_case(both);
    close_case(only);
}

static void only_adapters(void **state) {
    (void)state;
    static const char *const families[] = {"opt",   "opt-postnorm", "gpt2",    "bloom", "gpt_neox",
                                           "llama", "llama-tied",   "mistral", "qwen2", "qwen3"};
    for (int i = 0; i < DS_COUNT(families); i++) {
        check_only(families[i], ARCH_HEAD_LM);
        check_only(families[i], ARCH_HEAD_SCALAR);
    }
}

// ---- B = 0 ----

static void create(Model *m, const char *family, DType dt, const AdapterCfg *cfg) {
    ImportSource *source = NULL;
    char dir[128];
    snprintf(dir, sizeof dir, "tests/refs/families/%s", family);
    if (import_open(dir, &source)) fail_msg("%s", err_text());
    Arch arch = *import_arch(source);
    arch.init_std = 0.2; // so that what layers do is seen in the logits
    import_close(&source);
    model_create(m, kernels, &arch, dt, &world, (ZeroKeep){.training = ZERO_TRAINED}, cfg);
    model_init_random(m, 5, -1);
}

// Of one sequence. Owner: caller, mem_free.
static float *logits(const Model *m) {
    Acts a;
    Batch b = {0};
    int32_t rows[TOKENS], targets[TOKENS] = {0};
    float logp[TOKENS], *x = MEM_NEW(float, TOKENS * m->arch.vocab);
    batch_reserve(&b, TOKENS, 1);
    b.n = b.starts[1] = TOKENS, b.n_seq = 1, b.starts[0] = 0;
    for (int32_t t = 0; t < TOKENS; t++) b.pos[t] = rows[t] = t, b.ids[t] = (7 * t * t + 3) % (int32_t)m->arch.vocab;
    acts_create(&a, kernels, &m->part, m->dt, false, 1);
    model_fwd(m, &a, &b, TOKENS, NULL);
    head_lm_score(m, &a, rows, targets, TOKENS, 1, logp, NULL);
    kernels->copy_out(x, a.logits, (size_t)(TOKENS * m->arch.vocab) * sizeof *x);
    acts_destroy(&a);
    batch_free(&b);
    return x;
}

static void expect_same_logits(const Model *a, const Model *b, bool same) {
    float *x = logits(a), *y = logits(b);
    if (!memcmp(x, y, (size_t)(TOKENS * a->arch.vocab) * sizeof *x) != same)
        fail_msg("%s: the logits %s", dtype_name(a->dt), same ? "differ" : "are the same");
    mem_free(x);
    mem_free(y);
}

static void zero_b(void **state) {
    (void)state;
    static const DType dtypes[] = {DS_F32, DS_BF16};
    for (int d = 0; d < DS_COUNT(dtypes); d++)
        for (int i = 0; i < DS_COUNT(cases); i++) {
            Model plain, adapted, other;
            create(&plain, cases[i].family, dtypes[d], NULL);
            create(&adapted, cases[i].family, dtypes[d], &cases[i].cfg);
            expect_same_logits(&plain, &adapted, true);
            create(&other, cases[i].family, dtypes[d], &cases[i].cfg);
            random_adapters(&other);
            expect_same_logits(&plain, &other, false); // so that the first comparison means something
            model_destroy(&plain);
            model_destroy(&adapted);
            model_destroy(&other);
        }
}

// ---- fuse, generate, unfuse ----

enum { TIMES = 1000, PROMPTS = 3, NEW = 4 };

typedef struct {
    int32_t ids[PROMPTS][NEW];
    float logp[PROMPTS][NEW];
    int64_t n[PROMPTS];
} Answers;

static Answers fused_answers(const Model *m, Gen *g) {
    static const int32_t prompt[] = {5, 17, 2, 40, 8};
    const GenCfg cfg = {.sample = {.temperature = 0.8f, .top_k = 20, .top_p = 0.95f}, .seed = 9};
    Answers x;
    memset(&x, 0, sizeof x); // they are compared as bytes
    GenRequest req[PROMPTS];
    for (int i = 0; i < PROMPTS; i++)
        req[i] = (GenRequest){.prompt = prompt + i,
                              .n_prompt = i + 1,
                              .id = (uint64_t)i,
                              .max_new = NEW,
                              .ids = x.ids[i],
                              .logp = x.logp[i]};
    model_gather(m);
    gen_run(g, &cfg, req, PROMPTS, NULL, NULL);
    model_release(m);
    for (int i = 0; i < PROMPTS; i++) x.n[i] = req[i].n;
    return x;
}

static Xxh128Hex hash_of(const ZeroState *z) {
    Copy x = copy(z, &z->w);
    const Xxh128Hex hash = hash_xxh128(x.bytes, x.n);
    mem_free(x.bytes);
    return hash;
}

static int64_t memory_held(void) {
    int64_t bytes = 0;
    kernels_mem_forget();
    for (int tag = 0; tag < MEM_TAGS; tag++) bytes += kernels_mem_peak((MemTag)tag);
    return bytes;
}

static void thousand_times(DType dt) {
    Model m;
    create(&m, "llama", dt, &(AdapterCfg){.rank = 3, .alpha = 7, .modules = every, .n_modules = 2});
    random_adapters(&m);
    Gen *g = gen_create(&m, 2, PROMPTS + NEW, 8, 4, NULL);
    const Xxh128Hex base = hash_of(&m.lora->base), own = hash_of(&m.zero);
    float *score = logits(&m), *score_now;
    const Answers first = fused_answers(&m, g);
    const int64_t held = memory_held();
    for (int i = 1; i < TIMES; i++) {
        const Answers now = fused_answers(&m, g);
        if (memcmp(&now, &first, sizeof now)) fail_msg("%s: other answers the %d-th time", dtype_name(dt), i + 1);
    }
    assert_int_equal(memory_held(), held);
    assert_string_equal(hash_of(&m.lora->base).hex, base.hex);
    assert_string_equal(hash_of(&m.zero).hex, own.hex);
    score_now = logits(&m);
    assert_memory_equal(score_now, score, (size_t)(TOKENS * m.arch.vocab) * sizeof *score);
    mem_free(score);
    mem_free(score_now);
    gen_destroy(&g);
    model_destroy(&m);
}

static void fuse_and_unfuse(void **state) {
    (void)state;
    thousand_times(DS_F32);
    thousand_times(DS_BF16);
}

int main(void) {
    world_init();
    layout_create(&world, group_world(), (LayoutWish){0});
    if (kernels_open("cpu", "auto", 1, &kernels)) return DS_ERR_BUG;
    enum { MORE = 3 };
    struct CMUnitTest tests[DS_COUNT(cases) + MORE] = {cmocka_unit_test(only_adapters), cmocka_unit_test(zero_b),
                                                       cmocka_unit_test(fuse_and_unfuse)};
    for (int i = 0; i < DS_COUNT(cases); i++)
        tests[MORE + i] =
            (struct CMUnitTest){cases[i].family, against_pytorch, NULL, NULL, (void *)(uintptr_t)&cases[i]};
    int failed = cmocka_run_group_tests_name("lora", tests, NULL, NULL);
    layout_destroy(&world);
    world_finalize();
    return failed;
}
