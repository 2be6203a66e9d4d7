// test_text.c: what a terminal and a log get of bytes that others wrote: text.h's visible form, and that err and log
// use it; where output goes: output.h.
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

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/output.h"
#include "base/text.h"

#define DIR_ "build/tmp/test_text"
#define must(call) assert_int_equal((call), DS_OK)

static const struct {
    const char *raw, *shown;
} cases[] = {
    {"", ""},
    {"plain Text 1, 2 ~", "plain Text 1, 2 ~"},
    {"Gr\xc3\xbc\xc3\x9f"
     "e \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80",
     "Gr\xc3\xbc\xc3\x9f"
     "e \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80"},
    {"\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"},
    {"a\rb\bc\x7f"
     "d\te",
     "a\\x0db\\x08c\\x7f"
     "d\te"},
    {"\xc2\x9b"
     "2J \xc2\x85 \xc2\xa0",
     "\\u009b2J \\u0085 \xc2\xa0"},
    {"\xe2\x80\xae"
     "evil\xe2\x80\xac \xe2\x81\xa6x\xe2\x81\xa9 \xe2\x80\xa8\xe2\x80\xa9",
     "\\u202eevil\\u202c \\u2066x\\u2069 \\u2028\\u2029"},
    {"\xff \x9b \xc3( \xe2\x82 \xed\xa0\x80 \xc0\x9b", "\\xff \\x9b \\xc3( \\xe2\\x82 \\xed\\xa0\\x80 \\xc0\\x9b"}};

static void forms(void **state) {
    (void)state;
    char out[256];
    for (int i = 0; i < DS_COUNT(cases); i++) {
        const size_t n = text_visible(cases[i].raw, (int64_t)strlen(cases[i].raw), true, out, sizeof out);
        assert_string_equal(out, cases[i].shown);
        assert_int_equal(n, strlen(cases[i].shown));
        char *fresh = text_shown(cases[i].raw);
        assert_string_equal(fresh, cases[i].shown);
        mem_free(fresh);
    }
    text_visible("a\nb\0c", 5, true, out, sizeof out);
    assert_string_equal(out, "a\nb\\x00c");
    text_visible("a\nb\0c", 5, false, out, sizeof out);
    assert_string_equal(out, "a\\x0ab\\x00c");
}

// c in so many bytes, as RFC 3629 lays the bits, whether it allows that or not.
static void lay(uint32_t c, int len, char *out) {
    static const int heads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (int i = len - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 63));
    out[0] = (char)(heads[len] | c);
}

// Every number that four bytes hold: which are characters, each in its shortest form alone, and which of them may reach
// a terminal: no control, nothing that ends a line or turns its direction.
static void characters(void **state) {
    (void)state;
    static const uint32_t unsafe[] = {0x061C, 0x2028, 0x2029, 0x202A, 0x202B, 0x202C,
                                      0x202D, 0x202E, 0x2066, 0x2067, 0x2068, 0x2069};
    for (uint32_t c = 0; c < 0x200000; c++) {
        const int need = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        const bool legal = c <= 0x10FFFF && !(c >= 0xD800 && c < 0xE000);
        bool plain = c >= 0xA0 || (c >= 0x20 && c < 0x7F) || c == '\t' || c == '\n';
        for (int len = need; len <= 4; len++) {
            char s[5] = {0};
            lay(c, len, s);
            int n;
            const uint32_t got = text_utf8_next(s, len, &n);
            const bool fine = legal && len == need;
            if ((text_utf8_bad(s, len) < 0) != fine || got != (fine ? c : 0xFFFD) || n != (fine ? len : 1))
                fail_msg("%x in %d bytes: %x, %d bytes", c, len, got, n);
        }
        for (int i = 0; i < DS_COUNT(unsafe); i++) plain = plain && c != unsafe[i];
        if (legal && text_is_plain(c) != plain) fail_msg("%x: expected %d", c, plain);
    }
}

// Whatever the bytes: no command, valid UTF-8; cut at a character's end where there is no room.
static void all_bytes(void **state) {
    (void)state;
    unsigned x = 7;
    for (int round = 0; round < 20000; round++) {
        char raw[24], out[200];
        for (int i = 0; i < (int)sizeof raw; i++) raw[i] = (char)((x = x * 1103515245u + 12345u) >> 16);
        const size_t room = 1 + (size_t)round % sizeof out, n = text_visible(raw, sizeof raw, false, out, room);
        assert_true(n < room && out[n] == 0 && text_utf8_bad(out, (int64_t)n) < 0);
        for (size_t i = 0; i < n;) {
            int len;
            const uint32_t c = text_utf8_next(out + i, (int64_t)(n - i), &len);
            assert_true(text_is_plain(c) && c != '\n');
            i += (size_t)len;
        }
    }
    char out[7];
    assert_int_equal(text_visible("ab\x1b"
                                  "c",
                                  4, false, out, sizeof out),
                     6);
    assert_int_equal(text_visible("abc\x1b"
                                  "c",
                                  5, false, out, sizeof out),
                     3);
}

static void expect_plain_file(const char *path, const char *words) {
    char *data;
    size_t bytes;
    must(file_read_all(path, 1 << 20, &data, &bytes));
    for (size_t i = 0; i < bytes; i++) assert_true(data[i] == '\n' || (data[i] >= ' ' && data[i] <= '~'));
    assert_non_null(strstr(data, words));
    mem_free(data);
}

static void errors_and_logs(void **state) {
    (void)state;
    err_set(DS_ERR_DATA, "key \"%s\" of %s", "\x1b[2J\nerror: none", "\xe2\x80\xaeh5.evil");
    assert_string_equal(err_text(), "key \"\\x1b[2J\\x0aerror: none\" of \\u202eh5.evil");
    err_clear();
    must(log_to_file(DIR_ "/log.txt"));
    log_info("  after   %s", "\x1b]0;owned\x07\xc2\x9bx");
    log_warn("%s", "\r\x08\x7f");
    log_progress("sft", 1, 1, 3, "tokens/s", "loss \x1b[0m", false);
    must(log_to_file(NULL));
    expect_plain_file(DIR_ "/log.txt", "  after   \\x1b]0;owned\\x07\\u009bx");
    expect_plain_file(DIR_ "/log.txt", "warning: \\x0d\\x08\\x7f");
    expect_plain_file(DIR_ "/log.txt", "loss \\x1b[0m");
    FILE *f = fopen(DIR_ "/parts", "w");
    text_print(f, "x\x1b", 2, true);
    text_print(f, "[0m\n", 4, true);
    fclose(f);
    expect_plain_file(DIR_ "/parts", "x\\x1b[0m\n");
}

// ---- where output goes ----

static void refuses(Err got, const char *words) {
    assert_int_equal(got, DS_ERR_IO);
    if (!strstr(err_text(), words)) fail_msg("\"%s\" does not hold \"%s\"", err_text(), words);
    err_clear();
}

static void links_are_not_followed(void **state) {
    (void)state;
    int fd;
    must(file_write_atomic(DIR_ "/victim", "old", 3));
    assert_int_equal(symlink("victim", DIR_ "/link"), 0);
    assert_int_equal(symlink("nowhere", DIR_ "/dangling"), 0);
    assert_int_equal(mkfifo(DIR_ "/fifo", 0600), 0);
    refuses(output_check(DIR_ "/link"), "is a symbolic link");
    refuses(output_check(DIR_ "/dangling"), "is a symbolic link");
    refuses(output_check(DIR_ "/fifo"), "no regular file");
    refuses(output_append(DIR_ "/link", &fd), "is a symbolic link");
    refuses(output_append(DIR_ "/fifo", &fd), "no regular file");
    refuses(log_to_file(DIR_ "/dangling"), "is a symbolic link");
    assert_false(file_exists(DIR_ "/nowhere"));
    must(output_check(DIR_ "/victim"));
    must(output_check(DIR_ "/missing"));
    // Replaced as a whole: the link, not what it points to.
    must(file_write_atomic(DIR_ "/link", "new", 3));
    char *data;
    size_t bytes;
    must(file_read_all(DIR_ "/victim", 10, &data, &bytes));
    assert_string_equal(data, "old");
    mem_free(data);
}

static void folders(void **state) {
    (void)state;
    must(output_folder(DIR_ "/a/b"));
    must(output_folder_inside(DIR_ "/a/b/models"));
    chmod(DIR_ "/a/b", 0777);
    refuses(output_folder(DIR_ "/a/b"), "chmod o-w");
    chmod(DIR_ "/a/b", 01777);
    must(output_folder(DIR_ "/a/b"));
    chmod(DIR_ "/a/b", 0775);
    must(output_folder(DIR_ "/a/b"));
    assert_int_equal(symlink("a/b", DIR_ "/mine"), 0);
    must(output_folder(DIR_ "/mine")); // as the user named it
    refuses(output_folder_inside(DIR_ "/mine"), "is a symbolic link");
    refuses(output_folder_inside(DIR_ "/victim"), "is no folder");
    if (geteuid() == 0) { // only the superuser can make a folder somebody else's
        assert_int_equal(chown(DIR_ "/a/b", 12345, 12345), 0);
        refuses(output_folder(DIR_ "/a/b"), "belongs to user 12345");
        assert_int_equal(chown(DIR_ "/a/b", geteuid(), getegid()), 0);
        must(output_folder(DIR_ "/a/b"));
    }
}

static mode_t mode_of(const char *path) {
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

static void umask_decides(void **state) {
    (void)state;
    static const struct {
        mode_t mask, file, folder;
    } masks[] = {{022, 0644, 0755}, {077, 0600, 0700}, {002, 0664, 0775}, {027, 0640, 0750}, {0, 0666, 0775}};
    const mode_t before = umask(0);
    for (int i = 0; i < DS_COUNT(masks); i++) {
        umask(masks[i].mask);
        must(file_remove_tree(DIR_ "/m"));
        must(output_folder(DIR_ "/m"));
        must(file_write_atomic(DIR_ "/m/f", "x", 1));
        must(log_to_file(DIR_ "/m/log.txt"));
        must(log_to_file(NULL));
        assert_int_equal(mode_of(DIR_ "/m"), masks[i].folder);
        assert_int_equal(mode_of(DIR_ "/m/f"), masks[i].file);
        assert_int_equal(mode_of(DIR_ "/m/log.txt"), masks[i].file);
    }
    umask(before);
}

static int setup(void **state) {
    (void)state;
    return file_remove_tree(DIR_) || file_make_dirs(DIR_);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(forms),
                                       cmocka_unit_test(characters),
                                       cmocka_unit_test(all_bytes),
                                       cmocka_unit_test(errors_and_logs),
                                       cmocka_unit_test(links_are_not_followed),
                                       cmocka_unit_test(folders),
                                       cmocka_unit_test(umask_decides)};
    return cmocka_run_group_tests_name("text", tests, setup, NULL);
}
