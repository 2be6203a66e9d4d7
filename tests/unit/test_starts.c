// test_starts.c: which starts of a run count as without progress.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "io/starts.h"

static char dir[] = "/tmp/dschat-starts-XXXXXX";

static void start(const char *newest, int code) {
    assert_int_equal(starts_begin(dir, newest), DS_OK);
    if (code >= 0) assert_int_equal(starts_end(dir, (Err)code), DS_OK);
}

static void refused(const char *newest, const char *words) {
    assert_int_equal(starts_begin(dir, newest), DS_STOP_FINAL);
    if (!strstr(err_text(), words)) fail_msg("\"%s\" is not in \"%s\"", words, err_text());
    err_clear();
}

static void forget(void) {
    char *path = mem_printf("%s/starts.log", dir);
    unlink(path);
    mem_free(path);
}

enum { DIES = -1 };

static void test_counted(void **state) {
    (void)state;
    start(NULL, DIES);
    start(NULL, DS_ERR_BUG);
    refused(NULL, "the last 2 starts all found the same newest checkpoint (none)");
    refused(NULL, "was killed or died without a word");
    refused(NULL, "ended with 6");
    refused(NULL, "remove");
    start("x/sft-000010", DIES); // progress
    start("x/sft-000010", DS_STOP_REQUEUE);
    refused("x/sft-000010", "(sft-000010)");
    start("x/sft-000110", DIES); // another name with the same end
    start("x/ppo-000010", DS_ERR_NUMERIC);
    start("x/ppo-000010", DS_ERR_NUMERIC);
    refused("x/ppo-000010", "ended with 5");
    forget();
    start("x/ppo-000010", DIES);
    forget();
}

// A wrong path, a full disk, a wish of the user: however often, and they do not hide what counts.
static void test_not_counted(void **state) {
    (void)state;
    for (int i = 0; i < 5; i++) start(NULL, DS_ERR_DATA);
    for (int i = 0; i < 5; i++) start(NULL, DS_ERR_IO);
    for (int i = 0; i < 5; i++) start(NULL, DS_ERR_PARAMS);
    for (int i = 0; i < 5; i++) start(NULL, DS_STOP_FINAL);
    start(NULL, DIES);
    start(NULL, DS_ERR_IO);
    start(NULL, DIES);
    start("x/sft-000003", DIES);
    start("x/sft-000003", DS_OK);
    start("x/sft-000003", DIES);
    start("x/sft-000003", DS_ERR_IO);
    start("x/sft-000003", DIES);
    refused("x/sft-000003", "the last 2 starts");
    forget();
}

static int open_folder(void **state) { return (void)state, mkdtemp(dir) ? 0 : -1; }
static int remove_folder(void **state) { return (void)state, file_remove_tree(dir); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counted), cmocka_unit_test(test_not_counted)};
    return cmocka_run_group_tests(tests, open_folder, remove_folder);
}
