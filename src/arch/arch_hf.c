// arch_hf.c: see arch_hf.h. One table of keys and defaults of sizes, one function a family for what is special.
#include "arch/arch_hf.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

typedef struct {
    const char *key, *alias;
    int64_t missing;
} SizeKey; // missing: transformers' default

typedef struct {
    SizeKey vocab, width, layers, heads, ffn,
        positions;   // ffn.key NULL: always 4 x width; missing 0: 4 x width if absent
    const char *eps; // NULL: fixed
    double eps_missing;
    const char *std;
    const char *model, *lm; // classes
} Keys;

#define LLAMA_KEYS(vocab, ffn, positions, prefix)                                                                      \
    {                                                                                                                  \
        {"vocab_size", 0, vocab}, {"hidden_size", 0, 4096}, {"num_hidden_layers", 0, 32},                              \
            {"num_attention_heads", 0, 32}, {"intermediate_size", 0, ffn}, {"max_position_embeddings", 0, positions},  \
            "rms_norm_eps", 1e-6, "initializer_range", prefix "Model", prefix "ForCausalLM"                            \
    }

static const Keys family_keys[ARCH_FAMILIES] = {
    [ARCH_OPT] = {{"vocab_size", 0, 50272},
                  {"hidden_size", 0, 768},
                  {"num_hidden_layers", 0, 12},
                  {"num_attention_heads", 0, 12},
                  {"ffn_dim", 0, 3072},
                  {"max_position_embeddings", 0, 2048},
                  NULL,
                  1e-5,
                  "init_std",
                  "OPTModel",
                  "OPTForCausalLM"},
    [ARCH_GPT2] = {{"vocab_size", 0, 50257},
                   {"n_embd", "hidden_size", 768},
                   {"n_layer", "num_hidden_layers", 12},
                   {"n_head", "num_attention_heads", 12},
                   {"n_inner", 0, 0},
                   {"n_positions", "max_position_embeddings", 1024},
                   "layer_norm_epsilon",
                   1e-5,
                   "initializer_range",
                   "GPT2Model",
                   "GPT2LMHeadModel"},
    [ARCH_BLOOM] = {{"vocab_size", 0, 250880},
                    {"hidden_size", "n_embed", 64},
                    {"n_layer", "num_hidden_layers", 2},
                    {"n_head", "num_attention_heads", 8},
                    {NULL, 0, 0},
                    {"seq_length", 0, 2048},
                    "layer_norm_epsilon",
                    1e-5,
                    "initializer_range",
                    "BloomModel",
                    "BloomForCausalLM"},
    [ARCH_NEOX] = {{"vocab_size", 0, 50432},
                   {"hidden_size", 0, 6144},
                   {"num_hidden_layers", 0, 44},
                   {"num_attention_heads", 0, 64},
                   {"intermediate_size", 0, 24576},
                   {"max_position_embeddings", 0, 2048},
                   "layer_norm_eps",
                   1e-5,
                   "initializer_range",
                   "GPTNeoXModel",
                   "GPTNeoXForCausalLM"},
    [ARCH_LLAMA] = LLAMA_KEYS(32000, 11008, 2048, "Llama"),
    [ARCH_MISTRAL] = LLAMA_KEYS(32000, 14336, 131072, "Mistral"),
    [ARCH_QWEN2] = LLAMA_KEYS(151936, 22016, 32768, "Qwen2"),
    [ARCH_QWEN3] = LLAMA_KEYS(151936, 22016, 32768, "Qwen3"),
};

typedef struct {
    const char *name;
    ArchAct act;
} ActName; // the first of each act is the one that is printed
static const ActName act_names[] = {
    {"relu", ARCH_ACT_RELU},
    {"gelu", ARCH_ACT_GELU},
    {"gelu_python", ARCH_ACT_GELU},
    {"gelu_new", ARCH_ACT_GELU_TANH},
    {"gelu_pytorch_tanh", ARCH_ACT_GELU_TANH},
    {"gelu_fast", ARCH_ACT_GELU_TANH},
    {"silu", ARCH_ACT_SILU},
    {"swish", ARCH_ACT_SILU},
};

// ---- reading ----

typedef struct {
    const json_t *root;
    const char *what;
    Err err; // of the first field that failed; later ones still return their defaults
} Reader;

static void refuse(Reader *r, const char *key, const json_t *value, const char *expected) {
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    if (!r->err)
        r->err =
            err_set(DS_ERR_DATA, "%s: \"%s\" is %.100s, expected %s", r->what, key, text ? text : "missing", expected);
    free(text); // lint: jansson's
}

// NULL if missing or null.
static const json_t *find(const json_t *object, const char *key) {
    const json_t *v = key ? json_object_get(object, key) : NULL;
    return json_is_null(v) ? NULL : v;
}

static int64_t get_int(Reader *r, const SizeKey *k) {
    const char *key = k->key;
    const json_t *v = find(r->root, key);
    if (!v && k->alias) v = find(r->root, key = k->alias);
    if (!v) return k->missing;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX) {
        refuse(r, key, v, "a count");
        return k->missing;
    }
    return (int64_t)json_integer_value(v);
}

static double get_real_in(Reader *r, const json_t *object, const char *key, double missing) {
    const json_t *v = find(object, key);
    if (!v) return missing;
    if (!json_is_number(v)) refuse(r, key, v, "a number");
    return json_number_value(v);
}

static double get_real(Reader *r, const char *key, double missing) { return get_real_in(r, r->root, key, missing); }

static bool get_bool(Reader *r, const char *key, bool missing) {
    const json_t *v = find(r->root, key);
    if (!v) return missing;
    if (!json_is_boolean(v)) refuse(r, key, v, "true or false");
    return json_is_true(v);
}

// For a switch of which only one position is expressible.
static void need_bool(Reader *r, const char *key, bool missing, bool need) {
    if (get_bool(r, key, missing) != need) refuse(r, key, find(r->root, key), need ? "true" : "false");
}

static ArchAct get_act(Reader *r, const char *key, const char *missing) {
    const json_t *v = find(r->root, key);
    const char *name = v ? json_string_value(v) : missing;
    for (int i = 0; name && i < DS_COUNT(act_names); i++)
        if (!strcmp(name, act_names[i].name)) return act_names[i].act;
    refuse(r, key, v, "relu, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast or silu");
    return ARCH_ACT_RELU;
}

static int64_t round_down(double x) { return x > 0 && x < 1e6 ? (int64_t)x : 0; }

static void read_rope_scaling(Reader *r, const json_t *rope, Arch *a) {
    static const char *const known[] = {"rope_theta",
                                        "rope_type",
                                        "type",
                                        "factor",
                                        "low_freq_factor",
                                        "high_freq_factor",
                                        "original_max_position_embeddings",
                                        "partial_rotary_factor"};
    const char *key, *name = "default";
    json_t *v;
    json_object_foreach((json_t *)rope, key, v) {
        bool fine = json_is_null(v);
        for (int i = 0; i < DS_COUNT(known) && !fine; i++) fine = !strcmp(key, known[i]);
        if (!fine) refuse(r, key, v, "no such key among the rotary parameters");
    }
    const json_t *type = find(rope, "rope_type") ? find(rope, "rope_type") : find(rope, "type");
    if (type) name = json_string_value(type) ? json_string_value(type) : "";
    if (!strcmp(name, "default")) return;
    if (!strcmp(name, "linear")) a->rope_scaling = ARCH_ROPE_LINEAR;
    else if (!strcmp(name, "llama3")) a->rope_scaling = ARCH_ROPE_LLAMA3;
    else refuse(r, "rope_type", type, "default, linear or llama3");
    if (!find(rope, "factor")) refuse(r, "factor", NULL, "a number (rope scaling)");
    a->rope_factor = get_real_in(r, rope, "factor", 1);
    if (a->rope_scaling != ARCH_ROPE_LLAMA3) return;
    a->rope_low_freq = get_real_in(r, rope, "low_freq_factor", 0);
    a->rope_high_freq = get_real_in(r, rope, "high_freq_factor", 0);
    a->rope_original_positions =
        round_down(get_real_in(r, rope, "original_max_position_embeddings", (double)a->max_positions));
    if (!(a->rope_low_freq > 0 && a->rope_high_freq > a->rope_low_freq))
        refuse(r, "high_freq_factor", find(rope, "high_freq_factor"),
               "more than low_freq_factor, which is more than 0");
}

// rope_scaling (old) goes before rope_parameters (new), as in transformers; what neither says stands beside them.
static void read_rope(Reader *r, Arch *a, const char *theta_key, const char *fraction_key, double fraction_missing) {
    const char *name = find(r->root, "rope_scaling") ? "rope_scaling" : "rope_parameters";
    const json_t *rope = find(r->root, name);
    if (rope && !json_is_object(rope)) refuse(r, name, rope, "an object");
    a->rope_theta = get_real_in(r, rope, "rope_theta", get_real(r, theta_key, 10000));
    double fraction = get_real_in(r, rope, "partial_rotary_factor", get_real(r, fraction_key, fraction_missing));
    if (!(fraction > 0 && fraction <= 1))
        refuse(r, fraction_key, find(r->root, fraction_key), "more than 0, at most 1");
    if (fraction != 1 && a->family != ARCH_NEOX)
        refuse(r, fraction_key, find(r->root, fraction_key), "1 for this model type");
    a->rotary_dim = round_down((double)a->head_dim * fraction);
    if (rope) read_rope_scaling(r, rope, a);
}

// Sliding windows: all layers or none. `window` is what a sliding layer has.
static void read_window(Reader *r, Arch *a, int64_t window, int64_t first_layer) {
    const json_t *types = find(r->root, "layer_types");
    int64_t sliding = window && first_layer < a->layers ? a->layers - first_layer : 0;
    if (types) {
        json_t *v;
        size_t i;
        sliding = 0;
        json_array_foreach((json_t *)types, i, v) {
            const char *name = json_string_value(v);
            bool slides = name && !strcmp(name, "sliding_attention");
            if (!slides && (!name || strcmp(name, "full_attention") != 0))
                refuse(r, "layer_types", v, "full_attention or sliding_attention");
            sliding += slides;
        }
        if ((int64_t)json_array_size(types) != a->layers) refuse(r, "layer_types", types, "one entry a layer");
    }
    if (sliding && sliding != a->layers)
        refuse(r, types ? "layer_types" : "max_window_layers",
               find(r->root, types ? "layer_types" : "max_window_layers"), "a sliding window in all layers or in none");
    if (sliding && !window) refuse(r, "sliding_window", find(r->root, "sliding_window"), "the width of the window");
    a->window = sliding ? window : 0;
}

static void read_opt(Reader *r, Arch *a) {
    a->act = get_act(r, "activation_function", "relu");
    a->embed_width = get_int(r, &(SizeKey){"word_embed_proj_dim", 0, a->width});
    a->pre_norm = get_bool(r, "do_layer_norm_before", true);
    a->final_norm = a->pre_norm && !get_bool(r, "_remove_final_layer_norm", false);
    a->qkv_bias = a->out_bias = a->mlp_bias = get_bool(r, "enable_bias", true);
    need_bool(r, "layer_norm_elementwise_affine", true, true);
}

static void read_gpt2(Reader *r, Arch *a) {
    a->act = get_act(r, "activation_function", "gelu_new");
    need_bool(r, "scale_attn_weights", true, true);
    need_bool(r, "scale_attn_by_inverse_layer_idx", false, false);
    need_bool(r, "reorder_and_upcast_attn", false, false);
    need_bool(r, "add_cross_attention", false, false);
}

static void read_neox(Reader *r, Arch *a) {
    a->act = get_act(r, "hidden_act", "gelu");
    a->parallel_residual = get_bool(r, "use_parallel_residual", true);
    a->qkv_bias = a->out_bias = get_bool(r, "attention_bias", true);
    read_rope(r, a, "rotary_emb_base", "rotary_pct", 0.25);
}

static void read_llama(Reader *r, Arch *a) {
    if (get_act(r, "hidden_act", "silu") != ARCH_ACT_SILU) refuse(r, "hidden_act", find(r->root, "hidden_act"), "silu");
    // absent: a number of transformers' own; null: as many as heads
    int64_t kv_missing = a->family == ARCH_LLAMA || json_object_get(r->root, "num_key_value_heads") ? a->heads
                         : a->family == ARCH_MISTRAL                                                ? 8
                                                                                                    : 32;
    a->kv_heads = get_int(r, &(SizeKey){"num_key_value_heads", 0, kv_missing});
    bool default_dim = a->family == ARCH_QWEN3 && !json_object_get(r->root, "head_dim");
    a->head_dim = get_int(r, &(SizeKey){"head_dim", 0, default_dim ? 128 : a->head_dim});
    if (a->family == ARCH_LLAMA || a->family == ARCH_QWEN3)
        a->qkv_bias = a->out_bias = get_bool(r, "attention_bias", false);
    need_bool(r, "mlp_bias", false, false);
    read_rope(r, a, "rope_theta", "partial_rotary_factor", 1);
    bool mistral = a->family == ARCH_MISTRAL, keyed = json_object_get(r->root, "sliding_window") != NULL;
    int64_t window = get_int(r, &(SizeKey){"sliding_window", 0, keyed || a->family == ARCH_LLAMA ? 0 : 4096});
    if (!mistral && !get_bool(r, "use_sliding_window", false)) window = 0;
    read_window(r, a, window, mistral ? 0 : get_int(r, &(SizeKey){"max_window_layers", 0, 28}));
}

static void read_sizes(Reader *r, Arch *a) {
    const Keys *k = &family_keys[a->family];
    a->vocab = get_int(r, &k->vocab);
    a->width = a->embed_width = get_int(r, &k->width);
    a->layers = get_int(r, &k->layers);
    a->heads = a->kv_heads = get_int(r, &k->heads);
    a->max_positions = get_int(r, &k->positions);
    a->ffn = k->ffn.key ? get_int(r, &k->ffn) : 0;
    if (!a->ffn) a->ffn = 4 * a->width;
    a->norm_eps = k->eps ? get_real(r, k->eps, k->eps_missing) : k->eps_missing;
    a->init_std = get_real(r, k->std, 0.02);
    a->tied = get_bool(r, "tie_word_embeddings", a->tied);
    if (a->heads) a->head_dim = a->width / a->heads;
    if (a->heads && a->width % a->heads && !find(r->root, "head_dim"))
        refuse(r, k->heads.key, find(r->root, k->heads.key), "a divisor of the width");
}

static Err read_config(Reader *r, Arch *a) {
    const json_t *type = find(r->root, "model_type");
    int family = json_is_string(type) ? arch_family_find(json_string_value(type)) : -1;
    if (family < 0) {
        refuse(r, "model_type", type, "opt, gpt2, bloom, gpt_neox, llama, mistral, qwen2 or qwen3");
        return r->err;
    }
    arch_family_defaults(a, (ArchFamily)family);
    read_sizes(r, a);
    need_bool(r, "is_encoder_decoder", false, false);
    if (find(r->root, "quantization_config"))
        refuse(r, "quantization_config", find(r->root, "quantization_config"), "weights that are not quantised");
    switch (family) {
    case ARCH_OPT: read_opt(r, a); break;
    case ARCH_GPT2: read_gpt2(r, a); break;
    case ARCH_BLOOM: need_bool(r, "apply_residual_connection_post_layernorm", false, false); break;
    case ARCH_NEOX: read_neox(r, a); break;
    default: read_llama(r, a);
    }
    a->score_mean = get_real(r, "dschat_score_mean", 0);
    a->score_std = get_real(r, "dschat_score_std", 1);
    return r->err ? r->err : arch_check(a, r->what);
}

Err arch_hf_parse(const char *json, size_t bytes, const char *what, Arch *a) {
    Err err = DS_OK;
    json_error_t at;
    json_t *root = json_loadb(json, bytes, JSON_REJECT_DUPLICATES, &at);
    DS_CHECK(root, DS_ERR_DATA, "%s: line %d: %s", what, at.line, at.text);
    DS_CHECK(json_is_object(root), DS_ERR_DATA, "%s: is no JSON object", what);
    Reader r = {.root = root, .what = what};
    DS_TRY(read_config(&r, a));
done:
    json_decref(root);
    return err;
}

// ---- printing ----

// key NULL: this family has no such key.
static void put(json_t *root, const char *key, json_t *value) {
    if (!key) json_decref(value);
    else if (json_object_set_new(root, key, value) != 0) err_fatal("out of memory for config.json");
}

static const char *act_name(int64_t act) {
    for (int i = 0; i < DS_COUNT(act_names); i++)
        if ((int64_t)act_names[i].act == act) return act_names[i].name;
    return "unknown";
}

// The old spelling, which transformers 4 and 5 both read.
static void put_rope(const Arch *a, json_t *root) {
    bool neox = a->family == ARCH_NEOX;
    put(root, neox ? "rotary_emb_base" : "rope_theta", json_real(a->rope_theta));
    if (neox) put(root, "rotary_pct", json_real((double)a->rotary_dim / (double)a->head_dim));
    if (a->rope_scaling == ARCH_ROPE_PLAIN) return;
    json_t *scaling = json_object();
    put(scaling, "rope_type", json_string(a->rope_scaling == ARCH_ROPE_LINEAR ? "linear" : "llama3"));
    put(scaling, "factor", json_real(a->rope_factor));
    if (a->rope_scaling == ARCH_ROPE_LLAMA3) {
        put(scaling, "low_freq_factor", json_real(a->rope_low_freq));
        put(scaling, "high_freq_factor", json_real(a->rope_high_freq));
        put(scaling, "original_max_position_embeddings", json_integer(a->rope_original_positions));
    }
    put(root, "rope_scaling", scaling);
}

static void put_llama(const Arch *a, json_t *root) {
    bool qwen = a->family == ARCH_QWEN2 || a->family == ARCH_QWEN3;
    put(root, "hidden_act", json_string(act_name(a->act)));
    put(root, "num_key_value_heads", json_integer(a->kv_heads));
    put(root, "head_dim", json_integer(a->head_dim));
    if (a->family == ARCH_LLAMA || a->family == ARCH_QWEN3) put(root, "attention_bias", json_boolean(a->qkv_bias));
    if (a->family == ARCH_MISTRAL || a->window)
        put(root, "sliding_window", a->window ? json_integer(a->window) : json_null());
    if (qwen) put(root, "use_sliding_window", json_boolean(a->window > 0));
    if (qwen && a->window) put(root, "max_window_layers", json_integer(0));
    put_rope(a, root);
}

static void put_special(const Arch *a, json_t *root) {
    switch (a->family) {
    case ARCH_OPT:
        put(root, "activation_function", json_string(act_name(a->act)));
        put(root, "word_embed_proj_dim", json_integer(a->embed_width));
        put(root, "do_layer_norm_before", json_boolean(a->pre_norm));
        put(root, "_remove_final_layer_norm", json_boolean(a->pre_norm && !a->final_norm));
        put(root, "enable_bias", json_boolean(a->mlp_bias));
        break;
    case ARCH_GPT2: put(root, "activation_function", json_string(act_name(a->act))); break;
    case ARCH_BLOOM: break;
    case ARCH_NEOX:
        put(root, "hidden_act", json_string(act_name(a->act)));
        put(root, "use_parallel_residual", json_boolean(a->parallel_residual));
        put(root, "attention_bias", json_boolean(a->qkv_bias));
        put_rope(a, root);
        break;
    default: put_llama(a, root);
    }
}

static json_t *build_config(const Arch *a, DType dtype, int64_t bos, int64_t eos) {
    static const char *const torch_names[] = {[DS_F32] = "float32", [DS_BF16] = "bfloat16", [DS_F16] = "float16"};
    const Keys *k = &family_keys[a->family];
    bool scalar = a->head == ARCH_HEAD_SCALAR;
    json_t *root = json_object();
    put(root, "architectures", json_pack("[s]", scalar ? k->model : k->lm));
    put(root, "model_type", json_string(arch_family_name((ArchFamily)a->family)));
    put(root, "torch_dtype", json_string(torch_names[dtype]));
    put(root, k->vocab.key, json_integer(a->vocab));
    put(root, k->width.key, json_integer(a->width));
    put(root, k->layers.key, json_integer(a->layers));
    put(root, k->heads.key, json_integer(a->heads));
    put(root, k->ffn.key, json_integer(a->ffn));
    put(root, k->positions.key, json_integer(a->max_positions));
    put(root, k->eps, json_real(a->norm_eps));
    put(root, k->std, json_real(a->init_std));
    put(root, "tie_word_embeddings", json_boolean(a->tied));
    put(root, "bos_token_id", bos < 0 ? json_null() : json_integer(bos));
    put(root, "eos_token_id", eos < 0 ? json_null() : json_integer(eos));
    put(root, "pad_token_id", json_null());
    if (scalar) put(root, "dschat_score_mean", json_real(a->score_mean));
    if (scalar) put(root, "dschat_score_std", json_real(a->score_std));
    put_special(a, root);
    return root;
}

// The name of the first field in which two archs differ (the head is not part of config.json), NULL if none.
static const char *find_difference(const Arch *a, const Arch *b) {
    for (int i = 0; i < arch_field_count(); i++) {
        const char *name = arch_field_name(i);
        if (strcmp(name, "head") != 0 && arch_field_get(a, i) != arch_field_get(b, i)) return name;
    }
    return NULL;
}

Err arch_hf_print(const Arch *a, DType dtype, int64_t bos, int64_t eos, char **json) {
    Err err = DS_OK;
    Arch back = {0};
    const char *field = NULL;
    char *text = NULL;
    json_t *root = build_config(a, dtype, bos, eos);
    *json = NULL;
    // the fewest digits that give every real number back: 0.02 and not 0.0200000000000000004
    for (int digits = 6; digits <= 17; digits++) {
        free(text); // lint: jansson's
        text = json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(digits));
        if (!text) err_fatal("out of memory for config.json");
        DS_TRY(arch_hf_parse(text, strlen(text), "config.json", &back));
        if (!(field = find_difference(a, &back))) break;
    }
    DS_CHECK(!field, DS_ERR_DATA, "a %s config.json cannot say \"%s\" of this model",
             arch_family_name((ArchFamily)a->family), field);
    *json = mem_printf("%s\n", text);
done:
    free(text); // lint: jansson's
    json_decref(root);
    return err;
}
