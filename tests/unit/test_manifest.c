// What a checkpoint holds besides models: the key-value store and the manifest.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "io/kv.h"
#include "io/manifest.h"

static const char own[] = "build/tmp/test_manifest";

static void expect(Err got, Err want, const char *words) {
    char text[2048];
    snprintf(text, sizeof text, "%s", err_text());
    err_clear();
    if (got != want || !strstr(text, words))
        fail_msg("got %d \"%s\", expected %d and the words \"%s\"", got, text, want, words);
}

static void ok(Err err) { expect(err, DS_OK, ""); }

static char *in(const char *dir, const char *name) { // valid until the sixteenth call after it
    static char paths[16][128];
    static int next;
    char *p = paths[next++ % 16];
    snprintf(p, sizeof paths[0], "%s/%s", dir, name);
    return p;
}

static void test_kv(void **state) {
    (void)state;
    Kv *kv = kv_create(), *back;
    H5File *f;
    int64_t v, n;
    double r;
    const float prices[3] = {1.5f, -2, 3};
    const void *data;
    kv_put_i64(kv, "loader.cursor", INT64_MAX - 1);
    kv_put_f64(kv, "scale", 1);
    kv_put_f64(kv, "scale", 65536.5); // replaces
    kv_put_array(kv, "prices", DS_F32, 3, prices);
    kv_put_array(kv, "none", DS_I64, 0, NULL);
    assert_int_equal(kv_bytes(kv), 8 + 8 + 12);
    ok(h5_create(in(own, "kv.h5"), &f));
    ok(kv_write(kv, f));
    ok(h5_commit(&f));
    ok(h5_open_checked(in(own, "kv.h5"), &f));
    ok(kv_read(f, &back));
    h5_close(&f);
    ok(kv_get_i64(back, "loader.cursor", &v));
    assert_true(v == INT64_MAX - 1);
    ok(kv_get_f64(back, "scale", &r));
    assert_true(r == 65536.5);
    ok(kv_get_array(back, "prices", DS_F32, &n, &data));
    assert_int_equal(n, 3);
    assert_memory_equal(data, prices, sizeof prices);
    ok(kv_get_array(back, "none", DS_I64, &n, &data));
    assert_int_equal(n, 0);
    assert_true(kv_has(back, "none") && !kv_has(back, "some"));
    expect(kv_get_i64(back, "scale", &v), DS_ERR_DATA, "entry \"scale\" holds fp64, expected int64");
    expect(kv_get_i64(back, "some", &v), DS_ERR_DATA, "kv.h5: has no entry \"some\"");
    expect(kv_copy_array(back, "prices", DS_F32, 2, &r), DS_ERR_DATA, "has 3 elements, expected 2");
    kv_destroy(&back);
    kv_destroy(&kv);
}

static void test_manifest(void **state) {
    (void)state;
    Manifest m = {0}, back = {0};
    Xxh128Hex a, b;
    size_t bytes;
    ok(file_make_dirs(in(own, "m/actor.shards")));
    ok(file_write_atomic(in(own, "m/actor.shards/00000.h5"), "0123456789", 10));
    ok(file_write_atomic(in(own, "m/trainer.h5"), "abc", 3));
    ok(manifest_add_file(&m, in(own, "m"), "trainer.h5"));
    ok(manifest_add_file(&m, in(own, "m"), "actor.shards/00000.h5"));
    manifest_add_rows(&m, "actor.h5", "/weights/x", (H5Runs){0, 10, 0}, hash_xxh128("x", 1));
    manifest_add_rows(&m, "actor.h5", "/weights/y", (H5Runs){3, 4, 4}, hash_xxh128("x", 1)); // one run
    manifest_add_rows(&m, "actor.h5", "/weights/y", (H5Runs){3, 8, 4}, hash_xxh128("x", 1));
    ok(manifest_write(&m, in(own, "m"), &a));
    ok(manifest_read(&back, in(own, "m"), &b));
    assert_string_equal(a.hex, b.hex);
    assert_int_equal(back.n, 5);
    assert_int_equal(strncmp(back.line[2], "rows 0 10 ", 10), 0);
    assert_int_equal(strncmp(back.line[3], "rows 3 4 ", 9), 0);
    char *line = mem_printf("runs 3 8 %s 4 actor.h5:/weights/y", hash_xxh128("x", 1).hex);
    assert_string_equal(back.line[4], line);
    mem_free(line);
    ok(manifest_check_sizes(&back, in(own, "m")));
    ok(manifest_check_hashes(&back, in(own, "m"), 0, 1));
    ok(file_write_atomic(in(own, "m/actor.shards/00000.h5"), "0123456780", 10));
    ok(manifest_check_sizes(&back, in(own, "m")));
    expect(manifest_check_hashes(&back, in(own, "m"), 0, 1), DS_ERR_DATA, "actor.shards/00000.h5: is damaged");
    ok(manifest_check_hashes(&back, in(own, "m"), 1, 2)); // the other rank's share
    ok(file_write_atomic(in(own, "m/trainer.h5"), "abcd", 4));
    expect(manifest_check_sizes(&back, in(own, "m")), DS_ERR_DATA, "trainer.h5: has 4 bytes, its manifest says 3");
    expect(manifest_add_file(&m, own, "../x"), DS_ERR_BUG, "not a legal name");
    manifest_free(&m), manifest_free(&back);
    const char *const bad[] = {"file 1 00 x\n",
                               "file -1 00000000000000000000000000000000 x\n",
                               "hello\n",
                               "file 1 00000000000000000000000000000000 ../x\n",
                               "file 1 00000000000000000000000000000000 /etc/passwd\n",
                               "file 1 00000000000000000000000000000000 a/b\n",
                               "file 1 00000000000000000000000000000000 x",
                               "\n",
                               "file 1 00000000000000000000000000000000 a.shards/../b\n",
                               "rows 1 2 00000000000000000000000000000000 \n",
                               "runs 1 2 00000000000000000000000000000000 1\n",
                               "runs 1 2 00000000000000000000000000000000 actor.h5:/x\n",
                               "runs 1 2 0000000000000000000000000000000 1 actor.h5:/x\n",
                               "file 1 00000000000000000000000000000000 a.shards/.b\n"};
    for (int i = 0; i < DS_COUNT(bad); i++) {
        expect(manifest_unpack(&m, bad[i], strlen(bad[i]), "test"), DS_ERR_DATA, "line 1 is damaged");
        manifest_free(&m);
    }
    char *text = manifest_pack(&m, &bytes);
    assert_int_equal(bytes, 0);
    mem_free(text);
}

static int fresh(void **state) {
    (void)state;
    return file_remove_tree(own) || file_make_dirs(own);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kv),
        cmocka_unit_test(test_manifest),
    };
    return cmocka_run_group_tests_name("manifest", tests, fresh, NULL);
}
