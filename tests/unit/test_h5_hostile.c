// HDF5 files as a stranger could have made them: each is refused with words, in a second of the CPU and bounded memory,
// and no handle of the library stays open.
#include <dlfcn.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
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

#define DIR_ "build/tmp/test_h5_hostile"
#define F(name) DIR_ "/" name

// What happens to a file between its opening and its inspection.
static void (*meanwhile)(void);

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *files, const posix_spawnattr_t *attr,
                char *const argv[], char *const env[]) {
    static int (*real)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                       char *const[], char *const[]);
    *(void **)&real = dlsym(RTLD_NEXT, "posix_spawn");
    if (meanwhile) meanwhile();
    return real(pid, path, files, attr, argv, env);
}

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

static int hostile; // files so far

// Seconds of the CPU, of this process and of those that it waited for.
static double cpu_seconds(void) {
    double sum = 0;
    struct rusage use;
    for (int who = 0; who < 2; who++) {
        getrusage(who ? RUSAGE_CHILDREN : RUSAGE_SELF, &use);
        sum += (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
               1e-6 * (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
    }
    return sum;
}

static Err open_in_time(const char *path, double most, H5File **f) {
    const double began = cpu_seconds();
    Err err = h5_open_checked(path, f);
    if (cpu_seconds() - began > most) fail_msg("%s took %.1f s", path, cpu_seconds() - began);
    hostile++;
    return err;
}

static void expect_refused(const char *path, const char *words) {
    H5File *f = NULL;
    expect(open_in_time(path, 1, &f), DS_ERR_DATA, words);
    assert_null(f);
}

typedef struct {
    hid_t file, dcpl, space, type;
} Raw;

// A file with one 1-D data set /x to be made by `dcpl`.
static Raw raw_begin(const char *path, hsize_t n) {
    h5_init();
    Raw r = {.file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
             .dcpl = H5Pcreate(H5P_DATASET_CREATE),
             .space = H5Screate_simple(1, &n, NULL),
             .type = H5T_NATIVE_FLOAT};
    assert_true(r.file >= 0);
    return r;
}

static void raw_end(Raw r, const void *data) {
    hid_t d = H5Dcreate2(r.file, "x", r.type, r.space, H5P_DEFAULT, r.dcpl, H5P_DEFAULT);
    assert_true(d >= 0);
    if (data) assert_true(H5Dwrite(d, r.type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(d), H5Pclose(r.dcpl), H5Sclose(r.space), H5Fclose(r.file);
}

static void test_external_storage(void **state) {
    (void)state;
    Raw r = raw_begin(F("bad.h5"), 8);
    H5Pset_external(r.dcpl, "/etc/passwd", 0, 32);
    raw_end(r, NULL);
    expect_refused(F("bad.h5"), "/x keeps its data in an external file");
}

static void test_links(void **state) {
    (void)state;
    Raw r = raw_begin(F("bad.h5"), 2);
    H5Lcreate_soft("/x", r.file, "soft", H5P_DEFAULT, H5P_DEFAULT);
    raw_end(r, (float[]){1, 2});
    expect_refused(F("bad.h5"), "/soft is a link of soft kind");
    r = raw_begin(F("bad.h5"), 2);
    H5Lcreate_external("/etc/passwd", "/x", r.file, "out", H5P_DEFAULT, H5P_DEFAULT);
    raw_end(r, (float[]){1, 2});
    expect_refused(F("bad.h5"), "/out is a link of external kind");
    r = raw_begin(F("bad.h5"), 2); // a group inside itself
    hid_t g = H5Gcreate2(r.file, "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_hard(r.file, "/g", g, "again", H5P_DEFAULT, H5P_DEFAULT);
    H5Gclose(g);
    raw_end(r, (float[]){1, 2});
    expect_refused(F("bad.h5"), "deep (links in a circle?)");
}

// Every group holds the next one twice: 2^16 ways to the last.
static void test_many_paths(void **state) {
    (void)state;
    Raw r = raw_begin(F("bad.h5"), 2);
    hid_t top = H5Gopen2(r.file, "/", H5P_DEFAULT);
    for (int i = 0; i < 40; i++) {
        hid_t next = H5Gcreate2(top, "a", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        H5Lcreate_hard(top, "a", top, "b", H5P_DEFAULT, H5P_DEFAULT);
        H5Gclose(top);
        top = next;
    }
    H5Gclose(top);
    raw_end(r, (float[]){1, 2});
    expect_refused(F("bad.h5"), "deep");
}

// The file opens, since nobody asks its virtual set for anything: neither its extent nor its elements are to be had.
static void untouched_source(const char *file, const char *dataset, hid_t space, hid_t src) {
    float x[4];
    H5Info info;
    Raw r = raw_begin(F("bad.h5"), 4);
    H5Sclose(r.space);
    r.space = H5Scopy(space);
    assert_true(H5Pset_virtual(r.dcpl, r.space, file, dataset, src) >= 0);
    raw_end(r, NULL);
    hostile++;
    alarm(20); // a source that is opened is a pipe that nobody writes
    H5File *f = open_ok(F("bad.h5"));
    expect(h5_read(f, "/x", DS_F32, 0, 4, x), DS_ERR_DATA, "/x is a virtual data set");
    expect(h5_info(f, "/x", &info), DS_ERR_DATA, "/x is a virtual data set");
    h5_close(&f);
    alarm(0);
}

static void make_pipes(void) {
    assert_int_equal(file_make_dirs(F("bad.shards")), DS_OK);
    assert_true(mkfifo(F("pipe"), 0600) == 0 && mkfifo(F("bad.shards/00000.h5"), 0600) == 0);
}

static void test_foreign_sources(void **state) {
    (void)state;
    h5_init();
    make_pipes();
    hsize_t n = 4, zero = 0;
    hid_t space = H5Screate_simple(1, &n, NULL), src = H5Screate_simple(1, &n, NULL);
    H5Sselect_hyperslab(src, H5S_SELECT_SET, &zero, NULL, &n, NULL);
    const char *const files[] = {"pipe", DIR_ "/pipe", "../test_h5_hostile/pipe", "bad.shards/00000.h5", "/etc/passwd",
                                 ".",    "bad.shards"};
    for (int i = 0; i < DS_COUNT(files); i++) untouched_source(files[i], "/y", space, src);
    H5Sclose(space), H5Sclose(src);
}

// A growing virtual set would open its sources as soon as its extent is asked for; one with %b would open any number of
// them.
static void test_growing_source(void **state) {
    (void)state;
    const char *const files[] = {"bad.shards/00000.h5", "pipe", "bad.shards/0000%b.h5", "bad.shards/00000.h5"};
    const char *const sets[] = {"/x", "/x", "/x", "/x%b"};
    for (int i = 0; i < 4; i++) {
        hsize_t n = 4, unlimited = H5S_UNLIMITED, zero = 0;
        hid_t space = H5Screate_simple(1, &n, &unlimited), src = H5Screate_simple(1, &n, i < 2 ? &unlimited : NULL);
        if (i < 2) {
            H5Sselect_hyperslab(space, H5S_SELECT_SET, &zero, NULL, &unlimited, NULL);
            H5Sselect_hyperslab(src, H5S_SELECT_SET, &zero, NULL, &unlimited, NULL);
        } else {
            H5Sselect_hyperslab(space, H5S_SELECT_SET, &zero, &n, &unlimited, &n);
        }
        untouched_source(files[i], sets[i], space, src);
        H5Sclose(space), H5Sclose(src);
    }
}

static void test_filters(void **state) {
    (void)state;
    hsize_t chunk = 64;
    float x[256] = {0};
    for (int i = 0; i < 256; i++) x[i] = (float)(i / 9);
    for (int kind = 0; kind < 4; kind++) {
        Raw r = raw_begin(F("bad.h5"), 256);
        H5Pset_chunk(r.dcpl, 1, &chunk);
        herr_t set = 0;
        if (kind == 0) set = H5Pset_szip(r.dcpl, H5_SZIP_NN_OPTION_MASK, 8);
        if (kind == 1) set = H5Pset_nbit(r.dcpl);
        if (kind == 2) set = H5Pset_scaleoffset(r.dcpl, H5Z_SO_FLOAT_DSCALE, 2);
        if (kind == 3) set = H5Pset_filter(r.dcpl, 32015, H5Z_FLAG_OPTIONAL, 0, NULL);
        if (set < 0 && kind == 0) { // a library without szip
            H5Pclose(r.dcpl), H5Sclose(r.space), H5Fclose(r.file);
            continue;
        }
        raw_end(r, x);
        expect_refused(F("bad.h5"), "only shuffle, deflate and fletcher32");
    }
    Raw r = raw_begin(F("good.h5"), 256);
    H5Pset_chunk(r.dcpl, 1, &chunk);
    H5Pset_shuffle(r.dcpl), H5Pset_deflate(r.dcpl, 6), H5Pset_fletcher32(r.dcpl);
    raw_end(r, x);
    H5File *f = open_ok(F("good.h5"));
    float y[256];
    assert_int_equal(h5_read(f, "/x", DS_F32, 0, 256, y), DS_OK);
    assert_memory_equal(x, y, sizeof x);
    h5_close(&f);
}

// Deflate before shuffle: what inflates would be shuffled once more before anybody counts it.
static void test_filter_order(void **state) {
    (void)state;
    hsize_t chunk = 64;
    float x[256] = {0};
    for (int kind = 0; kind < 4; kind++) {
        Raw r = raw_begin(F("bad.h5"), 256);
        H5Pset_chunk(r.dcpl, 1, &chunk);
        if (kind == 0) H5Pset_deflate(r.dcpl, 6), H5Pset_shuffle(r.dcpl);
        if (kind == 1) H5Pset_fletcher32(r.dcpl), H5Pset_deflate(r.dcpl, 6);
        if (kind == 2) H5Pset_fletcher32(r.dcpl), H5Pset_shuffle(r.dcpl);
        if (kind == 3) H5Pset_deflate(r.dcpl, 6), H5Pset_deflate(r.dcpl, 6);
        raw_end(r, x);
        expect_refused(F("bad.h5"), "twice, or not in the order shuffle, deflate, fletcher32");
    }
}

// A chunk whose stream does not end, or is none.
static void test_torn_deflate(void **state) {
    (void)state;
    hsize_t chunk = 4096, zero = 0;
    float x[4096] = {0};
    for (int kind = 0; kind < 2; kind++) {
        const char torn[] = {0x78, (char)0xda, kind ? 0x07 : 0x63, 0x60};
        Raw r = raw_begin(F("bad.h5"), 4096);
        H5Pset_chunk(r.dcpl, 1, &chunk);
        H5Pset_deflate(r.dcpl, 9);
        raw_end(r, x);
        hid_t f = H5Fopen(F("bad.h5"), H5F_ACC_RDWR, H5P_DEFAULT), d = H5Dopen2(f, "x", H5P_DEFAULT);
        assert_true(H5Dwrite_chunk(d, H5P_DEFAULT, 0, &zero, sizeof torn, torn) >= 0);
        H5Dclose(d), H5Fclose(f);
        expect_refused(F("bad.h5"), "chunk 0 of /x is damaged");
    }
}

// A chunk of 64 floats whose stored bytes are a deflate stream of 4 MiB of zeros.
static void test_deflate_bomb(void **state) {
    (void)state;
    hsize_t chunk = 4096;
    float x[4096] = {0};
    Raw r = raw_begin(F("bad.h5"), 4096);
    H5Pset_chunk(r.dcpl, 1, &chunk);
    H5Pset_deflate(r.dcpl, 9);
    raw_end(r, x);
    // the stream of a file with a chunk 256 times as large
    hsize_t large = 1 << 20, stored = 0, zero = 0;
    float *many = MEM_NEW(float, large);
    Raw s = raw_begin(F("large.h5"), large);
    H5Pset_chunk(s.dcpl, 1, &large);
    H5Pset_deflate(s.dcpl, 9);
    raw_end(s, many);
    mem_free(many);
    hid_t f = H5Fopen(F("large.h5"), H5F_ACC_RDONLY, H5P_DEFAULT), d = H5Dopen2(f, "x", H5P_DEFAULT);
    H5Dget_chunk_storage_size(d, &zero, &stored);
    char *raw = mem_alloc(stored);
    uint32_t mask = 0;
    assert_true(H5Dread_chunk(d, H5P_DEFAULT, &zero, &mask, raw) >= 0);
    H5Dclose(d), H5Fclose(f);
    f = H5Fopen(F("bad.h5"), H5F_ACC_RDWR, H5P_DEFAULT), d = H5Dopen2(f, "x", H5P_DEFAULT);
    assert_true(H5Dwrite_chunk(d, H5P_DEFAULT, 0, &zero, stored, raw) >= 0);
    H5Dclose(d), H5Fclose(f);
    mem_free(raw);
    expect_refused(F("bad.h5"), "is damaged, or inflates to more than its 16384 bytes");
}

static void test_shape_bombs(void **state) {
    (void)state;
    hsize_t chunk = 1 << 20;
    Raw r = raw_begin(F("bad.h5"), 1ull << 60); // nothing is allocated
    H5Pset_chunk(r.dcpl, 1, &chunk);
    raw_end(r, NULL);
    expect_refused(F("bad.h5"), "/x");
    r = raw_begin(F("bad.h5"), 1ull << 40);
    H5Pset_alloc_time(r.dcpl, H5D_ALLOC_TIME_LATE);
    raw_end(r, NULL);
    expect_refused(F("bad.h5"), "/x was never written");
    chunk = 16; // one chunk of a hundred is there
    r = raw_begin(F("bad.h5"), 1600);
    H5Pset_chunk(r.dcpl, 1, &chunk);
    hid_t d = H5Dcreate2(r.file, "y", r.type, r.space, H5P_DEFAULT, r.dcpl, H5P_DEFAULT);
    hsize_t start = 160, n = 16;
    float x[16] = {0};
    hid_t mem = H5Screate_simple(1, &n, NULL), part = H5Scopy(r.space);
    H5Sselect_hyperslab(part, H5S_SELECT_SET, &start, NULL, &n, NULL);
    assert_true(H5Dwrite(d, r.type, mem, part, H5P_DEFAULT, x) >= 0);
    H5Dclose(d), H5Sclose(mem), H5Sclose(part);
    raw_end(r, NULL);
    expect_refused(F("bad.h5"), "of its 100 chunks");
}

static void refuse_type(hid_t type, bool attribute, const char *words) {
    Raw r = raw_begin(F("bad.h5"), 2);
    hid_t s = H5Screate(H5S_SCALAR);
    if (attribute) {
        hid_t a = H5Acreate2(r.file, "a", type, s, H5P_DEFAULT, H5P_DEFAULT);
        assert_true(a >= 0);
        H5Aclose(a);
    } else {
        hid_t d = H5Dcreate2(r.file, "d", type, s, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        assert_true(d >= 0);
        H5Dclose(d);
    }
    H5Sclose(s);
    raw_end(r, (float[]){1, 2});
    expect_refused(F("bad.h5"), words);
}

static void test_alien_types(void **state) {
    (void)state;
    h5_init();
    hsize_t three = 3;
    hid_t compound = H5Tcreate(H5T_COMPOUND, 8), opaque = H5Tcreate(H5T_OPAQUE, 4), odd = H5Tcopy(H5T_NATIVE_INT);
    hid_t vlen = H5Tvlen_create(H5T_NATIVE_INT), array = H5Tarray_create2(H5T_NATIVE_INT, 1, &three);
    hid_t en = H5Tenum_create(H5T_NATIVE_INT), str = H5Tcopy(H5T_C_S1);
    H5Tinsert(compound, "a", 0, H5T_NATIVE_INT);
    H5Tset_precision(odd, 13);
    H5Tenum_insert(en, "one", (int[]){1});
    for (int attribute = 0; attribute < 2; attribute++) {
        refuse_type(H5T_STD_REF_OBJ, attribute, "type reference");
        refuse_type(H5T_STD_REF_DSETREG, attribute, "type reference");
        refuse_type(compound, attribute, "type compound");
        refuse_type(opaque, attribute, "type opaque");
        refuse_type(vlen, attribute, "type variable-length");
        refuse_type(array, attribute, "type array");
        refuse_type(en, attribute, "type enumeration");
        refuse_type(odd, attribute, "type integer"); // 13 bits
    }
    refuse_type(str, false, "type string");
    H5Tclose(compound), H5Tclose(opaque), H5Tclose(odd), H5Tclose(vlen), H5Tclose(array), H5Tclose(en), H5Tclose(str);
    Raw r = raw_begin(F("bad.h5"), 2);
    hid_t t = H5Tcopy(H5T_NATIVE_INT);
    H5Tcommit2(r.file, "named", t, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Tclose(t);
    raw_end(r, (float[]){1, 2});
    expect_refused(F("bad.h5"), "/named is neither a group nor a data set");
}

// Tolerated where it lies, never read: the library trusts the length in the file.
static void test_variable_string(void **state) {
    (void)state;
    Raw r = raw_begin(F("vl.h5"), 2);
    hid_t s = H5Screate(H5S_SCALAR), t = H5Tcopy(H5T_C_S1);
    H5Tset_size(t, H5T_VARIABLE);
    hid_t a = H5Acreate2(r.file, "note", t, s, H5P_DEFAULT, H5P_DEFAULT);
    const char *words = "hello";
    H5Awrite(a, t, &words);
    H5Aclose(a), H5Tclose(t), H5Sclose(s);
    raw_end(r, (float[]){1, 2});
    H5File *f = open_ok(F("vl.h5"));
    char *text = NULL;
    expect(h5_attr_get_str(f, "/", "note", &text), DS_ERR_DATA, "store it with fixed length");
    h5_close(&f);
}

// A file with variable-length strings, or with a virtual data set: both lie in a global heap.
static void make_heap(const char *path, bool virtual) {
    h5_init();
    hsize_t n = 4;
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), t = H5Tcopy(H5T_C_S1);
    hid_t s = virtual ? H5Screate_simple(1, &n, NULL) : H5Screate(H5S_SCALAR), dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Tset_size(t, H5T_VARIABLE);
    const char *words = "a string of the global heap";
    if (virtual) assert_true(H5Pset_virtual(dcpl, s, "heap.shards/00000.h5", "/a_data_set", s) >= 0);
    hid_t x = virtual ? H5Dcreate2(file, "x", H5T_NATIVE_FLOAT, s, H5P_DEFAULT, dcpl, H5P_DEFAULT)
                      : H5Acreate2(file, "note", t, s, H5P_DEFAULT, H5P_DEFAULT);
    if (!virtual) assert_true(H5Awrite(x, t, &words) >= 0);
    if (virtual) H5Dclose(x);
    else H5Aclose(x);
    H5Pclose(dcpl), H5Tclose(t), H5Sclose(s), H5Fclose(file);
}

// The library can crash or loop on a damaged one. Then it is the child that ends; it has 10 s.
static void flip_heap(bool virtual) {
    FileMap map;
    int refused = 0, slow = 0;
    make_heap(F("heap.h5"), virtual);
    assert_int_equal(file_map(F("heap.h5"), &map), DS_OK);
    const char *heap = memmem(map.data, map.bytes, "GCOL", 4);
    assert_non_null(heap);
    for (int i = 0; i < 32; i++) {
        H5File *f = NULL;
        H5Info info;
        char *copy = mem_strndup(map.data, map.bytes), *text = NULL;
        copy[heap - map.data + i * 3 % 96] ^= (char)(1 << i % 8);
        FILE *out = fopen(F("bad.h5"), "wb");
        assert_true(out && fwrite(copy, 1, map.bytes, out) == map.bytes && fclose(out) == 0);
        const double began = cpu_seconds();
        Err err = open_in_time(F("bad.h5"), 12, &f);
        slow += cpu_seconds() - began > 1;
        assert_true(err == DS_OK || err == DS_ERR_DATA);
        refused += err == DS_ERR_DATA;
        err_clear();
        if (!err && virtual) expect(h5_info(f, "/x", &info), DS_ERR_DATA, "/x is a virtual data set");
        else if (!err) expect(h5_attr_get_str(f, "/", "note", &text), DS_ERR_DATA, "store it with fixed length");
        h5_close(&f);
        mem_free(copy);
    }
    print_message("%d of 32 refused, %d only after a second\n", refused, slow);
    file_unmap(&map);
}

static void test_global_heap(void **state) {
    (void)state;
    flip_heap(false);
    flip_heap(true);
}

// An attribute larger than a string may be.
static void test_large_attributes(void **state) {
    (void)state;
    h5_init();
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS), t = H5Tcopy(H5T_C_S1), s = H5Screate(H5S_SCALAR);
    H5Pset_libver_bounds(fapl, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST); // others cannot be larger than 64 KiB
    hid_t file = H5Fcreate(F("bad.h5"), H5F_ACC_TRUNC, H5P_DEFAULT, fapl);
    const size_t bytes = 3 << 20;
    char *words = mem_alloc(bytes);
    H5Tset_size(t, bytes);
    hid_t a = H5Acreate2(file, "large", t, s, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(a >= 0 && H5Awrite(a, t, words) >= 0);
    H5Aclose(a), H5Tclose(t), H5Sclose(s), H5Pclose(fapl), H5Fclose(file);
    mem_free(words);
    expect_refused(F("bad.h5"), "or one larger than 1048576 bytes");
}

static void test_bounds(void **state) {
    (void)state;
    struct rusage use;
    getrusage(RUSAGE_CHILDREN, &use);
    print_message("%d hostile files, at most %ld MiB\n", hostile, use.ru_maxrss >> 10);
    assert_true(hostile >= 36);
#ifndef DS_SANITIZED
    assert_true(use.ru_maxrss < 512 << 10);
#endif
}

// After all of the above no handle of the library is left open, whatever was refused.
static void make_linked(const char *path, bool linked) {
    Raw r = raw_begin(path, 3);
    if (linked) H5Lcreate_soft("/x", r.file, "/soft", H5P_DEFAULT, H5P_DEFAULT);
    raw_end(r, (float[3]){1, 2, 3});
}

static void swap(void) { rename(F("benign.h5"), F("swapped.h5")); }

// An inspection counts only for the file that was opened and only if its end was seen.
static void test_inspection_counts(void **state) {
    (void)state;
    H5File *f = NULL;
    make_linked(F("linked.h5"), true);
    signal(SIGCHLD, SIG_IGN);
    expect_refused(F("linked.h5"), "soft");
    make_linked(F("benign.h5"), false);
    f = open_ok(F("benign.h5"));
    h5_close(&f);
    assert_true(signal(SIGCHLD, SIG_DFL) == SIG_IGN);
    // Another file has got the name.
    make_linked(F("swapped.h5"), true);
    meanwhile = swap;
    expect(h5_open_checked(F("swapped.h5"), &f), DS_ERR_IO, "was replaced while it was opened");
    meanwhile = NULL;
    f = open_ok(F("swapped.h5"));
    h5_close(&f);
    // One that was inspected is written anew, with its size, and its time is put back.
    struct stat st;
    const struct timespec same[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    make_linked(F("linked.h5"), true);
    stat(F("linked.h5"), &st);
    assert_int_equal(truncate(F("swapped.h5"), st.st_size), 0);
    utimensat(AT_FDCWD, F("swapped.h5"), same, 0);
    f = open_ok(F("swapped.h5"));
    h5_close(&f);
    assert_int_equal(system("cat " F("linked.h5") " >" F("swapped.h5")), 0); // lint: the harm
    utimensat(AT_FDCWD, F("swapped.h5"), same, 0);
    expect(h5_open_checked(F("swapped.h5"), &f), DS_ERR_DATA, "soft");
}

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
        cmocka_unit_test(test_external_storage), cmocka_unit_test(test_links),
        cmocka_unit_test(test_many_paths),       cmocka_unit_test(test_foreign_sources),
        cmocka_unit_test(test_growing_source),   cmocka_unit_test(test_filters),
        cmocka_unit_test(test_filter_order),     cmocka_unit_test(test_torn_deflate),
        cmocka_unit_test(test_deflate_bomb),     cmocka_unit_test(test_shape_bombs),
        cmocka_unit_test(test_alien_types),      cmocka_unit_test(test_variable_string),
        cmocka_unit_test(test_global_heap),      cmocka_unit_test(test_large_attributes),
        cmocka_unit_test(test_bounds),           cmocka_unit_test(test_inspection_counts),
        cmocka_unit_test(test_no_handles_left),
    };
    return cmocka_run_group_tests_name("h5_hostile", tests, fresh, NULL);
}
