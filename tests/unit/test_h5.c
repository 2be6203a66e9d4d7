// HDF5 files: what is written is read, by flat ranges too; damage is noticed.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define H5_USE_110_API
#include <hdf5.h>

#include "base/file.h"
#include "base/mem.h"
#include "io/h5_attr.h"
#include "io/h5_data.h"

#define DIR_ "build/tmp/test_h5"
#define F(name) DIR_ "/" name

static H5File *open_ok(const char *path) {
    H5File *f = NULL;
    Err err = h5_open_checked(path, &f);
    if (err) fail_msg("%s: %s", path, err_text());
    return f;
}

static void expect(Err got, Err want, const char *words) {
    char text[2048];
    snprintf(text, sizeof text, "%s", err_text());
    err_clear();
    if (got != want || !strstr(text, words))
        fail_msg("got %d \"%s\", expected %d and the words \"%s\"", got, text, want, words);
}

static void expect_refused(const char *path, const char *words) {
    H5File *f = NULL;
    expect(h5_open_checked(path, &f), DS_ERR_DATA, words);
    assert_null(f);
}

// ---- our own files ----

static void test_types_and_ranges(void **state) {
    (void)state;
    H5File *f;
    const int64_t shape[3] = {5, 7, 3};
    float x[105];
    uint16_t b[105];
    for (int i = 0; i < 105; i++) x[i] = (float)i * 0.37f - 9, b[i] = f32_to_bf16(x[i]);
    assert_int_equal(h5_create(F("a.h5"), &f), DS_OK);
    assert_int_equal(h5_write_new(f, "/g/x", DS_F32, 3, shape, x), DS_OK);
    assert_int_equal(h5_dataset_create(f, "/g/b", DS_BF16, 3, shape), DS_OK);
    for (int at = 0; at < 105; at += 13) // odd pieces
        assert_int_equal(h5_write(f, "/g/b", at, ds_min(13, 105 - at), b + at), DS_OK);
    const uint8_t u8[2] = {0, 255};
    const int64_t two = 2, i64[2] = {INT64_MIN, INT64_MAX};
    const uint32_t u32[2] = {0, UINT32_MAX};
    const double f64[2] = {1e300, -0.0};
    assert_int_equal(h5_write_new(f, "/u8", DS_U8, 1, &two, u8), DS_OK);
    assert_int_equal(h5_write_new(f, "/i64", DS_I64, 1, &two, i64), DS_OK);
    assert_int_equal(h5_write_new(f, "/u32", DS_U32, 1, &two, u32), DS_OK);
    assert_int_equal(h5_write_new(f, "/f64", DS_F64, 1, &two, f64), DS_OK);
    assert_false(file_exists(F("a.h5"))); // not before it is whole
    assert_int_equal(h5_commit(&f), DS_OK);
    assert_null(f);

    f = open_ok(F("a.h5"));
    float got[105];
    uint16_t got16[105];
    for (int first = 0; first <= 105; first++)
        for (int count = 0; first + count <= 105; count += 1 + first % 3) {
            memset(got, 0xee, sizeof got);
            assert_int_equal(h5_read(f, "/g/x", DS_F32, first, count, got), DS_OK);
            assert_memory_equal(got, x + first, (size_t)count * 4);
        }
    assert_int_equal(h5_read(f, "/g/b", DS_BF16, 0, 105, got16), DS_OK);
    assert_memory_equal(got16, b, sizeof b);
    assert_int_equal(h5_read(f, "/g/x", DS_BF16, 0, 105, got16), DS_OK); // rounds
    assert_memory_equal(got16, b, sizeof b);
    assert_int_equal(h5_read(f, "/g/b", DS_F32, 10, 50, got), DS_OK);
    for (int i = 0; i < 50; i++) assert_true(got[i] == bf16_to_f32(b[10 + i]));
    int64_t wide[2];
    assert_int_equal(h5_read(f, "/u32", DS_I64, 0, 2, wide), DS_OK);
    assert_true(wide[1] == UINT32_MAX);
    expect(h5_read(f, "/g/x", DS_F32, 100, 6, got), DS_ERR_DATA, "/g/x has 105 elements");
    expect(h5_read(f, "/f64", DS_F32, 0, 2, got), DS_ERR_DATA, "holds fp64, expected fp32");
    expect(h5_read(f, "/nothing/there", DS_F32, 0, 2, got), DS_ERR_DATA, "has no data set /nothing/there");
    H5Names names;
    assert_int_equal(h5_list(f, "/", &names), DS_OK);
    assert_int_equal(names.n, 5);
    assert_string_equal(names.name[1], "g");
    h5_names_free(&names);
    h5_close(&f);
}

static void test_f16_big_endian(void **state) {
    (void)state;
    h5_init();
    hid_t id = H5Fcreate(F("be.h5"), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hsize_t n = 3;
    const float x[3] = {1.5f, -2, 1e-3f};
    hid_t s = H5Screate_simple(1, &n, NULL), t = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(t, 15, 10, 5, 0, 10), H5Tset_size(t, 2), H5Tset_ebias(t, 15);
    hid_t d = H5Dcreate2(id, "half", t, s, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(d, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, x);
    hid_t e = H5Dcreate2(id, "big", H5T_IEEE_F32BE, s, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(e, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, x);
    H5Dclose(d), H5Dclose(e), H5Sclose(s), H5Tclose(t), H5Fclose(id);
    H5File *f = open_ok(F("be.h5"));
    float got[3];
    assert_int_equal(h5_read(f, "/half", DS_F32, 0, 3, got), DS_OK);
    assert_true(got[0] == 1.5f && got[1] == -2 && fabsf(got[2] - 1e-3f) < 1e-6f);
    assert_int_equal(h5_read(f, "/big", DS_F32, 0, 3, got), DS_OK);
    assert_memory_equal(got, x, sizeof x);
    h5_close(&f);
}

static void test_attributes(void **state) {
    (void)state;
    H5File *f;
    char *text, *big = mem_alloc(300001);
    int64_t v;
    double r;
    memset(big, 'j', 300000); // beyond the 64 KiB of a compact attribute
    assert_int_equal(h5_create(F("attr.h5"), &f), DS_OK);
    assert_int_equal(h5_make_group(f, "/config/deep"), DS_OK);
    assert_int_equal(h5_attr_put_i64(f, "/config", "n", -5), DS_OK);
    assert_int_equal(h5_attr_put_f64(f, "/config", "eps", 1e-5), DS_OK);
    assert_int_equal(h5_attr_put_str(f, "/config", "word", "h\xc3\xa9llo"), DS_OK);
    assert_int_equal(h5_attr_put_str(f, "/config", "empty", ""), DS_OK);
    assert_int_equal(h5_attr_put_str(f, "/config/deep", "big", big), DS_OK);
    expect(h5_attr_put_i64(f, "/config", "n", 1), DS_ERR_IO, "attribute n of /config");
    assert_int_equal(h5_commit(&f), DS_OK);
    f = open_ok(F("attr.h5"));
    assert_int_equal(h5_attr_get_i64(f, "/config", "n", &v), DS_OK);
    assert_true(v == -5);
    assert_int_equal(h5_attr_get_f64(f, "/config", "n", &r), DS_OK);
    assert_true(r == -5);
    assert_int_equal(h5_attr_get_f64(f, "/config", "eps", &r), DS_OK);
    assert_true(r == 1e-5);
    assert_int_equal(h5_attr_get_str(f, "/config", "word", &text), DS_OK);
    assert_string_equal(text, "h\xc3\xa9llo");
    mem_free(text);
    assert_int_equal(h5_attr_get_str(f, "/config", "empty", &text), DS_OK);
    assert_string_equal(text, "");
    mem_free(text);
    assert_int_equal(h5_attr_get_str(f, "/config/deep", "big", &text), DS_OK);
    assert_string_equal(text, big);
    mem_free(text);
    expect(h5_attr_get_i64(f, "/config", "eps", &v), DS_ERR_DATA, "is not an integer");
    expect(h5_attr_get_i64(f, "/config", "missing", &v), DS_ERR_DATA, "has no attribute missing");
    expect(h5_attr_get_str(f, "/config", "n", &text), DS_ERR_DATA, "is not a string");
    h5_close(&f);
    mem_free(big);
}

static void test_appender(void **state) {
    (void)state;
    H5File *f;
    H5Appender *a;
    enum { N = 10007 };
    uint32_t *x = MEM_NEW(uint32_t, N), *y = MEM_NEW(uint32_t, N);
    for (int i = 0; i < N; i++) x[i] = (uint32_t)i * 2654435761u;
    assert_int_equal(h5_create(F("append.h5"), &f), DS_OK);
    assert_int_equal(h5_appender_open(f, "/samples/tokens", DS_U32, 1024, &a), DS_OK);
    for (int at = 0, n = 1; at < N; at += n, n = (n * 7 + 1) % 3001) {
        n = (int)ds_min(n, N - at);
        assert_int_equal(h5_append(a, x + at, n), DS_OK);
    }
    assert_int_equal(h5_appender_count(a), N);
    assert_int_equal(h5_appender_close(&a), DS_OK);
    assert_int_equal(h5_appender_open(f, "/samples/none", DS_I64, 16, &a), DS_OK);
    assert_int_equal(h5_appender_close(&a), DS_OK);
    assert_int_equal(h5_commit(&f), DS_OK);
    f = open_ok(F("append.h5"));
    assert_int_equal(h5_read(f, "/samples/tokens", DS_U32, 0, N, y), DS_OK);
    assert_memory_equal(x, y, N * sizeof *x);
    assert_int_equal(h5_read(f, "/samples/tokens", DS_U32, 2000, 5000, y), DS_OK);
    assert_memory_equal(x + 2000, y, 5000 * sizeof *x);
    assert_int_equal(h5_read(f, "/samples/none", DS_I64, 0, 0, y), DS_OK);
    h5_close(&f);
    mem_free(x), mem_free(y);
}

static void test_replacing(void **state) {
    (void)state;
    H5File *f;
    const int64_t n = 4;
    float x[4] = {1, 2, 3, 4}, y[4];
    assert_int_equal(h5_create(F("r.h5"), &f), DS_OK);
    assert_int_equal(h5_write_new(f, "/x", DS_F32, 1, &n, x), DS_OK);
    assert_int_equal(h5_commit(&f), DS_OK);
    assert_int_equal(h5_create(F("r.h5"), &f), DS_OK);
    h5_abandon(&f);
    f = open_ok(F("r.h5")); // the old one is untouched
    assert_int_equal(h5_read(f, "/x", DS_F32, 0, 4, y), DS_OK);
    h5_close(&f);
    assert_int_equal(system("test -z \"$(ls " DIR_ " | grep tmp)\""), 0); // lint: ls
    expect(h5_create("build/tmp/no/such/folder/x.h5", &f), DS_ERR_IO, "cannot create: No such file or directory");
    expect(h5_open_checked(F("missing.h5"), &f), DS_ERR_IO, "missing.h5: cannot open: No such file or directory");
    assert_int_equal(file_write_atomic(F("text.h5"), "hello", 5), DS_OK);
    expect_refused(F("text.h5"), "is not an HDF5 file");
    expect(h5_open_checked(DIR_, &f), DS_ERR_IO, "not a regular file");
    assert_int_equal(mkfifo(F("fifo.h5"), 0600), 0);
    expect(h5_open_checked(F("fifo.h5"), &f), DS_ERR_IO, "not a regular file");
}

// The same contents give the same bytes: no times are kept.
static void test_same_bytes(void **state) {
    (void)state;
    const int64_t n = 3;
    for (int i = 0; i < 2; i++) {
        H5File *f;
        assert_int_equal(h5_create(i ? F("s1.h5") : F("s0.h5"), &f), DS_OK);
        assert_int_equal(h5_write_new(f, "/a/b/x", DS_F32, 1, &n, (float[]){1, 2, 3}), DS_OK);
        assert_int_equal(h5_attr_put_i64(f, "/a", "n", 3), DS_OK);
        assert_int_equal(h5_commit(&f), DS_OK);
        if (!i) sleep(1);
    }
    assert_int_equal(system("cmp " F("s0.h5") " " F("s1.h5")), 0); // lint: cmp
}

// ---- virtual data sets ----

// v.h5 /w [4][5] from shard 0: elements 0..8, shard 1: 9..19.
static void make_virtual(void) {
    H5File *f;
    float x[20];
    for (int i = 0; i < 20; i++) x[i] = (float)i;
    const int64_t n0 = 9, n1 = 11, shape[2] = {4, 5};
    assert_int_equal(file_make_dirs(F("v.shards")), DS_OK);
    assert_int_equal(h5_create(F("v.shards/00000.h5"), &f), DS_OK);
    assert_int_equal(h5_write_new(f, "/w@0", DS_F32, 1, &n0, x), DS_OK);
    assert_int_equal(h5_commit(&f), DS_OK);
    assert_int_equal(h5_create(F("v.shards/00001.h5"), &f), DS_OK);
    assert_int_equal(h5_write_new(f, "/w@9", DS_F32, 1, &n1, x + 9), DS_OK);
    assert_int_equal(h5_commit(&f), DS_OK);
    const H5Source s[2] = {{0, "/w@0", {0, 9, 0}}, {1, "/w@9", {9, 11, 0}}};
    assert_int_equal(h5_create(F("v.h5"), &f), DS_OK);
    assert_int_equal(h5_write_virtual(f, "/w", DS_F32, 2, shape, s, 2), DS_OK);
    assert_int_equal(h5_commit(&f), DS_OK);
}

// What HDF5's own tools see of /w.
static void read_as_tools(const char *path, int64_t count, float *out) {
    hid_t f = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), d = H5Dopen2(f, "/w", H5P_DEFAULT), s = H5Dget_space(d);
    assert_int_equal(H5Sget_simple_extent_npoints(s), count);
    assert_true(H5Dread(d, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) >= 0);
    H5Sclose(s), H5Dclose(d), H5Fclose(f);
}

// Virtual data sets are for tools; we read none, since the library would make up what it cannot read.
static void test_virtual(void **state) {
    (void)state;
    float y[20];
    H5Info info;
    make_virtual();
    read_as_tools(F("v.h5"), 20, y);
    for (int i = 0; i < 20; i++) assert_true(y[i] == (float)i);
    H5File *f = open_ok(F("v.h5"));
    DType dtype = DS_U8;
    assert_true(h5_is_virtual(f, "/w", &dtype) && dtype == DS_F32);
    assert_false(h5_is_virtual(f, "/", &dtype) || h5_is_virtual(f, "/none", &dtype));
    expect(h5_read(f, "/w", DS_F32, 0, 20, y), DS_ERR_DATA, "/w is a virtual data set");
    expect(h5_info(f, "/w", &info), DS_ERR_DATA, "/w is a virtual data set");
    h5_close(&f);
    assert_int_equal(symlink("v.h5", F("link.h5")), 0); // the user's own choice
    f = open_ok(F("link.h5"));
    h5_close(&f);
}

static void test_virtual_bug(void **state) {
    (void)state;
    H5File *f;
    const int64_t shape[2] = {4, 5};
    const H5Source hole[2] = {{0, "/w@0", {0, 9, 0}}, {1, "/w@9", {10, 10, 0}}};
    assert_int_equal(h5_create(F("hole.h5"), &f), DS_OK);
    expect(h5_write_virtual(f, "/w", DS_F32, 2, shape, hole, 2), DS_ERR_BUG,
           "the parts of /w leave a hole at element 9 of 20");
    h5_abandon(&f);
}

// ---- strips ----

enum { ROWS = 11, COLS = 7 };

static float at(int64_t row, int64_t col) { return (float)(100 * row + col); }

// Every box of /w by h5_read_runs, as fp32 and as bf16.
static void check_boxes(const H5File *f) {
    float x[ROWS * COLS];
    uint16_t b[ROWS * COLS];
    for (int64_t row = 0; row < ROWS; row += 2)
        for (int64_t col = 0; col < COLS; col++)
            for (int64_t rows = 1; row + rows <= ROWS; rows += 3)
                for (int64_t cols = 1; col + cols <= COLS; cols++) {
                    const H5Runs r = {row * COLS + col, rows * cols, cols};
                    assert_int_equal(h5_read_runs(f, "/w", DS_F32, r, x), DS_OK);
                    assert_int_equal(h5_read_runs(f, "/w", DS_BF16, r, b), DS_OK);
                    for (int64_t k = 0; k < r.count; k++) {
                        assert_true(x[k] == at(row + k / cols, col + k % cols));
                        assert_int_equal(b[k], f32_to_bf16(x[k]));
                    }
                }
}

static void test_strips(void **state) {
    (void)state;
    H5File *f;
    const int64_t shape[2] = {ROWS, COLS}, cube[3] = {2, 3, 4};
    float x[ROWS * COLS];
    assert_int_equal(h5_create(F("strips.h5"), &f), DS_OK);
    assert_int_equal(h5_dataset_create(f, "/w", DS_F32, 2, shape), DS_OK);
    assert_int_equal(h5_write_new(f, "/cube", DS_F32, 3, cube, x), DS_OK);
    for (int64_t col = 0, cols; col < COLS; col += cols) { // 1, 2 and 4 columns
        cols = col + 1;
        for (int64_t k = 0; k < ROWS * cols; k++) x[k] = at(k / cols, col + k % cols);
        assert_int_equal(h5_write_runs(f, "/w", (H5Runs){col, ROWS * cols, cols}, x), DS_OK);
    }
    expect(h5_write_runs(f, "/w", (H5Runs){1, 2 * COLS, COLS}, x), DS_ERR_BUG, "from 1 on, in runs of 7");
    assert_int_equal(h5_commit(&f), DS_OK);
    f = open_ok(F("strips.h5"));
    check_boxes(f);
    const H5Runs bad[] = {{5, 6, 3}, {0, 7, 3}, {(ROWS - 1) * COLS, 4, 2}, {-1, 4, 2}, {0, 4, -2}, {4, INT64_MAX, 2}};
    for (int i = 0; i < DS_COUNT(bad); i++)
        expect(h5_read_runs(f, "/w", DS_F32, bad[i], x), DS_ERR_DATA, "/w has 77 elements, asked for");
    expect(h5_read_runs(f, "/cube", DS_F32, (H5Runs){0, 4, 2}, x), DS_ERR_DATA, "/cube has 24 elements");
    h5_close(&f);
}

static void test_strips_of_chunks(void **state) {
    (void)state;
    h5_init();
    float x[ROWS * COLS];
    const hsize_t shape[2] = {ROWS, COLS}, chunk[2] = {3, 4};
    for (int64_t k = 0; k < ROWS * COLS; k++) x[k] = at(k / COLS, k % COLS);
    hid_t id = H5Fcreate(F("chunks.h5"), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), dcpl = H5Pcreate(H5P_DATASET_CREATE);
    hid_t s = H5Screate_simple(2, shape, NULL);
    H5Pset_chunk(dcpl, 2, chunk);
    H5Pset_deflate(dcpl, 6);
    hid_t d = H5Dcreate2(id, "w", H5T_NATIVE_FLOAT, s, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    assert_true(H5Dwrite(d, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, x) >= 0);
    H5Dclose(d), H5Sclose(s), H5Pclose(dcpl), H5Fclose(id);
    H5File *f = open_ok(F("chunks.h5"));
    check_boxes(f);
    h5_close(&f);
}

// Conversions go in blocks of 65536: many runs in one, one run in several, and one that ends inside the next run.
static void test_strips_in_blocks(void **state) {
    (void)state;
    H5File *f;
    const int64_t shapes[][2] = {{3, 140001}, {600, 301}, {2, 70003}};
    for (int i = 0; i < DS_COUNT(shapes); i++) {
        const int64_t rows = shapes[i][0], cols = shapes[i][1], n = rows * cols, run = cols - 3;
        uint16_t *b = MEM_NEW(uint16_t, n);
        float *x = MEM_NEW(float, n);
        for (int64_t k = 0; k < n; k++) b[k] = f32_to_bf16((float)(k % 9973));
        assert_int_equal(h5_create(F("blocks.h5"), &f), DS_OK);
        assert_int_equal(h5_write_new(f, "/w", DS_BF16, 2, shapes[i], b), DS_OK);
        assert_int_equal(h5_commit(&f), DS_OK);
        f = open_ok(F("blocks.h5"));
        assert_int_equal(h5_read_runs(f, "/w", DS_F32, (H5Runs){2, rows * run, run}, x), DS_OK);
        for (int64_t k = 0; k < rows * run; k++)
            if (x[k] != bf16_to_f32(b[2 + k / run * cols + k % run])) fail_msg("[%d]: element %d", i, (int)k);
        h5_close(&f);
        mem_free(b), mem_free(x);
    }
}

// s.h5 /w [11][7]: columns 0-2 by shard 0, 3-6 by shards 1 and 2, cut inside row 4.
static void test_virtual_strips(void **state) {
    (void)state;
    H5File *f;
    const H5Source s[] = {{0, "/w@0", {0, 33, 3}},
                          {1, "/w@3", {3, 16, 4}},
                          {1, "/w@31", {31, 1, 4}},
                          {2, "/w@32", {32, 3, 4}},
                          {2, "/w@38", {38, 24, 4}}};
    const int64_t shape[2] = {ROWS, COLS};
    float x[ROWS * COLS];
    assert_int_equal(file_make_dirs(F("s.shards")), DS_OK);
    for (int i = 0; i < DS_COUNT(s); i++) {
        const H5Runs r = s[i].runs;
        char path[64];
        snprintf(path, sizeof path, F("s.shards/%05d.h5"), s[i].shard);
        if (!i || s[i].shard != s[i - 1].shard) assert_int_equal(h5_create(path, &f), DS_OK);
        for (int64_t k = 0; k < r.count; k++)
            x[k] = at((r.first + k / r.run * COLS) / COLS, r.first % COLS + k % r.run);
        assert_int_equal(h5_write_new(f, s[i].dataset, DS_F32, 1, &r.count, x), DS_OK);
        if (i + 1 == DS_COUNT(s) || s[i].shard != s[i + 1].shard) assert_int_equal(h5_commit(&f), DS_OK);
    }
    assert_int_equal(h5_create(F("s.h5"), &f), DS_OK);
    assert_int_equal(h5_write_virtual(f, "/w", DS_F32, 2, shape, s, DS_COUNT(s)), DS_OK);
    assert_int_equal(h5_commit(&f), DS_OK);
    read_as_tools(F("s.h5"), ROWS * COLS, x);
    for (int64_t k = 0; k < ROWS * COLS; k++) assert_true(x[k] == at(k / COLS, k % COLS));
    assert_int_equal(h5_create(F("hole.h5"), &f), DS_OK);
    expect(h5_write_virtual(f, "/w", DS_F32, 2, shape, s, DS_COUNT(s) - 1), DS_ERR_BUG, "leave a hole at element 38");
    expect(h5_write_virtual(f, "/w", DS_F32, 2, shape, s + 1, DS_COUNT(s) - 1), DS_ERR_BUG, "a hole at element 0");
    h5_abandon(&f);
}

// ---- damage ----

// Opens and reads everything; true if all is as `make_small` wrote it. Errors must have words.
static bool small_is_same(const char *path) {
    H5File *f = NULL;
    float x[64];
    uint32_t t[300];
    int64_t n = 0;
    bool same = false;
    Err err = h5_open_checked(path, &f);
    if (!err) err = h5_read(f, "/g/x", DS_F32, 0, 64, x);
    if (!err) err = h5_read(f, "/t", DS_U32, 0, 300, t);
    if (!err) err = h5_attr_get_i64(f, "/g", "n", &n);
    if (!err) {
        same = n == 7;
        for (int i = 0; i < 64; i++) same = same && x[i] == (float)i;
        for (uint32_t i = 0; i < 300; i++) same = same && t[i] == i * i;
    } else if (!err_text()[0]) fail_msg("an error without words");
    h5_close(&f);
    err_clear();
    return same;
}

static void make_small(const char *path) {
    H5File *f;
    H5Appender *a;
    float x[64];
    uint32_t t[300];
    const int64_t shape[2] = {8, 8};
    for (int i = 0; i < 64; i++) x[i] = (float)i;
    for (uint32_t i = 0; i < 300; i++) t[i] = i * i;
    assert_int_equal(h5_create(path, &f), DS_OK);
    assert_int_equal(h5_write_new(f, "/g/x", DS_F32, 2, shape, x), DS_OK);
    assert_int_equal(h5_attr_put_i64(f, "/g", "n", 7), DS_OK);
    assert_int_equal(h5_appender_open(f, "/t", DS_U32, 128, &a), DS_OK);
    assert_int_equal(h5_append(a, t, 300), DS_OK);
    assert_int_equal(h5_appender_close(&a), DS_OK);
    assert_int_equal(h5_commit(&f), DS_OK);
    assert_true(small_is_same(path));
}

static void spill(const char *path, const void *data, size_t n) {
    FILE *out = fopen(path, "wb");
    assert_int_equal(fwrite(data, 1, n, out), n);
    fclose(out);
}

// Cut inside the HDF5 part it is refused; behind it the file has lost its hashes, and nothing else.
static void test_truncation(void **state) {
    (void)state;
    FileMap map;
    make_small(F("small.h5"));
    assert_int_equal(file_map(F("small.h5"), &map), DS_OK);
    const char *sums = memmem(map.data, map.bytes, "blocks of ", 10);
    assert_non_null(sums);
    const size_t hdf5 = (size_t)(sums - map.data);
    for (size_t n = 0; n < hdf5; n += 1 + hdf5 / 100) {
        spill(F("cut.h5"), map.data, n);
        if (small_is_same(F("cut.h5"))) fail_msg("cut to %zu of %zu bytes, and nobody noticed", n, map.bytes);
    }
    spill(F("cut.h5"), map.data, hdf5);
    assert_true(small_is_same(F("cut.h5")));
    file_unmap(&map);
}

// One bit at a time: refused, or read as it was; never a crash.
static void test_bit_flips(void **state) {
    (void)state;
    FileMap map;
    make_small(F("small.h5"));
    assert_int_equal(file_map(F("small.h5"), &map), DS_OK);
    char *copy = mem_strndup(map.data, map.bytes);
    int refused = 0, same = 0;
    for (size_t at = 0; at < map.bytes; at++) {
        int bit = (int)(at * 7 % 8);
        copy[at] = (char)(copy[at] ^ (1 << bit));
        spill(F("flip.h5"), copy, map.bytes);
        copy[at] = map.data[at];
        if (small_is_same(F("flip.h5"))) same++;
        else refused++;
    }
    print_message("bit flips in %zu bytes: %d refused, %d harmless\n", map.bytes, refused, same);
    assert_true(refused > 100 && same > 0);
    mem_free(copy);
    file_unmap(&map);
}

// After all of the above no handle of the library is left open.
static void test_no_handles_left(void **state) {
    (void)state;
    const H5I_type_t kinds[] = {H5I_FILE, H5I_GROUP, H5I_DATASPACE, H5I_DATASET, H5I_ATTR};
    for (int i = 0; i < DS_COUNT(kinds); i++) {
        hsize_t n = 0;
        H5Inmembers(kinds[i], &n);
        if (n) fail_msg("%d handles of kind %d are open", (int)n, (int)kinds[i]);
    }
}

static int fresh(void **state) {
    (void)state;
    return file_remove_tree(DIR_) || file_make_dirs(DIR_);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_and_ranges), cmocka_unit_test(test_f16_big_endian),
        cmocka_unit_test(test_attributes),       cmocka_unit_test(test_appender),
        cmocka_unit_test(test_replacing),        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_virtual),          cmocka_unit_test(test_virtual_bug),
        cmocka_unit_test(test_strips),           cmocka_unit_test(test_strips_of_chunks),
        cmocka_unit_test(test_strips_in_blocks), cmocka_unit_test(test_virtual_strips),
        cmocka_unit_test(test_truncation),       cmocka_unit_test(test_bit_flips),

        cmocka_unit_test(test_no_handles_left),
    };
    return cmocka_run_group_tests_name("h5", tests, fresh, NULL);
}
