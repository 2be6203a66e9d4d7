// test_jsonl.c: lines come as they are in the file, plain or gzip; bad ones are named and passed over.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "base/file.h"
#include "base/mem.h"
#include "io/jsonl.h"

static const char dir[] = "build/tmp/jsonl";

static char *scratch(const char *name) { return mem_printf("%s/%s", dir, name); }

static char *write_plain(const char *name, const char *text, size_t bytes) {
    char *path = scratch(name);
    assert_int_equal(file_make_dirs(dir), DS_OK);
    assert_int_equal(file_write_atomic(path, text, bytes), DS_OK);
    return path;
}

// Two gzip members in a row, cut at `cut`.
static char *write_gzip(const char *name, const char *text, size_t bytes, size_t cut) {
    char *path = scratch(name);
    assert_int_equal(file_make_dirs(dir), DS_OK);
    gzFile z = gzopen(path, "wb9");
    assert_non_null(z);
    assert_int_equal(gzwrite(z, text, (unsigned)cut), (int)cut);
    gzclose(z);
    z = gzopen(path, "ab9");
    assert_int_equal(gzwrite(z, text + cut, (unsigned)(bytes - cut)), (int)(bytes - cut));
    gzclose(z);
    return path;
}

// Reads all; text: the string "t" of each good line with '|', a bad one as its fault's number.
static Err read_all(const char *path, char *out, size_t room) {
    Jsonl *j = NULL;
    const JsonValue *object;
    size_t n = 0;
    Err err = jsonl_open(path, &j);
    out[0] = 0;
    while (!err) {
        err = jsonl_next(j, &object);
        if (err && jsonl_fault(j) != JSONL_GOOD) {
            char where[256];
            snprintf(where, sizeof where, "%s:%lld: ", path, (long long)jsonl_line(j));
            assert_non_null(strstr(err_text(), where));
            n += (size_t)snprintf(out + n, room - n, "%d|", (int)jsonl_fault(j));
            err_clear();
            err = DS_OK;
            continue;
        }
        if (err || !object) break;
        const char *s = jsonl_string(jsonl_get(object, "t"), NULL);
        n += (size_t)snprintf(out + n, room - n, "%s|", s ? s : "?");
    }
    jsonl_close(&j);
    assert_null(j);
    return err;
}

#define GOOD "{\"t\": \"one\"}\n\n  \t\r\n{\"t\":\"zw\xc3\xb6i\", \"x\": [1, {}]}\r\n{\"t\": \"three\"}"

static void plain_and_gzip_are_equal(void **state) {
    (void)state;
    char out[256];
    char *plain = write_plain("good.jsonl", GOOD, sizeof GOOD - 1);
    assert_int_equal(read_all(plain, out, sizeof out), DS_OK);
    assert_string_equal(out, "one|zw\xc3\xb6i|three|");
    for (size_t cut = 0; cut < sizeof GOOD; cut += 5) {
        char *gz = write_gzip("good.any-name", GOOD, sizeof GOOD - 1, cut);
        assert_int_equal(read_all(gz, out, sizeof out), DS_OK);
        assert_string_equal(out, "one|zw\xc3\xb6i|three|");
        mem_free(gz);
    }
    mem_free(plain);
}

static void small_files(void **state) {
    (void)state;
    static const char *const texts[][2] = {{"", ""}, {"\n\n", ""}, {"\xef\xbb\xbf{\"t\":\"a\"}\n", "a|"}, {"{}", "?|"}};
    for (int i = 0; i < DS_COUNT(texts); i++) {
        char out[64], *path = write_plain("small.jsonl", texts[i][0], strlen(texts[i][0]));
        assert_int_equal(read_all(path, out, sizeof out), DS_OK);
        assert_string_equal(out, texts[i][1]);
        mem_free(path);
    }
}

static void bad_lines_are_named(void **state) {
    (void)state;
    static const char text[] = "{\"t\":\"a\"}\n"
                               "{\"t\":\n"                     // syntax
                               "{\"t\":\"\xff\"}\n"            // UTF-8
                               "{\"t\":\"\xed\xa0\x80\"}\n"    // a surrogate
                               "[1]\n"                         // no object
                               "{\"t\":\"a\",\"t\":\"b\"}\n"   // the same key twice
                               "{\"t\":\"a\"} {\"t\":\"b\"}\n" // two objects
                               "{\"t\":\"b\"}\n";
    char out[128], *path = write_plain("bad.jsonl", text, sizeof text - 1);
    assert_int_equal(read_all(path, out, sizeof out), DS_OK);
    assert_string_equal(out, "a|3|2|2|3|3|3|b|");
    mem_free(path);
}

// 320 MiB of blank lines in little: given up after 256. Blank lines of a plain file are only blank.
static void blank_lines_are_bounded(void **state) {
    (void)state;
    char *path = scratch("blank.gz"), out[64], *ends = mem_alloc(1 << 20);
    memset(ends, ' ', 1 << 20);
    for (int i = 0; i < 1 << 20; i += 1 << 14) ends[i] = '\n';
    gzFile z = gzopen(path, "wb1");
    for (int i = 0; i < 320; i++) gzwrite(z, ends, 1 << 20);
    gzputs(z, "{\"t\":\"after\"}\n");
    gzclose(z);
    assert_int_equal(read_all(path, out, sizeof out), DS_ERR_DATA);
    assert_string_equal(out, "");
    assert_non_null(strstr(err_text(), "blank.gz: after line "));
    assert_non_null(strstr(err_text(), "256 MiB that hold no record were unpacked from "));
    err_clear();
    mem_free(path);
    path = scratch("blank.jsonl");
    FILE *f = fopen(path, "wb");
    for (int i = 0; i < 260; i++) fwrite(ends, 1, 1 << 20, f);
    fputs("{\"t\":\"after\"}\n", f);
    fclose(f);
    assert_int_equal(read_all(path, out, sizeof out), DS_OK);
    assert_string_equal(out, "after|");
    assert_int_equal(remove(path), 0);
    mem_free(ends);
    mem_free(path);
}

static void long_line_is_refused(void **state) {
    (void)state;
    // A gzip bomb: 64 MiB of blanks in one line, then a good line. It ends as a line that is too long.
    char *path = scratch("bomb.gz"), out[64], *blanks = mem_alloc(1 << 20);
    memset(blanks, ' ', 1 << 20);
    gzFile z = gzopen(path, "wb9");
    for (int i = 0; i < 64; i++) gzwrite(z, blanks, 1 << 20);
    gzputs(z, "\n{\"t\":\"after\"}\n");
    gzclose(z);
    assert_int_equal(read_all(path, out, sizeof out), DS_OK);
    assert_string_equal(out, "1|after|");
    mem_free(path);
    // Just inside the limit.
    char *line = mem_alloc(JSONL_MAX_LINE + 2);
    memset(line, ' ', JSONL_MAX_LINE);
    memcpy(line, "{\"t\":\"b\"}", 9);
    line[JSONL_MAX_LINE] = '\n';
    path = write_plain("long.jsonl", line, JSONL_MAX_LINE + 1);
    assert_int_equal(read_all(path, out, sizeof out), DS_OK);
    assert_string_equal(out, "b|");
    mem_free(path);
    mem_free(line);
    mem_free(blanks);
}

static void torn_gzip_is_an_error(void **state) {
    (void)state;
    char *path = write_gzip("torn.gz", GOOD, sizeof GOOD - 1, 20), *data, out[128];
    size_t bytes;
    assert_int_equal(file_read_all(path, 1 << 16, &data, &bytes), DS_OK);
    assert_int_equal(file_write_atomic(path, data, bytes - 9), DS_OK);
    assert_int_equal(read_all(path, out, sizeof out), DS_ERR_IO);
    err_clear();
    data[bytes / 4] ^= 0x55; // inside the first member
    assert_int_equal(file_write_atomic(path, data, bytes), DS_OK);
    assert_int_not_equal(read_all(path, out, sizeof out), DS_OK);
    err_clear();
    assert_int_equal(read_all("build/tmp/jsonl/none", out, sizeof out), DS_ERR_IO);
    err_clear();
    mem_free(data);
    mem_free(path);
}

static void values_and_strings(void **state) {
    (void)state;
    static const char text[] = "{\"s\":\"a\\u0000b\",\"n\":-7,\"r\":1.5,\"l\":[1,\"x\"],\"o\":{}}\n";
    char *path = write_plain("values.jsonl", text, sizeof text - 1), keys[64], short_keys[4];
    Jsonl *j = NULL;
    const JsonValue *o;
    int64_t n;
    assert_int_equal(jsonl_open(path, &j), DS_OK);
    assert_int_equal(jsonl_bytes(j), (int64_t)sizeof text - 1);
    assert_int_equal(jsonl_next(j, &o), DS_OK);
    assert_memory_equal(jsonl_string(jsonl_get(o, "s"), &n), "a\0b", 3);
    assert_int_equal(n, 3);
    assert_true(jsonl_integer(jsonl_get(o, "n"), &n));
    assert_int_equal(n, -7);
    assert_false(jsonl_integer(jsonl_get(o, "r"), &n));
    assert_null(jsonl_string(jsonl_get(o, "n"), &n));
    assert_null(jsonl_get(o, "missing"));
    assert_int_equal(jsonl_count(jsonl_get(o, "l")), 2);
    assert_int_equal(jsonl_count(jsonl_get(o, "o")), -1);
    assert_int_equal(jsonl_count(NULL), -1);
    assert_string_equal(jsonl_string(jsonl_item(jsonl_get(o, "l"), 1), NULL), "x");
    assert_string_equal(jsonl_key_list(o, keys, sizeof keys), "s, n, r, l, o");
    jsonl_key_list(o, short_keys, sizeof short_keys);
    jsonl_close(&j);
    mem_free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_and_gzip_are_equal), cmocka_unit_test(small_files),
        cmocka_unit_test(bad_lines_are_named),      cmocka_unit_test(long_line_is_refused),
        cmocka_unit_test(blank_lines_are_bounded),  cmocka_unit_test(torn_gzip_is_an_error),
        cmocka_unit_test(values_and_strings)};
    return cmocka_run_group_tests_name("jsonl", tests, NULL, NULL);
}
