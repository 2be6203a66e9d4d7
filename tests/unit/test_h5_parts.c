// Tensors in pieces: long ones, pieces that do not tile, and hashes as a stranger could have written them. What is kept
// in pieces and read by others is test_modelfile's and test_ckpt's.
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
#include "io/h5_attr.h"
#include "io/modelfile.h"

#define DIR_ "build/tmp/test_h5_parts"
#define F(name) DIR_ "/" name

static void expect(Err got, Err want, const char *words) {
    char text[2048];
    snprintf(text, sizeof text, "%s", err_text());
    err_clear();
    if (got != want || !strstr(text, words))
        fail_msg("got %d \"%s\", expected %d and the words \"%s\"", got, text, want, words);
}

static void ok(Err err) {
    char text[2048];
    snprintf(text, sizeof text, "%s", err_text());
    err_clear();
    if (err) fail_msg("%d: %s", err, text);
}

// out[] = all of tensor t, whatever holds it.
static Err read_all(const char *path, const H5Tensor *t, DType as, void *out) {
    Err err = DS_OK;
    H5File *f = NULL;
    H5Parts *p = NULL;
    DS_TRY(h5_open_checked(path, &f));
    DS_TRY(h5_parts_open(f, t, 1, &p));
    DS_TRY(h5_parts_get(p, 0, as, (H5Runs){.count = h5_tensor_count(t)}, out));
done:
    h5_parts_close(&p);
    h5_close(&f);
    return err;
}

// Rows longer than H5_ROW_MAX are cut; a piece that begins inside a row of another layout.
static void test_long_tensor(void **state) {
    (void)state;
    const H5Tensor t = {.path = "/adam_m/big", .dtype = DS_BF16, .ndim = 2, .shape = {3, H5_ROW_MAX / 2 + 1}};
    int64_t total = h5_tensor_count(&t), cut = 1000003;
    uint16_t *x = MEM_NEW(uint16_t, total), *y = MEM_NEW(uint16_t, total);
    for (int64_t i = 0; i < total; i++) x[i] = (uint16_t)(i * 40503u >> 3);
    H5Rows rows = {0};
    const H5Piece a = {0, 0, cut, 0, x}, b = {0, cut, total - cut, 0, x + cut};
    ok(h5_parts_write_shard(F("big.h5"), 0, &t, 1, &a, 1, NULL, NULL, &rows));
    ok(h5_parts_write_shard(F("big.h5"), 5, &t, 1, &b, 1, NULL, NULL, &rows));
    ok(h5_parts_write_shard(F("big.h5"), 7, &t, 1, NULL, 0, NULL, NULL, &rows)); // nothing to say
    assert_false(file_exists(F("big.shards/00007.h5")));
    assert_int_equal(rows.n, 3);
    ok(modelfile_write_master(F("big.h5"), NULL, &t, 1, &rows));
    h5_rows_free(&rows);
    H5File *f;
    ok(read_all(F("big.h5"), &t, DS_BF16, y));
    ok(h5_open_checked(F("big.h5"), &f));
    assert_memory_equal(x, y, (size_t)total * 2);
    ok(h5_parts_verify(f, &t, 1, 0, 1));
    h5_close(&f);
    mem_free(x), mem_free(y);
}

// Strips longer than a row of hashes, of short runs and of runs that are longer themselves.
static void test_long_strips(void **state) {
    (void)state;
    const int64_t shapes[2][2] = {{3000, 3001}, {2, H5_ROW_MAX + 10}}, cuts[2] = {1500, H5_ROW_MAX + 3};
    for (int i = 0; i < 2; i++) {
        const H5Tensor t = {.path = "/w", .dtype = DS_BF16, .ndim = 2, .shape = {shapes[i][0], shapes[i][1]}};
        int64_t total = h5_tensor_count(&t), cols = t.shape[1];
        uint16_t *x = MEM_NEW(uint16_t, total), *y = MEM_NEW(uint16_t, total);
        H5Rows rows = {0};
        for (int s = 0; s < 2; s++) {
            int64_t col = s ? cuts[i] : 0, run = s ? cols - cuts[i] : cuts[i], n = t.shape[0] * run;
            for (int64_t k = 0; k < n; k++) y[k] = (uint16_t)((col + k / run * cols + k % run) * 40503u >> 3);
            const H5Piece p = {.first = col, .count = n, .run = run, .data = y};
            ok(h5_parts_write_shard(F("long.h5"), s, &t, 1, &p, 1, NULL, NULL, &rows));
        }
        assert_int_equal(rows.n, i ? 5 : 4);
        for (int64_t k = 0; k < rows.n; k++) assert_true(rows.row[k].runs.count <= H5_ROW_MAX);
        ok(modelfile_write_master(F("long.h5"), NULL, &t, 1, &rows));
        h5_rows_free(&rows);
        H5File *f;
        ok(read_all(F("long.h5"), &t, DS_BF16, x));
        ok(h5_open_checked(F("long.h5"), &f));
        for (int64_t k = 0; k < total; k++)
            if (x[k] != (uint16_t)(k * 40503u >> 3)) fail_msg("[%d]: element %d", i, (int)k);
        ok(h5_parts_verify(f, &t, 1, 0, 1));
        h5_close(&f);
        mem_free(x), mem_free(y);
    }
}

// [4][6] by one rank as these pieces; the error of the master over them.
static Err master_of(const H5Piece *pieces, int n, const char *path) {
    static const float x[24] = {0};
    const H5Tensor t = {.path = "/w", .dtype = DS_F32, .ndim = 2, .shape = {4, 6}};
    H5Rows rows = {0};
    H5Piece with_data[8];
    for (int i = 0; i < n; i++) with_data[i] = pieces[i], with_data[i].data = x;
    ok(file_remove_tree(F("bad.shards")));
    Err err = h5_parts_write_shard(path, 0, &t, 1, with_data, n, NULL, NULL, &rows);
    if (!err) err = modelfile_write_master(path, NULL, &t, 1, &rows);
    h5_rows_free(&rows);
    return err;
}

static void test_wrong_pieces(void **state) {
    (void)state;
    const H5Piece good[] = {{0, 0, 8, 2, NULL}, {0, 2, 2, 4, NULL}, {0, 4, 2, 0, NULL}, {0, 8, 12, 4, NULL}};
    const struct {
        int at;
        H5Piece p;
        const char *words;
    } bad[] = {{0, {0, 0, 6, 2, NULL}, "the rows of /w leave a hole at element 18 of 24"},
               {0, {0, 0, 4, 1, NULL}, "leave a hole at element 1 of 24"},
               {0, {0, 0, 12, 3, NULL}, "overlap at element 2 of 24"},
               {1, {0, 2, 3, 4, NULL}, "overlap at element 4 of 24"},
               {2, {0, 5, 1, 0, NULL}, "leave a hole at element 4 of 24"},
               {3, {0, 7, 10, 5, NULL}, "overlap at element 7 of 24"},
               {3, {0, 9, 12, 4, NULL}, "12 elements from 9 on in runs of 4 (0: one), lies outside it"},
               {3, {0, 8, 16, 4, NULL}, "lies outside it"},
               {3, {0, 8, 11, 4, NULL}, "lies outside it"},
               {3, {0, 8, 12, -4, NULL}, "lies outside it"}};
    ok(master_of(good, 4, F("bad.h5")));
    for (int i = 0; i < DS_COUNT(bad); i++) {
        H5Piece p[4];
        memcpy(p, good, sizeof p);
        p[bad[i].at] = bad[i].p;
        expect(master_of(p, 4, F("bad.h5")), DS_ERR_BUG, bad[i].words);
    }
}

static void expect_same_file(const char *a, const char *b) {
    FileMap x, y;
    ok(file_map(a, &x));
    ok(file_map(b, &y));
    assert_int_equal(x.bytes, y.bytes);
    assert_memory_equal(x.data, y.data, x.bytes);
    file_unmap(&x), file_unmap(&y);
}

// The only strip of a matrix is the flat range it has always been, to the byte.
static void test_full_strip(void **state) {
    (void)state;
    for (int64_t run = 0; run <= 24; run += run ? 18 : 6) { // none, the width, the whole
        char path[64];
        snprintf(path, sizeof path, F("full%d/bad.h5"), (int)run);
        ok(master_of(&(H5Piece){.count = 24, .run = run}, 1, path));
        if (!run) continue;
        expect_same_file(F("full0/bad.h5"), path);
        snprintf(path, sizeof path, F("full%d/bad.shards/00000.h5"), (int)run);
        expect_same_file(F("full0/bad.shards/00000.h5"), path);
    }
}

// The hashes of /w [4][6] as a stranger could have written them.
static void test_hostile_hashes(void **state) {
    (void)state;
    const int64_t shape[2] = {4, 6};
    const H5Tensor t = {.path = "/w", .dtype = DS_F32, .ndim = 2, .shape = {4, 6}};
    float x[24], left[8], right[16];
    for (int i = 0; i < 24; i++) x[i] = (float)i;
    for (int i = 0; i < 8; i++) left[i] = (float)(i / 2 * 6 + i % 2);
    for (int i = 0; i < 16; i++) right[i] = (float)(i / 4 * 6 + 2 + i % 4);
    Xxh128Hex a = hash_xxh128(left, sizeof left), b = hash_xxh128(right, sizeof right), all = hash_xxh128(x, sizeof x);
    // formats of the text, with the hashes of the left strip, the right one and the whole
    const struct {
        const char *format, *words; // NULL: accepted
    } cases[] = {{"0 8 %1$s 2\n2 16 %2$s 4\n", NULL},
                 {"2 16 %2$s 4\n0 8 %1$s 2\n", NULL},
                 {"0 24 %3$s\n", NULL},
                 {"0 24 %3$s 6\n", NULL},
                 {"0 8 %2$s 2\n2 16 %2$s 4\n", "is damaged: elements 0 to 19, 2 of each row of 6"},
                 {"0 8 %1$s\n2 16 %2$s 4\n", "overlap at element 2 "},
                 {"0 8 %1$s 2\n", "the hashes of /w leave a hole at element 2 of 24"},
                 {"0 8 %1$s 2\n2 16 %2$s 4\n2 16 %2$s 4\n", "overlap at element 2 "},
                 {"0 8 %1$s 2\n3 12 %2$s 3\n", "a hole at element 2 "},
                 {"0 8 %1$s 2\n3 16 %2$s 4\n", "are not legal"},
                 {"0 8 %1$s 2\n2 15 %2$s 4\n", "are not legal"},
                 {"0 8 %1$s 2\n2 20 %2$s 4\n", "are not legal"},
                 {"0 8 %1$s 2\n-2 16 %2$s 4\n", "are not legal"},
                 {"0 8 %1$s 2\n999999999999999999 16 %2$s 4\n", "are not legal"},
                 {"0 8 %1$s 2\n2 999999999999999999 %2$s 4\n", "are damaged"},
                 {"0 8 %1$s 2\n2 16 %2$s 16\n", "are damaged"},
                 {"0 8 %1$s 0\n2 16 %2$s 4\n", "are damaged"},
                 {"0 8 %1$s -2\n2 16 %2$s 4\n", "are damaged"},
                 {"0 8 %1$s 2 \n2 16 %2$s 4\n", "are damaged"},
                 {"0 8 %1$s 2 2\n2 16 %2$s 4\n", "are damaged"},
                 {"0 8 %1$s 2\n2 16 %2$s 4", "are damaged"},
                 {"0 8 %1$s %1$s%2$s%3$s\n", "are damaged"},
                 {"0 8 %1$s %4$200d\n2 16 %2$s 4\n", "are damaged"},
                 {"0 0 %1$s\n0 24 %3$s\n", "are damaged"}};
    for (int i = 0; i < DS_COUNT(cases); i++) {
        H5File *f;
        char text[400];
        snprintf(text, sizeof text, cases[i].format, a.hex, b.hex, all.hex, 2);
        ok(h5_create(F("hash.h5"), &f));
        ok(h5_write_new(f, "/w", DS_F32, 2, shape, x));
        ok(h5_attr_put_str(f, "/w", "xxh3_128", text));
        ok(h5_commit(&f));
        ok(h5_open_checked(F("hash.h5"), &f));
        expect(h5_parts_verify(f, &t, 1, 0, 1), cases[i].words ? DS_ERR_DATA : DS_OK,
               cases[i].words ? cases[i].words : "");
        h5_close(&f);
    }
}

// ---- shards ----

// F("<name>.h5") /w [4][6] = from, from + 1, ...: columns 0-1 in shard 0, 2-5 in shard 1.
static const H5Tensor w = {.path = "/w", .dtype = DS_F32, .ndim = 2, .shape = {4, 6}};

static void make_model(const char *path, float from) {
    float x[16];
    H5Rows rows = {0};
    for (int s = 0; s < 2; s++) {
        const H5Piece p = {.first = 2 * s, .count = s ? 16 : 8, .run = s ? 4 : 2, .data = x};
        for (int k = 0; k < p.count; k++) x[k] = from + (float)(2 * s + k / p.run * 6 + k % p.run);
        ok(h5_parts_write_shard(path, s, &w, 1, &p, 1, NULL, NULL, &rows));
    }
    ok(modelfile_write_master(path, NULL, &w, 1, &rows));
    h5_rows_free(&rows);
}

static bool reads_as(const char *path, float from) {
    float x[24];
    bool same = true;
    if (read_all(path, &w, DS_F32, x)) return false;
    for (int i = 0; i < 24; i++) same = same && x[i] == from + (float)i;
    if (!same) fail_msg("%s: wrong elements, and nobody noticed", path);
    return true;
}

static void spill(const char *path, const void *data, size_t n) {
    FILE *out = fopen(path, "wb");
    assert_int_equal(fwrite(data, 1, n, out), n);
    fclose(out);
}

static void copy_file(const char *from, const char *to) {
    char *data;
    size_t n;
    ok(file_read_all(from, 1 << 20, &data, &n));
    spill(to, data, n);
    mem_free(data);
}

static void expect_read(const char *path, Err code, const char *words) {
    float x[24];
    expect(read_all(path, &w, DS_F32, x), code, words);
}

static void test_shards(void **state) {
    (void)state;
    const char *const one = F("m.shards/00001.h5");
    make_model(F("m.h5"), 0);
    make_model(F("other.h5"), 100);
    assert_true(reads_as(F("m.h5"), 0) && reads_as(F("other.h5"), 100));
    copy_file(F("other.shards/00001.h5"), one); // of the same shape
    expect_read(F("m.h5"), DS_ERR_DATA,
                "m.shards/00001.h5: /w is damaged: elements 2 to 23, 4 of each row of 6 do not");
    copy_file(F("m.shards/00000.h5"), one); // of this model, too short or not
    expect_read(F("m.h5"), DS_ERR_DATA, "m.shards/00001.h5");
    make_model(F("m.h5"), 0);
    assert_int_equal(truncate(one, 100), 0);
    expect_read(F("m.h5"), DS_ERR_DATA, "m.shards/00001.h5: is too short: it has 100 bytes");
    assert_int_equal(unlink(one), 0);
    expect_read(F("m.h5"), DS_ERR_DATA, "m.shards/00001.h5 is missing");
    assert_int_equal(symlink("../other.shards/00001.h5", one), 0);
    expect_read(F("m.h5"), DS_ERR_IO, "symbolic link");
    make_model(F("m.h5"), 0);
    assert_int_equal(rename(F("m.shards"), F("away.shards")), 0);
    expect_read(F("m.h5"), DS_ERR_DATA, "its folder of shards");
    assert_int_equal(symlink("away.shards", F("m.shards")), 0);
    expect_read(F("m.h5"), DS_ERR_DATA, "is not a folder (symbolic links are not followed)");
    assert_int_equal(rename(F("m.h5"), F("other.h5")), 0); // a master over another's shards
    expect_read(F("other.h5"), DS_ERR_DATA, "other.shards/00000.h5: /w is damaged");
}

// One bit of a shard: refused, or of no account (the shard's own HDF5 parts, which are not read).
static void test_flipped_shard(void **state) {
    (void)state;
    FileMap map;
    int refused = 0;
    make_model(F("bits.h5"), 0);
    ok(file_map(F("bits.shards/00001.h5"), &map));
    char *copy = mem_strndup(map.data, map.bytes);
    for (size_t at = 0; at < map.bytes; at++) {
        copy[at] = (char)(copy[at] ^ (1 << at % 8));
        spill(F("bits.shards/00001.h5"), copy, map.bytes);
        copy[at] = map.data[at];
        refused += !reads_as(F("bits.h5"), 0);
        err_clear();
    }
    assert_int_equal(refused, 64); // bytes of elements
    mem_free(copy);
    file_unmap(&map);
}

// Tables over shards as a stranger could have written them; the data set beside them is a virtual one.
static void test_hostile_tables(void **state) {
    (void)state;
    static const struct {
        const char *hashes, *shards, *words; // %s: a hash
    } cases[] = {{"0 24 %s\n", "fp32 4 6\n0 2048\n", "folder of shards"},
                 {"0 24 %s\n", NULL, "without a table of its shards"},
                 {"0 24 %s\n", "fp32 4\n0 2048\n", "has the shape 4 x 1 (1 dimensions), expected 4 x 6"},
                 {"0 24 %s\n", "fp32 4 6 1\n0 2048\n", "has the shape"},
                 {"0 12 %s\n", "fp32 4 6\n0 2048\n", "leave a hole at element 12"},
                 {NULL, "fp32 4 6\n", "leave a hole at element 0"},
                 {"0 24 %s\n", "fp33 4 6\n0 2048\n", "is damaged"},
                 {"0 24 %s\n", "int32 4 6\n0 2048\n", "/w holds fp32, its table of shards says int32"},
                 {"0 24 %s\n", "int32 4 6\n0 2048\n", "/w holds fp32, its table of shards says int32"},
                 {"0 24 %s\n", "fp32\n0 2048\n", "is damaged"},
                 {"0 24 %s\n", "fp32 4 6 1 1 1\n0 2048\n", "is damaged"},
                 {"0 24 %s\n", "fp32 4 -6\n0 2048\n", "is damaged"},
                 {"0 24 %s\n", "fp32 999999999999999999 999999999999999999\n0 2048\n", "is damaged"},
                 {"0 24 %s\n", "fp32 4 6\n", "is damaged"},
                 {"0 24 %s\n", "fp32 4 6\n0\n", "is damaged"},
                 {"0 24 %s\n", "fp32 4 6\n0 -1\n", "is damaged"},
                 {"0 24 %s\n", "fp32 4 6\n-1 0\n", "is damaged"},
                 {"0 24 %s\n", "fp32 4 6\n100000 0\n", "is damaged"},
                 {"0 24 %s\n", "fp32 4 6\n0 2048 1\n", "is damaged"},
                 {"0 24 %s\n", "fp32 4 6\n0 2048\n0 2048\n", "is damaged"},
                 {"0 24 %s\n", "fp32 4 6\n0 2048", "is damaged"}};
    const int64_t shape[2] = {4, 6};
    const H5Source source = {0, "/w@0", {0, 24, 0}};
    for (int i = 0; i < DS_COUNT(cases); i++) {
        H5File *f;
        char text[400];
        ok(h5_create(F("table.h5"), &f));
        ok(h5_write_virtual(f, "/w", DS_F32, 2, shape, &source, 1));
        if (cases[i].hashes) {
            snprintf(text, sizeof text, cases[i].hashes, hash_xxh128("x", 1).hex);
            ok(h5_attr_put_str(f, "/w", "xxh3_128", text));
        }
        ok(h5_make_group(f, "/shards"));
        if (cases[i].shards) ok(h5_attr_put_str(f, "/shards", "/w", cases[i].shards));
        ok(h5_commit(&f));
        expect_read(F("table.h5"), DS_ERR_DATA, cases[i].words);
    }
}

static int fresh(void **state) {
    (void)state;
    return file_remove_tree(DIR_) || file_make_dirs(DIR_);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_tensor),    cmocka_unit_test(test_long_strips),
        cmocka_unit_test(test_wrong_pieces),   cmocka_unit_test(test_full_strip),
        cmocka_unit_test(test_hostile_hashes), cmocka_unit_test(test_shards),
        cmocka_unit_test(test_flipped_shard),  cmocka_unit_test(test_hostile_tables),
    };
    return cmocka_run_group_tests_name("h5_parts", tests, fresh, NULL);
}
