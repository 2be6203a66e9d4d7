// arch.c: the table of fields, the families' defaults, and what a legal arch is.
#include "arch/arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "arch/weights.h"
#include "base/mem.h"

typedef struct {
    const char *name;
    bool real;
    size_t offset;
} Field;
#define ARCH_INT_FIELD(name) {#name, false, offsetof(Arch, name)},
#define ARCH_REAL_FIELD(name) {#name, true, offsetof(Arch, name)},
static const Field fields[] = {ARCH_FIELDS(ARCH_INT_FIELD, ARCH_REAL_FIELD)};

static const char *const family_names[ARCH_FAMILIES] = {
    [ARCH_OPT] = "opt",     [ARCH_GPT2] = "gpt2",       [ARCH_BLOOM] = "bloom", [ARCH_NEOX] = "gpt_neox",
    [ARCH_LLAMA] = "llama", [ARCH_MISTRAL] = "mistral", [ARCH_QWEN2] = "qwen2", [ARCH_QWEN3] = "qwen3"};

int arch_field_count(void) { return DS_COUNT(fields); }
const char *arch_field_name(int i) { return fields[i].name; }
bool arch_field_is_real(int i) { return fields[i].real; }

double arch_field_get(const Arch *a, int i) {
    const char *p = (const char *)a + fields[i].offset;
    return fields[i].real ? *(const double *)p : (double)*(const int64_t *)p;
}

void arch_field_set(Arch *a, int i, double value) {
    char *p = (char *)a + fields[i].offset;
    if (fields[i].real) *(double *)p = value;
    else *(int64_t *)p = fabs(value) < 0x1p53 ? (int64_t)value : -1;
}

const char *arch_family_name(ArchFamily f) { return f < ARCH_FAMILIES ? family_names[f] : "unknown"; }

int arch_family_find(const char *name) {
    for (int f = 0; f < ARCH_FAMILIES; f++)
        if (!strcmp(family_names[f], name)) return f;
    return -1;
}

void arch_family_defaults(Arch *a, ArchFamily f) {
    *a = (Arch){.family = f,
                .norm = ARCH_NORM_LN,
                .norm_eps = 1e-5,
                .pre_norm = 1,
                .final_norm = 1,
                .rope_theta = 10000,
                .rope_factor = 1,
                .init_std = 0.02,
                .score_std = 1,
                .tied = 1,
                .qkv_bias = 1,
                .out_bias = 1,
                .mlp_bias = 1};
    switch (f) {
    case ARCH_OPT: a->pos = ARCH_POS_LEARNED, a->pos_offset = 2, a->act = ARCH_ACT_RELU; break;
    case ARCH_GPT2: a->pos = ARCH_POS_LEARNED, a->act = ARCH_ACT_GELU_TANH, a->qkv = ARCH_QKV_CAT, a->conv1d = 1; break;
    case ARCH_BLOOM:
        a->pos = ARCH_POS_ALIBI, a->act = ARCH_ACT_GELU_TANH, a->qkv = ARCH_QKV_HEADS, a->embed_norm = 1;
        break;
    case ARCH_NEOX:
        a->pos = ARCH_POS_ROPE, a->act = ARCH_ACT_GELU, a->qkv = ARCH_QKV_HEADS, a->parallel_residual = 1, a->tied = 0;
        break;
    default:
        a->norm = ARCH_NORM_RMS, a->pos = ARCH_POS_ROPE, a->act = ARCH_ACT_SILU, a->glu = 1, a->tied = 0;
        a->qkv_bias = f == ARCH_QWEN2, a->out_bias = a->mlp_bias = 0, a->qk_norm = f == ARCH_QWEN3;
        if (f != ARCH_LLAMA) a->norm_eps = 1e-6;
    }
}

typedef struct {
    const char *name;
    int64_t value, min, max;
} Bound;

static Err check_bounds(const Bound *b, int n, const char *what) {
    for (int i = 0; i < n; i++)
        if (b[i].value < b[i].min || b[i].value > b[i].max)
            return err_set(DS_ERR_DATA, "%s: model config: %s = %lld, expected %lld to %lld", what, b[i].name,
                           (long long)b[i].value, (long long)b[i].min, (long long)b[i].max);
    return DS_OK;
}

Err arch_check(const Arch *a, const char *what) {
    const Bound bounds[] = {
        {"family", a->family, 0, ARCH_FAMILIES - 1},
        {"layers", a->layers, 1, 1024},
        {"width", a->width, 1, 1 << 17},
        {"embed_width", a->embed_width, 1, 1 << 17},
        {"heads", a->heads, 1, 1024},
        {"kv_heads", a->kv_heads, 1, a->heads},
        {"head_dim", a->head_dim, 1, 1024},
        {"ffn", a->ffn, 1, 1 << 20},
        {"vocab", a->vocab, 1, 1 << 24},
        {"max_positions", a->max_positions, 1, 1 << 24},
        {"norm", a->norm, 0, ARCH_NORM_RMS},
        {"pre_norm", a->pre_norm, 0, 1},
        {"final_norm", a->final_norm, 0, 1},
        {"embed_norm", a->embed_norm, 0, 1},
        {"parallel_residual", a->parallel_residual, 0, 1},
        {"pos", a->pos, 0, ARCH_POS_ALIBI},
        {"pos_offset", a->pos_offset, 0, 1024},
        {"rotary_dim", a->rotary_dim, a->pos == ARCH_POS_ROPE ? 2 : 0, a->head_dim},
        {"rope_scaling", a->rope_scaling, 0, ARCH_ROPE_LLAMA3},
        {"rope_original_positions", a->rope_original_positions, a->rope_scaling == ARCH_ROPE_LLAMA3, 1 << 24},
        {"window", a->window, 0, 1 << 24},
        {"qkv", a->qkv, 0, ARCH_QKV_HEADS},
        {"qkv_bias", a->qkv_bias, 0, 1},
        {"out_bias", a->out_bias, 0, 1},
        {"mlp_bias", a->mlp_bias, 0, 1},
        {"qk_norm", a->qk_norm, 0, 1},
        {"act", a->act, 0, ARCH_ACT_SILU},
        {"glu", a->glu, 0, 1},
        {"tied", a->tied, 0, 1},
        {"conv1d", a->conv1d, 0, 1},
        {"head", a->head, 0, ARCH_HEAD_SCALAR},
    };
    Err err = DS_OK;
    DS_TRY(check_bounds(bounds, DS_COUNT(bounds), what));
    DS_CHECK(a->heads % a->kv_heads == 0, DS_ERR_DATA, "%s: model config: %lld heads cannot share %lld kv_heads", what,
             (long long)a->heads, (long long)a->kv_heads);
    DS_CHECK(a->rotary_dim % 2 == 0, DS_ERR_DATA, "%s: model config: rotary_dim = %lld is odd", what,
             (long long)a->rotary_dim);
    DS_CHECK(a->qkv == ARCH_QKV_SPLIT || a->kv_heads == a->heads, DS_ERR_DATA,
             "%s: model config: a fused q, k, v weight needs kv_heads = heads", what);
    DS_CHECK(!a->parallel_residual || a->pre_norm, DS_ERR_DATA, "%s: model config: parallel_residual needs pre_norm",
             what);
    DS_CHECK(a->norm_eps > 0 && a->norm_eps < 1 && a->rope_theta > 0 && isfinite(a->rope_theta) &&
                 isfinite(a->init_std) && isfinite(a->score_mean) && isfinite(a->score_std) && a->rope_factor > 0,
             DS_ERR_DATA,
             "%s: model config: norm_eps, rope_theta, rope_factor, init_std or score_* is not a sane number", what);
done:
    return err;
}

int64_t arch_param_count(const Arch *a) {
    WeightList list;
    weights_build(a, &list);
    const int64_t n = weights_whole_count(&list);
    weights_free(&list);
    return n;
}

char *arch_describe(const Arch *a) {
    char kv[32] = "";
    if (a->kv_heads != a->heads) snprintf(kv, sizeof kv, " (%lld kv)", (long long)a->kv_heads);
    return mem_printf("%s, %lld layers x %lld, %lld heads%s, vocab %lld, %.1f M parameters",
                      arch_family_name(a->family), (long long)a->layers, (long long)a->width, (long long)a->heads, kv,
                      (long long)a->vocab, (double)arch_param_count(a) / 1e6);
}
