// test_pretoken.c: the words that each pattern cuts, and what is refused. Ids against references: test_bpe.c.
#include "tests/unit/token_refs.h"

#include "token/pretoken.h"

// The words of s, each followed by '~'. Owner: caller.
static char *cut(PretokenKind kind, const char *s) {
    Pretoken *p = pretoken_create(kind);
    const int64_t n = (int64_t)strlen(s);
    char *out = mem_array(2 * n + 1, 1), *w = out;
    for (int64_t at = 0, end; at < n; at = end) {
        ok(pretoken_next(p, s, n, at, &end));
        assert_true(end > at && end <= n);
        memcpy(w, s + at, (size_t)(end - at));
        w += end - at;
        *w++ = '~';
    }
    pretoken_destroy(&p);
    return out;
}

static void words(void **state) {
    (void)state;
    static const struct {
        PretokenKind kind;
        const char *text, *want;
    } cases[] = {
        {PRETOKEN_GPT2, "I'm 123  a.b\n\n c ", "I~'m~ 123~ ~ a~.~b~\n\n~ c~ ~"},
        {PRETOKEN_GPT2, "IT'S it's   5", "IT~'~S~ it~'s~  ~ 5~"},
        {PRETOKEN_SMOLLM, "a 12  5", "a~ ~1~2~  ~5~"},
        {PRETOKEN_SMOLLM, "x   y 7", "x~  ~ y~ ~7~"},
        {PRETOKEN_LLAMA3, "IT'S 12345 (a)\r\n x\n  y", "IT~'S~ ~123~45~ (~a~)\r\n~ x~\n~ ~ y~"},
        {PRETOKEN_QWEN2, "v12 .\n\n x", "v~1~2~ .\n\n~ x~"},
        {PRETOKEN_BLOOM, "a (b), c", "a~ (~b~),~ c~"},
        {PRETOKEN_NONE, "a b c", "a b c~"},
        {PRETOKEN_GPT2, "\xe1\xa0\x8e \xe2\x80\x83x",
         "\xe1\xa0\x8e~ ~\xe2\x80\x83~x~"}, // U+180E is no blank, U+2003 is
    };
    for (int i = 0; i < DS_COUNT(cases); i++) {
        char *got = cut(cases[i].kind, cases[i].text);
        assert_string_equal(got, cases[i].want);
        mem_free(got);
    }
}

// Each kind is found by what it says of itself; a pattern that is nearly one of them is not.
static void known_patterns(void **state) {
    (void)state;
    for (int k = 0; k < PRETOKEN_KINDS; k++) {
        PretokenKind kind = PRETOKEN_NONE;
        const char *pattern = pretoken_pattern((PretokenKind)k);
        assert_true((pattern == NULL) == (k == PRETOKEN_NONE || k == PRETOKEN_SMOLLM));
        if (!pattern) continue;
        ok(pretoken_by_pattern(pattern, "t", &kind));
        assert_int_equal(kind, k);
        char *near = mem_printf("%s ", pattern);
        refused(pretoken_by_pattern(near, "t.json", &kind), DS_ERR_DATA, "t.json: pre-tokeniser pattern");
        mem_free(near);
    }
    PretokenKind kind;
    ok(pretoken_by_gguf("llama-bpe", "t", &kind));
    assert_int_equal(kind, PRETOKEN_LLAMA3);
    refused(pretoken_by_gguf("deepseek-llm", "t.gguf", &kind), DS_ERR_DATA, "\"deepseek-llm\" is not known");
}

// Long runs of one class cost no stack and no squared time.
static void long_runs(void **state) {
    (void)state;
    enum { N = 1 << 21 };
    static const char *const runs[] = {" ", "\n", "a", "1", ".", "'", "\xe3\x80\x80"};
    for (int k = 1; k < PRETOKEN_KINDS; k++) {
        Pretoken *p = pretoken_create((PretokenKind)k);
        for (int r = 0; r < DS_COUNT(runs); r++) {
            const int64_t len = (int64_t)strlen(runs[r]), n = N / len * len;
            char *s = mem_alloc(N + 1);
            for (int64_t i = 0; i < n; i += len) memcpy(s + i, runs[r], (size_t)len);
            int64_t words_seen = 0;
            for (int64_t at = 0, end; at < n; at = end, words_seen++) ok(pretoken_next(p, s, n, at, &end));
            assert_true(words_seen >= 1 && words_seen <= n);
            mem_free(s);
        }
        pretoken_destroy(&p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(words), cmocka_unit_test(known_patterns),
                                       cmocka_unit_test(long_runs)};
    return cmocka_run_group_tests_name("pretoken", tests, NULL, NULL);
}
