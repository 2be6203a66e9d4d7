// test_disk_fails.c: what cannot be looked at now is not taken for missing: one failed look at a disk does not skip,
// prune or replace a good checkpoint, nor begin a record anew.
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "comm/world.h"
#include "io/ckpt_save.h"
#include "io/export_dir.h"
#include "io/starts.h"

#ifdef __SANITIZE_ADDRESS__
const char *__asan_default_options(void); // MPI's plug-ins are unloaded with memory of theirs still held
const char *__asan_default_options(void) { return "detect_leaks=0"; }
#endif

// While it is set, looking at a path with this in it fails.
static const char *fails;

static bool disk_fails(const char *path) {
    if (fails && strstr(path, fails)) return errno = EIO, true;
    return false;
}

int access(const char *path, int mode) { return disk_fails(path) ? -1 : faccessat(AT_FDCWD, path, mode, 0); }

int lstat(const char *path, struct stat *st) {
    return disk_fails(path) ? -1 : fstatat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}

static char dir[] = "/tmp/dschat-disk-XXXXXX";

static void expect(Err got, Err want, const char *words) {
    fails = NULL;
    if (got != want || !strstr(err_text(), words))
        fail_msg("got %d \"%s\", expected %d and the words \"%s\"", got, err_text(), want, words);
    err_clear();
}

static void ok(Err err) { expect(err, DS_OK, ""); }

static const H5Tensor tensor = {.path = "/weights/a", .dtype = DS_F32, .ndim = 1, .shape = {5}};
static const float values[5] = {1, 2, 3, 4, 5};
static const H5Piece piece = {.count = 5, .data = values};

static void save(int64_t step, int keep) {
    const CkptModel model = {"actor", {.tensors = &tensor, .n_tensors = 1, .pieces = &piece, .n_pieces = 1}};
    const CkptOptions o = {dir, "sft", step, MODEL_FILES_SHARDS, keep};
    Kv *kv = kv_create();
    kv_put_i64(kv, "step", step);
    ok(ckpt_save(group_world(), &o, &model, 1, kv, NULL));
    kv_destroy(&kv);
}

static void expect_newest(const char *name) {
    char *path = NULL;
    ok(ckpt_find_newest(group_world(), dir, &path));
    assert_non_null(path);
    assert_string_equal(strrchr(path, '/') + 1, name);
    mem_free(path);
}

static Err take(void *context, int index, int64_t offset, int64_t count, const void *data) {
    (void)context, (void)index;
    return memcmp(data, values + offset, (size_t)count * sizeof *values) ? DS_ERR_DATA : DS_OK;
}

static void test_checkpoints(void **state) {
    (void)state;
    static const char *const what[] = {"sft-000002/DONE", "sft-000002/manifest.txt", "sft-000002/actor.shards",
                                       "/sft-000002"};
    for (int i = 0; i < DS_COUNT(what); i++) {
        char *newest = NULL, *from = mem_printf("%s/sft-000002", dir),
             *aside = mem_printf("%s/.tmp-old-sft-000002", dir);
        ok(file_remove_tree(dir));
        save(1, 5), save(2, 5);
        fails = what[i];
        const Err found = ckpt_find_newest(group_world(), dir, &newest);
        if (found) expect(found, DS_ERR_IO, what[i]);
        else assert_string_equal(strrchr(newest, '/') + 1, "sft-000002"); // it could be opened all the same
        fails = what[i];
        if (ckpt_prune(dir, 1)) err_clear();
        fails = NULL;
        expect_newest("sft-000002");
        // One of its step was set aside, which is older.
        save(3, 5);
        ok(file_rename_durable(from, aside));
        save(2, 5);
        ok(file_remove_tree(aside));
        char *three = mem_printf("%s/sft-000003", dir);
        ok(file_rename_durable(three, aside));
        fails = what[i];
        if (ckpt_clean(dir)) err_clear();
        fails = NULL;
        Kv *kv;
        int64_t step;
        ok(ckpt_read_state(from, &kv));
        ok(kv_get_i64(kv, "step", &step));
        assert_int_equal(step, 2);
        kv_destroy(&kv);
        mem_free(newest), mem_free(from), mem_free(aside), mem_free(three);
    }
}

static void test_shards(void **state) {
    (void)state;
    H5File *f;
    char *path = mem_printf("%s/sft-000002/actor.h5", dir);
    ok(file_remove_tree(dir));
    save(2, 5);
    ok(h5_open_own(path, &f));
    fails = "actor.shards";
    expect(h5_parts_read(f, &tensor, 1, &piece, 1, take, NULL), DS_ERR_IO, "actor.shards: cannot stat");
    ok(h5_parts_read(f, &tensor, 1, &piece, 1, take, NULL));
    h5_close(&f);
    mem_free(path);
}

static void test_starts(void **state) {
    (void)state;
    ok(file_remove_tree(dir));
    ok(file_make_dirs(dir));
    ok(starts_begin(dir, NULL));
    fails = "starts.log";
    ok(starts_begin(dir, NULL));
    expect(starts_begin(dir, NULL), DS_STOP_FINAL, "the last 2 starts");
}

// A working folder that cannot be looked at (a stale one of NFS) was looked at for ever.
static void test_export(void **state) {
    (void)state;
    ExportDir d;
    fails = ".";
    ok(export_dir_begin("tmp-no-such-folder/x", NULL, 0, &d));
    export_dir_end(&d);
    assert_false(file_exists("tmp-no-such-folder"));
}

static int begin(void **state) { return (void)state, mkdtemp(dir) ? 0 : -1; }
static int end(void **state) { return (void)state, file_remove_tree(dir); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_checkpoints), cmocka_unit_test(test_shards),
                                       cmocka_unit_test(test_starts), cmocka_unit_test(test_export)};
    world_init();
    const int failed = cmocka_run_group_tests(tests, begin, end);
    world_finalize();
    return failed;
}
