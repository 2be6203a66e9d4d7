// test_arch_hf.c: config.json and GGUF metadata -> Arch, and back; tensor names; what must be refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arch/arch_gguf.h"
#include "arch/arch_hf.h"
#include "arch/arch_names.h"
#include "base/file.h"
#include "base/mem.h"

// The configs of published models (what matters of them) and their published numbers of parameters.
static const struct {
    const char *json;
    int64_t parameters;
} published[] = {
    {"{\"model_type\":\"opt\",\"vocab_size\":50272,\"hidden_size\":768,\"num_hidden_layers\":12,\"ffn_dim\":3072,"
     "\"max_position_embeddings\":2048,\"num_attention_heads\":12,\"word_embed_proj_dim\":768,\"_remove_final_layer_"
     "norm\":false,"
     "\"do_layer_norm_before\":true,\"activation_function\":\"relu\",\"layerdrop\":0.0,\"init_std\":0.02}",
     125239296},
    {"{\"model_type\":\"opt\",\"hidden_size\":1024,\"num_hidden_layers\":24,\"ffn_dim\":4096,\"num_attention_heads\":"
     "16,"
     "\"word_embed_proj_dim\":512,\"do_layer_norm_before\":false}",
     331196416},
    {"{\"model_type\":\"gpt2\",\"n_ctx\":1024,\"n_embd\":768,\"n_head\":12,\"n_layer\":12,\"n_positions\":1024}",
     124439808},
    {"{\"model_type\":\"bloom\",\"n_embed\":1024,\"n_layer\":24,\"num_attention_heads\":16,\"vocab_size\":250880,"
     "\"pretraining_tp\":1,\"slow_but_exact\":false,\"attention_softmax_in_fp32\":true}",
     559214592},
    {"{\"model_type\":\"gpt_neox\",\"hidden_size\":512,\"num_hidden_layers\":6,\"num_attention_heads\":8,\"rotary_"
     "pct\":0.25,"
     "\"intermediate_size\":2048,\"vocab_size\":50304,\"rotary_emb_base\":10000,\"use_parallel_residual\":true}",
     70426624},
    {"{\"model_type\":\"llama\",\"rms_norm_eps\":1e-05}", 6738415616},
    {"{\"model_type\":\"llama\",\"hidden_size\":4096,\"intermediate_size\":14336,\"num_key_value_heads\":8,\"vocab_"
     "size\":128256,"
     "\"rope_theta\":500000.0,\"max_position_embeddings\":131072,\"rope_scaling\":{\"factor\":8.0,\"low_freq_factor\":"
     "1.0,"
     "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192,\"rope_type\":\"llama3\"}}",
     8030261248},
    {"{\"model_type\":\"mistral\",\"rms_norm_eps\":1e-05,\"sliding_window\":4096}", 7241732096},
    {"{\"model_type\":\"qwen2\",\"hidden_size\":896,\"intermediate_size\":4864,\"num_hidden_layers\":24,\"vocab_size\":"
     "151936,"
     "\"num_attention_heads\":14,\"num_key_value_heads\":2,\"tie_word_embeddings\":true,\"rope_theta\":1000000.0,"
     "\"use_sliding_window\":false,\"sliding_window\":32768,\"max_window_layers\":24}",
     494032768},
    {"{\"model_type\":\"qwen3\",\"hidden_size\":1024,\"intermediate_size\":3072,\"num_hidden_layers\":28,\"head_dim\":"
     "128,"
     "\"num_attention_heads\":16,\"num_key_value_heads\":8,\"tie_word_embeddings\":true,\"rope_theta\":1000000,"
     "\"attention_bias\":false}",
     596049920},
    {"{\"model_type\":\"llama\",\"hidden_size\":576,\"intermediate_size\":1536,\"num_hidden_layers\":30,\"vocab_size\":"
     "49152,"
     "\"num_attention_heads\":9,\"num_key_value_heads\":3,\"tie_word_embeddings\":true,\"rope_theta\":100000,"
     "\"rope_interleaved\":false,\"rope_scaling\":null}",
     134515008},
};

static void check_round_trip(const Arch *a) {
    char *json;
    Arch back;
    if (arch_hf_print(a, DS_F32, 1, 2, &json)) fail_msg("%s", err_text());
    assert_int_equal(arch_hf_parse(json, strlen(json), "printed", &back), DS_OK);
    for (int i = 0; i < arch_field_count(); i++)
        if (arch_field_get(a, i) != arch_field_get(&back, i)) fail_msg("%s changes on the way", arch_field_name(i));
    assert_null(strstr(json, "0000001")); // no 0.02000000000000001
    mem_free(json);
}

static void test_published(void **state) {
    (void)state;
    Arch a;
    for (int i = 0; i < DS_COUNT(published); i++) {
        if (arch_hf_parse(published[i].json, strlen(published[i].json), "config", &a)) fail_msg("%s", err_text());
        assert_int_equal(arch_param_count(&a), published[i].parameters);
        check_round_trip(&a);
    }
    assert_int_equal(arch_hf_parse(published[6].json, strlen(published[6].json), "config", &a), DS_OK);
    assert_true(a.rope_scaling == ARCH_ROPE_LLAMA3 && a.rope_factor == 8 && a.rope_low_freq == 1 &&
                a.rope_high_freq == 4 && a.rope_original_positions == 8192 && a.rope_theta == 500000 &&
                a.norm_eps == 1e-6);
    assert_int_equal(arch_hf_parse(published[1].json, strlen(published[1].json), "config", &a), DS_OK);
    assert_true(a.pre_norm == 0 && a.final_norm == 0 && a.embed_width == 512);
    assert_int_equal(arch_hf_parse(published[4].json, strlen(published[4].json), "config", &a), DS_OK);
    assert_true(a.rotary_dim == 16 && a.parallel_residual == 1);
    assert_int_equal(arch_hf_parse(published[7].json, strlen(published[7].json), "config", &a), DS_OK);
    assert_int_equal(a.window, 4096);
    assert_int_equal(arch_hf_parse(published[8].json, strlen(published[8].json), "config", &a), DS_OK);
    assert_true(a.window == 0 && a.qkv_bias == 1 && a.out_bias == 0);
}

static void read_family(const char *name, Arch *a) {
    char *path = mem_printf("tests/refs/families/%s/config.json", name), *json;
    size_t bytes;
    assert_int_equal(file_read_all(path, 1 << 20, &json, &bytes), DS_OK);
    if (arch_hf_parse(json, bytes, path, a)) fail_msg("%s", err_text());
    mem_free(json);
    mem_free(path);
}

// The configs that transformers 5 wrote (rope_parameters).
static void test_families(void **state) {
    (void)state;
    static const char *const names[] = {"opt",   "opt-postnorm", "gpt2",    "bloom", "gpt_neox",
                                        "llama", "llama-tied",   "mistral", "qwen2", "qwen3"};
    Arch a;
    for (int i = 0; i < DS_COUNT(names); i++) {
        read_family(names[i], &a);
        assert_true(a.vocab == 67 && a.layers == 2);
        check_round_trip(&a);
    }
    read_family("llama", &a);
    assert_true(a.rope_theta == 500 && a.rope_scaling == ARCH_ROPE_LLAMA3 && a.kv_heads == 2 && a.tied == 0);
    read_family("gpt_neox", &a);
    assert_true(a.rotary_dim == 4 && a.rope_theta == 10000 && a.tied == 0 && a.act == ARCH_ACT_GELU);
    read_family("mistral", &a);
    assert_true(a.window == 5);
    read_family("qwen3", &a);
    assert_true(a.head_dim == 12 && a.rotary_dim == 12 && a.qk_norm == 1 && a.qkv_bias == 0);
    read_family("gpt2", &a);
    assert_true(a.ffn == 28 && a.conv1d == 1 && a.act == ARCH_ACT_GELU_TANH && a.max_positions == 24);
}

// {"model_type": family, <text>}
static Err parse(const char *family, const char *text, Arch *a) {
    char *json = mem_printf("{\"model_type\":\"%s\"%s%s}", family, text[0] ? "," : "", text);
    err_clear();
    Err err = arch_hf_parse(json, strlen(json), "config.json", a);
    mem_free(json);
    return err;
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *family, *text, *word;
    } bad[] = {
        {"t5", "", "\"t5\", expected opt"},
        {"llama", "\"hidden_act\":\"relu\"", "\"hidden_act\" is \"relu\""},
        {"llama", "\"hidden_act\":\"quick_gelu\"", "quick_gelu"},
        {"llama", "\"mlp_bias\":true", "mlp_bias"},
        {"llama", "\"hidden_size\":-1", "hidden_size"},
        {"llama", "\"hidden_size\":4096.0", "4096.0, expected a count"},
        {"llama", "\"hidden_size\":1e300", "hidden_size"},
        {"llama", "\"hidden_size\":99999999999", "hidden_size"},
        {"llama", "\"hidden_size\":\"big\"", "hidden_size"},
        {"llama", "\"num_attention_heads\":0", "heads"},
        {"llama", "\"num_attention_heads\":33", "divisor"},
        {"llama", "\"num_key_value_heads\":5", "kv_heads"},
        {"llama", "\"num_hidden_layers\":100000000", "layers"},
        {"llama", "\"tie_word_embeddings\":1", "tie_word_embeddings"},
        {"llama", "\"rms_norm_eps\":\"x\"", "rms_norm_eps"},
        {"llama", "\"rms_norm_eps\":0", "norm_eps"},
        {"llama", "\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2.0}", "\"rope_type\" is \"dynamic\""},
        {"llama", "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2.0}", "yarn"},
        {"llama", "\"rope_scaling\":{\"rope_type\":7}", "rope_type"},
        {"llama", "\"rope_scaling\":{\"rope_type\":\"linear\"}", "factor"},
        {"llama", "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}", "high_freq_factor"},
        {"llama", "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":-2}", "rope_factor"},
        {"llama", "\"rope_scaling\":[2]", "an object"},
        {"llama", "\"rope_parameters\":{\"rope_type\":\"default\",\"mrope_section\":[1]}", "mrope_section"},
        {"llama", "\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1}}", "full_attention"},
        {"llama", "\"partial_rotary_factor\":0.5", "partial_rotary_factor"},
        {"llama", "\"quantization_config\":{\"bits\":4}", "quantization_config"},
        {"mistral", "\"sliding_window\":-4", "sliding_window"},
        {"mistral", "\"layer_types\":[\"full_attention\"]", "one entry a layer"},
        {"qwen2", "\"use_sliding_window\":true,\"max_window_layers\":28", "max_window_layers"},
        {"qwen2", "\"num_hidden_layers\":2,\"layer_types\":[\"full_attention\",\"sliding_attention\"]", "layer_types"},
        {"qwen3", "\"num_hidden_layers\":1,\"layer_types\":[\"linear_attention\"]", "linear_attention"},
        {"opt", "\"layer_norm_elementwise_affine\":false", "layer_norm_elementwise_affine"},
        {"opt", "\"activation_function\":\"swiglu\"", "swiglu"},
        {"gpt2", "\"scale_attn_by_inverse_layer_idx\":true", "scale_attn_by_inverse_layer_idx"},
        {"gpt2", "\"reorder_and_upcast_attn\":true", "reorder_and_upcast_attn"},
        {"gpt2", "\"scale_attn_weights\":false", "scale_attn_weights"},
        {"gpt2", "\"add_cross_attention\":true", "add_cross_attention"},
        {"bloom", "\"apply_residual_connection_post_layernorm\":true", "apply_residual_connection_post_layernorm"},
        {"gpt_neox", "\"rotary_pct\":0", "rotary_pct"},
        {"gpt_neox", "\"rotary_pct\":2", "rotary_pct"},
        {"gpt_neox", "\"hidden_act\":[]", "hidden_act"}};
    Arch a;
    for (int i = 0; i < DS_COUNT(bad); i++) {
        Err err = parse(bad[i].family, bad[i].text, &a);
        if (err != DS_ERR_DATA) fail_msg("%s with %s is not refused", bad[i].family, bad[i].text);
        if (!strstr(err_text(), bad[i].word)) fail_msg("\"%s\" does not say \"%s\"", err_text(), bad[i].word);
    }
    static const char *const no_json[] = {
        "", "{", "[]", "null", "{\"model_type\":\"opt\",\"model_type\":\"opt\"}", "\xff\xfe"};
    for (int i = 0; i < DS_COUNT(no_json); i++) {
        err_clear();
        assert_int_equal(arch_hf_parse(no_json[i], strlen(no_json[i]), "config.json", &a), DS_ERR_DATA);
    }
    err_clear();
}

// Every byte of a real config changed: refused or read, never a crash, and what is read is a legal arch.
static void test_mutated(void **state) {
    (void)state;
    char *json;
    size_t bytes;
    int read = 0, refused = 0;
    Arch a;
    assert_int_equal(file_read_all("tests/refs/families/llama/config.json", 1 << 20, &json, &bytes), DS_OK);
    for (size_t i = 0; i < bytes; i++)
        for (int bit = 0; bit < 8; bit++) {
            json[i] = (char)(json[i] ^ 1 << bit);
            err_clear();
            Err err = arch_hf_parse(json, bytes, "config.json", &a);
            assert_true(err == DS_OK || (err == DS_ERR_DATA && strlen(err_text()) > 20));
            if (err) refused++;
            else {
                read++;
                assert_int_equal(arch_check(&a, "config.json"), DS_OK);
            }
            json[i] = (char)(json[i] ^ 1 << bit);
        }
    assert_true(read > 100 && refused > 100);
    err_clear();
    mem_free(json);
}

static void test_accepted(void **state) {
    (void)state;
    Arch a;
    assert_int_equal(parse("gpt_neox", "\"use_parallel_residual\":false,\"tie_word_embeddings\":true", &a), DS_OK);
    assert_true(a.parallel_residual == 0 && a.tied == 1);
    check_round_trip(&a);
    assert_int_equal(parse("llama", "\"attention_bias\":true,\"head_dim\":64", &a), DS_OK);
    assert_true(a.qkv_bias == 1 && a.out_bias == 1 && a.head_dim == 64 && a.rotary_dim == 64);
    check_round_trip(&a);
    assert_int_equal(parse("llama", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}", &a), DS_OK);
    assert_true(a.rope_scaling == ARCH_ROPE_LINEAR && a.rope_factor == 4);
    check_round_trip(&a);
    assert_int_equal(parse("mistral", "\"sliding_window\":null,\"num_key_value_heads\":null", &a), DS_OK);
    assert_true(a.window == 0 && a.kv_heads == 32);
    check_round_trip(&a);
    assert_int_equal(parse("mistral", "", &a), DS_OK);
    assert_true(a.window == 4096 && a.kv_heads == 8);
    assert_int_equal(parse("qwen2", "\"use_sliding_window\":true,\"max_window_layers\":0,\"sliding_window\":77", &a),
                     DS_OK);
    assert_int_equal(a.window, 77);
    check_round_trip(&a);
    assert_int_equal(parse("qwen3", "", &a), DS_OK);
    assert_true(a.head_dim == 128 && a.window == 0);
    assert_int_equal(parse("opt", "\"enable_bias\":false,\"_remove_final_layer_norm\":true,\"init_std\":0.006", &a),
                     DS_OK);
    assert_true(a.qkv_bias == 0 && a.mlp_bias == 0 && a.final_norm == 0 && a.init_std == 0.006);
    check_round_trip(&a);
    assert_int_equal(parse("gpt2", "\"num_hidden_layers\":3,\"activation_function\":\"relu\"", &a), DS_OK);
    assert_true(a.layers == 3 && a.act == ARCH_ACT_RELU && a.ffn == 3072);
}

static void test_unprintable(void **state) {
    (void)state;
    Arch a;
    char *json;
    read_family("llama", &a);
    a.qk_norm = 1; // no llama config can say that
    assert_int_equal(arch_hf_print(&a, DS_BF16, -1, -1, &json), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "qk_norm"));
    assert_null(json);
    err_clear();
}

// ---- names ----

typedef struct {
    const char *name[256];
    int n;
} Names;

static void all_names(const WeightList *list, Names *names) {
    names->n = 0;
    for (int i = list->n - 1; i >= 0; i--) names->name[names->n++] = list->w[i].name; // another order than ours
}

static void test_names(void **state) {
    (void)state;
    Arch a;
    WeightList list;
    Names names;
    ArchNames map;
    read_family("gpt2", &a);
    weights_build(&a, &list);
    all_names(&list, &names);
    for (int i = 0; i < names.n; i++) names.name[i] += strlen("transformer.");
    names.name[names.n++] = "transformer.h.0.attn.bias";
    names.name[names.n++] = "h.11.attn.masked_bias";
    names.name[names.n++] = "lm_head.weight";
    if (arch_names_map(&a, &list, names.name, names.n, "file", &map)) fail_msg("%s", err_text());
    assert_int_equal(map.lm_head, names.n - 1);
    for (int i = 0; i < list.n; i++) assert_int_equal(map.source[i], list.n - 1 - i);
    arch_names_free(&map);
    names.name[names.n++] = "transformer.h.0.attn.bias2";
    assert_int_equal(arch_names_map(&a, &list, names.name, names.n, "file", &map), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "bias2"));
    err_clear();
    names.name[names.n - 1] = "transformer.wte.weight"; // there without its prefix already
    assert_int_equal(arch_names_map(&a, &list, names.name, names.n, "file", &map), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "same weight"));
    err_clear();
    names.name[0] = "h.0.attn.masked_bias"; // in place of the last norm's bias
    assert_int_equal(arch_names_map(&a, &list, names.name, names.n - 1, "file", &map), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "transformer.ln_f.bias is missing"));
    err_clear();
    weights_free(&list);
}

// As the published models begin: biases of 0, norms of 1, all else drawn.
static void test_first_values(void **state) {
    (void)state;
    for (int family = 0; family < ARCH_FAMILIES; family++) {
        Arch a;
        WeightList list;
        int biases = 0;
        arch_family_defaults(&a, family);
        a.layers = 1, a.width = a.embed_width = 16, a.heads = a.kv_heads = 2, a.head_dim = 8, a.ffn = 32, a.vocab = 50;
        a.max_positions = 20;
        weights_build(&a, &list);
        for (int i = 0; i < list.n; i++) {
            const Weight *w = &list.w[i];
            const bool bias = strstr(w->name, "bias") != NULL, matrix = w->ndim == 2;
            biases += bias;
            if (w->init != (bias ? W_INIT_ZERO : matrix ? W_INIT_NORMAL : W_INIT_ONE))
                fail_msg("family %d: %s begins otherwise", family, w->name);
        }
        if (a.qkv_bias || a.mlp_bias || a.norm == ARCH_NORM_LN) assert_true(biases > 0);
        weights_free(&list);
    }
}

static void test_scalar_names(void **state) {
    (void)state;
    static const char *const heads[] = {"v_head.weight", "score.weight"};
    Arch a;
    WeightList list;
    Names names;
    ArchNames map;
    read_family("opt-postnorm", &a);
    a.head = ARCH_HEAD_SCALAR;
    weights_build(&a, &list);
    for (int k = 0; k < DS_COUNT(heads); k++) {
        all_names(&list, &names);
        char *wrapped =
            mem_printf("rwtransformer.%s", list.w[0].name + strlen("model.")); // DeepSpeed-Chat's reward model
        assert_string_equal(names.name[0], "v_head.weight");
        names.name[0] = heads[k];
        names.name[names.n - 1] = wrapped;
        assert_true(arch_names_have_scalar_head(names.name, names.n));
        assert_false(arch_names_have_scalar_head(names.name + 1, names.n - 1));
        if (arch_names_map(&a, &list, names.name, names.n, "file", &map)) fail_msg("%s", err_text());
        assert_true(map.source[0] == list.n - 1 && map.source[list.n - 1] == 0);
        arch_names_free(&map);
        mem_free(wrapped);
    }
    weights_free(&list);
}

// ---- GGUF metadata ----

typedef struct {
    const char *key;
    double number;
    const char *text;
} Entry;
typedef struct {
    Entry e[32];
    int n;
    bool untied;
} FakeGguf;

static bool fake_number(const void *file, const char *key, double *value) {
    const FakeGguf *f = file;
    for (int i = 0; i < f->n; i++)
        if (!strcmp(f->e[i].key, key) && !f->e[i].text) return *value = f->e[i].number, true;
    return false;
}
static char *fake_string(const void *file, const char *key) {
    const FakeGguf *f = file;
    for (int i = 0; i < f->n; i++)
        if (!strcmp(f->e[i].key, key) && f->e[i].text) return mem_strdup(f->e[i].text);
    return NULL;
}
static bool fake_shape(const void *file, const char *tensor, int64_t shape[2]) {
    shape[0] = 1000, shape[1] = 256;
    return !strcmp(tensor, "token_embd.weight") ||
           (((const FakeGguf *)file)->untied && !strcmp(tensor, "output.weight"));
}

static void fill_fake(FakeGguf *f) {
    static const Entry e[] = {{"general.architecture", 0, "llama"},
                              {"llama.block_count", 2, NULL},
                              {"llama.context_length", 131072, NULL},
                              {"llama.embedding_length", 256, NULL},
                              {"llama.feed_forward_length", 512, NULL},
                              {"llama.attention.head_count", 4, NULL},
                              {"llama.attention.head_count_kv", 2, NULL},
                              {"llama.rope.freq_base", 500000, NULL},
                              {"llama.attention.layer_norm_rms_epsilon", (double)1e-5f, NULL},
                              {"tokenizer.ggml.model", 0, "gpt2"}};
    *f = (FakeGguf){.n = DS_COUNT(e)};
    memcpy(f->e, e, sizeof e);
}

static Err parse_fake(const FakeGguf *f, const float *freqs, int64_t n_freqs, Arch *a) {
    const char *keys[32];
    for (int i = 0; i < f->n; i++) keys[i] = f->e[i].key;
    ArchGgufMeta meta = {f, "fake.gguf", keys, f->n, fake_number, fake_string, fake_shape, freqs, n_freqs};
    err_clear();
    return arch_gguf_parse(&meta, a);
}

static void test_gguf_metadata(void **state) {
    (void)state;
    FakeGguf f;
    Arch a;
    fill_fake(&f);
    assert_int_equal(parse_fake(&f, NULL, 0, &a), DS_OK);
    assert_true(a.family == ARCH_LLAMA && a.vocab == 1000 && a.head_dim == 64 && a.kv_heads == 2 && a.tied == 1 &&
                a.norm_eps == 1e-5 && a.rope_theta == 500000 && a.qkv_bias == 0);
    f.untied = true;
    assert_int_equal(parse_fake(&f, NULL, 0, &a), DS_OK);
    assert_int_equal(a.tied, 0);
    static const Entry bad[] = {
        {"llama.rope.scaling.type", 0, "yarn"},         {"llama.expert_count", 8, NULL},
        {"llama.attention.sliding_window", 4096, NULL}, {"llama.logit_scale", 2, NULL},
        {"llama.rope.dimension_count", 32, NULL},       {"llama.attention.value_length", 32, NULL}};
    for (int i = 0; i < DS_COUNT(bad); i++) {
        fill_fake(&f);
        f.e[f.n++] = bad[i];
        assert_int_equal(parse_fake(&f, NULL, 0, &a), DS_ERR_DATA);
        if (!strstr(err_text(), bad[i].key)) fail_msg("\"%s\" does not say %s", err_text(), bad[i].key);
    }
    static const double wrong[] = {-1, 0.5, 1e18, NAN};
    for (int k = 1; k <= 6; k++) // each size missing, or no count
        for (int i = 0; i < DS_COUNT(wrong); i++) {
            fill_fake(&f);
            f.e[k].number = wrong[i];
            assert_int_equal(parse_fake(&f, NULL, 0, &a), DS_ERR_DATA);
            f.e[k].key = "other";
            if (k < 6) assert_int_equal(parse_fake(&f, NULL, 0, &a), DS_ERR_DATA);
        }
    fill_fake(&f);
    f.e[0].text = "mamba";
    assert_int_equal(parse_fake(&f, NULL, 0, &a), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "mamba"));
    err_clear();
}

// The divisors that llama.cpp's converter writes for Llama 3.1 give its parameters back.
static void test_rope_freqs(void **state) {
    (void)state;
    FakeGguf f;
    Arch a;
    float freqs[32];
    fill_fake(&f);
    for (int i = 0; i < 32; i++) {
        double wavelength = 2 * M_PI * pow(500000, i / 32.0), smooth = (8192 / wavelength - 1) / 3;
        freqs[i] = (float)(wavelength < 2048 ? 1 : wavelength > 8192 ? 32 : 1 / ((1 - smooth) / 32 + smooth));
    }
    assert_int_equal(parse_fake(&f, freqs, 32, &a), DS_OK);
    assert_true(a.rope_scaling == ARCH_ROPE_LLAMA3 && a.rope_factor == 32 && a.rope_low_freq == 1 &&
                a.rope_high_freq == 4 && a.rope_original_positions == 8192);
    freqs[20] *= 1.01f;
    assert_int_equal(parse_fake(&f, freqs, 32, &a), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "rope_freqs"));
    assert_int_equal(parse_fake(&f, freqs, 31, &a), DS_ERR_DATA);
    err_clear();
}

static void test_unpermute(void **state) {
    (void)state;
    float src[16], dst[16]; // 2 heads of 4 rows of 2
    static const float rows[8] = {0, 2, 1, 3, 4, 6, 5, 7};
    for (int i = 0; i < 16; i++) src[i] = (float)i;
    arch_gguf_unpermute(src, 8, 2, 2, dst);
    for (int r = 0; r < 8; r++) assert_true(dst[2 * r] == 2 * rows[r] && dst[2 * r + 1] == 2 * rows[r] + 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published),     cmocka_unit_test(test_families),     cmocka_unit_test(test_refused),
        cmocka_unit_test(test_mutated),       cmocka_unit_test(test_accepted),     cmocka_unit_test(test_unprintable),
        cmocka_unit_test(test_names),         cmocka_unit_test(test_first_values), cmocka_unit_test(test_scalar_names),
        cmocka_unit_test(test_gguf_metadata), cmocka_unit_test(test_rope_freqs),   cmocka_unit_test(test_unpermute),
    };
    return cmocka_run_group_tests_name("arch_hf", tests, NULL, NULL);
}
