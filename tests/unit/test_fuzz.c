// test_fuzz.c: what lies in tests/fuzz/corpus (seeds, and what once broke a parser) through the targets of tests/fuzz:
// a run of `make fuzz` without clang and without anything new.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>

#include "base/file.h"
#include "base/mem.h"

#define TARGETS(X)                                                                                                     \
    X(blob)                                                                                                            \
    X(h5)                                                                                                              \
    X(state) X(sums) X(bpe) X(chat) X(config) X(gguf) X(jsonl) X(manifest) X(ncheader) X(params) X(safetensors)        \
        X(sentencepiece) X(spec) X(text) X(tokenizer_json) X(tokenizer_pair)

#define DECLARE(name) int fuzz_##name(const uint8_t *data, size_t n);
TARGETS(DECLARE)

static void replay(const char *name, int (*target)(const uint8_t *data, size_t n)) {
    char *folder = mem_printf("tests/fuzz/corpus/%s", name);
    DIR *d = opendir(folder);
    int seeds = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        char *data, *path = mem_printf("%s/%s", folder, e->d_name);
        size_t bytes;
        assert_int_equal(file_read_all(path, 1 << 20, &data, &bytes), DS_OK);
        print_message("%s\n", path);
        assert_int_equal(target((const uint8_t *)data, bytes), 0);
        mem_free(data), mem_free(path);
        seeds++;
    }
    closedir(d);
    mem_free(folder);
    assert_true(seeds > 0);
}

#define TEST(name)                                                                                                     \
    static void test_##name(void **state) {                                                                            \
        (void)state;                                                                                                   \
        replay(#name, fuzz_##name);                                                                                    \
    }
TARGETS(TEST)

int main(void) {
#define ROW(name) cmocka_unit_test(test_##name),
    const struct CMUnitTest tests[] = {TARGETS(ROW)};
    return cmocka_run_group_tests_name("fuzz", tests, NULL, NULL);
}
