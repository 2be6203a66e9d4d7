// test_safetensors.c: reading, writing, shards, and files that lie.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "io/f16.h"
#include "io/safetensors.h"

#define DIR "build/tmp/test_safetensors"
#define SCRATCH DIR "/x.safetensors"
#define LLAMA "tests/refs/families/llama"

static int make_scratch(void **state) {
    (void)state;
    file_remove_tree(DIR);
    return file_make_dirs(DIR);
}

static void test_f16(void **state) {
    (void)state;
    assert_true(f16_to_f32(0x3c00) == 1.0f && f16_to_f32(0xc000) == -2.0f && f16_to_f32(0x7bff) == 65504.0f);
    assert_true(f16_to_f32(0x0001) == 0x1p-24f && f16_to_f32(0x83ff) == -1023 * 0x1p-24f &&
                f16_to_f32(0x0400) == 0x1p-14f);
    assert_true(f16_to_f32(0x7c00) == (float)(1.0 / 0.0) && f16_to_f32(0xfc00) == -(float)(1.0 / 0.0));
    float nan = f16_to_f32(0x7e00), zero = f16_to_f32(0x8000);
    assert_true(nan != nan && zero == 0 && 1 / zero < 0);
}

static void test_read_folder(void **state) {
    (void)state;
    Safetensors st;
    assert_int_equal(safetensors_open(LLAMA, &st), DS_OK);
    assert_int_equal(st.n, 21);
    for (int i = 1; i < st.n; i++) assert_true(strcmp(st.t[i - 1].name, st.t[i].name) < 0);
    const SafeTensor *t = safetensors_find(&st, "model.layers.1.mlp.down_proj.weight");
    assert_non_null(t);
    assert_true(t->ndim == 2 && t->shape[0] == 32 && t->shape[1] == 28 && t->count == 896 && t->bytes == 3584);
    float all[896], some[5];
    assert_int_equal(safetensors_read_f32(&st, t, 0, 896, all), DS_OK);
    assert_int_equal(safetensors_read_f32(&st, t, 891, 5, some), DS_OK);
    assert_memory_equal(some, all + 891, sizeof some);
    assert_memory_equal(all, t->data, sizeof all);
    assert_null(safetensors_find(&st, "model.layers.1"));
    safetensors_close(&st);
    assert_int_equal(safetensors_open(DIR, &st), DS_ERR_IO);
    assert_non_null(strstr(err_text(), "neither"));
    err_clear();
}

// ---- writing ----

static const SafeSpec specs[] = {{"one", 1, {5}}, {"matrix", 2, {3, 4}}, {"nothing", 2, {0, 4}}, {"last", 1, {7}}};

static void write_model(const char *dir, DType dtype, size_t max_bytes) {
    SafetensorsWriter *w;
    uint8_t data[24 * 4];
    size_t bytes = 24 * dtype_bytes(dtype);
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 5 % 64);
    file_remove_tree(dir);
    file_make_dirs(dir);
    assert_int_equal(safetensors_create(dir, specs, DS_COUNT(specs), dtype, max_bytes, &w), DS_OK);
    for (size_t at = 0; at < bytes; at += 7) // pieces that know nothing of tensors
        assert_int_equal(safetensors_write(w, data + at, bytes - at < 7 ? bytes - at : 7), DS_OK);
    assert_int_equal(safetensors_finish(w), DS_OK);
    safetensors_destroy(&w);
}

static void check_model(const char *path, DType dtype, int files) {
    Safetensors st;
    if (safetensors_open(path, &st)) fail_msg("%s", err_text());
    assert_int_equal(st.files, files);
    assert_int_equal(st.n, 4);
    size_t at = 0;
    for (int i = 0; i < DS_COUNT(specs); i++) {
        const SafeTensor *t = safetensors_find(&st, specs[i].name);
        DType type;
        assert_non_null(t);
        assert_int_equal(safetensors_float_type(&st, t, &type), DS_OK);
        assert_int_equal(type, dtype);
        assert_int_equal(t->ndim, specs[i].ndim);
        for (int d = 0; d < t->ndim; d++) assert_int_equal(t->shape[d], specs[i].shape[d]);
        for (size_t k = 0; k < t->bytes; k++, at++) assert_int_equal((uint8_t)t->data[k], at * 5 % 64);
    }
    assert_int_equal(at, 24 * dtype_bytes(dtype));
    safetensors_close(&st);
}

static void test_write(void **state) {
    (void)state;
    write_model(DIR "/a", DS_F32, 1 << 20);
    check_model(DIR "/a", DS_F32, 1);
    check_model(DIR "/a/model.safetensors", DS_F32, 1);
    write_model(DIR "/b", DS_BF16, 1 << 20);
    check_model(DIR "/b", DS_BF16, 1);
    write_model(DIR "/c", DS_BF16, 40); // 10 + 24 + 0 | 14
    check_model(DIR "/c", DS_BF16, 2);
    check_model(DIR "/c/model.safetensors.index.json", DS_BF16, 2);
    write_model(DIR "/d", DS_F32, 1); // every tensor larger than a shard
    check_model(DIR "/d", DS_F32, 4);
}

static void test_unfinished_leaves_nothing(void **state) {
    (void)state;
    SafetensorsWriter *w;
    file_make_dirs(DIR "/e");
    assert_int_equal(safetensors_create(DIR "/e", specs, DS_COUNT(specs), DS_F32, 30, &w), DS_OK);
    float some[7] = {0};
    assert_int_equal(safetensors_write(w, some, sizeof some), DS_OK);
    safetensors_destroy(&w);
    assert_null(w);
    assert_int_equal(rmdir(DIR "/e"), 0);
}

static void test_half_types(void **state) {
    (void)state;
    static const uint16_t bf16[3] = {0x3f80, 0xc040, 0x0001}, f16[3] = {0x3c00, 0xc200, 0x0001};
    static const float expected[2][3] = {{1, -3, 0x1p-133f}, {1, -3, 0x1p-24f}};
    static const SafeSpec spec = {"w", 1, {3}};
    for (int k = 0; k < 2; k++) {
        SafetensorsWriter *w;
        Safetensors st;
        float got[3];
        assert_int_equal(safetensors_create(DIR, &spec, 1, k ? DS_F16 : DS_BF16, 1 << 20, &w), DS_OK);
        assert_int_equal(safetensors_write(w, k ? f16 : bf16, 6), DS_OK);
        assert_int_equal(safetensors_finish(w), DS_OK);
        safetensors_destroy(&w);
        assert_int_equal(safetensors_open(DIR, &st), DS_OK);
        assert_int_equal(safetensors_read_f32(&st, &st.t[0], 0, 3, got), DS_OK);
        assert_memory_equal(got, expected[k], sizeof got);
        safetensors_close(&st);
    }
}

// ---- files that lie ----

static void expect(Err expected, const char *path, const char *word) {
    Safetensors st;
    err_clear();
    Err err = safetensors_open(path, &st);
    if (err != expected) fail_msg("%s: code %d, expected %d (%s)", path, err, expected, err_text());
    if (!err) safetensors_close(&st);
    else if (!strstr(err_text(), word)) fail_msg("\"%s\" does not say \"%s\"", err_text(), word);
    err_clear();
}

static void write_file(const char *path, uint64_t length, const char *header, size_t header_bytes, size_t data_bytes) {
    char *all = mem_alloc(8 + header_bytes + data_bytes);
    memcpy(all, &length, 8);
    memcpy(all + 8, header, header_bytes);
    assert_int_equal(file_write_atomic(path, all, 8 + header_bytes + data_bytes), DS_OK);
    mem_free(all);
}

static void expect_header(Err expected, const char *header, size_t data_bytes, const char *word) {
    write_file(SCRATCH, strlen(header), header, strlen(header), data_bytes);
    expect(expected, SCRATCH, word);
}

#define T(name, dtype, shape, begin, end)                                                                              \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static void test_lying_lengths(void **state) {
    (void)state;
    static const uint64_t lengths[] = {UINT64_MAX, UINT64_MAX - 7, 1ull << 63, (100ull << 20) + 1, 1000, 3, 1, 0};
    for (int i = 0; i < DS_COUNT(lengths); i++) {
        write_file(SCRATCH, lengths[i], "{}", 2, 0);
        expect(DS_ERR_DATA, SCRATCH, "header");
    }
    write_file(SCRATCH, 2, "{}", 2, 0);
    expect(DS_OK, SCRATCH, "");
    write_file(SCRATCH, 2, "[]", 2, 0);
    expect(DS_ERR_DATA, SCRATCH, "begin with '{'");
    for (size_t n = 0; n < 8; n++) {
        assert_int_equal(file_write_atomic(SCRATCH, "\2\0\0\0\0\0\0", n), DS_OK);
        expect(DS_ERR_DATA, SCRATCH, "header length");
    }
}

static void test_lying_headers(void **state) {
    (void)state;
    static const struct {
        const char *header, *word;
        size_t data;
    } bad[] = {
        {"{" T("a", "F32", "[2]", "0", "8") "}", "after the last", 9},
        {"{" T("a", "F32", "[2]", "0", "8") "}", "no range", 7},
        {"{" T("a", "F32", "[2]", "8", "0") "}", "no range", 8},
        {"{" T("a", "F32", "[2]", "-8", "0") "}", "no range", 8},
        {"{" T("a", "F32", "[2]", "0", "18446744073709551615") "}", "header", 8},
        {"{" T("a", "F32", "[2]", "0", "9223372036854775807") "}", "no range", 8},
        {"{" T("a", "F32", "[2]", "0.0", "8.0") "}", "no range", 8},
        {"{" T("a", "F32", "[3]", "0", "8") "}", "do not take", 8},
        {"{" T("a", "F16", "[2]", "0", "8") "}", "do not take", 8},
        {"{" T("a", "F32", "[-2]", "0", "8") "}", "dimension 0", 8},
        {"{" T("a", "F32", "[2.0]", "0", "8") "}", "dimension 0", 8},
        {"{" T("a", "F32", "[4294967296,4294967296]", "0", "0") "}", "overflows", 0},
        {"{" T("a", "F32", "[4294967296,4294967296,0]", "0", "0") "}", "overflows", 0},
        {"{" T("a", "F64", "[4611686018427387904]", "0", "0") "}", "do not take", 0},
        {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", "at most 8", 4},
        {"{" T("a", "F32", "{}", "0", "4") "}", "shape", 4},
        {"{" T("a", "F33", "[1]", "0", "4") "}", "unknown dtype \"F33\"", 4},
        {"{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "0", "4") "}", "overlaps", 4},
        {"{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[2]", "4", "12") "}", "overlaps", 12},
        {"{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "8", "12") "}", "4 bytes before tensor b", 12},
        {"{" T("a", "F32", "[1]", "4", "8") "}", "4 bytes before tensor a", 8},
        {"{" T("a", "F32", "[1]", "0", "4") "," T("a", "F32", "[1]", "0", "4") "}", "duplicate", 4},
        {"{\"a\":[]}", "expected the fields", 0},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", "no range", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", "expected the fields", 4},
        {"{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]}}", "expected the fields", 4},
        {"{\"a\\u0000b\":1}", "header", 0},
        {"{\"a\":", "header", 0},
        {"{} x", "header", 0}};
    for (int i = 0; i < DS_COUNT(bad); i++) expect_header(DS_ERR_DATA, bad[i].header, bad[i].data, bad[i].word);
    expect_header(
        DS_OK,
        "{\"__metadata__\":{\"format\":\"pt\"}," T("b", "I8", "[]", "8", "9") "," T("a", "F32", "[2]", "0", "8") "}  ",
        9, "");
}

static void test_deep_nesting(void **state) {
    (void)state;
    size_t n = 1 << 20;
    char *deep = mem_alloc(n);
    memcpy(deep, "{\"a\":", 5);
    memset(deep + 5, '[', n - 5);
    write_file(SCRATCH, n, deep, n, 0);
    expect(DS_ERR_DATA, SCRATCH, "depth");
    for (size_t i = 0; i + 5 <= n; i += 5) memcpy(deep + i, "{\"a\":", 5);
    write_file(SCRATCH, n - n % 5, deep, n - n % 5, 0);
    expect(DS_ERR_DATA, SCRATCH, "depth");
    mem_free(deep);
}

// Every prefix of a real file and every byte of its header changed: refused or read, never a crash (run under ASan
// too).
static void test_truncated_and_mutated(void **state) {
    (void)state;
    FileMap map;
    assert_int_equal(file_map(LLAMA "/model.safetensors", &map), DS_OK);
    uint64_t header;
    memcpy(&header, map.data, 8);
    Safetensors st;
    int read = 0;
    for (size_t n = 0; n < 8 + header; n++) {
        assert_int_equal(file_write_atomic(SCRATCH, map.data, n), DS_OK);
        expect(DS_ERR_DATA, SCRATCH, "header");
    }
    char *copy = mem_strndup(map.data, map.bytes);
    for (size_t i = 0; i < 8 + header; i++) {
        copy[i] = (char)(copy[i] ^ (1 << i % 8));
        assert_int_equal(file_write_atomic(SCRATCH, copy, map.bytes), DS_OK);
        err_clear();
        Err err = safetensors_open(SCRATCH, &st);
        assert_true(err == DS_OK || (err == DS_ERR_DATA && strlen(err_text()) > 20));
        if (!err) read++, safetensors_close(&st);
        copy[i] = map.data[i];
    }
    assert_true(read > 0 && read < (int)header / 2);
    mem_free(copy);
    file_unmap(&map);
    err_clear();
}

static void expect_index(Err expected, const char *json, const char *word) {
    assert_int_equal(file_write_atomic(DIR "/s/model.safetensors.index.json", json, strlen(json)), DS_OK);
    expect(expected, DIR "/s", word);
}

static void test_lying_index(void **state) {
    (void)state;
    file_make_dirs(DIR "/s");
    const char *header = "{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "4", "8") "}";
    write_file(DIR "/s/1.safetensors", strlen(header), header, strlen(header), 8);
    write_file(DIR "/outside.safetensors", strlen(header), header, strlen(header), 8);
    assert_int_equal(symlink("1.safetensors", DIR "/s/link.safetensors"), 0);
    assert_int_equal(mkfifo(DIR "/s/fifo", 0600), 0);
    expect_index(DS_OK, "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\"}}", "");
    expect_index(DS_ERR_DATA, "{\"weight_map\":{\"a\":\"../outside.safetensors\"}}", "plain file name");
    expect_index(DS_ERR_DATA, "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "plain file name");
    expect_index(DS_ERR_DATA, "{\"weight_map\":{\"a\":\"..\"}}", "plain file name");
    expect_index(DS_ERR_DATA, "{\"weight_map\":{\"a\":\"\"}}", "plain file name");
    expect_index(DS_ERR_IO, "{\"weight_map\":{\"a\":\"link.safetensors\",\"b\":\"link.safetensors\"}}",
                 "symbolic link");
    expect_index(DS_ERR_IO, "{\"weight_map\":{\"a\":\"fifo\"}}", "regular");
    expect_index(DS_ERR_IO, "{\"weight_map\":{\"a\":\"2.safetensors\"}}", "cannot open");
    expect_index(DS_ERR_DATA, "{\"weight_map\":{\"a\":\"1.safetensors\"}}", "holds tensor b");
    expect_index(DS_ERR_DATA,
                 "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\",\"c\":\"1.safetensors\"}}",
                 "names 3");
    expect_index(DS_ERR_DATA, "{\"weight_map\":{\"a\":\"1.safetensors\",\"a\":\"1.safetensors\"}}", "duplicate");
    expect_index(DS_ERR_DATA, "{\"weight_map\":{\"a\":7}}", "not a string");
    expect_index(DS_ERR_DATA, "{\"weight_map\":{}}", "0 files");
    expect_index(DS_ERR_DATA, "{\"weight_map\":[]}", "no object");
    expect_index(DS_ERR_DATA, "[]", "no object");
    expect_index(DS_ERR_DATA, "{", "line 1");
}

static void test_types_refused_by_name(void **state) {
    (void)state;
    Safetensors st;
    DType type;
    float out[1];
    const char *header = "{" T("ids", "I64", "[1]", "0", "8") "}";
    write_file(SCRATCH, strlen(header), header, strlen(header), 8);
    assert_int_equal(safetensors_open(SCRATCH, &st), DS_OK);
    assert_int_equal(safetensors_float_type(&st, &st.t[0], &type), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "ids"));
    assert_non_null(strstr(err_text(), "I64"));
    err_clear();
    assert_int_equal(safetensors_read_f32(&st, &st.t[0], 0, 1, out), DS_ERR_DATA);
    err_clear();
    safetensors_close(&st);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_read_folder),
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_unfinished_leaves_nothing),
        cmocka_unit_test(test_half_types),
        cmocka_unit_test(test_lying_lengths),
        cmocka_unit_test(test_lying_headers),
        cmocka_unit_test(test_deep_nesting),
        cmocka_unit_test(test_truncated_and_mutated),
        cmocka_unit_test(test_lying_index),
        cmocka_unit_test(test_types_refused_by_name),
    };
    return cmocka_run_group_tests_name("safetensors", tests, make_scratch, NULL);
}
