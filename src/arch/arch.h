// arch.h: the hyperparameters that describe every model family in one transformer (algorithms.md section 6). Not
// collective.
//
// An Arch says everything that the shapes and the arithmetic of a model depend on. It is stored field by field as
// attributes of /config in model files. A Hugging Face or GGUF config that it cannot express is refused by name, never
// approximated.
#ifndef DS_ARCH_H
#define DS_ARCH_H

#include "base/err.h"

typedef enum {
    ARCH_OPT,
    ARCH_GPT2,
    ARCH_BLOOM,
    ARCH_NEOX,
    ARCH_LLAMA,
    ARCH_MISTRAL,
    ARCH_QWEN2,
    ARCH_QWEN3,
    ARCH_FAMILIES
} ArchFamily;
typedef enum { ARCH_NORM_LN, ARCH_NORM_RMS } ArchNorm; // LayerNorm with bias | RMSNorm without
typedef enum { ARCH_POS_LEARNED, ARCH_POS_ROPE, ARCH_POS_ALIBI } ArchPos;
typedef enum { ARCH_ACT_RELU, ARCH_ACT_GELU, ARCH_ACT_GELU_TANH, ARCH_ACT_SILU } ArchAct; // GELU: the exact (erf) one
typedef enum {
    ARCH_QKV_SPLIT, // q, k, v are weights of their own
    ARCH_QKV_CAT,   // one weight, rows [q | k | v]         (GPT-2)
    ARCH_QKV_HEADS  // one weight, rows [head][q k v][dim]  (BLOOM, GPT-NeoX)
} ArchQkv;
typedef enum { ARCH_ROPE_PLAIN, ARCH_ROPE_LINEAR, ARCH_ROPE_LLAMA3 } ArchRopeScaling;
typedef enum { ARCH_HEAD_LM, ARCH_HEAD_SCALAR } ArchHead; // language model | one value a token (reward model, critic)

// The table of fields: X(type, name). Types: enum fields as int64_t; `bool` as int64_t 0 or 1; real as double.
#define ARCH_FIELDS(INT, REAL)                                                                                         \
    INT(family) /* ArchFamily */                                                                                       \
    INT(layers)                                                                                                        \
    INT(width)       /* of the residual stream */                                                                      \
    INT(embed_width) /* of embeddings and head; differs from width only in OPT-350M */                                 \
    INT(heads)                                                                                                         \
    INT(kv_heads) /* divides heads */                                                                                  \
    INT(head_dim)                                                                                                      \
    INT(ffn)   /* inner width of the MLP */                                                                            \
    INT(vocab) /* rows of the embedding; may exceed the tokenizer's size */                                            \
    INT(max_positions)                                                                                                 \
    INT(norm) /* ArchNorm */                                                                                           \
    REAL(norm_eps)                                                                                                     \
    INT(pre_norm)          /* 1: norm before attention and MLP; 0: after the residual sum (OPT-350M) */                \
    INT(final_norm)        /* 1: a norm after the last layer */                                                        \
    INT(embed_norm)        /* 1: a norm on the embedding (BLOOM) */                                                    \
    INT(parallel_residual) /* 1: x + attn(norm1 x) + mlp(norm2 x) (GPT-NeoX) */                                        \
    INT(pos)               /* ArchPos */                                                                               \
    INT(pos_offset)        /* learned: row of position 0 (OPT: 2) */                                                   \
    REAL(rope_theta)                                                                                                   \
    INT(rotary_dim)   /* leading dims of a head that rotate; even */                                                   \
    INT(rope_scaling) /* ArchRopeScaling */                                                                            \
    REAL(rope_factor)                                                                                                  \
    REAL(rope_low_freq)                                                                                                \
    REAL(rope_high_freq)                                                                                               \
    INT(rope_original_positions)                                                                                       \
    INT(window) /* keys seen besides oneself are those less than `window` back; 0: all */                              \
    INT(qkv)    /* ArchQkv */                                                                                          \
    INT(qkv_bias)                                                                                                      \
    INT(out_bias) /* of the attention's output projection */                                                           \
    INT(mlp_bias)                                                                                                      \
    INT(qk_norm) /* 1: RMSNorm over each head of q and k (Qwen3) */                                                    \
    INT(act)     /* ArchAct */                                                                                         \
    INT(glu)     /* 1: act(gate) * up */                                                                               \
    INT(tied)    /* 1: the LM head is the embedding */                                                                 \
    INT(conv1d)  /* 1: Hugging Face keeps linear weights as [in, out] (GPT-2) */                                       \
    INT(head)    /* ArchHead */                                                                                        \
    REAL(init_std)                                                                                                     \
    REAL(score_mean) /* scalar head: mean of scores on the evaluation set; 0 if unknown */                             \
    REAL(score_std)  /* scalar head: their deviation; 1 if unknown */

#define ARCH_INT_MEMBER(name) int64_t name;
#define ARCH_REAL_MEMBER(name) double name;
typedef struct {
    ARCH_FIELDS(ARCH_INT_MEMBER, ARCH_REAL_MEMBER)
} Arch;
#undef ARCH_INT_MEMBER
#undef ARCH_REAL_MEMBER

// Fields by index, for files: name, whether real, and access as a double (exact: every int field is below 2^53).
int arch_field_count(void);
const char *arch_field_name(int i);
bool arch_field_is_real(int i);
double arch_field_get(const Arch *a, int i);
void arch_field_set(Arch *a, int i, double value);

// "opt", "gpt2", ... as params files spell them; -1 from arch_family_find if unknown.
const char *arch_family_name(ArchFamily f);
int arch_family_find(const char *name);

// The family's defaults with everything that does not depend on sizes filled in; sizes are zero.
void arch_family_defaults(Arch *a, ArchFamily f);

// Checks that every field is in range and that they fit each other; sizes are bounded so that no product overflows.
// `what` (a file name) begins the message. DS_ERR_DATA.
Err arch_check(const Arch *a, const char *what);

// Parameters in total, and those that a token multiplies with (2 * that = forward FLOP a token without attention).
int64_t arch_param_count(const Arch *a);

// "llama, 30 layers x 576, 9 heads (3 kv), vocab 49152, 134.5 M parameters" into fresh memory. Owner: caller.
char *arch_describe(const Arch *a);

#endif
