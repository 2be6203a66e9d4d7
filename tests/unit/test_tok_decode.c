// test_tok_decode.c: ids -> text as a stream, token by token and byte by byte.
#include "tests/unit/token_refs.h"

#include "base/text.h"

static const char *const names[] = {"gpt2",   "smollm", "llama3",    "qwen2", "bloom",
                                    "prefix", "llama",  "metaspace", "spm"};

// Streams never hold broken UTF-8 and add up to the whole text.
static void streams(void **state) {
    (void)state;
    json_t *refs = refs_read("tests/refs/token_ids.json");
    size_t i;
    json_t *hex;
    for (int k = 0; k < DS_COUNT(names); k++) {
        Tokenizer *t = refs_tokenizer(names[k]);
        json_array_foreach(refs_member(refs, "strings"), i, hex) {
            int64_t n;
            char *s = refs_bytes(hex, &n), *out = NULL;
            TokIds ids = {0};
            TokStream stream = {0};
            size_t bytes = 0, before = 0;
            ok(tok_encode(t, s, n, 0, &ids));
            for (int64_t j = 0; j < ids.n; j++) {
                tok_stream_next(t, &stream, ids.id[j], &out, &bytes);
                if (text_utf8_bad(out + before, (int64_t)(bytes - before)) >= 0) fail_msg("broken UTF-8 in a stream");
                before = bytes;
            }
            tok_stream_end(&stream, &out, &bytes);
            char *whole = tok_text(t, ids.id, ids.n);
            assert_string_equal(out, whole);
            mem_free(whole);
            mem_free(out);
            mem_free(s);
            tok_ids_free(&ids);
        }
        // A character cut off at the end, and one that never comes.
        TokStream cut = {0};
        char *out = NULL;
        size_t bytes = 0;
        TokIds ids = {0};
        ok(tok_encode(t, "\xf0\x9f\x99\x88", 4, TOK_NO_PREFIX, &ids));
        for (int64_t j = 0; j + 1 < ids.n; j++) tok_stream_next(t, &cut, ids.id[j], &out, &bytes);
        assert_true(ids.n < 2 || bytes == 0);
        tok_stream_end(&cut, &out, &bytes);
        if (ids.n >= 2) assert_string_equal(out, "\xef\xbf\xbd");
        mem_free(out);
        tok_ids_free(&ids);
        tok_free(&t);
    }
    json_decref(refs);
}

static int32_t byte_token(const Tokenizer *t, int byte) {
    for (int32_t id = 0; id < tok_vocab_size(t); id++) {
        const TokStr piece = tok_piece(t, id);
        if (piece.n == 1 && (unsigned char)piece.s[0] == byte) return id;
    }
    fail_msg("no token for byte %02x", (unsigned)byte);
    return -1;
}

// After each byte a stream has all characters that are whole, U+FFFD for what cannot become one any more, and holds
// back only what still can.
static void stream_of_bytes(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        int shown[8]; // bytes of the text after each, and after the end
        const char *text;
    } all[] = {{"\xe2\x82\xac", {0, 0, 3, 3}, "\xe2\x82\xac"},
               {"\xe2"
                "A",
                {0, 4, 4},
                "\xef\xbf\xbd"
                "A"},
               {"\xf0\x9f"
                "AB",
                {0, 0, 4, 5, 5},
                "\xef\xbf\xbd"
                "AB"},
               {"\xe2\xc3\xa9", {0, 3, 5, 5}, "\xef\xbf\xbd\xc3\xa9"},
               {"\xc3\xa9\xf0\x9f\x98", {0, 2, 2, 2, 2, 5}, "\xc3\xa9\xef\xbf\xbd"},
               {"\xa9z", {3, 4, 4}, "\xef\xbf\xbdz"}};
    Tokenizer *t = refs_tokenizer("gpt2");
    for (int i = 0; i < DS_COUNT(all); i++) {
        TokStream stream = {0};
        char *out = NULL;
        size_t bytes = 0;
        int at = 0;
        for (; all[i].bytes[at]; at++) {
            tok_stream_next(t, &stream, byte_token(t, (unsigned char)all[i].bytes[at]), &out, &bytes);
            assert_int_equal(bytes, all[i].shown[at]);
        }
        tok_stream_end(&stream, &out, &bytes);
        assert_int_equal(bytes, all[i].shown[at]);
        assert_string_equal(out, all[i].text);
        mem_free(out);
    }
    tok_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(streams), cmocka_unit_test(stream_of_bytes)};
    return cmocka_run_group_tests_name("tok_decode", tests, NULL, NULL);
}
