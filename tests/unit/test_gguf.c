// test_gguf.c: every type of key and tensor against the gguf package's reading, and files that lie.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "io/gguf.h"
#include "io/gguf_quant.h"
#include "io/safetensors.h"

#define TYPES "tests/refs/gguf/types.gguf"
#define SCRATCH "build/tmp/test_gguf.gguf"

static int make_scratch(void **state) {
    (void)state;
    return file_make_dirs("build/tmp");
}

static void test_keys(void **state) {
    (void)state;
    static const struct {
        const char *key;
        double value;
    } numbers[] = {{"test.u8", 200},
                   {"test.i8", -100},
                   {"test.u16", 60000},
                   {"test.i16", -30000},
                   {"test.u32", 4000000000.0},
                   {"test.i32", -2000000000},
                   {"test.u64", 0x1p40},
                   {"test.i64", -0x1p40},
                   {"test.f32", (double)1e-5f},
                   {"test.f64", 0.1},
                   {"test.bool", 1}};
    Gguf g;
    assert_int_equal(gguf_open(TYPES, &g), DS_OK);
    assert_int_equal(g.version, 3);
    for (int i = 0; i < DS_COUNT(numbers); i++) {
        double v = 0;
        assert_true(gguf_get_number(&g, numbers[i].key, &v));
        assert_true(v == numbers[i].value);
    }
    double none;
    assert_false(gguf_get_number(&g, "test.string", &none));
    assert_false(gguf_get_number(&g, "test.ints", &none));
    char *s = gguf_get_string(&g, "test.string");
    assert_string_equal(s, "gr\xc3\xbc\xc3\x9f"
                           "e\n");
    mem_free(s);
    assert_null(gguf_get_string(&g, "test.u8"));
    GgufString *strings;
    int64_t n, *ints;
    float *floats;
    assert_int_equal(gguf_get_strings(&g, "test.strings", &strings, &n), DS_OK);
    assert_int_equal(n, 3);
    assert_int_equal(strings[0].n, 0);
    assert_memory_equal(strings[2].s, "\xc3\xa9\xe4\xb8\xad", 5);
    assert_int_equal(gguf_get_ints(&g, "test.ints", &ints, &n), DS_OK);
    assert_true(n == 3 && ints[0] == 3 && ints[1] == -1 && ints[2] == 7);
    assert_int_equal(gguf_get_floats(&g, "test.floats", &floats, &n), DS_OK);
    assert_true(n == 2 && floats[0] == 0.5f && floats[1] == -1.5f);
    mem_free(strings), mem_free(ints), mem_free(floats);
    assert_int_equal(gguf_get_ints(&g, "test.floats", &ints, &n), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "test.floats"));
    err_clear();
    assert_int_equal(gguf_get_strings(&g, "test.nested", &strings, &n), DS_ERR_DATA);
    err_clear();
    gguf_close(&g);
}

// Bit by bit: dequantisation has one right answer.
static void test_dequantise(void **state) {
    (void)state;
    Gguf g;
    Safetensors ref;
    assert_int_equal(gguf_open(TYPES, &g), DS_OK);
    assert_int_equal(safetensors_open("tests/refs/gguf/types.safetensors", &ref), DS_OK);
    assert_int_equal(g.tensors, 8);
    for (int i = 0; i < g.tensors; i++) {
        const GgufTensor *t = &g.t[i];
        const SafeTensor *r = safetensors_find(&ref, t->name);
        assert_string_equal(gguf_quant_name(t->type), t->name);
        assert_non_null(r);
        assert_true(t->ndim == 2 && t->shape[0] == 3 && t->count == r->count);
        float *got = MEM_NEW(float, t->count);
        assert_int_equal(gguf_read_f32(&g, t, 0, t->count, got), DS_OK);
        if (memcmp(got, r->data, r->bytes) != 0) fail_msg("%s is not dequantised exactly", t->name);
        int64_t row = t->shape[1]; // the last row alone
        assert_int_equal(gguf_read_f32(&g, t, 2 * row, row, got), DS_OK);
        assert_memory_equal(got, r->data + 8 * row, (size_t)row * 4);
        mem_free(got);
    }
    gguf_close(&g);
    safetensors_close(&ref);
}

// ---- files that lie ----

typedef struct {
    char data[4096];
    size_t n;
} Buffer;

static void put(Buffer *b, const void *p, size_t n) {
    assert_true(b->n + n <= sizeof b->data);
    memcpy(b->data + b->n, p, n);
    b->n += n;
}
static void put32(Buffer *b, uint32_t v) { put(b, &v, 4); }
static void put64(Buffer *b, uint64_t v) { put(b, &v, 8); }
static void put_text(Buffer *b, const char *s) {
    put64(b, strlen(s));
    put(b, s, strlen(s));
}
static void put_head(Buffer *b, uint32_t version, uint64_t tensors, uint64_t keys) {
    b->n = 0;
    put(b, "GGUF", 4);
    put32(b, version);
    put64(b, tensors);
    put64(b, keys);
}
static void put_tensor(Buffer *b, const char *name, uint32_t ndim, const uint64_t *dims, uint32_t type,
                       uint64_t offset) {
    put_text(b, name);
    put32(b, ndim);
    for (uint32_t i = 0; i < ndim && i < 8; i++) put64(b, dims[i]);
    put32(b, type);
    put64(b, offset);
}
static void pad(Buffer *b, size_t data_bytes) {
    while (b->n % 32) put(b, "", 1);
    for (size_t i = 0; i < data_bytes; i++) put(b, "", 1);
}

static Err open_buffer(const Buffer *b, Gguf *g) {
    err_clear();
    assert_int_equal(file_write_atomic(SCRATCH, b->data, b->n), DS_OK);
    return gguf_open(SCRATCH, g);
}

static void expect_refused(const Buffer *b, const char *word) {
    Gguf g;
    assert_int_equal(open_buffer(b, &g), DS_ERR_DATA);
    if (!strstr(err_text(), word)) fail_msg("\"%s\" does not say \"%s\"", err_text(), word);
    err_clear();
}

static void expect_fine(const Buffer *b) {
    Gguf g;
    assert_int_equal(open_buffer(b, &g), DS_OK);
    gguf_close(&g);
}

static const uint64_t square[2] = {4, 4};

static void test_lying_heads(void **state) {
    (void)state;
    Buffer b = {0};
    put_head(&b, 3, 0, 0);
    expect_fine(&b);
    b.data[0] = 'X';
    expect_refused(&b, "GGUF");
    put_head(&b, 1, 0, 0);
    expect_refused(&b, "version 1");
    put_head(&b, 3u << 24, 0, 0);
    expect_refused(&b, "big-endian");
    put_head(&b, 3, UINT64_MAX, 0);
    expect_refused(&b, "tensors");
    put_head(&b, 3, 0, UINT64_MAX / 2);
    expect_refused(&b, "keys");
    put_head(&b, 3, 0, 60000); // legal, but the file has not that many
    expect_refused(&b, "ends at byte");
}

static void test_lying_keys(void **state) {
    (void)state;
    static const uint64_t lengths[] = {UINT64_MAX, UINT64_MAX - 7, 1ull << 63, 1ull << 61, 1ull << 32, 4097};
    Buffer b = {0};
    for (int i = 0; i < DS_COUNT(lengths); i++) {
        put_head(&b, 3, 0, 1);
        put64(&b, lengths[i]); // of the key's name
        expect_refused(&b, "the name of a key");
        put_head(&b, 3, 0, 1), put_text(&b, "k"), put32(&b, GGUF_STRING), put64(&b, lengths[i]);
        expect_refused(&b, "k");
        for (uint32_t item = 0; item < GGUF_TYPES; item++) {
            put_head(&b, 3, 0, 1), put_text(&b, "numbers"), put32(&b, GGUF_ARRAY), put32(&b, item),
                put64(&b, lengths[i]);
            expect_refused(&b, "numbers");
        }
    }
    put_head(&b, 3, 0, 1), put_text(&b, "numbers"), put32(&b, GGUF_ARRAY), put32(&b, GGUF_U64), put64(&b, 2),
        put64(&b, 0); // one of two
    expect_refused(&b, "key numbers says it has 2 items of uint64, the file has 8 bytes left");
    put_head(&b, 3, 0, 1), put_text(&b, ""), put32(&b, GGUF_U8), put(&b, "", 1);
    expect_refused(&b, "expected 1 to 255");
    put_head(&b, 3, 0, 1), put64(&b, 2), put(&b, "a\0", 2), put32(&b, GGUF_U8), put(&b, "", 1);
    expect_refused(&b, "NUL");
    put_head(&b, 3, 0, 1), put_text(&b, "k"), put32(&b, GGUF_TYPES);
    expect_refused(&b, "type 13");
    put_head(&b, 3, 0, 2);
    for (int i = 0; i < 2; i++) put_text(&b, "twin"), put32(&b, GGUF_U8), put(&b, "", 1);
    expect_refused(&b, "twin is there twice");
    for (int depth = 4; depth <= 100; depth += 96) { // arrays in arrays; 4 levels are legal
        put_head(&b, 3, 0, 1), put_text(&b, "deep"), put32(&b, GGUF_ARRAY);
        for (int i = 1; i < depth; i++) put32(&b, GGUF_ARRAY), put64(&b, 1);
        put32(&b, GGUF_U8), put64(&b, 1), put(&b, "", 1);
        if (depth == 4) expect_fine(&b);
        else expect_refused(&b, "nests");
    }
}

static void test_lying_tensors(void **state) {
    (void)state;
    static const struct {
        uint64_t dims[2];
        uint32_t type;
        uint64_t offset;
        const char *word;
    } bad[] = {{{4, 4}, 0, 64, "reaches past"},
               {{4, 4}, 0, UINT64_MAX - 31, "reaches past"},
               {{4, 4}, 0, 8, "multiple of 32"},
               {{4, 0}, 0, 0, "0 as a dimension"},
               {{1ull << 32, 1ull << 32}, 0, 0, "product"},
               {{1ull << 62, 4}, 0, 0, "product"},
               {{1ull << 62, 1}, 0, 0, "overflows"},
               {{UINT64_MAX, 1}, 0, 0, "-1 as a dimension"},
               {{1ull << 63, 2}, 0, 0, "dimension"},
               {{1ull << 40, 1}, 8, 0, "reaches past"},
               {{16, 2}, 8, 0, "whole blocks"},
               {{128, 2}, 12, 0, "whole blocks"},
               {{4, 4}, 10, 0, "Q2_K"},
               {{4, 4}, 6, 0, "Q5_0"},
               {{4, 4}, 4, 0, "unknown (4)"},
               {{4, 4}, 77, 0, "unknown (77)"},
               {{4, 4}, UINT32_MAX, 0, "unknown"}};
    Buffer b = {0};
    for (int i = 0; i < DS_COUNT(bad); i++) {
        put_head(&b, 3, 1, 0), put_tensor(&b, "odd", 2, bad[i].dims, bad[i].type, bad[i].offset), pad(&b, 64);
        expect_refused(&b, bad[i].word);
    }
    put_head(&b, 2, 1, 0), put_tensor(&b, "x", 2, square, 0, 0), pad(&b, 64);
    expect_fine(&b);
    b.n--;
    expect_refused(&b, "reaches past");
    put_head(&b, 3, 1, 0), put_tensor(&b, "x", 0, square, 0, 0), pad(&b, 64);
    expect_refused(&b, "0 dimensions");
    put_head(&b, 3, 1, 0), put_tensor(&b, "x", 5, (uint64_t[5]){1, 1, 1, 1, 1}, 0, 0), pad(&b, 64);
    expect_refused(&b, "5 dimensions");
    put_head(&b, 3, 2, 0), put_tensor(&b, "x", 2, square, 0, 0), put_tensor(&b, "y", 2, square, 0, 32), pad(&b, 96);
    expect_refused(&b, "x and y overlap");
    put_head(&b, 3, 2, 0), put_tensor(&b, "x", 2, square, 0, 0), put_tensor(&b, "x", 2, square, 0, 64), pad(&b, 128);
    expect_refused(&b, "x is there twice");
    static const uint32_t alignments[] = {0, 1, 7, 24, 1u << 31};
    for (int i = 0; i < DS_COUNT(alignments); i++) {
        put_head(&b, 3, 0, 1), put_text(&b, "general.alignment"), put32(&b, GGUF_U32), put32(&b, alignments[i]);
        expect_refused(&b, "general.alignment");
    }
}

// Every prefix of a real file, and every byte of its header changed: refused or read, never a crash (run under ASan
// too).
static void test_truncated_and_mutated(void **state) {
    (void)state;
    FileMap map;
    Gguf g;
    assert_int_equal(file_map(TYPES, &map), DS_OK);
    Buffer b = {.n = map.bytes < sizeof b.data ? map.bytes : sizeof b.data};
    size_t header = 1000, read = 0, refused = 0;
    for (size_t n = 0; n < header; n++) {
        memcpy(b.data, map.data, b.n = n);
        assert_int_equal(open_buffer(&b, &g), DS_ERR_DATA);
        assert_true(strlen(err_text()) > 20);
    }
    for (size_t i = 0; i < header; i++)
        for (int k = 0; k < 3; k++) {
            char *copy = mem_strndup(map.data, map.bytes);
            copy[i] = (char)(k == 0 ? copy[i] ^ 1 : k == 1 ? copy[i] ^ 0x80 : 0xff);
            assert_int_equal(file_write_atomic(SCRATCH, copy, map.bytes), DS_OK);
            err_clear();
            Err err = gguf_open(SCRATCH, &g);
            assert_true(err == DS_OK || (err == DS_ERR_DATA && strlen(err_text()) > 20));
            if (err) refused++;
            else read++, gguf_close(&g);
            mem_free(copy);
        }
    assert_true(read > 0 && refused > header / 4);
    err_clear();
    file_unmap(&map);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),          cmocka_unit_test(test_dequantise),
        cmocka_unit_test(test_lying_heads),   cmocka_unit_test(test_lying_keys),
        cmocka_unit_test(test_lying_tensors), cmocka_unit_test(test_truncated_and_mutated),
    };
    return cmocka_run_group_tests_name("gguf", tests, make_scratch, NULL);
}
