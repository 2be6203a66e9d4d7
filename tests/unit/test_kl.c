// test_kl.c: the KL estimators and the controller of the penalty's weight against PyTorch (tests/refs/loss.json).
#include "tests/unit/loss_refs.h"

#include "loss/kl.h"

static void estimators_match(void **state) {
    (void)state;
    static const char *const names[] = {"k1", "k2", "k3"};
    size_t i;
    json_t *c, *refs = refs_load("tests/refs/loss.json");
    RefsWorst worst[] = {{.label = "k1"}, {.label = "k2"}, {.label = "k3"}};
    json_array_foreach(refs_get(refs, "kl"), i, c) {
        int64_t n = refs_count(c, "logp");
        for (int k = 0; k < 3; k++) {
            float *kl = refs_out(n);
            kl_tokens((KlForm)k, n, refs_floats(c, "logp"), refs_floats(c, "logp_ref"), kl);
            refs_compare_floats(&worst[k], c, names[k], kl);
        }
        refs_free_arrays();
    }
    json_decref(refs);
    for (int k = 0; k < 3; k++) refs_report(&worst[k]);
    assert_true(fabs(kl_token(KL_BY_K3, 0, 1) - (exp(1) - 2)) < 1e-15);
    assert_true(kl_token(KL_BY_K1, -1, -3) == 2 && kl_token(KL_BY_K2, -1, -3) == 2);
}

static void control_matches(void **state) {
    (void)state;
    size_t i;
    json_t *c, *refs = refs_load("tests/refs/loss.json");
    RefsWorst coef = {.label = "coef"};
    json_array_foreach(refs_get(refs, "control"), i, c) {
        KlControlCfg cfg = {KL_CONTROL_ADAPTIVE, refs_number(c, "target"), (int64_t)refs_number(c, "horizon")};
        KlControlState s = {refs_number(c, "coef")};
        int64_t n = refs_count(c, "kl");
        double *kl = refs_doubles(c, "kl"), *got = refs_keep(MEM_NEW(double, n));
        int32_t *answers = refs_ints(c, "answers");
        for (int64_t t = 0; t < n; t++) {
            kl_control_update(&cfg, &s, kl[t], answers[t]);
            got[t] = s.coef;
        }
        refs_compare(&coef, n, got, refs_doubles(c, "coefs"), 1e-12);
        refs_free_arrays();
    }
    json_decref(refs);
    refs_report(&coef);
}

static void control_bounds(void **state) {
    (void)state;
    KlControlCfg cfg = {KL_CONTROL_ADAPTIVE, 6, 10};
    KlControlState s = {0.5};
    kl_control_update(&cfg, &s, 0, 1000); // an iteration of many horizons lowers by a fifth at most
    assert_true(s.coef == 0.5 * (1 - 0.2));
    s.coef = 0.5;
    kl_control_update(&cfg, &s, 1e9, 5);
    assert_true(fabs(s.coef - 0.55) < 1e-15);
    s.coef = 0.5;
    kl_control_update(&cfg, &s, NAN, 5);
    kl_control_update(&cfg, &s, INFINITY, 5);
    kl_control_update(&cfg, &s, 6, 5);
    assert_true(s.coef == 0.5);
    cfg.form = KL_CONTROL_FIXED;
    kl_control_update(&cfg, &s, 60, 5);
    assert_true(s.coef == 0.5);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(estimators_match), cmocka_unit_test(control_matches),
                                       cmocka_unit_test(control_bounds)};
    return cmocka_run_group_tests_name("kl", tests, NULL, NULL);
}
