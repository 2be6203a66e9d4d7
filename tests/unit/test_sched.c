// test_sched.c: learning-rate schedules against transformers, the loss scale against DeepSpeed's rule
// (tests/refs/sched.json).
#include "tests/unit/loss_refs.h"

#include "optim/scale.h"
#include "optim/sched.h"

static const char *const FORMS[] = {"linear", "cosine", "cosine_with_restarts", "polynomial", "constant",
                                    "constant_with_warmup", "cosine_with_min_lr"};

static SchedForm form_of(const char *name) {
    int f = 0;
    while (f < DS_COUNT(FORMS) && strcmp(name, FORMS[f]) != 0) f++;
    assert_true(f < DS_COUNT(FORMS));
    return (SchedForm)f;
}

static double option(const json_t *c, const char *name, double other) {
    return json_object_get(c, name) ? refs_number(c, name) : other;
}

static void rates_match(void **state) {
    (void)state;
    size_t i;
    json_t *c, *refs = refs_load("tests/refs/sched.json");
    RefsWorst worst[DS_COUNT(FORMS)];
    for (int f = 0; f < DS_COUNT(FORMS); f++) worst[f] = (RefsWorst){.label = FORMS[f]};
    json_array_foreach(refs_get(refs, "lr"), i, c) {
        Sched s = {.form = form_of(json_string_value(refs_get(c, "form"))), .lr = refs_number(c, "peak"),
                   .warmup_steps = (int64_t)refs_number(c, "warmup"), .total_steps = (int64_t)refs_number(c, "total"),
                   .min_lr_ratio = option(c, "min_lr_ratio", 0), .cycles = option(c, "cycles", 1),
                   .power = option(c, "power", 1)};
        int64_t n = refs_count(c, "lr");
        double *got = refs_keep(MEM_NEW(double, n));
        for (int64_t t = 0; t < n; t++) got[t] = sched_lr(&s, t);
        refs_compare(&worst[s.form], n, got, refs_doubles(c, "lr"), 1e-12);
        assert_true(sched_lr(&s, n + 1000) == got[n - 1]); // stays
        refs_free_arrays();
    }
    json_decref(refs);
    for (int f = 0; f < DS_COUNT(FORMS); f++) {
        assert_true(worst[f].arrays > 0);
        refs_report(&worst[f]);
    }
}

static void rates_at_edges(void **state) {
    (void)state;
    // A peak below the polynomial's end, a warm-up longer than the job, a job of no steps: never above the peak.
    for (int f = 0; f < DS_COUNT(FORMS); f++) {
        for (int64_t total = 0; total < 9; total += 4) {
            Sched s = {.form = (SchedForm)f, .lr = 1e-9, .warmup_steps = 6, .total_steps = total, .min_lr_ratio = 0.1,
                       .cycles = 2.5, .power = 2};
            for (int64_t t = 0; t < 20; t++) {
                double lr = sched_lr(&s, t);
                assert_true(lr >= 0 && lr <= 1e-9);
                assert_true(f == SCHED_CONSTANT || t > 6 || fabs(lr - 1e-9 * (double)t / 6) < 1e-24);
            }
        }
    }
}

static void warmup_matches(void **state) {
    (void)state;
    size_t i;
    json_t *c, *refs = refs_load("tests/refs/sched.json");
    json_array_foreach(refs_get(refs, "warmup"), i, c) {
        int64_t got = sched_warmup((int64_t)refs_number(c, "steps"), refs_number(c, "ratio"),
                                   (int64_t)refs_number(c, "total"));
        assert_int_equal(got, (int64_t)refs_number(c, "expect"));
    }
    assert_true(i > 0);
    json_decref(refs);
}

static void scale_matches(void **state) {
    (void)state;
    size_t i;
    json_t *c, *refs = refs_load("tests/refs/sched.json");
    RefsWorst worst = {.label = "scale"};
    json_array_foreach(refs_get(refs, "scale"), i, c) {
        ScaleCfg cfg = {.start = refs_number(c, "start"), .window = (int64_t)refs_number(c, "window"),
                        .hysteresis = (int64_t)refs_number(c, "hysteresis"), .floor = refs_number(c, "floor")};
        int64_t n = refs_count(c, "overflow");
        uint8_t *overflow = refs_bytes(c, "overflow");
        double *got = refs_keep(MEM_NEW(double, n));
        ScaleState s;
        scale_init(&cfg, &s);
        for (int64_t t = 0; t < n; t++) {
            ScaleState restored = s; // as a checkpoint keeps it
            scale_update(&cfg, &restored, overflow[t] != 0);
            s = restored;
            got[t] = s.scale;
        }
        refs_compare(&worst, n, got, refs_doubles(c, "scale"), 0);
        refs_free_arrays();
    }
    json_decref(refs);
    refs_report(&worst);
}

static void scale_starts(void **state) {
    (void)state;
    ScaleCfg cfg = scale_defaults();
    ScaleState s;
    scale_init(&cfg, &s);
    assert_true(s.scale == 65536);
    scale_update(&cfg, &s, true);
    assert_true(s.scale == 65536); // borne
    scale_update(&cfg, &s, true);
    assert_true(s.scale == 32768);
    for (int t = 0; t < 99; t++) scale_update(&cfg, &s, false);
    assert_true(s.scale == 32768);
    scale_update(&cfg, &s, false);
    assert_true(s.scale == 65536 && s.hysteresis == 2);
    for (int t = 0; t < 40; t++) scale_update(&cfg, &s, true);
    assert_true(s.scale == 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rates_match), cmocka_unit_test(rates_at_edges),
                                       cmocka_unit_test(warmup_matches), cmocka_unit_test(scale_matches),
                                       cmocka_unit_test(scale_starts)};
    return cmocka_run_group_tests_name("sched", tests, NULL, NULL);
}
