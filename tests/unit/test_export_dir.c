// test_export_dir.c: a folder of files appears as a whole, or nothing of it does.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <dlfcn.h>

#include "base/file.h"
#include "base/mem.h"
#include "io/export_dir.h"

#define HERE "build/tmp/test_export_dir"
#define must(call) assert_int_equal((call), DS_OK)

// A file system that leaves an entry out where others have just been removed.
static bool forgets;

struct dirent *readdir(DIR *d) {
    struct dirent *(*real)(DIR *) = (struct dirent * (*)(DIR *)) dlsym(RTLD_NEXT, "readdir");
    struct dirent *e = real(d);
    return e && forgets && !strcmp(e->d_name, "d") ? real(d) : e;
}

static const char *const names[] = {"config.json", "model-*"};

static void put(const char *folder, const char *name, const char *text) {
    char *path = mem_printf("%s/%s", folder, name);
    must(file_write_atomic(path, text, strlen(text)));
    mem_free(path);
}

static void begin(const char *dir, ExportDir *d) {
    must(export_dir_begin(dir, names, DS_COUNT(names), d));
    for (const char *name = "abcdefgh"; *name; name++) put(d->work, (char[2]){*name, 0}, "new");
}

// Entries of a folder; last: the name of the one that is listed last.
static int count(const char *folder, char last[256]) {
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (last) snprintf(last, 256, "%s", e->d_name);
        n++;
    }
    closedir(d);
    return n;
}

static void refused(Err got, const char *words) {
    assert_int_equal(got, DS_ERR_IO);
    if (!strstr(err_text(), words)) fail_msg("\"%s\" does not hold \"%s\"", err_text(), words);
    err_clear();
}

static void whole(void **state) {
    (void)state;
    ExportDir d;
    begin(HERE "/new/folder//", &d);
    assert_false(file_exists(HERE "/new/folder"));
    must(export_dir_commit(&d));
    export_dir_end(&d);
    assert_int_equal(count(HERE "/new/folder", NULL), 8);
    assert_int_equal(count(HERE "/new", NULL), 1);
    must(file_make_dirs(HERE "/there"));
    put(HERE "/there", "mine", "old");
    begin(HERE "/there", &d);
    must(export_dir_commit(&d));
    export_dir_end(&d);
    assert_int_equal(count(HERE "/there", NULL), 9);
}

static void left_out(void **state) {
    (void)state;
    ExportDir d;
    must(file_make_dirs(HERE "/some"));
    begin(HERE "/some", &d);
    forgets = true;
    refused(export_dir_commit(&d), "not empty");
    forgets = false;
    export_dir_end(&d);
    assert_int_equal(count(HERE "/some", NULL), 0);
}

static void nothing(void **state) {
    (void)state;
    ExportDir d;
    begin(HERE "/x/y/z", &d);
    export_dir_end(&d); // it failed before the commit
    assert_false(file_exists(HERE "/x"));
    must(file_make_dirs(HERE "/own"));
    begin(HERE "/own/z", &d);
    export_dir_end(&d);
    assert_int_equal(count(HERE "/own", NULL), 0);
    put(HERE "/own", "model-00001-of-00002.safetensors", "old");
    refused(export_dir_begin(HERE "/own", names, DS_COUNT(names), &d), "model-00001-of-00002.safetensors: is there");
    assert_int_equal(count(HERE "/own", NULL), 1);
    refused(export_dir_begin(HERE "/own/model-00001-of-00002.safetensors", names, DS_COUNT(names), &d), "not a folder");
}

// A file that appears meanwhile in the place of the last one to be moved stays, and the others are taken back.
static void conflict(void **state) {
    (void)state;
    ExportDir d;
    char last[256], *path;
    char *data;
    size_t bytes;
    must(file_make_dirs(HERE "/busy"));
    begin(HERE "/busy", &d);
    assert_int_equal(count(d.work, last), 8);
    put(HERE "/busy", last, "theirs");
    refused(export_dir_commit(&d), "is there already");
    export_dir_end(&d);
    assert_int_equal(count(HERE "/busy", NULL), 1);
    path = mem_printf(HERE "/busy/%s", last);
    must(file_read_all(path, 10, &data, &bytes));
    assert_string_equal(data, "theirs");
    mem_free(data);
    mem_free(path);
}

static int setup(void **state) {
    (void)state;
    return file_remove_tree(HERE) || file_make_dirs(HERE);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(whole), cmocka_unit_test(left_out), cmocka_unit_test(nothing),
                                       cmocka_unit_test(conflict)};
    return cmocka_run_group_tests_name("export_dir", tests, setup, NULL);
}
