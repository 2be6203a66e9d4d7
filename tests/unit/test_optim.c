// test_optim.c: AdamW with clip and schedule over 20 steps against PyTorch (tools/refs/adamw.py), and the moving
// average.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/mem.h"
#include "comm/world.h"
#include "optim/optim.h"

enum { STEPS = 20 };
static Layout world; // of all ranks
static const Kernels *kernels;

typedef struct {
    Arch arch;
    WeightList list;
    ZeroState z;
    Optim o;
} Fixture;

static void open_fixture(Fixture *f, DType dt, double ema_beta) {
    arch_family_defaults(&f->arch, ARCH_LLAMA);
    f->arch.layers = 1, f->arch.width = f->arch.embed_width = 4, f->arch.heads = f->arch.kv_heads = 1;
    f->arch.head_dim = f->arch.rotary_dim = 4, f->arch.ffn = 6, f->arch.vocab = 5, f->arch.max_positions = 8;
    f->arch.tied = 1;
    weights_build(&f->arch, &f->list);
    zero_state_create(&f->z, kernels, &f->list, &world, NULL, dt, (ZeroKeep){.training = ZERO_TRAINED});
    OptimCfg cfg = {
        .beta1 = 0.9,
        .beta2 = 0.95,
        .eps = 1e-8,
        .weight_decay = 0.1,
        .clip = 1,
        .sched = {.form = SCHED_COSINE, .lr = 3e-2, .warmup_steps = 5, .total_steps = STEPS, .cycles = 1, .power = 1}};
    optim_create(&f->o, &f->z, &cfg, ema_beta);
}

static void close_fixture(Fixture *f) {
    optim_destroy(&f->o);
    zero_state_destroy(&f->z);
    weights_free(&f->list);
}

// Element number i of weight w counted through all weights.
static void set_elements(Fixture *f, bool gradient, int t) {
    float buffer[64];
    int64_t at = 0;
    for (int i = 0; i < f->list.n; i++) {
        const Weight *w = &f->list.w[i];
        for (int64_t e = 0; e < w->count; e++, at++) {
            double g = 0.5 * (1 + t % 3) * sin(0.7 * (double)at + 1.3 * t);
            buffer[e] = gradient ? (float)g : (float)cos(0.3 * (double)at);
            if (gradient && t == 7) buffer[e] *= 1e-3f;
        }
        kernels->copy_in(store_at(gradient ? &f->z.g : &f->z.w, w->block, w->offset), buffer,
                         (size_t)w->count * sizeof(float));
    }
}

static void against_pytorch(void **state) {
    (void)state;
    Fixture f = {0};
    json_t *ref = json_load_file("tests/refs/adamw.json", 0, NULL);
    assert_non_null(ref);
    open_fixture(&f, DS_F32, -1);
    set_elements(&f, false, 0);
    for (int t = 0; t < STEPS; t++) {
        optim_begin(&f.o);
        set_elements(&f, true, t);
        double norm = optim_reduce(&f.o),
               want = json_number_value(json_array_get(json_object_get(ref, "norms"), (size_t)t));
        assert_true(fabs(norm / want - 1) < 1e-6);
        double lr = optim_apply(&f.o),
               rate = json_number_value(json_array_get(json_object_get(ref, "rates"), (size_t)t));
        assert_true(fabs(lr - rate) <= 1e-12);
    }
    double diff = 0, size = 0, worst = 0;
    size_t at = 0;
    for (int i = 0; i < f.list.n; i++) {
        float w[64];
        kernels->copy_out(w, zero_weight(&f.z, f.list.w[i].block, f.list.w[i].role),
                          (size_t)f.list.w[i].count * sizeof(float));
        for (int64_t e = 0; e < f.list.w[i].count; e++, at++) {
            double r = json_number_value(json_array_get(json_object_get(ref, "weights"), at)), d = w[e] - r;
            diff += d * d, size += r * r, worst = fmax(worst, fabs(d));
        }
    }
    assert_int_equal(at, json_array_size(json_object_get(ref, "weights")));
    printf("    weights after %d steps: relative error %.2e, worst element off by %.2e\n", STEPS, sqrt(diff / size),
           worst);
    assert_true(sqrt(diff / size) < 1e-6);
    json_decref(ref);
    close_fixture(&f);
}

// One step after the warm-up; the weights end in w[all]. Returns how many there are.
static int64_t one_step(double lr, double adapter_lr, bool adapters, float *w) {
    Fixture f = {0};
    int64_t n = 0;
    open_fixture(&f, DS_F32, -1);
    f.o.cfg.sched.lr = lr, f.o.cfg.adapter_lr = adapter_lr;
    f.o.steps = 7;
    for (int i = 0; i < f.list.n; i++) f.list.w[i].adapter = adapters && i % 2;
    set_elements(&f, false, 0);
    optim_begin(&f.o);
    set_elements(&f, true, 1);
    optim_reduce(&f.o);
    const double rate = optim_apply(&f.o);
    assert_true(fabs(rate - sched_lr(&f.o.cfg.sched, 7)) < 1e-15); // what it reports is not the adapters'
    for (int i = 0; i < f.list.n; n += f.list.w[i++].count)
        kernels->copy_out(w + n, zero_weight(&f.z, f.list.w[i].block, f.list.w[i].role),
                          (size_t)f.list.w[i].count * sizeof(float));
    close_fixture(&f);
    return n;
}

// Adapters have a rate of their own, with the schedule of the others; the others keep theirs.
static void adapters_have_a_rate(void **state) {
    (void)state;
    enum { MOST = 1024 };
    static float both[MOST], slow[MOST], fast[MOST];
    Fixture f = {0};
    int64_t at = 0;
    const int64_t n = one_step(1e-3, 2e-2, true, both);
    assert_true(n <= MOST);
    one_step(1e-3, 5, false, slow);
    one_step(2e-2, 5, false, fast);
    open_fixture(&f, DS_F32, -1);
    for (int i = 0; i < f.list.n; at += f.list.w[i++].count) {
        const size_t bytes = (size_t)f.list.w[i].count * sizeof(float);
        assert_memory_equal(both + at, (i % 2 ? fast : slow) + at, bytes);
        assert_memory_not_equal(slow + at, fast + at, bytes);
    }
    assert_int_equal(at, n);
    close_fixture(&f);
}

static void moving_average(void **state) {
    (void)state;
    Fixture f = {0};
    float before, after, ema;
    open_fixture(&f, DS_F32, 0.9);
    set_elements(&f, false, 0);
    optim_ema_reset(&f.o);
    kernels->copy_out(&before, optim_lease(&f.o, 0, 1, 5, 1), sizeof before);
    set_elements(&f, true, 1);
    f.o.steps = 3; // past the warm-up's zero rate
    optim_reduce(&f.o);
    optim_apply(&f.o);
    kernels->copy_out(&after, optim_lease(&f.o, 0, 1, 5, 1), sizeof after);
    kernels->copy_out(&ema, optim_lease(&f.o, 3, 1, 5, 1), sizeof ema);
    assert_true(before != after);
    assert_true(fabs(ema - (0.9 * before + 0.1 * after)) < 1e-6);
    close_fixture(&f);
}

// The norm of a NaN is a NaN, so that the caller skips the step.
static void not_finite(void **state) {
    (void)state;
    Fixture f = {0};
    float bad = NAN;
    open_fixture(&f, DS_F32, -1);
    set_elements(&f, true, 1);
    kernels->copy_in(store_at(&f.z.g, 1, 17), &bad, sizeof bad);
    assert_false(isfinite(optim_reduce(&f.o)));
    close_fixture(&f);
}

int main(void) {
    world_init();
    layout_create(&world, group_world(), (LayoutWish){0});
    if (kernels_open("cpu", "auto", 1, &kernels)) return DS_ERR_BUG;
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_pytorch), cmocka_unit_test(adapters_have_a_rate),
                                       cmocka_unit_test(moving_average), cmocka_unit_test(not_finite)};
    int failed = cmocka_run_group_tests_name("optim", tests, NULL, NULL);
    layout_destroy(&world);
    world_finalize();
    return failed;
}
