// test_adapters.c: which weights get low-rank adapters, what is trained then, and what adapters_check says.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arch/adapters.h"

enum { LAYERS = 2, WIDTH = 32, FFN = 28, RANK = 3 };

static void build(ArchFamily family, ArchHead head, WeightList *list) {
    Arch a;
    arch_family_defaults(&a, family);
    a.layers = LAYERS;
    a.width = a.embed_width = WIDTH;
    a.heads = a.kv_heads = 4;
    a.head_dim = 8;
    if (a.pos == ARCH_POS_ROPE) a.rotary_dim = 8;
    a.ffn = FFN;
    a.max_positions = 64;
    a.vocab = 67;
    a.head = head;
    if (arch_check(&a, "test")) fail_msg("%s", err_text());
    weights_build(&a, list);
}

static AdapterCfg wants(char **modules, int n, bool only) {
    return (AdapterCfg){.rank = RANK, .alpha = 5, .modules = modules, .n_modules = n, .only = only};
}

// ---- what it says ----

static void refused(const WeightList *all, const AdapterCfg *cfg, const char *word) {
    err_clear();
    assert_int_equal(adapters_check(all, cfg, "critic"), DS_ERR_PARAMS);
    if (!strstr(err_text(), "[critic] lora_modules")) fail_msg("\"%s\" does not say whose key it is", err_text());
    if (!strstr(err_text(), word)) fail_msg("\"%s\" does not say \"%s\"", err_text(), word);
    err_clear();
}

// A module that no linear weight of a layer has in its name, after one that all have: its name and one that there is.
static void unknown_modules(void **state) {
    (void)state;
    static const char *const there[ARCH_FAMILIES] = {[ARCH_OPT] = "model.decoder.layers.0.self_attn.out_proj.weight",
                                                     [ARCH_GPT2] = "transformer.h.0.attn.c_proj.weight",
                                                     [ARCH_BLOOM] = "transformer.h.0.self_attention.dense.weight",
                                                     [ARCH_NEOX] = "gpt_neox.layers.0.attention.dense.weight",
                                                     [ARCH_LLAMA] = "model.layers.0.self_attn.o_proj.weight",
                                                     [ARCH_MISTRAL] = "model.layers.0.self_attn.o_proj.weight",
                                                     [ARCH_QWEN2] = "model.layers.0.self_attn.o_proj.weight",
                                                     [ARCH_QWEN3] = "model.layers.0.self_attn.o_proj.weight"};
    // nearly a word; norms and embeddings, which are not linear; the head, which is of no layer
    static const char *const unknown[] = {"attn_proj", "Attention", "norm", "embed", "wte", "bias", "lm_head"};
    for (int f = 0; f < ARCH_FAMILIES; f++) {
        WeightList all;
        build((ArchFamily)f, ARCH_HEAD_LM, &all);
        for (int i = 0; i < DS_COUNT(unknown); i++) {
            char word[32], quoted[40], *modules[] = {"mlp", word};
            const AdapterCfg cfg = wants(modules, 2, false);
            snprintf(word, sizeof word, "%s", unknown[i]);
            snprintf(quoted, sizeof quoted, "\"%s\"", word);
            refused(&all, &cfg, quoted);
            refused(&all, &cfg, there[f]);
        }
        weights_free(&all);
    }
}

static void no_modules(void **state) {
    (void)state;
    WeightList all;
    AdapterCfg cfg = wants(NULL, 0, false);
    build(ARCH_LLAMA, ARCH_HEAD_LM, &all);
    refused(&all, &cfg, "is empty");
    cfg.rank = 0;
    assert_int_equal(adapters_check(&all, &cfg, "critic"), DS_OK);
    weights_free(&all);
}

// Also: without adapters nobody asks what the modules are.
static void known_modules(void **state) {
    (void)state;
    char *modules[] = {"attention", "mlp", "q_proj", "layers.1.", "up_proj.weight"}, *none[] = {"nothing"};
    WeightList all;
    AdapterCfg cfg = wants(modules, DS_COUNT(modules), false), off = wants(none, 1, false);
    build(ARCH_LLAMA, ARCH_HEAD_LM, &all);
    assert_int_equal(adapters_check(&all, &cfg, "critic"), DS_OK);
    refused(&all, &off, "\"nothing\"");
    off.rank = 0;
    assert_int_equal(adapters_check(&all, &off, "critic"), DS_OK);
    weights_free(&all);
}

// ---- what it does ----

typedef struct {
    ArchFamily family;
    char *modules[3];
    int n_modules;
    WeightRole role[8]; // of the weights of a layer that get adapters
    int n_roles;
} Choice;

static char attention[] = "attention", mlp[] = "mlp", q_proj[] = "q_proj", v_proj[] = "v_proj", c_proj[] = "c_proj";
static const Choice choices[] = {{ARCH_LLAMA, {attention}, 1, {W_Q, W_K, W_V, W_O}, 4},
                                 {ARCH_LLAMA, {mlp}, 1, {W_GATE, W_UP, W_DOWN}, 3},
                                 {ARCH_OPT, {v_proj, q_proj}, 2, {W_Q, W_V}, 2},
                                 {ARCH_OPT, {q_proj, attention, mlp}, 3, {W_Q, W_K, W_V, W_O, W_UP, W_DOWN}, 6},
                                 {ARCH_GPT2, {attention}, 1, {W_QKV, W_O}, 2},
                                 {ARCH_GPT2, {c_proj}, 1, {W_O, W_DOWN}, 2},
                                 {ARCH_NEOX, {mlp}, 1, {W_UP, W_DOWN}, 2}};

static bool chosen(const Choice *c, const Weight *w) {
    for (int i = 0; i < c->n_roles; i++)
        if (c->role[i] == w->role) return true;
    return false;
}

static void check_adapter(const WeightList *trained, const Weight *w, WeightRole role, const char *suffix, int64_t rows,
                          int64_t cols) {
    const Weight *x = weights_find(trained, w->block, role);
    char name[sizeof w->name];
    snprintf(name, sizeof name, "%.*s.%s.weight", (int)(strlen(w->name) - strlen(".weight")), w->name, suffix);
    assert_non_null(x);
    assert_string_equal(x->name, name);
    assert_true(x->adapter && x->decay && x->mine && x->ndim == 2);
    assert_true(x->shape[0] == rows && x->shape[1] == cols && x->count == rows * cols);
}

// Weights follow each other without a gap, block by block.
static void check_dense(const WeightList *list) {
    int64_t offset[LAYERS + 2] = {0};
    for (int i = 0, block = 0; i < list->n; i++) {
        const Weight *w = &list->w[i];
        assert_true(w->block >= block);
        assert_true(w->offset == offset[w->block]);
        assert_ptr_equal(weights_find(list, w->block, w->role), w);
        offset[w->block] += w->count;
        block = w->block;
    }
    for (int b = 0; b < list->blocks; b++) assert_true(list->block_count[b] == offset[b]);
}

static void check_split(const Choice *c, ArchHead head, bool only) {
    const AdapterCfg cfg = wants((char **)c->modules, c->n_modules, only);
    WeightList all, frozen, trained;
    int adapted = 0, plain = 0;
    build(c->family, head, &all);
    assert_int_equal(adapters_check(&all, &cfg, "actor"), DS_OK);
    adapters_split(&all, &cfg, &frozen, &trained);
    for (int i = 0; i < all.n; i++) {
        const Weight *w = &all.w[i];
        const bool gets = chosen(c, w), stays = gets || (only && w->role != W_V_HEAD);
        if (!weights_find(&frozen, w->block, w->role) != !stays) fail_msg("%s: frozen is %d", w->name, !stays);
        if (!weights_find(&trained, w->block, w->role) != stays) fail_msg("%s: trained is %d", w->name, stays);
        adapted += gets;
        plain += !stays;
        if (!gets) continue;
        check_adapter(&trained, w, weights_adapter_a(w->role), "lora_A", RANK, w->shape[1]);
        check_adapter(&trained, w, weights_adapter_b(w->role), "lora_B", w->shape[0], RANK);
        assert_int_equal(weights_find(&trained, w->block, weights_adapter_a(w->role))->init, W_INIT_UNIFORM);
        assert_int_equal(weights_find(&trained, w->block, weights_adapter_b(w->role))->init, W_INIT_ZERO);
    }
    assert_int_equal(adapted, c->n_roles * LAYERS);
    assert_int_equal(trained.n, plain + 2 * adapted);
    assert_int_equal(frozen.n, all.n - plain);
    if (only) assert_int_equal(plain, head == ARCH_HEAD_SCALAR);
    check_dense(&frozen);
    check_dense(&trained);
    weights_free(&all);
    weights_free(&frozen);
    weights_free(&trained);
}

static void split(void **state) {
    (void)state;
    for (int i = 0; i < DS_COUNT(choices); i++)
        for (int only = 0; only < 2; only++) {
            check_split(&choices[i], ARCH_HEAD_LM, only);
            check_split(&choices[i], ARCH_HEAD_SCALAR, only);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(unknown_modules), cmocka_unit_test(no_modules),
                                       cmocka_unit_test(known_modules), cmocka_unit_test(split)};
    return cmocka_run_group_tests_name("adapters", tests, NULL, NULL);
}
