// token_refs.h: what the tests of src/token share: the reference strings and ids of tests/refs/token_*.
#ifndef DS_TOKEN_REFS_H
#define DS_TOKEN_REFS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "token/bpe.h"

// The call succeeds; otherwise its words are shown.
#define ok(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != DS_OK) fail_msg("%s: %s", #call, err_text());                                                    \
    } while (0)

// The call is refused with `code` and words that hold `words`.
#define refused(call, code, words)                                                                                     \
    do {                                                                                                               \
        err_clear();                                                                                                   \
        assert_int_equal((call), (code));                                                                              \
        if (!strstr(err_text(), (words))) fail_msg("%s: \"%s\" does not hold \"%s\"", #call, err_text(), (words));     \
        err_clear();                                                                                                   \
    } while (0)

static inline json_t *refs_read(const char *path) {
    json_error_t at;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &at);
    if (!root) fail_msg("%s: line %d: %s", path, at.line, at.text);
    return root;
}

static inline json_t *refs_member(json_t *o, const char *key) {
    json_t *v = json_object_get(o, key);
    if (!v) fail_msg("the references have no %s", key);
    return v;
}

// The tokenizer of tests/refs/token_<name>.
static inline Tokenizer *refs_tokenizer(const char *name) {
    Tokenizer *t = NULL;
    char *path = mem_printf("tests/refs/token_%s%s", name, strcmp(name, "spm") ? ".json" : ".model");
    ok(tok_load(path, &t));
    mem_free(path);
    return t;
}

// The bytes of a string of hexadecimal digits. Owner: caller.
static inline char *refs_bytes(const json_t *hex, int64_t *n) {
    const char *s = json_string_value(hex);
    *n = (int64_t)strlen(s) / 2;
    char *out = mem_alloc((size_t)*n + 1);
    for (int64_t i = 0; i < *n; i++) {
        const char digits[3] = {s[2 * i], s[2 * i + 1], 0};
        out[i] = (char)strtol(digits, NULL, 16);
    }
    return out;
}

// The ids are those of the JSON array.
static inline void refs_same_ids(const char *name, int64_t at, const char *how, const TokIds *got, const json_t *want) {
    bool same = got->n == (int64_t)json_array_size(want);
    for (int64_t i = 0; i < got->n && same; i++)
        same = got->id[i] == json_integer_value(json_array_get(want, (size_t)i));
    if (same) return;
    fprintf(stderr, "%s, string %lld, %s:\n  got ", name, (long long)at, how);
    for (int64_t i = 0; i < got->n && i < 60; i++) fprintf(stderr, " %d", got->id[i]);
    fprintf(stderr, "\n  want");
    for (size_t i = 0; i < json_array_size(want) && i < 60; i++)
        fprintf(stderr, " %lld", (long long)json_integer_value(json_array_get(want, i)));
    fprintf(stderr, "\n");
    fail_msg("%s: other ids than the reference", name);
}

// 100 kB without a blank, as tools/refs/vocab.py makes it. Owner: caller.
static inline char *refs_long_text(void) {
    uint32_t x = 12345;
    char *out = mem_alloc(100001);
    for (int i = 0; i < 100000; i++) {
        x = (x * 1103515245u + 12345u) & 0x7fffffffu;
        out[i] = "etaoinshrdlucmfw"[x >> 16 & 15];
    }
    return out;
}

#endif
