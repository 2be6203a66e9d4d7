// test_loss.c: the losses of src/loss and their gradients against PyTorch (tests/refs/loss.json, by
// tools/refs/loss.py), against finite cuts of the batch, and at the edges: NaN, infinity, ties, what is masked.
#include "tests/unit/loss_refs.h"

#include "loss/loss_lm.h"
#include "loss/loss_pair.h"
#include "loss/loss_ppo.h"

static json_t *refs;

static int open_refs(void **state) {
    (void)state;
    refs = refs_load("tests/refs/loss.json");
    return 0;
}
static int close_refs(void **state) {
    (void)state;
    json_decref(refs);
    return 0;
}

static void lm_matches(void **state) {
    (void)state;
    size_t i;
    json_t *c;
    RefsWorst loss = {.label = "loss"}, grad = {.label = "dlogp"};
    json_array_foreach(refs_get(refs, "lm"), i, c) {
        int64_t n = refs_count(c, "logp");
        float *d = refs_out(n), *logp = refs_floats(c, "logp");
        float *weight = refs_number(c, "weighted") != 0 ? refs_floats(c, "weight") : NULL;
        refs_compare_number(&loss, c, "loss", loss_lm(n, logp, weight, refs_number(c, "scale"), d));
        refs_compare_floats(&grad, c, "dlogp", d);
        refs_compare_number(&loss, c, "loss", loss_lm(n, logp, weight, 1, NULL));
        refs_free_arrays();
    }
    refs_report(&loss);
    refs_report(&grad);
}

static void lm_skips_weightless(void **state) {
    (void)state;
    float logp[] = {-INFINITY, -2, NAN}, weight[] = {0, 0.5f, 0}, d[3];
    assert_true(loss_lm(3, logp, weight, 2, d) == 1);
    assert_true(d[0] == 0 && d[1] == -1 && d[2] == 0);
    assert_true(isnan(loss_lm(3, logp, NULL, 2, d)));
}

// One pair case in two calls, of the first pair and of the others, must give what one call gives.
static void pair_in_parts(const PairLossCfg *cfg, const json_t *c, const float *whole, const PairStats *sum) {
    int64_t pairs = (refs_count(c, "starts") - 1) / 2;
    int32_t *starts = refs_ints(c, "starts"), *ids = refs_ints(c, "ids"), cut = starts[2];
    float *values = refs_floats(c, "values"), *d = refs_out(starts[2 * pairs]);
    double scale = refs_number(c, "scale");
    PairStats parts = {0};
    loss_pair(cfg, 1, starts, ids, values, scale, d, &parts);
    for (int64_t s = 2; s <= 2 * pairs; s++) starts[s] -= cut;
    loss_pair(cfg, pairs - 1, starts + 2, ids + cut, values + cut, scale, d + cut, &parts);
    assert_memory_equal(d, whole, (size_t)(cut + starts[2 * pairs]) * sizeof *d);
    assert_true(parts.pairs == sum->pairs && parts.right == sum->right);
    assert_true(fabs(parts.loss - sum->loss) <= 1e-13 * sum->loss);
}

static void pair_matches(void **state) {
    (void)state;
    size_t i;
    json_t *c;
    RefsWorst loss = {.label = "loss"}, grad = {.label = "dvalues"},
              score = {.label = "scores"}, moment = {.label = "moments"};
    json_array_foreach(refs_get(refs, "pair"), i, c) {
        bool last = strcmp(json_string_value(refs_get(c, "form")), "last") == 0;
        PairLossCfg cfg = {last ? PAIR_LAST : PAIR_TOKENS, refs_number(c, "margin"), refs_number(c, "center_coef")};
        int64_t rows = refs_count(c, "starts") - 1, n = refs_count(c, "ids");
        int32_t *starts = refs_ints(c, "starts"), *ids = refs_ints(c, "ids");
        float *values = refs_floats(c, "values"), *d = refs_out(n), *scores = refs_out(rows);
        PairStats stats = {0}, again = {0};
        loss_pair(&cfg, rows / 2, starts, ids, values, refs_number(c, "scale"), d, &stats);
        refs_compare_number(&loss, c, "loss", stats.loss);
        refs_compare_floats(&grad, c, "dvalues", d);
        assert_true(stats.pairs * 2 == (double)rows && stats.right == refs_number(c, "right"));
        loss_pair_scores(rows, starts, values, scores);
        refs_compare_floats(&score, c, "scores", scores);
        double mean, deviation;
        loss_pair_moments(&stats, &mean, &deviation);
        refs_compare_number(&moment, c, "mean", mean);
        refs_compare_number(&moment, c, "deviation", deviation);
        loss_pair(&cfg, rows / 2, starts, ids, values, 1, NULL, &again);
        assert_memory_equal(&stats, &again, sizeof stats);
        pair_in_parts(&cfg, c, d, &stats);
        refs_free_arrays();
    }
    refs_report(&loss);
    refs_report(&grad);
    refs_report(&score);
    refs_report(&moment);
}

static void pair_edges(void **state) {
    (void)state;
    // One-token rows, far apart: no overflow on either side, a tie is not right.
    int32_t starts[] = {0, 1, 2, 3, 4, 5, 6}, ids[] = {1, 2, 1, 2, 1, 2};
    float values[] = {2000, -2000, -2000, 2000, 3, 3}, d[6];
    PairStats s = {0};
    loss_pair(&(PairLossCfg){PAIR_LAST, 0, 0}, 3, starts, ids, values, 1, d, &s);
    assert_true(s.right == 1 && fabs(s.loss - (4000 + log(2))) < 1e-9);
    assert_true(d[0] == 0 && d[1] == 0 && d[2] == -1 && d[3] == 1 && d[4] == -0.5f && d[5] == 0.5f);
    values[3] = NAN;
    s = (PairStats){0};
    loss_pair(&(PairLossCfg){PAIR_TOKENS, 0, 0}, 3, starts, ids, values, 1, d, &s);
    assert_true(isnan(s.loss) && isnan(d[2]) && isnan(d[3]) && d[4] == -0.5f);
    double mean, deviation;
    loss_pair_moments(&s, &mean, &deviation);
    assert_true(isnan(mean) && isnan(deviation));
    loss_pair_moments(&(PairStats){0}, &mean, &deviation);
    assert_true(mean == 0 && deviation == 0);
}

static void interval_matches(void **state) {
    (void)state;
    size_t i;
    json_t *c;
    RefsWorst at = {.label = "interval"};
    json_array_foreach(refs_get(refs, "interval"), i, c) {
        double low, high;
        loss_pair_interval(refs_number(c, "right"), refs_number(c, "n"), &low, &high);
        assert_true(low >= 0 && low < high && high <= 1);
        double got[] = {low, high}, want[] = {refs_number(c, "low"), refs_number(c, "high")};
        refs_compare(&at, 2, got, want, 1e-12);
    }
    refs_report(&at);
    double low, high;
    loss_pair_interval(0, 0, &low, &high);
    assert_true(low == 0 && high == 1);
}

static void actor_matches(void **state) {
    (void)state;
    size_t i;
    json_t *c;
    RefsWorst loss = {.label = "loss"}, grad = {.label = "dlogp"},
              bonus = {.label = "dentropy"}, stat = {.label = "statistics"};
    json_array_foreach(refs_get(refs, "actor"), i, c) {
        PpoActorCfg cfg = {.eps_low = refs_number(c, "eps_low"), .eps_high = refs_number(c, "eps_high"),
                           .dual_clip = refs_number(c, "dual_clip"), .entropy_coef = refs_number(c, "entropy_coef")};
        int64_t n = refs_count(c, "logp");
        float *logp = refs_floats(c, "logp"), *h = refs_floats(c, "entropy"), *old = refs_floats(c, "logp_old");
        float *a = refs_floats(c, "advantages"), *d = refs_out(n), *dh = refs_out(n);
        uint8_t *mask = refs_number(c, "masked") != 0 ? refs_bytes(c, "mask") : NULL;
        for (int64_t t = 0; mask && t < n; t++)
            if (!mask[t]) logp[t] = NAN, h[t] = INFINITY, a[t] = NAN; // must not matter
        PpoActorStats s = {0}, again = {0};
        loss_ppo_actor(&cfg, n, logp, h, old, a, mask, refs_number(c, "scale"), d, dh, &s);
        refs_compare_number(&loss, c, "loss", s.policy - cfg.entropy_coef * s.entropy);
        refs_compare_floats(&grad, c, "dlogp", d);
        refs_compare_floats(&bonus, c, "dentropy", dh);
        refs_compare_number(&stat, c, "policy", s.policy);
        refs_compare_number(&stat, c, "entropy_sum", s.entropy);
        refs_compare_number(&stat, c, "ratio", s.ratio);
        refs_compare_number(&stat, c, "ratio_max", s.ratio_max);
        refs_compare_number(&stat, c, "kl", s.kl);
        assert_true(s.tokens == refs_number(c, "tokens") && s.clipped == refs_number(c, "clipped"));
        loss_ppo_actor(&cfg, n, logp, h, old, a, mask, 1, NULL, NULL, &again);
        assert_memory_equal(&s, &again, sizeof s);
        loss_ppo_actor_add(&again, &s);
        assert_true(again.tokens == 2 * s.tokens && again.policy == 2 * s.policy && again.entropy == 2 * s.entropy);
        assert_true(again.ratio == 2 * s.ratio && again.kl == 2 * s.kl && again.clipped == 2 * s.clipped);
        assert_true(again.ratio_max == s.ratio_max);
        refs_free_arrays();
    }
    refs_report(&loss);
    refs_report(&grad);
    refs_report(&bonus);
    refs_report(&stat);
}

static void actor_edges(void **state) {
    (void)state;
    // An overflowing ratio: clipped for A > 0 (finite, no gradient), infinite for A < 0, bounded by the dual clip.
    PpoActorCfg cfg = {.eps_low = 0.25, .eps_high = 0.25};
    float logp[] = {0, 0}, old[] = {-1000, -1000}, a[] = {2, -2}, d[2];
    PpoActorStats s = {0};
    loss_ppo_actor(&cfg, 1, logp, NULL, old, a, NULL, 1, d, NULL, &s);
    assert_true(s.policy == -2.5 && d[0] == 0 && s.clipped == 1 && isinf(s.ratio_max));
    s = (PpoActorStats){0};
    loss_ppo_actor(&cfg, 1, logp + 1, NULL, old + 1, a + 1, NULL, 1, d + 1, NULL, &s);
    assert_true(isinf(s.policy) && isinf(d[1]));
    cfg.dual_clip = 3;
    s = (PpoActorStats){0};
    loss_ppo_actor(&cfg, 1, logp + 1, NULL, old + 1, a + 1, NULL, 1, d + 1, NULL, &s);
    assert_true(s.policy == 6 && d[1] == 0 && s.clipped == 0);
    a[0] = NAN; // shows up
    s = (PpoActorStats){0};
    loss_ppo_actor(&cfg, 1, old, NULL, old, a, NULL, 1, d, NULL, &s);
    assert_true(isnan(s.policy) && isnan(d[0]));
    // The largest of several parts, whichever is added to which.
    PpoActorStats x = {.ratio_max = 1}, y = {.ratio_max = 2};
    loss_ppo_actor_add(&x, &y);
    assert_true(x.ratio_max == 2);
}

static void critic_matches(void **state) {
    (void)state;
    size_t i;
    json_t *c;
    RefsWorst loss = {.label = "loss"}, grad = {.label = "dvalues"}, share = {.label = "explained"};
    json_array_foreach(refs_get(refs, "critic"), i, c) {
        double eps = refs_number(c, "eps_value");
        int64_t n = refs_count(c, "values");
        float *v = refs_floats(c, "values"), *old = refs_floats(c, "values_old"), *r = refs_floats(c, "returns");
        float *d = refs_out(n);
        uint8_t *mask = refs_number(c, "masked") != 0 ? refs_bytes(c, "mask") : NULL;
        for (int64_t t = 0; mask && t < n; t++)
            if (!mask[t]) v[t] = NAN, r[t] = INFINITY;
        PpoCriticStats s = {0}, again = {0};
        loss_ppo_critic(eps, n, v, eps > 0 ? old : NULL, r, mask, refs_number(c, "scale"), d, &s);
        refs_compare_number(&loss, c, "loss", s.loss);
        refs_compare_floats(&grad, c, "dvalues", d);
        refs_compare_number(&share, c, "explained", loss_ppo_explained_variance(&s));
        assert_true(s.tokens == refs_number(c, "tokens") && s.clipped == refs_number(c, "clipped"));
        loss_ppo_critic(eps, n, v, old, r, mask, 1, NULL, &again);
        assert_memory_equal(&s, &again, sizeof s);
        refs_free_arrays();
    }
    refs_report(&loss);
    refs_report(&grad);
    refs_report(&share);
}

static void critic_edges(void **state) {
    (void)state;
    float v[] = {0.75f, NAN}, old[] = {0, 0}, r[] = {0.5f, 1}, d[2];
    PpoCriticStats s = {0};
    loss_ppo_critic(0.25, 1, v, old, r, NULL, 1, d, &s); // |V - R| = |clip(V) - R|
    assert_true(d[0] == 0.125f && s.clipped == 0 && s.loss == 0.5 * 0.0625);
    assert_true(s.values == 0.75 && s.error == -0.25 && loss_ppo_explained_variance(&s) == 0);
    loss_ppo_critic(0.25, 2, v, old, r, NULL, 1, d, &s);
    assert_true(isnan(s.loss) && isnan(d[1]));
    assert_true(loss_ppo_explained_variance(&(PpoCriticStats){0}) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lm_matches),    cmocka_unit_test(lm_skips_weightless), cmocka_unit_test(pair_matches),
        cmocka_unit_test(pair_edges),    cmocka_unit_test(interval_matches),    cmocka_unit_test(actor_matches),
        cmocka_unit_test(actor_edges),   cmocka_unit_test(critic_matches),      cmocka_unit_test(critic_edges),
    };
    return cmocka_run_group_tests_name("loss", tests, open_refs, close_refs);
}
