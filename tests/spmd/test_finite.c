// test_finite.c: a number that is not finite is found on the rank that has it, and named after the first weight, the
// loss or the gradient.
#include "stage/finite.h"
#include "tiny.h"

typedef struct {
    Run run;
    Model m;
    Optim o;
    StageModel stage;
} Case;

static void begin(Case *x, int zero_stage) {
    Arch a;
    arch_family_defaults(&a, ARCH_LLAMA);
    a.layers = 2, a.width = a.embed_width = 32, a.heads = a.kv_heads = 4, a.head_dim = a.rotary_dim = 8;
    a.ffn = 48, a.vocab = VOCAB, a.max_positions = 64, a.tied = 0, a.init_std = 0.2;
    *x = (Case){.run = {.k = kernels, .world = group_world()}};
    layout_create(&x->run.layout, x->run.world, (LayoutWish){.tensor = 1, .lanes = world_size()});
    model_create(&x->m, kernels, &a, DS_F32, &x->run.layout, (ZeroKeep){.stage = zero_stage, .training = ZERO_TRAINED},
                 NULL);
    model_init_random(&x->m, 7, -1);
    zero_master_reset(&x->m.zero);
    optim_create(&x->o, &x->m.zero, &tiny_optim, 0.9);
    optim_ema_reset(&x->o);
    x->stage = (StageModel){"actor", &x->m, &x->o};
    backward(&x->m, &x->run.layout, SEQUENCES, 2);
    assert_true(isfinite(optim_reduce(&x->o)));
}

static void end(Case *x) {
    optim_destroy(&x->o);
    model_destroy(&x->m);
    layout_destroy(&x->run.layout);
    err_clear();
}

// Puts a NaN into the last element of weight number i that this rank owns, or of its average (3) or gradient (4).
// Whether it owns any.
static bool spoil(Case *x, int i, int kind) {
    const ZeroState *z = &x->m.zero;
    const Weight *w = &z->weights->w[i];
    const float odd = i % 2 ? NAN : INFINITY;
    int64_t first, n;
    shard_cut(&z->map, w->block, z->shard, w->offset, w->count, &first, &n);
    if (n == 0) return false;
    const int64_t at = w->offset + first + n - 1;
    kernels->copy_in(kind == 4 ? zero_grad_sum(z, w->block, at) : optim_lease(&x->o, kind, w->block, at, 1), &odd,
                     sizeof odd);
    return true;
}

// The lowest rank that brings true.
static int lowest(bool own) {
    double rank = own ? -world_rank() : -1e9;
    coll_max_f64(group_world(), &rank, 1);
    return (int)-rank;
}

static void finds_nothing(void **state) {
    Case x;
    char words[FINITE_WORDS];
    (void)state;
    begin(&x, 1);
    finite_find(&x.run, &x.stage, 1, words);
    assert_string_equal(words, "");
    assert_int_equal(finite_models(&x.run, "sft", &x.stage, 1), DS_OK);
    assert_int_equal(finite_end(&x.run, "sft", 3, &x.stage, 1), DS_ERR_NUMERIC); // no step was accepted
    assert_non_null(strstr(err_text(), "every one of its 3 steps was skipped"));
    err_clear();
    optim_apply(&x.o);
    assert_int_equal(finite_end(&x.run, "sft", 3, &x.stage, 1), DS_OK);
    end(&x);
}

static void names_each(void **state) {
    Case x;
    char words[FINITE_WORDS], want[FINITE_WORDS];
    (void)state;
    for (int stage = 0; stage <= 3; stage++) {
        begin(&x, stage);
        const int n = x.m.zero.weights->n;
        for (int i = 0; i < n; i++) { // gradients: the last one is the first that was computed
            snprintf(want, sizeof want, "rank %d: the actor's gradient of %s is not finite", lowest(spoil(&x, i, 4)),
                     x.m.zero.weights->w[i].name);
            finite_find(&x.run, &x.stage, 1, words);
            assert_string_equal(words, want);
        }
        // A loss comes before the gradients, on the last rank alone.
        finite_find(&x.run, &x.stage, world_rank() == world_size() - 1 ? NAN : 1, words);
        snprintf(want, sizeof want, "rank %d: the actor's loss is not finite", world_size() - 1);
        assert_string_equal(words, want);
        assert_int_equal(finite_models(&x.run, "sft", &x.stage, 1), DS_OK);
        spoil(&x, 2, 3);
        assert_int_equal(finite_models(&x.run, "sft", &x.stage, 1), DS_ERR_NUMERIC);
        assert_non_null(strstr(err_text(), "the actor's moving average of "));
        err_clear();
        for (int i = n - 1; i >= 0; i--) { // a weight comes before the loss
            snprintf(want, sizeof want, "rank %d: the actor's weight %s is not finite", lowest(spoil(&x, i, 0)),
                     x.m.zero.weights->w[i].name);
            finite_find(&x.run, &x.stage, NAN, words);
            assert_string_equal(words, want);
            assert_int_equal(finite_models(&x.run, "sft", &x.stage, 1), DS_ERR_NUMERIC);
            assert_non_null(strstr(err_text(), want));
            err_clear();
        }
        end(&x);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(finds_nothing), cmocka_unit_test(names_each)};
    world_init();
    if (kernels_open("cpu", "auto", 1, &kernels)) return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    world_finalize();
    return failed;
}
