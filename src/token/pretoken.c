// pretoken.c: see pretoken.h. The one file that names PCRE2.
#include "token/pretoken.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/mem.h"

struct Pretoken {
    pcre2_code *code; // NULL: the whole text is one word
    pcre2_match_data *match;
    bool jit;
};

// Unicode's White_Space, which is what tokenizer.json means by \s; PCRE2's own \s holds U+180E too.
#define SPACE "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define WS "[" SPACE "]"
#define REST "[^" SPACE "\\p{L}\\p{N}]"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA3                                                                                                         \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"           \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QWEN2                                                                                                          \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"                \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define BLOOM " ?[^(\\s|[.,!?…。，、।۔،])]+"

#define MODERN(numbers)                                                                                                \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers "| ?" REST "+[\\r\\n]*|" WS "*[\\r\\n]+|" WS \
    "+(?![^" SPACE "])|" WS "+"

static const struct {
    const char *name;
    const char *pattern; // as tokenizer.json spells it
    const char *ours;    // the same for PCRE2
    const char *gguf[4];
} kinds[PRETOKEN_KINDS] = {
    [PRETOKEN_NONE] = {.name = "none"},
    [PRETOKEN_GPT2] = {"gpt2",
                       GPT2,
                       "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?" REST "+|" WS "+(?![^" SPACE "])|" WS "+",
                       {"gpt-2", "gpt2", "olmo"}},
    // Digits are cut out one by one first, so blanks before a digit see the end of their text.
    [PRETOKEN_SMOLLM] = {"smollm",
                         NULL,
                         "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+|\\p{N}| ?" REST "+|" WS "+(?![^" SPACE "\\p{N}])|" WS "+",
                         {"smollm"}},
    [PRETOKEN_LLAMA3] = {"llama3", LLAMA3, MODERN("\\p{N}{1,3}"), {"llama-bpe", "llama3", "llama-v3"}},
    [PRETOKEN_QWEN2] = {"qwen2", QWEN2, MODERN("\\p{N}"), {"qwen2"}},
    [PRETOKEN_BLOOM] = {"bloom", BLOOM, " ?[^(" SPACE "|.,!?…。，、।۔،)]+", {"bloom"}},
};

const char *pretoken_name(PretokenKind kind) { return kinds[kind].name; }
const char *pretoken_pattern(PretokenKind kind) { return kinds[kind].pattern; }

Err pretoken_by_pattern(const char *pattern, const char *what, PretokenKind *kind) {
    for (int k = 0; k < PRETOKEN_KINDS; k++)
        if (kinds[k].pattern && !strcmp(kinds[k].pattern, pattern)) return *kind = (PretokenKind)k, DS_OK;
    return err_set(DS_ERR_DATA,
                   "%s: pre-tokeniser pattern \"%.300s\" is not known; known are those of gpt2, smollm, llama3, "
                   "qwen2, bloom",
                   what, pattern);
}

Err pretoken_by_gguf(const char *pre, const char *what, PretokenKind *kind) {
    for (int k = 0; k < PRETOKEN_KINDS; k++)
        for (int i = 0; i < 4 && kinds[k].gguf[i]; i++)
            if (!strcmp(kinds[k].gguf[i], pre)) return *kind = (PretokenKind)k, DS_OK;
    return err_set(DS_ERR_DATA,
                   "%s: tokenizer.ggml.pre = \"%.60s\" is not known; known are gpt-2, olmo, smollm, llama-bpe, qwen2, "
                   "bloom",
                   what, pre);
}

Pretoken *pretoken_create(PretokenKind kind) {
    Pretoken *p = MEM_NEW(Pretoken, 1);
    if (!kinds[kind].ours) return p;
    int code = 0;
    size_t at = 0;
    p->code =
        pcre2_compile((PCRE2_SPTR)kinds[kind].ours, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (!p->code) err_fatal("PCRE2 error %d at byte %zu of the pattern %s", code, at, kinds[kind].name);
    p->jit = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0;
    p->match = pcre2_match_data_create(1, NULL);
    if (!p->match) err_fatal("out of memory for PCRE2");
    return p;
}

void pretoken_destroy(Pretoken **p) {
    if (!*p) return;
    pcre2_code_free((*p)->code);
    pcre2_match_data_free((*p)->match);
    MEM_FREE(*p);
}

Err pretoken_next(const Pretoken *p, const char *s, int64_t n, int64_t at, int64_t *end) {
    *end = n;
    if (!p->code) return DS_OK;
    PCRE2_SPTR text = (PCRE2_SPTR)s;
    int rc = p->jit ? pcre2_jit_match(p->code, text, (size_t)n, (size_t)at, 0, p->match, NULL)
                    : pcre2_match(p->code, text, (size_t)n, (size_t)at, PCRE2_NO_UTF_CHECK, p->match, NULL);
    if (rc == PCRE2_ERROR_NOMATCH) return DS_OK;
    if (rc < 0) return err_set(DS_ERR_DATA, "pre-tokeniser: PCRE2 error %d at byte %lld of a text", rc, (long long)at);
    const size_t *span = pcre2_get_ovector_pointer(p->match);
    *end = (int64_t)(span[0] > (size_t)at ? span[0] : span[1]);
    if (*end <= at) return err_set(DS_ERR_BUG, "pre-tokeniser: empty word at byte %lld", (long long)at);
    return DS_OK;
}
