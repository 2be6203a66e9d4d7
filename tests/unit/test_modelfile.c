// Model files: one file and shards read alike, whatever the pieces; damage and missing shards are named.
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

#include "arch/weights.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "io/h5_attr.h"
#include "io/modelfile.h"

#define DIR_ "build/tmp/test_modelfile"
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

static Arch small_arch(void) {
    Arch a;
    arch_family_defaults(&a, ARCH_LLAMA);
    a.layers = 2, a.width = a.embed_width = 12, a.heads = 3, a.kv_heads = 1, a.head_dim = a.rotary_dim = 4, a.ffn = 20;
    a.vocab = 31, a.max_positions = 64;
    ok(arch_check(&a, "test"));
    return a;
}

static const ModelPair origin[] = {{"commit", "abc123"}, {"params_sha256", "00ff"}};
static const ModelPair texts[] = {{"chat_template", "{% for m in messages %}{{ m }}{% endfor %}"}};
static const char tokenizer[] = "{\"model\": \"\0binary\"}";

static ModelMeta meta_of(const Arch *a) {
    return (ModelMeta){.arch = a,
                       .tokenizer = tokenizer,
                       .tokenizer_bytes = sizeof tokenizer,
                       .origin = origin,
                       .n_origin = DS_COUNT(origin),
                       .texts = texts,
                       .n_texts = DS_COUNT(texts)};
}

// Element i of tensor t as stored.
static float value(int t, int64_t i) { return (float)rng_normal(7, RNG_INIT, (uint64_t)t, (uint64_t)i); }

static void fill(const H5Tensor *t, int index, int64_t first, int64_t count, void *out) {
    (void)t;
    for (int64_t i = 0; i < count; i++) {
        if (t->dtype == DS_F32) ((float *)out)[i] = value(index, first + i);
        else ((uint16_t *)out)[i] = f32_to_bf16(value(index, first + i));
    }
}

static void write_single(const char *path, DType dtype, int64_t part) {
    Arch a = small_arch();
    ModelMeta meta = meta_of(&a);
    ModelWriter *w;
    H5Tensor *tensors;
    int n;
    float buffer[4096];
    modelfile_tensors(&a, dtype, &tensors, &n);
    ok(modelfile_create(path, &meta, dtype, &w));
    for (int i = n - 1; i >= 0; i--) { // any order
        int64_t total = h5_tensor_count(&tensors[i]);
        for (int64_t at = 0; at < total; at += part) {
            int64_t count = ds_min(part, total - at);
            fill(&tensors[i], i, at, count, buffer);
            ok(modelfile_put(w, i, at, count, buffer));
        }
    }
    ok(modelfile_commit(&w));
    assert_null(w);
    mem_free(tensors);
}

static void check_value(const H5Tensor *t, int index, int64_t i, float x, uint16_t b) {
    float v = value(index, i);
    uint16_t h = f32_to_bf16(v);
    if (b != h || x != (t->dtype == DS_F32 ? v : bf16_to_f32(h)))
        fail_msg("%s[%d] = %g, %g expected", t->path, (int)i, (double)x, (double)v);
}

// Uneven strips of a matrix: the first column of strip number `strip` of `strips`.
static int64_t strip_begin(int64_t cols, int strip, int strips) { return cols * strip * strip / (strips * strips); }

static H5Runs strip_of(const H5Tensor *t, int strip, int strips) {
    int64_t col = strip_begin(t->shape[1], strip, strips), run = strip_begin(t->shape[1], strip + 1, strips) - col;
    return (H5Runs){col, t->shape[0] * run, run};
}

// The weight as a rank of 1, 2 or 3 would read its strip, and part of it from inside one row to inside another.
static void check_strips(const ModelFile *m, int i, float *x, uint16_t *b) {
    const H5Tensor *t = modelfile_tensor(m, i);
    for (int strips = 1; strips <= 3; strips++)
        for (int strip = 0; strip < strips; strip++)
            for (int skip = 0; skip < 2; skip++) {
                const H5Runs r = strip_of(t, strip, strips);
                for (int64_t at = skip * (r.run + r.run / 2), end = r.count - skip; at < end;) {
                    H5Runs part = h5_runs_part(r, t->shape[1], at, end - at);
                    ok(modelfile_read_runs(m, i, DS_F32, part.first, part.count, part.run, x));
                    ok(modelfile_read_runs(m, i, DS_BF16, part.first, part.count, part.run, b));
                    for (int64_t k = 0; k < part.count; k++, at++)
                        check_value(t, i, r.first + at / r.run * t->shape[1] + at % r.run, x[k], b[k]);
                }
            }
}

// Every weight equals `value`, read whole, in odd ranges and in strips, as fp32 and as bf16.
static void check_model(const char *path, DType stored) {
    ModelFile *m;
    Arch a = small_arch();
    float x[4096];
    uint16_t b[4096];
    ok(modelfile_open(path, &m));
    assert_memory_equal(modelfile_arch(m), &a, sizeof a);
    for (int i = 0; i < modelfile_count(m); i++) {
        const H5Tensor *t = modelfile_tensor(m, i);
        int64_t n = h5_tensor_count(t);
        assert_int_equal(t->dtype, stored);
        for (int64_t first = 0; first < n; first += 1 + n / 5) {
            int64_t count = ds_min(n - first, 1 + n / 3);
            ok(modelfile_read(m, i, DS_F32, first, count, x));
            ok(modelfile_read(m, i, DS_BF16, first, count, b));
            for (int64_t k = 0; k < count; k++) check_value(t, i, first + k, x[k], b[k]);
        }
        if (t->ndim == 2) check_strips(m, i, x, b);
    }
    ok(modelfile_verify(m, 0, 1));
    for (int part = 0; part < 3; part++) ok(modelfile_verify(m, part, 3));
    char *text;
    size_t bytes;
    ok(modelfile_tokenizer(m, &text, &bytes));
    assert_int_equal(bytes, sizeof tokenizer);
    assert_memory_equal(text, tokenizer, bytes);
    mem_free(text);
    ok(modelfile_text(m, "chat_template", &text));
    assert_string_equal(text, texts[0].value);
    mem_free(text);
    ok(modelfile_origin(m, "commit", &text));
    assert_string_equal(text, "abc123");
    mem_free(text);
    ok(modelfile_origin(m, "nothing", &text));
    assert_null(text);
    modelfile_close(&m);
}

static void test_single(void **state) {
    (void)state;
    write_single(F("one.h5"), DS_F32, 4096);
    check_model(F("one.h5"), DS_F32);
    write_single(F("one.h5"), DS_BF16, 37);
    check_model(F("one.h5"), DS_BF16);
}

static void test_incomplete(void **state) {
    (void)state;
    Arch a = small_arch();
    ModelMeta meta = meta_of(&a);
    ModelWriter *w;
    float x[31 * 12] = {0};
    ok(modelfile_create(F("half.h5"), &meta, DS_F32, &w));
    ok(modelfile_put(w, 0, 0, 31 * 12, x));
    expect(modelfile_commit(&w), DS_ERR_BUG, "leave a hole at element 0 of");
    assert_null(w);
    assert_false(file_exists(F("half.h5")));
    ok(modelfile_create(F("half.h5"), &meta, DS_F32, &w));
    ok(modelfile_put(w, 0, 0, 31 * 12, x));
    ok(modelfile_put(w, 0, 5, 7, x)); // twice
    expect(modelfile_commit(&w), DS_ERR_BUG, "overlap at element 5 of 372");
    expect(modelfile_create("build/tmp/no/folder/m.h5", &meta, DS_F32, &w), DS_ERR_IO, "build/tmp/no/folder/m.h5");
    assert_null(w);
}

// ---- shards ----

typedef struct {
    const H5Tensor *tensors;
    const H5Piece *pieces;
    int calls;
} Source;

static Err fetch(void *context, int piece, int64_t offset, int64_t count, void *out) {
    Source *s = context;
    const H5Piece *p = &s->pieces[piece];
    assert_true(count > 0 && count <= H5_ROW_MAX && offset + count <= p->count);
    const H5Tensor *t = &s->tensors[p->tensor];
    for (int64_t k = offset; k < offset + count; k++) {
        int64_t at = p->run ? p->first + k / p->run * t->shape[1] + k % p->run : p->first + k;
        fill(t, p->tensor, at, 1, (char *)out + (size_t)(k - offset) * dtype_bytes(t->dtype));
    }
    s->calls++;
    return DS_OK;
}

// What tensor rank `strip` holds: strips of matrices, where there are several; vectors are the first rank's.
static H5Runs held(const H5Tensor *t, int strip, int strips) {
    if (t->ndim == 2 && strips > 1) return strip_of(t, strip, strips);
    return (H5Runs){0, strip ? 0 : h5_tensor_count(t), 0};
}

// Share number `s` of `shares` of what a tensor rank holds, as one flat sequence that ZeRO cuts at any element.
static int cut(const H5Tensor *tensors, int n, int strip, int strips, int s, int shares, H5Piece *pieces) {
    int n_pieces = 0;
    int64_t total = 0, at = 0;
    for (int i = 0; i < n; i++) total += held(&tensors[i], strip, strips).count;
    int64_t lo = total * s / shares, hi = total * (s + 1) / shares;
    for (int i = 0; i < n; i++) {
        H5Runs all = held(&tensors[i], strip, strips), r = {0};
        for (int64_t from = ds_max(lo, at), to = ds_min(hi, at + all.count); from < to; from += r.count) {
            r = h5_runs_part(all, tensors[i].shape[1], from - at, to - from);
            pieces[n_pieces++] = (H5Piece){.tensor = i, .first = r.first, .count = r.count, .run = r.run};
        }
        at += all.count;
    }
    return n_pieces;
}

static void write_sharded(const char *path, DType dtype, int strips, int shares) {
    Arch a = small_arch();
    ModelMeta meta = meta_of(&a);
    H5Tensor *tensors;
    H5Rows rows = {0};
    int n;
    modelfile_tensors(&a, dtype, &tensors, &n);
    H5Piece *pieces = MEM_NEW(H5Piece, 3 * n);
    for (int s = strips * shares - 1; s >= 0; s--) {
        int n_pieces = cut(tensors, n, s / shares, strips, s % shares, shares, pieces);
        Source source = {.tensors = tensors, .pieces = pieces};
        ok(h5_parts_write_shard(path, s, tensors, n, pieces, n_pieces, fetch, &source, &rows));
        assert_true(source.calls >= n_pieces);
    }
    mem_free(pieces);
    ok(modelfile_write_master(path, &meta, tensors, n, &rows));
    h5_rows_free(&rows);
    mem_free(tensors);
}

static void test_sharded(void **state) {
    (void)state;
    const int shards[] = {1, 2, 3, 8, 64};
    for (int i = 0; i < DS_COUNT(shards); i++) {
        ok(file_remove_tree(F("many.shards")));
        write_sharded(F("many.h5"), i % 2 ? DS_BF16 : DS_F32, 1, shards[i]);
        check_model(F("many.h5"), i % 2 ? DS_BF16 : DS_F32);
    }
}

// Tensor ranks times shares; every one reads back whole, in ranges and by the strips of other numbers of tensor ranks.
static void test_tensor_ranks(void **state) {
    (void)state;
    const int shares[] = {1, 2, 9};
    for (int strips = 2; strips <= 3; strips++)
        for (int i = 0; i < DS_COUNT(shares); i++)
            for (DType dtype = DS_F32; dtype <= DS_BF16; dtype++) {
                ok(file_remove_tree(F("tp.shards")));
                write_sharded(F("tp.h5"), dtype, strips, shares[i]);
                check_model(F("tp.h5"), dtype);
            }
}

// The same tensors in one file, strip after strip, in any order.
static void test_strips_in_one(void **state) {
    (void)state;
    Arch a = small_arch();
    ModelMeta meta = meta_of(&a);
    H5Tensor *tensors;
    int n;
    modelfile_tensors(&a, DS_F32, &tensors, &n);
    H5Piece *pieces = MEM_NEW(H5Piece, 3 * n);
    Source source = {.tensors = tensors, .pieces = pieces};
    float x[4096];
    for (int left_out = 0; left_out < 2; left_out++) {
        H5File *f;
        H5Rows rows = {0};
        ok(h5_create(F("one.h5"), &f));
        ok(modelfile_write_meta(f, &meta));
        ok(h5_parts_create(f, tensors, n));
        for (int s = 5; s >= left_out; s--) // three tensor ranks, two shares
            for (int i = cut(tensors, n, s / 2, 3, s % 2, 2, pieces) - 1; i >= 0; i--) {
                ok(fetch(&source, i, 0, pieces[i].count, x));
                pieces[i].data = x;
                ok(h5_parts_put(f, tensors, &pieces[i], &rows));
            }
        if (left_out)
            expect(h5_parts_finish(f, tensors, n, &rows), DS_ERR_BUG,
                   "the rows of /weights/model.embed_tokens.weight leave a hole at element 0 of 372");
        else {
            ok(h5_parts_finish(f, tensors, n, &rows));
            ok(h5_commit(&f));
            check_model(F("one.h5"), DS_F32);
        }
        h5_abandon(&f);
        h5_rows_free(&rows);
    }
    mem_free(pieces);
    mem_free(tensors);
}

static void flip(const char *path, long at) {
    unsigned char c;
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 0x10;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

// Cuts off the hashes behind a file's HDF5 part.
static void cut_sums(const char *path) {
    FileMap map;
    ok(file_map(path, &map));
    const char *sums = memmem(map.data, map.bytes, "blocks of ", 10);
    assert_non_null(sums);
    assert_int_equal(truncate(path, sums - map.data), 0);
    file_unmap(&map);
}

// Where in a file the elements of a tensor from `first` on lie.
static long find_value(const char *path, int tensor, int64_t first) {
    FileMap map;
    float v[4];
    fill(&(H5Tensor){.dtype = DS_F32}, tensor, first, 4, v);
    ok(file_map(path, &map));
    const char *at = memmem(map.data, map.bytes, v, sizeof v);
    long offset = at ? at - map.data : -1;
    file_unmap(&map);
    assert_true(offset > 0);
    return offset;
}

static void test_damage(void **state) {
    (void)state;
    ModelFile *m;
    write_single(F("hurt.h5"), DS_F32, 4096);
    flip(F("hurt.h5"), find_value(F("hurt.h5"), 1, 0) + 5);
    expect(modelfile_open(F("hurt.h5"), &m), DS_ERR_DATA, "hurt.h5: is damaged: bytes 0 to ");
    cut_sums(F("hurt.h5")); // as if another had made it
    ok(modelfile_open(F("hurt.h5"), &m));
    expect(modelfile_verify(m, 0, 1), DS_ERR_DATA, "input_layernorm.weight is damaged: elements 0 to 11");
    modelfile_close(&m);
    // one shard of an older save under the same names
    write_sharded(F("mixed.h5"), DS_F32, 1, 2);
    flip(F("mixed.shards/00000.h5"), find_value(F("mixed.shards/00000.h5"), 1, 0));
    ok(modelfile_open(F("mixed.h5"), &m));
    expect(modelfile_verify(m, 0, 1), DS_ERR_DATA, "is damaged");
    modelfile_close(&m);
    assert_int_equal(unlink(F("mixed.shards/00001.h5")), 0);
    expect(modelfile_open(F("mixed.h5"), &m), DS_ERR_DATA, "mixed.shards/00001.h5 is missing");
    assert_null(m);
}

// In a strip, which is named, and stays so in a file of one data set.
static void test_damaged_strip(void **state) {
    (void)state;
    ModelFile *m;
    write_sharded(F("strip.h5"), DS_F32, 2, 1);
    assert_int_equal(system("h5repack -l CONTI " F("strip.h5") " " F("repacked.h5")), 0); // lint: HDF5's own
    check_model(F("repacked.h5"), DS_F32);
    flip(F("repacked.h5"), find_value(F("repacked.h5"), 0, 12 * 7 + 3));
    flip(F("strip.shards/00001.h5"), find_value(F("strip.shards/00001.h5"), 0, 12 * 7 + 3));
    for (int i = 0; i < 2; i++) {
        ok(modelfile_open(i ? F("repacked.h5") : F("strip.h5"), &m));
        expect(modelfile_verify(m, 0, 1), DS_ERR_DATA,
               "embed_tokens.weight is damaged: elements 3 to 371, 9 of each row of 12 do not");
        modelfile_close(&m);
    }
}

// Every byte of the file, one bit each: refused, or all as it was.
static void test_no_wrong_byte(void **state) {
    (void)state;
    FileMap map;
    write_single(F("bits.h5"), DS_BF16, 4096);
    ok(file_map(F("bits.h5"), &map));
    char *copy = mem_strndup(map.data, map.bytes);
    int refused = 0, harmless = 0;
    for (size_t at = 0; at < map.bytes; at += 11) {
        ModelFile *m = NULL;
        copy[at] = (char)(copy[at] ^ (1 << (at % 8)));
        FILE *out = fopen(F("flip.h5"), "wb");
        assert_int_equal(fwrite(copy, 1, map.bytes, out), map.bytes);
        fclose(out);
        copy[at] = map.data[at];
        Err err = modelfile_open(F("flip.h5"), &m);
        char *text = NULL;
        size_t bytes;
        if (!err) err = modelfile_verify(m, 0, 1);
        if (!err) err = modelfile_tokenizer(m, &text, &bytes);
        mem_free(text);
        modelfile_close(&m);
        if (err && !err_text()[0]) fail_msg("an error without words");
        err_clear();
        refused += err != 0;
        if (!err) check_model(F("flip.h5"), DS_BF16), harmless++;
    }
    print_message("%zu bytes, every 11th flipped: %d refused, %d harmless\n", map.bytes, refused, harmless);
    assert_true(refused > 100);
    mem_free(copy);
    file_unmap(&map);
}

// ---- configs and weights that do not belong together ----

static void test_wrong_models(void **state) {
    (void)state;
    H5File *f;
    ModelFile *m;
    Arch a = small_arch();
    ModelMeta meta = meta_of(&a);
    H5Tensor *tensors;
    int n;
    float x[4096] = {0};
    modelfile_tensors(&a, DS_F32, &tensors, &n);
    ok(h5_create(F("wrong.h5"), &f)); // no config
    ok(h5_write_new(f, "/weights/x", DS_F32, 1, &(int64_t){4}, x));
    ok(h5_commit(&f));
    expect(modelfile_open(F("wrong.h5"), &m), DS_ERR_DATA, "has no /config");
    for (int kind = 0; kind < 4; kind++) {
        ok(h5_create(F("wrong.h5"), &f));
        ok(modelfile_write_meta(f, &meta));
        for (int i = kind == 0; i < n; i++) {
            bool odd = kind == 1 && i == 2;
            ok(h5_write_new(f, tensors[i].path, kind == 2 && i == 3 ? DS_F64 : DS_F32, tensors[i].ndim,
                            odd ? (int64_t[]){5, 5} : tensors[i].shape, x));
        }
        if (kind == 3) ok(h5_write_new(f, "/weights/backdoor.weight", DS_F32, 1, &(int64_t){4}, x));
        ok(h5_commit(&f));
        const char *const words[] = {"embed_tokens.weight is missing", "expected 12 x 12",
                                     "holds fp64, expected fp32 or bf16", "holds the weight backdoor.weight"};
        expect(modelfile_open(F("wrong.h5"), &m), DS_ERR_DATA, words[kind]);
    }
    mem_free(tensors);
    a.layers = 5000;
    ok(h5_create(F("wrong.h5"), &f));
    ok(modelfile_write_meta(f, &meta));
    ok(h5_commit(&f));
    expect(modelfile_open(F("wrong.h5"), &m), DS_ERR_DATA, "layers = 5000");
}

static int fresh(void **state) {
    (void)state;
    return file_remove_tree(DIR_) || file_make_dirs(DIR_);
}

// For scripts: write PATH fp32|bf16 SHARDS (0: one file) [STRIPS: tensor ranks], check PATH fp32|bf16, open PATH.
static int run_command(int argc, char **argv) {
    ModelFile *m = NULL;
    DType dtype = argc > 3 && !strcmp(argv[3], "bf16") ? DS_BF16 : DS_F32;
    if (argc >= 5 && !strcmp(argv[1], "write")) {
        if (atoi(argv[4])) write_sharded(argv[2], dtype, argc > 5 ? atoi(argv[5]) : 1, atoi(argv[4]));
        else write_single(argv[2], dtype, 100);
    } else if (argc == 4 && !strcmp(argv[1], "check")) {
        check_model(argv[2], dtype);
    } else {
        Err err = modelfile_open(argv[2], &m);
        if (err) fprintf(stderr, "error: %s\n", err_text());
        modelfile_close(&m);
        return (int)err;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 2) return run_command(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single),       cmocka_unit_test(test_incomplete),    cmocka_unit_test(test_sharded),
        cmocka_unit_test(test_tensor_ranks), cmocka_unit_test(test_strips_in_one),

        cmocka_unit_test(test_damage),       cmocka_unit_test(test_damaged_strip), cmocka_unit_test(test_no_wrong_byte),
        cmocka_unit_test(test_wrong_models),
    };
    return cmocka_run_group_tests_name("modelfile", tests, fresh, NULL);
}
