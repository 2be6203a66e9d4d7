// test_gae.c: rewards, advantages, returns and whitening against PyTorch (tests/refs/loss.json), and at the edges.
#include "tests/unit/loss_refs.h"

#include "loss/gae.h"

static GaeCfg case_cfg(const json_t *c) {
    return (GaeCfg){.gamma = refs_number(c, "gamma"), .lam = refs_number(c, "lam"),
                    .clip_reward = refs_number(c, "clip_reward"),
                    .missing_eos_penalty = refs_number(c, "missing_eos_penalty"),
                    .normalize = refs_number(c, "normalize") != 0, .score_mean = refs_number(c, "score_mean"),
                    .score_deviation = refs_number(c, "score_deviation")};
}

static void gae_matches(void **state) {
    (void)state;
    size_t i;
    json_t *c, *refs = refs_load("tests/refs/loss.json");
    RefsWorst reward = {.label = "rewards"}, advantage = {.label = "advantages"},
              ret = {.label = "returns"}, white = {.label = "whitened"};
    json_array_foreach(refs_get(refs, "gae"), i, c) {
        GaeCfg cfg = case_cfg(c);
        int64_t answers = refs_count(c, "score"), n = refs_count(c, "kl");
        int32_t *starts = refs_ints(c, "starts");
        float *r = refs_out(n), *a = refs_out(n), *g = refs_out(n);
        gae_rewards(&cfg, refs_number(c, "kl_coef"), answers, starts, refs_floats(c, "kl"), refs_floats(c, "score"),
                    refs_bytes(c, "truncated"), r);
        refs_compare_floats(&reward, c, "rewards", r);
        gae_advantages(&cfg, answers, starts, r, refs_floats(c, "values"), a, g);
        refs_compare_floats(&advantage, c, "advantages", a);
        refs_compare_floats(&ret, c, "returns", g);
        GaeMoments *parts = refs_keep(MEM_NEW(GaeMoments, answers));
        gae_moments(answers, starts, a, parts);
        GaeMoments total = gae_moments_sum(answers, parts);
        assert_true(total.count == (double)n);
        if (n > 1) gae_whiten(&total, n, a), refs_compare_floats(&white, c, "white", a);
        refs_free_arrays();
    }
    json_decref(refs);
    refs_report(&reward);
    refs_report(&advantage);
    refs_report(&ret);
    refs_report(&white);
}

static void score_rules(void **state) {
    (void)state;
    GaeCfg cfg = {.clip_reward = 5, .missing_eos_penalty = 2};
    assert_true(gae_score(&cfg, 7, false) == 5 && gae_score(&cfg, -7, false) == -5 && gae_score(&cfg, 3, false) == 3);
    assert_true(gae_score(&cfg, 7, true) == 3 && gae_score(&cfg, -7, true) == -7); // the penalty is not clipped
    assert_true(isnan(gae_score(&cfg, NAN, false)));
    cfg.clip_reward = 0;
    assert_true(gae_score(&cfg, 70, false) == 70);
    cfg = (GaeCfg){.clip_reward = 1, .normalize = true, .score_mean = 10, .score_deviation = 4};
    assert_true(gae_score(&cfg, 12, false) == 0.5 && gae_score(&cfg, 20, false) == 1); // the clip comes after
}

// The parts of two ranks, brought into global order, give the bits of one rank.
static void moments_by_parts(void **state) {
    (void)state;
    int32_t starts[] = {0, 3, 4, 9}, second[] = {0, 5};
    float x[] = {1e3f, -2.7f, 0.1f, 3.3f, 1e-3f, 7, 8, 9.1f, -1e4f}, equal[] = {4, 4, 4};
    GaeMoments one[3], two[3];
    gae_moments(3, starts, x, one);
    gae_moments(1, second, x + 4, two + 2);
    gae_moments(2, starts, x, two);
    GaeMoments a = gae_moments_sum(3, one), b = gae_moments_sum(3, two);
    assert_memory_equal(&a, &b, sizeof a);
    // An answer without actions, and advantages that are all equal: 0, not NaN.
    int32_t gaps[] = {0, 0, 3, 3};
    gae_moments(3, gaps, equal, one);
    a = gae_moments_sum(3, one);
    assert_true(one[0].count == 0 && a.count == 3 && a.sum == 12);
    gae_whiten(&a, 3, equal);
    assert_true(equal[0] == 0 && equal[2] == 0);
}

static void empty_answers(void **state) {
    (void)state;
    GaeCfg cfg = {.gamma = 1, .lam = 1};
    int32_t starts[] = {0, 0, 2, 2};
    float kl[] = {1, 2}, score[] = {100, 3, 100}, values[] = {10, 20}, r[] = {0, 0}, a[2], g[2];
    uint8_t cut[] = {1, 0, 1};
    gae_rewards(&cfg, 0.5, 3, starts, kl, score, cut, r);
    assert_true(r[0] == -0.5f && r[1] == 2);
    gae_advantages(&cfg, 3, starts, r, values, a, g);
    assert_true(a[1] == -18 && a[0] == -8.5f && g[0] == 1.5f && g[1] == 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(gae_matches), cmocka_unit_test(score_rules),
                                       cmocka_unit_test(moments_by_parts), cmocka_unit_test(empty_answers)};
    return cmocka_run_group_tests_name("gae", tests, NULL, NULL);
}
