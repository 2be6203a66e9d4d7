// pretoken.h: cuts a text into the words inside which byte-level BPE merges. A pre-tokeniser is one of those known
// here, told by its exact pattern or name; others are refused with a list, since a near miss gives wrong ids without a
// word. Not collective.
#ifndef DS_PRETOKEN_H
#define DS_PRETOKEN_H

#include "base/err.h"

// Values are part of the tokenizer's stored form.
typedef enum {
    PRETOKEN_NONE = 0, // the whole text is one word
    PRETOKEN_GPT2 = 1, // also OPT, GPT-NeoX
    PRETOKEN_SMOLLM = 2,
    PRETOKEN_LLAMA3 = 3,
    PRETOKEN_QWEN2 = 4, // also Qwen3
    PRETOKEN_BLOOM = 5
} PretokenKind;
enum { PRETOKEN_KINDS = 6 };

const char *pretoken_name(PretokenKind kind);

// The regular expression as tokenizer.json spells it in a "Split" (Llama-3, Qwen2, BLOOM; ByteLevel's own is GPT-2's).
// DS_ERR_DATA, begun with `what`, lists those that are known.
Err pretoken_by_pattern(const char *pattern, const char *what, PretokenKind *kind);

// tokenizer.ggml.pre of a GGUF file. DS_ERR_DATA.
Err pretoken_by_gguf(const char *pre, const char *what, PretokenKind *kind);

// As tokenizer.json spells it; NULL for NONE and SMOLLM (which is Digits, then GPT-2's).
const char *pretoken_pattern(PretokenKind kind);

typedef struct Pretoken Pretoken;

// Owner: caller, pretoken_destroy (which accepts NULL).
Pretoken *pretoken_create(PretokenKind kind);
void pretoken_destroy(Pretoken **p);

// The end of the word that begins at `at` in s[n], valid UTF-8, 0 <= at < n. DS_ERR_DATA if PCRE2 gives up.
Err pretoken_next(const Pretoken *p, const char *s, int64_t n, int64_t at, int64_t *end);

#endif
