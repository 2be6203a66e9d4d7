// arch_gguf.c: see arch_gguf.h.
#include "arch/arch_gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"

// Keys of an architecture (after "llama.") that are read or change no arithmetic. Others are refused.
static const char *const known_keys[] = {
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.layer_norm_epsilon",
    "attention.causal",
    "rope.freq_base",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scale_linear",
    "vocab_size",
    "expert_count",
    "expert_used_count",
    "use_parallel_residual",
    "tensor_data_layout",
};

typedef struct {
    const ArchGgufMeta *m;
    char prefix[16];
    Err err; // of the first key that failed
} Reader;

static void refuse(Reader *r, const char *key, const char *value, const char *expected) {
    if (!r->err)
        r->err = err_set(DS_ERR_DATA, "%s: %s.%s is %.80s, expected %s", r->m->what, r->prefix, key, value, expected);
}

static bool get_number(Reader *r, const char *key, double *value) {
    char *full = mem_printf("%s.%s", r->prefix, key);
    bool found = r->m->number(r->m->file, full, value);
    mem_free(full);
    return found;
}

static int64_t get_int(Reader *r, const char *key, int64_t missing) {
    double v;
    char text[32];
    if (!get_number(r, key, &v)) {
        if (missing < 0) refuse(r, key, "missing or not one number", "a count");
        return missing;
    }
    if (!(v >= 0 && v <= INT32_MAX && v == floor(v))) {
        snprintf(text, sizeof text, "%g", v);
        refuse(r, key, text, "a count");
        return missing;
    }
    return (int64_t)v;
}

// The real number that an fp32 key was written from: 1e-5 and not 9.99999974737875e-06.
static double get_real(Reader *r, const char *key, double missing) {
    double v;
    char text[40];
    if (!get_number(r, key, &v)) return missing;
    if (v != (double)(float)v) return v;
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtof(text, NULL) == (float)v) break;
    }
    return strtod(text, NULL);
}

static void check_keys(Reader *r) {
    size_t n = strlen(r->prefix);
    for (int i = 0; i < r->m->n; i++) {
        const char *key = r->m->keys[i];
        if (strncmp(key, r->prefix, n) != 0 || key[n] != '.') continue;
        bool known = false;
        for (int k = 0; k < DS_COUNT(known_keys) && !known; k++) known = !strcmp(key + n + 1, known_keys[k]);
        if (!known) refuse(r, key + n + 1, "set", "no such key, because it may change the arithmetic");
    }
    if (get_int(r, "expert_count", 0) > 0) refuse(r, "expert_count", "above 0", "0");
    if (get_real(r, "rope.scale_linear", 1) != 1) refuse(r, "rope.scale_linear", "set", "1");
    double v;
    if (get_number(r, "attention.causal", &v) && v != 1) refuse(r, "attention.causal", "false", "true");
}

// llama.cpp writes llama3's scaling as a tensor of divisors of the frequencies. The parameters are found again as those
// that give this tensor: every model published uses low 1, high 4 and 8192 original positions; the factor is the
// largest divisor.
static void read_rope_freqs(Reader *r, Arch *a) {
    const float *f = r->m->rope_freqs;
    const double low = 1, high = 4, original = 8192;
    double factor = 1;
    if (r->m->n_rope_freqs != a->rotary_dim / 2) refuse(r, "rope_freqs.weight", "of another length", "rotary_dim / 2");
    for (int64_t i = 0; i < r->m->n_rope_freqs; i++) factor = fmax(factor, f[i]);
    for (int64_t i = 0; i < r->m->n_rope_freqs && !r->err; i++) {
        double wavelength = 2 * M_PI * pow(a->rope_theta, 2 * (double)i / (double)a->rotary_dim), want = 1;
        double smooth = (original / wavelength - low) / (high - low);
        if (wavelength > original / low) want = factor;
        else if (wavelength > original / high) want = 1 / ((1 - smooth) / factor + smooth);
        if (!(fabs(f[i] - want) <= 1e-4 * want))
            refuse(r, "rope_freqs.weight", "unknown", "the divisors of llama3 scaling (1, 4, 8192)");
    }
    a->rope_scaling = ARCH_ROPE_LLAMA3;
    a->rope_factor = factor;
    a->rope_low_freq = low;
    a->rope_high_freq = high;
    a->rope_original_positions = (int64_t)original;
}

static void read_rope(Reader *r, Arch *a) {
    a->rope_theta = get_real(r, "rope.freq_base", 10000);
    a->rotary_dim = get_int(r, "rope.dimension_count", a->head_dim);
    if (a->rotary_dim != a->head_dim) refuse(r, "rope.dimension_count", "not that of a head", "attention.key_length");
    char *key = mem_printf("%s.rope.scaling.type", r->prefix), *type = r->m->string(r->m->file, key);
    if (type && !strcmp(type, "linear")) {
        a->rope_scaling = ARCH_ROPE_LINEAR;
        a->rope_factor = get_real(r, "rope.scaling.factor", 1);
    } else if (type && strcmp(type, "none") != 0) {
        refuse(r, "rope.scaling.type", type, "none or linear");
    }
    if (r->m->rope_freqs) read_rope_freqs(r, a);
    mem_free(type);
    mem_free(key);
}

static bool has(Reader *r, const char *tensor) {
    int64_t shape[2];
    return r->m->shape(r->m->file, tensor, shape);
}

static Err read_sizes(Reader *r, Arch *a) {
    Err err = DS_OK;
    int64_t shape[2];
    a->layers = get_int(r, "block_count", -1);
    a->width = a->embed_width = get_int(r, "embedding_length", -1);
    a->ffn = get_int(r, "feed_forward_length", -1);
    a->heads = get_int(r, "attention.head_count", -1);
    a->max_positions = get_int(r, "context_length", -1);
    DS_TRY(r->err);
    DS_CHECK(a->heads > 0, DS_ERR_DATA, "%s: %s.attention.head_count is 0", r->m->what, r->prefix);
    a->kv_heads = get_int(r, "attention.head_count_kv", a->heads);
    a->head_dim = get_int(r, "attention.key_length", a->width / a->heads);
    if (get_int(r, "attention.value_length", a->head_dim) != a->head_dim)
        refuse(r, "attention.value_length", "not attention.key_length", "the same");
    DS_CHECK(r->m->shape(r->m->file, "token_embd.weight", shape), DS_ERR_DATA, "%s: has no tensor token_embd.weight",
             r->m->what);
    a->vocab = shape[0];
    a->tied = !has(r, "output.weight");
    const char *eps = a->norm == ARCH_NORM_RMS ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon";
    a->norm_eps = get_real(r, eps, a->norm_eps);
    if (a->pos == ARCH_POS_ROPE) read_rope(r, a);
    if (a->qkv == ARCH_QKV_SPLIT) a->qkv_bias = has(r, "blk.0.attn_q.bias");
    a->out_bias = has(r, "blk.0.attn_output.bias");
    err = r->err;
done:
    return err;
}

Err arch_gguf_parse(const ArchGgufMeta *meta, Arch *a) {
    static const ArchFamily readable[] = {ARCH_LLAMA, ARCH_QWEN2, ARCH_QWEN3, ARCH_GPT2};
    Err err = DS_OK;
    Reader r = {.m = meta};
    int family = -1;
    char *name = meta->string(meta->file, "general.architecture");
    for (int i = 0; name && i < DS_COUNT(readable); i++)
        if (!strcmp(name, arch_family_name(readable[i]))) family = readable[i];
    DS_CHECK(family >= 0, DS_ERR_DATA, "%s: general.architecture is %.80s, expected llama, qwen2, qwen3 or gpt2",
             meta->what, name ? name : "missing");
    snprintf(r.prefix, sizeof r.prefix, "%s", name);
    arch_family_defaults(a, (ArchFamily)family);
    check_keys(&r);
    DS_TRY(r.err);
    DS_TRY(read_sizes(&r, a));
    DS_TRY(arch_check(a, meta->what));
done:
    mem_free(name);
    return err;
}

Err arch_gguf_name(const Arch *a, const Weight *w, char out[96]) {
    static const char *const outer[W_ROLES] = {[W_TOK] = "token_embd.weight",
                                               [W_POS] = "position_embd.weight",
                                               [W_FNORM_W] = "output_norm.weight",
                                               [W_FNORM_B] = "output_norm.bias",
                                               [W_LM_HEAD] = "output.weight"};
    static const char *const inner[W_ROLES] = {
        [W_NORM1_W] = "attn_norm.weight", [W_NORM1_B] = "attn_norm.bias",   [W_Q] = "attn_q.weight",
        [W_K] = "attn_k.weight",          [W_V] = "attn_v.weight",          [W_Q_B] = "attn_q.bias",
        [W_K_B] = "attn_k.bias",          [W_V_B] = "attn_v.bias",          [W_QKV] = "attn_qkv.weight",
        [W_QKV_B] = "attn_qkv.bias",      [W_QNORM] = "attn_q_norm.weight", [W_KNORM] = "attn_k_norm.weight",
        [W_O] = "attn_output.weight",     [W_O_B] = "attn_output.bias",     [W_NORM2_W] = "ffn_norm.weight",
        [W_NORM2_B] = "ffn_norm.bias",    [W_GATE] = "ffn_gate.weight",     [W_UP] = "ffn_up.weight",
        [W_UP_B] = "ffn_up.bias",         [W_DOWN] = "ffn_down.weight",     [W_DOWN_B] = "ffn_down.bias"};
    if (outer[w->role]) snprintf(out, 96, "%s", outer[w->role]);
    else if (inner[w->role]) snprintf(out, 96, "blk.%d.%s", w->block - 1, inner[w->role]);
    else
        return err_set(DS_ERR_DATA, "GGUF has no name for %s of a %s model", w->name,
                       arch_family_name((ArchFamily)a->family));
    return DS_OK;
}

int64_t arch_gguf_permuted_heads(const Arch *a, const Weight *w) {
    if (a->family != ARCH_LLAMA) return 0;
    if (w->role == W_Q || w->role == W_Q_B) return a->heads;
    return w->role == W_K || w->role == W_K_B ? a->kv_heads : 0;
}

void arch_gguf_unpermute(const float *src, int64_t rows, int64_t cols, int64_t heads, float *dst) {
    int64_t d = rows / heads;
    for (int64_t h = 0; h < heads; h++)
        for (int64_t j = 0; j < d / 2; j++)
            for (int64_t half = 0; half < 2; half++)
                memcpy(dst + (h * d + half * (d / 2) + j) * cols, src + (h * d + 2 * j + half) * cols,
                       (size_t)cols * sizeof *dst);
}

bool arch_gguf_is_extra(const char *name) { return !strcmp(name, "rope_freqs.weight"); }
