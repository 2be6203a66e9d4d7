// test_families.c: loss, log-probs, logits and every weight's gradient of each model family against PyTorch +
// transformers (tools/refs/families.py): relative error of norms 1e-5 in fp32; the worst tensor is printed.
#include "case.h"

#include <sys/wait.h>
#include <unistd.h>

static void family(void **state) {
    printf("  %s\n", (const char *)*state);
    Case *c = open_case(*state, "families", ARCH_HEAD_LM, NULL);
    check_language_model(c);
    close_case(c);
}

// Recomputing the layers below the last in the backward pass must give the same bits.
static void recompute(void **state) {
    (void)state;
    float *g[2];
    int64_t n = 0;
    for (int pass = 0; pass < 2; pass++) {
        Case *c = open_case("qwen3", "families", ARCH_HEAD_LM, NULL);
        if (pass) c->a.kept = 1;
        model_fwd(&c->m, &c->a, &c->b, c->b.n, NULL);
        head_lm_train(&c->m, &c->a, c->rows, c->targets, c->n_rows, 1, mean_nll, c);
        model_bwd(&c->m, &c->a);
        n = shard_total(&c->m.zero.map);
        g[pass] = MEM_NEW(float, n);
        kernels->copy_out(g[pass], c->m.zero.g.data, (size_t)n * sizeof(float));
        close_case(c);
    }
    assert_memory_equal(g[0], g[1], (size_t)n * sizeof(float));
    mem_free(g[0]);
    mem_free(g[1]);
}

// The scalar head behind OPT-350M's projection.
static void scalar_head(void **state) {
    (void)state;
    Case *c = open_case("opt-postnorm", "families", ARCH_HEAD_SCALAR, NULL);
    const SafeTensor *head = safetensors_find(&c->ref, "v_head.weight");
    const Weight *w = weights_find_name(&c->m.weights, "v_head.weight");
    assert_non_null(head);
    float v_head[256], values[TOKENS], dvalues[TOKENS];
    assert_int_equal(head->count, w->count);
    assert_int_equal(safetensors_read_f32(&c->ref, head, 0, head->count, v_head), DS_OK);
    model_weight_set(&c->m, w, 0, w->count, v_head);
    int32_t all[TOKENS];
    for (int i = 0; i < TOKENS; i++) all[i] = i;
    model_fwd(&c->m, &c->a, &c->b, c->b.n, NULL);
    head_scalar_fwd(&c->m, &c->a, all, c->b.n, values);
    double e = relative(c, "values", values, c->b.n, 1, false, 0);
    printf("    values: %.2e\n", e);
    assert_true(e < bound);
    for (int64_t i = 0; i < c->b.n; i++) dvalues[i] = 2 * values[i] / (float)c->b.n;
    head_scalar_bwd(&c->m, &c->a, dvalues);
    model_bwd(&c->m, &c->a);
    compare_gradients(c, "grad_values.", true);
    close_case(c);
}

// A position beyond the model's ends the program (exit code 6): rotary angles, learned positions and ALiBi's slopes end
// there, and what lies behind them is other memory.
static void position_outside(void **state) {
    (void)state;
    static const char *const families[] = {"opt", "llama", "bloom"};
    for (int i = 0; i < DS_COUNT(families); i++)
        for (int beyond = 0; beyond < 2; beyond++) {
            Case *c = open_case(families[i], "families", ARCH_HEAD_LM, NULL);
            int status = 0;
            fflush(NULL);
            const pid_t pid = fork();
            if (pid == 0) {
                err_set_abort(NULL, 0); // not the parent's MPI
                if (!freopen("/dev/null", "w", stderr)) _exit(3);
                c->b.pos[c->b.n - 1] = (int32_t)c->m.arch.max_positions - 1 + beyond;
                model_fwd(&c->m, &c->a, &c->b, c->b.n, NULL);
                _exit(0);
            }
            assert_int_equal(waitpid(pid, &status, 0), pid);
            assert_true(WIFEXITED(status));
            assert_int_equal(WEXITSTATUS(status), beyond ? DS_ERR_BUG : 0);
            close_case(c);
        }
}

int main(void) {
    world_init();
    layout_create(&world, group_world(), (LayoutWish){0});
    if (kernels_open("cpu", "auto", 1, &kernels)) return DS_ERR_BUG;
    static const char *const families[] = {"opt",   "opt-postnorm", "gpt2",    "bloom", "gpt_neox",
                                           "llama", "llama-tied",   "mistral", "qwen2", "qwen3"};
    struct CMUnitTest tests[DS_COUNT(families) + 3] = {{0}};
    for (int i = 0; i < DS_COUNT(families); i++)
        tests[i] = (struct CMUnitTest){families[i], family, NULL, NULL, (void *)(uintptr_t)families[i]};
    tests[DS_COUNT(families)] = (struct CMUnitTest)cmocka_unit_test(recompute);
    tests[DS_COUNT(families) + 1] = (struct CMUnitTest)cmocka_unit_test(scalar_head);
    tests[DS_COUNT(families) + 2] = (struct CMUnitTest)cmocka_unit_test(position_outside);
    int failed = cmocka_run_group_tests_name("families", tests, NULL, NULL);
    layout_destroy(&world);
    world_finalize();
    return failed;
}
