// test_params_diff.c: what a changed key means for a run that has begun.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "params/params_diff.h"

static Params *parse(const char *text) {
    Params *p = NULL;
    if (params_parse("t.in", text, strlen(text), 0, NULL, &p)) fail_msg("%s\nrefused: %s", text, err_text());
    return p;
}

// As params.out keeps it.
static Params *recall(const Params *p) {
    char *text = params_text(p, true);
    Params *back = NULL;
    if (params_recall("params.out", text, strlen(text), &back)) fail_msg("params.out: %s", err_text());
    mem_free(text);
    return back;
}

static void test_complete(void **state) {
    (void)state;
    const char *name;
    if (!params_changes_complete(&name)) fail_msg("params_diff.c: no row for key, or no key for row, %s", name);
}

// One key's change: how many differences, the kind and stages of the first.
static void differs(const char *before, const char *after, const char *key, ChangeKind kind, int stages) {
    Params *a = parse(before), *was = recall(a), *is = parse(after);
    ParamChange *list;
    const int n = params_diff(was, is, &list);
    if (!key) assert_int_equal(n, 0);
    else {
        assert_int_equal(n, 1);
        assert_string_equal(list[0].key->name, key);
        assert_int_equal(list[0].kind, kind);
        assert_int_equal(list[0].stages, stages);
    }
    params_diff_free(&list, n);
    params_free(&a), params_free(&was), params_free(&is);
}

enum { SFT = 1, RM = 2, PPO = 4, ALL = 7 };

static void test_kinds(void **state) {
    (void)state;
    differs("", "", NULL, 0, 0);
    differs("[generate]\nstop = a\\,b, \\n\n[sft]\nlr = 3e-7\n", "[generate]\nstop = a\\,b, \\n\n[sft]\nlr = 0.3e-6\n",
            NULL, 0, 0);
    differs("[sft]\nlr = 1e-5\n", "[sft]\nlr = 2e-5\n", "lr", CHANGE_RESULTS, SFT);
    differs("", "[rm]\nmargin = 1\n", "margin", CHANGE_RESULTS, RM);
    differs("", "[ppo]\nlog_every = 2\n", "log_every", CHANGE_FREE, PPO);
    differs("", "[generate]\ntop_k = 5\n", "top_k", CHANGE_RESULTS, PPO);
    differs("", "[generate]\nbatch = 5\n", "batch", CHANGE_FREE, PPO);
    differs("", "[actor]\nzero_stage = 3\n", "zero_stage", CHANGE_FREE, ALL);
    differs("", "[actor]\nlora_rank = 3\n", "lora_rank", CHANGE_RESULTS, ALL);
    differs("", "[reward]\nlora_rank = 3\n", "lora_rank", CHANGE_RESULTS, RM | PPO);
    differs("", "[layout]\nlanes = 3\n", "lanes", CHANGE_BITS, ALL);
    differs("", "[sft]\nmicro_tokens = 99\n", "micro_tokens", CHANGE_BITS, SFT);
    differs("", "[sft]\nmax_steps = 99\n", "max_steps", CHANGE_EXTENT, SFT);
    differs("", "[data]\nrm_file = x\n", "rm_file", CHANGE_FILE, RM);
    differs("", "[job]\nstages = sft\n", "stages", CHANGE_STAGES, ALL);
    differs("", "[checkpoint]\nkeep = 9\n", "keep", CHANGE_FREE, ALL);
}

static void test_more(void **state) {
    (void)state;
    assert_true(params_is_more(&(ParamChange){.was = "3", .is = "4"}));
    assert_true(params_is_more(&(ParamChange){.was = "3", .is = "0"}));
    assert_false(params_is_more(&(ParamChange){.was = "0", .is = "4"}));
    assert_false(params_is_more(&(ParamChange){.was = "4", .is = "3"}));
}

// A record of another version, which has fewer keys, and others.
static void test_older(void **state) {
    (void)state;
    Params *was = NULL, *is = parse("[sft]\nlr = 2e-5\n[job]\nseed = 3\n");
    const char *text = "[gone]\nlr = 3\n[sft]\nlong_gone = a,\n    b\nlr = 1e-5\n";
    assert_int_equal(params_recall("params.out", text, strlen(text), &was), DS_OK);
    ParamChange *list;
    const int n = params_diff(was, is, &list);
    assert_int_equal(n, 1);
    assert_string_equal(list[0].was, "1e-05");
    params_diff_free(&list, n);
    params_free(&was), params_free(&is);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_complete), cmocka_unit_test(test_kinds),
                                       cmocka_unit_test(test_more), cmocka_unit_test(test_older)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
