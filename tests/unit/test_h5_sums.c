// The hashes behind a file, its driver, and the child that inspects: what is not as it was written, or cannot be read,
// is an error, whatever the HDF5 library makes of it.
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define H5_USE_110_API
#include <hdf5.h>

#include "base/file.h"
#include "base/mem.h"
#include "io/h5_attr.h"
#include "io/h5_data.h"
#include "io/h5_drive.h"
#include "io/h5_sums.h"
#include "io/modelfile.h"

#define DIR_ "build/tmp/test_h5_sums"
#define F(name) DIR_ "/" name

static void expect(Err got, Err want, const char *words) {
    char text[2048];
    snprintf(text, sizeof text, "%s", err_text());
    err_clear();
    if (got != want || !strstr(text, words))
        fail_msg("got %d \"%s\", expected %d and the words \"%s\"", got, text, want, words);
}

static void ok(Err err) { expect(err, DS_OK, ""); }

// ---- reads that fail ----

enum { NEVER, FAILS, INTERRUPTED, SHORT };
static int reads, fault_at, fault;

// In the place of the C library's: read number fault_at fails, is interrupted, or gives less than was asked for.
ssize_t pread(int fd, void *out, size_t n, off_t at) {
    if (++reads == fault_at && fault != SHORT) {
        errno = fault == FAILS ? EIO : EINTR;
        if (fault != NEVER) return -1;
    }
    if (reads == fault_at && fault == SHORT) n = (n + 1) / 2;
    return syscall(SYS_pread64, fd, out, n, at);
}

// ---- writes that fail later ----

// A server's answer to a write comes to the descriptor that wrote: when that is synced, or not before it is closed.
static bool fails_late, fails_at_close;
static bool wrote[256];

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    wrote[fd] = true;
    return syscall(SYS_pwrite64, fd, data, n, at);
}

int fsync(int fd) {
    if (fails_late && wrote[fd]) return errno = EDQUOT, -1;
    return (int)syscall(SYS_fsync, fd);
}

int close(int fd) {
    const bool fail = fails_at_close && fd >= 0 && wrote[fd];
    if (fd >= 0) wrote[fd] = false;
    syscall(SYS_close, fd);
    return fail ? (errno = EDQUOT, -1) : 0;
}

// ---- files ----

static void spill(const char *path, const void *data, size_t n) {
    FILE *out = fopen(path, "wb");
    assert_int_equal(fwrite(data, 1, n, out), n);
    fclose(out);
}

static void cut_sums(const char *path) {
    FileMap map;
    ok(file_map(path, &map));
    const char *sums = memmem(map.data, map.bytes, "blocks of ", 10);
    assert_non_null(sums);
    assert_int_equal(truncate(path, sums - map.data), 0);
    file_unmap(&map);
}

static void make_small(const char *path) {
    H5File *f;
    const int64_t n = 64;
    float x[64];
    for (int i = 0; i < 64; i++) x[i] = (float)i;
    ok(h5_create(path, &f));
    ok(h5_write_new(f, "/g/x", DS_F32, 1, &n, x));
    ok(h5_attr_put_i64(f, "/g", "n", 7));
    ok(h5_commit(&f));
}

// Every bit of a file with hashes counts, but those that say that there are any.
static void test_sums(void **state) {
    (void)state;
    FileMap map;
    H5Verified v = {.until = INFINITY};
    H5File *f = NULL;
    make_small(F("sums.h5"));
    ok(h5_sums_verify(F("sums.h5"), 0, 1, &v));
    assert_true(v.bytes > 1000 && v.verified == v.bytes && !v.without);
    assert_int_equal(file_map(F("sums.h5"), &map), DS_OK);
    char *copy = mem_strndup(map.data, map.bytes);
    for (size_t at = 0; at < map.bytes; at++) {
        copy[at] = (char)(copy[at] ^ (1 << at % 8));
        spill(F("flip.h5"), copy, map.bytes);
        copy[at] = map.data[at];
        v.without = 0;
        Err err = h5_sums_verify(F("flip.h5"), 0, 1, &v);
        bool word = at >= map.bytes - 58 && at < map.bytes - 46; // "dschat-sums "
        if (!word) expect(err, DS_ERR_DATA, "flip.h5: is damaged");
        else assert_true(!err && v.without == (int64_t)map.bytes);
    }
    // a tool that changes the file cuts them off
    hid_t id = H5Fopen(F("sums.h5"), H5F_ACC_RDWR, H5P_DEFAULT), g = H5Gopen2(id, "/g", H5P_DEFAULT);
    assert_true(H5Adelete(g, "n") >= 0);
    H5Gclose(g), H5Fclose(id);
    ok(h5_sums_verify(F("sums.h5"), 0, 1, &v));
    assert_true(v.without > 0);
    expect(h5_open_own(F("sums.h5"), &f), DS_ERR_DATA, "has no hashes behind it");
    ok(h5_open_checked(F("sums.h5"), &f));
    h5_close(&f);
    mem_free(copy);
    file_unmap(&map);
}

static void make_model(const char *path);

// What tells a file's content is the same of a copy, another of another file, and none where there are no hashes.
static void test_content(void **state) {
    (void)state;
    FileMap map;
    Xxh128Hex content, other;
    bool there = false;
    make_small(F("one.h5"));
    make_model(F("two.h5"));
    assert_int_equal(file_map(F("one.h5"), &map), DS_OK);
    spill(F("copy.h5"), map.data, map.bytes);
    spill(F("none.h5"), map.data, map.bytes - 1);
    ok(h5_sums_content(F("one.h5"), &content, &there));
    assert_true(there);
    ok(h5_sums_content(F("copy.h5"), &other, &there));
    assert_true(there);
    assert_string_equal(content.hex, other.hex);
    ok(h5_sums_content(F("two.h5"), &other, &there));
    assert_true(there);
    assert_string_not_equal(content.hex, other.hex);
    ok(h5_sums_content(F("none.h5"), &other, &there));
    assert_false(there);
    expect(h5_sums_content(F("missing.h5"), &other, &there), DS_ERR_IO, "cannot open");
    file_unmap(&map);
}

// Larger than what is kept in memory: blocks are checked as they are read, those that are not are not.
static void test_sums_of_large(void **state) {
    (void)state;
    H5File *f;
    const int64_t n = H5_WHOLE / 4 + 3 * H5_SUM_BLOCK / 8;
    float *x = MEM_NEW(float, n), *y = MEM_NEW(float, n);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(i % 1000003);
    ok(h5_create(F("large.h5"), &f));
    ok(h5_write_new(f, "/x", DS_F32, 1, &n, x));
    ok(h5_commit(&f));
    ok(h5_open_checked(F("large.h5"), &f));
    const int64_t parts[][2] = {{0, n}, {5, 7}, {262100, 90}, {n - 9, 9}, {100000, 9000000}, {n / 2, n / 4}};
    for (int i = 0; i < DS_COUNT(parts); i++) {
        ok(h5_read(f, "/x", DS_F32, parts[i][0], parts[i][1], y));
        assert_memory_equal(y, x + parts[i][0], (size_t)parts[i][1] * 4);
    }
    h5_close(&f);
    int fd = open(F("large.h5"), O_RDWR);
    const off_t at = 30 << 20;
    char c;
    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 4;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
    ok(h5_open_checked(F("large.h5"), &f));
    ok(h5_read(f, "/x", DS_F32, 0, 1000000, y)); // elsewhere
    expect(h5_read(f, "/x", DS_F32, at / 4, 10, y), DS_ERR_DATA, "large.h5: is damaged: bytes 31457280 to 32505855 do");
    expect(h5_read(f, "/x", DS_F32, 0, 1000000, y), DS_ERR_DATA, "is damaged"); // it stays so
    expect(h5_trouble(f), DS_ERR_DATA, "is damaged");
    h5_close(&f);
    ok(h5_open_checked(F("large.h5"), &f)); // the block as a whole, which goes past what is kept of blocks
    expect(h5_read(f, "/x", DS_F32, 0, n, y), DS_ERR_DATA, "large.h5: is damaged: bytes 31457280 to 32505855 do");
    h5_close(&f);
    H5Verified v = {.until = INFINITY}, late = {.until = 0};
    expect(h5_sums_verify(F("large.h5"), 0, 2, &v), DS_ERR_DATA, "bytes 31457280 to 32505855");
    ok(h5_sums_verify(F("large.h5"), 1, 2, &v)); // the other rank's share
    ok(h5_sums_verify(F("large.h5"), 0, 1, &late));
    assert_true(late.bytes > n * 4 && late.verified == 0);
    assert_int_equal(unlink(F("large.h5")), 0);
    mem_free(x), mem_free(y);
}

// ---- every read fails once ----

static const H5Tensor tensors[] = {{.path = "/weights/a", .dtype = DS_F32, .ndim = 2, .shape = {40, 30}},
                                   {.path = "/weights/b", .dtype = DS_BF16, .ndim = 1, .shape = {500}}};
enum { TENSORS = DS_COUNT(tensors), SHARDS = 3, ELEMENTS = 1700 };

static void make_model(const char *path) {
    H5Rows rows = {0};
    float x[1200];
    uint16_t b[500];
    for (int i = 0; i < 1200; i++) x[i] = (float)i;
    for (int i = 0; i < 500; i++) b[i] = f32_to_bf16((float)i);
    for (int s = 0; s < SHARDS; s++) {
        const H5Piece pieces[] = {{.tensor = 0, .first = 400 * s, .count = 400, .data = x + 400 * s},
                                  {.tensor = 1, .first = 166 * s, .count = s == 2 ? 168 : 166, .data = b + 166 * s}};
        ok(h5_parts_write_shard(path, s, tensors, TENSORS, pieces, 2, NULL, NULL, &rows));
    }
    ok(modelfile_write_master(path, NULL, tensors, TENSORS, &rows));
    h5_rows_free(&rows);
}

// Both tensors as numbers, and a text that may be missing.
static Err read_model(const char *path, float *out) {
    Err err = DS_OK;
    H5File *f = NULL;
    H5Parts *p = NULL;
    DS_TRY(h5_open_checked(path, &f));
    DS_TRY(h5_parts_open(f, tensors, TENSORS, &p));
    for (int i = 0, at = 0; i < TENSORS; at += (int)h5_tensor_count(&tensors[i]), i++)
        for (int64_t k = 0, n = h5_tensor_count(&tensors[i]); k < n; k += 100)
            DS_TRY(h5_parts_get(p, i, DS_F32, (H5Runs){.first = k, .count = 100}, out + at + k));
    if (!h5_attr_exists(f, "/weights", "text")) DS_TRY(h5_trouble(f));
done:
    h5_parts_close(&p);
    h5_close(&f);
    return err;
}

static Err read_large(const char *path, float *out) {
    Err err = DS_OK;
    H5File *f = NULL;
    int64_t n = 0;
    DS_TRY(h5_open_checked(path, &f));
    if (h5_attr_exists(f, "/x", "n")) DS_TRY(h5_attr_get_i64(f, "/x", "n", &n));
    DS_TRY(h5_trouble(f));
    DS_CHECK(n == ELEMENTS, DS_ERR_DATA, "the attribute seemed not to be there");
    for (int k = 0; k < ELEMENTS; k += 100) DS_TRY(h5_read(f, "/x", DS_F32, k, 100, out + k));
done:
    h5_close(&f);
    return err;
}

// Each read of `read` in turn: an error that says so, or all as it was.
static void sweep(const char *path, Err (*read)(const char *path, float *out)) {
    static float want[ELEMENTS], got[ELEMENTS];
    fault_at = 0;
    ok(read(path, want)); // it is inspected from here on
    reads = 0;
    ok(read(path, want));
    const int total = reads;
    int failed = 0;
    assert_true(total > 2);
    for (fault = FAILS; fault <= SHORT; fault++)
        for (int k = 1; k <= total; k++) {
            memset(got, 0xee, sizeof got);
            reads = 0, fault_at = k;
            Err err = read(path, got);
            fault_at = 0;
            failed += err != DS_OK;
            if (fault == FAILS && err) expect(err, DS_ERR_IO, "Input/output error");
            else ok(err);
            if (!err) assert_memory_equal(got, want, sizeof got);
        }
    fault = NEVER;
    assert_true(failed > total / 2);
    print_message("%s: %d reads, %d of their failures are errors, the others are of no account\n", path, total, failed);
}

static void test_failed_reads(void **state) {
    (void)state;
    make_model(F("model.h5"));
    sweep(F("model.h5"), read_model);
    cut_sums(F("model.h5"));
    sweep(F("model.h5"), read_model);
    H5File *f; // too large for memory, so that the library's own reads are at stake
    const int64_t n = H5_WHOLE / 4 + 100000;
    float *x = MEM_NEW(float, n);
    for (int i = 0; i < ELEMENTS; i++) x[i] = (float)i;
    ok(h5_create(F("large.h5"), &f));
    ok(h5_write_new(f, "/x", DS_F32, 1, &n, x));
    ok(h5_attr_put_i64(f, "/x", "n", ELEMENTS));
    ok(h5_commit(&f));
    sweep(F("large.h5"), read_large);
    assert_int_equal(truncate(F("large.h5"), 4 * n + 4096), 0); // without its hashes
    sweep(F("large.h5"), read_large);
    assert_int_equal(unlink(F("large.h5")), 0);
    mem_free(x);
}

// ---- strangers' files ----

// One bit of a model without hashes, all but its elements: the child may crash or hang, this process does not.
static void test_inspected(void **state) {
    (void)state;
    char *copy;
    size_t bytes;
    float x[ELEMENTS];
    int refused = 0, died = 0, same = 0, stride = getenv("DSCHAT_TEST_ALL") ? 1 : 37;
    make_model(F("flip.h5"));
    cut_sums(F("flip.h5"));
    ok(file_read_all(F("flip.h5"), 1 << 20, &copy, &bytes));
    for (size_t at = 0; at < bytes; at += (size_t)stride) {
        copy[at] = (char)(copy[at] ^ (1 << at % 8));
        spill(F("flip.h5"), copy, bytes);
        copy[at] = (char)(copy[at] ^ (1 << at % 8));
        Err err = read_model(F("flip.h5"), x);
        for (int i = 0; !err && i < ELEMENTS; i++)
            if (x[i] != bf16_to_f32(f32_to_bf16((float)(i % 1200))) && x[i] != (float)i)
                fail_msg("byte %zu: element %d is %g", at, i, (double)x[i]);
        died += strstr(err_text(), "made to do harm") != NULL;
        refused += err != DS_OK, same += !err;
        if (err) expect(err, DS_ERR_DATA, "flip.");
    }
    print_message("%zu bytes, every %d: %d refused, %d of them by the child's death, %d harmless\n", bytes, stride,
                  refused, died, same);
    assert_true(refused > 5);
    mem_free(copy);
}

// What could not be written in the end has no name, and what had the name keeps it.
static void test_late_failures(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        H5File *f;
        float x[] = {1, 2}, back[2] = {0};
        ok(h5_create(F("late.h5"), &f));
        ok(h5_write_new(f, "/x", DS_F32, 1, (int64_t[]){2}, x));
        ok(h5_commit(&f));
        x[1] = 3;
        ok(h5_create(F("late.h5"), &f));
        ok(h5_write_new(f, "/x", DS_F32, 1, (int64_t[]){2}, x));
        fails_late = i % 2 == 0, fails_at_close = !fails_late;
        const Err err = i < 2 ? h5_commit(&f) : h5_commit_shard(&f);
        fails_late = fails_at_close = false;
        expect(err, DS_ERR_IO, "Disk quota exceeded");
        assert_null(f);
        ok(h5_open_own(F("late.h5"), &f));
        ok(h5_read(f, "/x", DS_F32, 0, 2, back));
        assert_true(back[1] == 2);
        h5_close(&f);
        assert_int_equal(system("ls " F("") " | grep -c tmp >" F("count")), 256); // lint: grep; none is left
    }
}

static int fresh(void **state) {
    (void)state;
    return file_remove_tree(DIR_) || file_make_dirs(DIR_);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),         cmocka_unit_test(test_content),       cmocka_unit_test(test_sums_of_large),
        cmocka_unit_test(test_failed_reads), cmocka_unit_test(test_late_failures), cmocka_unit_test(test_inspected),
    };
    return cmocka_run_group_tests_name("h5_sums", tests, fresh, NULL);
}
