// Checkpoints: written whole or not at all, found again, loaded at any number of pieces. Runs on one rank, or on any
// number under mpirun: the collective tests share a folder, the others use one a rank.
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "comm/agree.h"
#include "comm/coll.h"
#include "comm/world.h"
#include "io/ckpt_save.h"
#include "io/manifest.h"

static char own[64], all[64]; // folders

static void expect(Err got, Err want, const char *words) {
    char text[2048];
    snprintf(text, sizeof text, "%s", err_text());
    err_clear();
    if (got != want || !strstr(text, words))
        fail_msg("got %d \"%s\", expected %d and the words \"%s\"", got, text, want, words);
}

static void ok(Err err) { expect(err, DS_OK, ""); }

static char *in(const char *dir, const char *name) { // valid until the sixteenth call after it
    static char *paths[16];
    static int next;
    char **p = &paths[next++ % 16];
    mem_free(*p);
    return *p = mem_printf("%s/%s", dir, name);
}

// ---- names ----

// A byte of any file changes: of any number of ranks that share the looking, one says so, and which file.
static void test_each_file(void **state) {
    (void)state;
    static const char *const names[] = {"actor.h5", "actor.shards/00000.h5", "actor.shards/00001.h5", "critic.h5",
                                        "trainer.h5"};
    enum { BYTES = 1000 };
    Manifest m = {0};
    char bytes[BYTES];
    ok(file_make_dirs(in(own, "each/actor.shards")));
    for (int i = 0; i < DS_COUNT(names); i++) {
        memset(bytes, 'a' + i, sizeof bytes);
        ok(file_write_atomic(in(in(own, "each"), names[i]), bytes, sizeof bytes));
        ok(manifest_add_file(&m, in(own, "each"), names[i]));
    }
    for (int i = 0; i < DS_COUNT(names) * 3; i++) { // each file at its beginning, middle, end
        const char *name = names[i / 3], *path = in(in(own, "each"), name);
        memset(bytes, 'a' + i / 3, sizeof bytes);
        bytes[i % 3 * (BYTES - 1) / 2] ^= 1;
        ok(file_write_atomic(path, bytes, sizeof bytes));
        for (int ranks = 1; ranks <= 3; ranks++) {
            int found = 0;
            for (int rank = 0; rank < ranks; rank++) {
                const Err err = manifest_check_hashes(&m, in(own, "each"), rank, ranks);
                if (err) expect(err, DS_ERR_DATA, name);
                found += err != DS_OK;
            }
            assert_int_equal(found, 1);
        }
        bytes[i % 3 * (BYTES - 1) / 2] ^= 1;
        ok(file_write_atomic(path, bytes, sizeof bytes));
    }
    for (int rank = 0; rank < 3; rank++) ok(manifest_check_hashes(&m, in(own, "each"), rank, 3));
    manifest_free(&m);
}

static void test_names(void **state) {
    (void)state;
    const char *stage;
    int64_t step;
    assert_true(ckpt_parse("out/checkpoints/ppo-000123", &stage, &step) && !strcmp(stage, "ppo") && step == 123);
    char *path = ckpt_path("d", "rm", 7);
    assert_string_equal(path, "d/rm-000007");
    assert_true(ckpt_parse(path, &stage, &step) && !strcmp(stage, "rm") && step == 7);
    mem_free(path);
    const char *const bad[] = {
        "ppo", "ppo-", "ppo-1x", ".tmp-ppo-000001", "dpo-1", "ppo--1", "sft-99999999999999999999"};
    for (int i = 0; i < DS_COUNT(bad); i++) assert_false(ckpt_parse(bad[i], &stage, &step));
}

// ---- a small model over all ranks ----

enum { TENSORS = 4, MAX_STRIPS = 3, MAX_PIECES = 3 * MAX_STRIPS * TENSORS };

static const H5Tensor tensors[TENSORS] = {
    {.path = "/weights/a.weight", .dtype = DS_F32, .ndim = 2, .shape = {37, 11}},
    {.path = "/weights/a.bias", .dtype = DS_F32, .ndim = 1, .shape = {5}},
    {.path = "/adam_m/a.weight", .dtype = DS_F32, .ndim = 2, .shape = {37, 11}},
    {.path = "/adam_v/a.weight", .dtype = DS_BF16, .ndim = 2, .shape = {37, 11}},
};

static float element(int tensor, int64_t i, int64_t step) { return (float)(tensor * 1000 + i) + 0.25f * (float)step; }

typedef struct {
    H5Piece piece[MAX_PIECES];
    int n;
    int64_t step;
} Share;

// Strips of columns that the matrices are saved in: those of so many tensor ranks.
static int strips = 1;

// Strip number k of n of a tensor; a vector is the first rank's.
static H5Runs held(const H5Tensor *t, int k, int n) {
    if (t->ndim == 1 || n == 1) return (H5Runs){0, k ? 0 : h5_tensor_count(t), 0};
    int64_t from = t->shape[1] * k * k / (n * n), to = t->shape[1] * (k + 1) * (k + 1) / (n * n);
    return (H5Runs){from, t->shape[0] * (to - from), to - from};
}

// This rank's share of all tensors as one flat sequence, strip after strip: the cuts fall anywhere inside rows.
static Share cut(int rank, int size, int n, int64_t step) {
    Share s = {.step = step};
    int64_t total = 0, at = 0;
    for (int i = 0; i < TENSORS; i++) total += h5_tensor_count(&tensors[i]);
    int64_t lo = total * rank / size, hi = total * (rank + 1) / size;
    for (int k = 0; k < n; k++)
        for (int i = 0; i < TENSORS; i++) {
            H5Runs strip = held(&tensors[i], k, n), r;
            for (int64_t from = ds_max(lo, at), to = ds_min(hi, at + strip.count); from < to; from += r.count) {
                r = h5_runs_part(strip, tensors[i].shape[1], from - at, to - from);
                s.piece[s.n++] = (H5Piece){.tensor = i, .first = r.first, .count = r.count, .run = r.run};
            }
            at += strip.count;
        }
    return s;
}

static int64_t place(const H5Piece *p, int64_t k) {
    return p->run ? p->first + k / p->run * tensors[p->tensor].shape[1] + k % p->run : p->first + k;
}

// This element is what it is set to.
static int hurt_tensor = -1;
static int64_t hurt_place;
static float hurt_value;

static Err give(void *context, int piece, int64_t offset, int64_t count, void *out) {
    const Share *s = context;
    const H5Piece *p = &s->piece[piece];
    for (int64_t i = 0; i < count; i++) {
        float v = element(p->tensor, place(p, offset + i), s->step);
        if (p->tensor == hurt_tensor && place(p, offset + i) == hurt_place) v = hurt_value;
        if (tensors[p->tensor].dtype == DS_F32) ((float *)out)[i] = v;
        else ((uint16_t *)out)[i] = f32_to_bf16(v);
    }
    return DS_OK;
}

// Fails the load unless every element is what `give` gave.
static Err take(void *context, int piece, int64_t offset, int64_t count, const void *data) {
    const Share *s = context;
    const H5Piece *p = &s->piece[piece];
    for (int64_t i = 0; i < count; i++) {
        float v = element(p->tensor, place(p, offset + i), s->step);
        bool same = tensors[p->tensor].dtype == DS_F32 ? ((const float *)data)[i] == v
                                                       : ((const uint16_t *)data)[i] == f32_to_bf16(v);
        if (!same)
            return err_set(DS_ERR_DATA, "wrong element %d of %s", (int)place(p, offset + i), tensors[p->tensor].path);
    }
    return DS_OK;
}

// Two neighbours each; NULL or this is `sharing`.
static Group *pairs;
static const Group *sharing;

static Err save(const Group *g, const char *dir, const char *stage, int64_t step, ModelFiles files, int keep) {
    Share s = cut(group_rank(g), group_size(g), strips, step);
    const CkptModel models[2] = {{"actor", {NULL, tensors, TENSORS, s.piece, s.n, give, &s, sharing}},
                                 {"critic", {NULL, tensors, TENSORS, s.piece, s.n, give, &s, sharing}}};
    const CkptOptions o = {dir, stage, step, files, keep};
    Kv *kv = kv_create();
    char *path = NULL;
    kv_put_i64(kv, "step", step);
    Err err = ckpt_save(g, &o, models, 2, kv, &path);
    if (!err) assert_true(file_exists(in(path, "DONE")));
    mem_free(path);
    kv_destroy(&kv);
    return err;
}

// The checkpoint loads in `size` shares, all of them by this rank, of one, two and three tensor ranks.
static void load(const char *path, int64_t step, int size) {
    Kv *kv;
    H5File *f;
    int64_t v;
    ok(ckpt_read_state(path, &kv));
    ok(kv_get_i64(kv, "step", &v));
    assert_int_equal(v, step);
    kv_destroy(&kv);
    char *model = ckpt_model_path(path, "critic");
    ok(h5_open_checked(model, &f));
    for (int n = 1; n <= MAX_STRIPS; n++)
        for (int r = 0; r < size; r++) {
            Share s = cut(r, size, n, step);
            ok(h5_parts_read(f, tensors, TENSORS, s.piece, s.n, take, &s));
        }
    ok(h5_parts_verify(f, tensors, TENSORS, 0, 1));
    h5_close(&f);
    mem_free(model);
}

// The newest checkpoint's name ("" for none) on every rank.
static void expect_newest(const Group *g, const char *dir, const char *name) {
    char *path;
    ok(ckpt_find_newest(g, dir, &path));
    if (!path ? name[0] != 0 : strcmp(strrchr(path, '/') + 1, name) != 0)
        fail_msg("newest is %s, expected %s", path ? path : "none", name);
    mem_free(path);
}

static int count_entries(const char *dir) {
    char command[300];
    snprintf(command, sizeof command, "exit $(ls -A %s | wc -l)", dir);
    return WEXITSTATUS(system(command)); // lint: ls
}

static void test_save_and_load(void **state) {
    (void)state;
    const Group *g = group_world();
    char dir[96];
    snprintf(dir, sizeof dir, "%s/ck", all);
    expect_newest(g, dir, "");
    ok(save(g, dir, "sft", 10, MODEL_FILES_SHARDS, 2));
    expect_newest(g, dir, "sft-000010");
    load(in(dir, "sft-000010"), 10, 1);
    load(in(dir, "sft-000010"), 10, 7);
    coll_barrier(g);
    sharing = pairs;
    ok(save(g, dir, "sft", 11, MODEL_FILES_SHARDS, 2));
    sharing = NULL;
    expect_newest(g, dir, "sft-000011");
    load(in(dir, "sft-000011"), 11, 3);
    assert_false(file_exists(in(dir, "sft-000011/actor.shards/00001.h5"))); // rank 0 wrote for it
    coll_barrier(g);
    if (group_rank(g) == 0) ok(file_remove_tree(in(dir, "sft-000011")));
    coll_barrier(g);
    ok(save(g, dir, "sft", 9, MODEL_FILES_ONE, 3));
    load(in(dir, "sft-000009"), 9, 3);
    expect_newest(g, dir, "sft-000010");
    ok(save(g, dir, "ppo", 1, MODEL_FILES_ONE, 3));
    ok(save(g, dir, "rm", 500, MODEL_FILES_SHARDS, 3)); // the order of stages beats the step
    expect_newest(g, dir, "ppo-000001");
    assert_int_equal(count_entries(dir), 3);
    assert_false(file_exists(in(dir, "sft-000009")));
    ok(save(g, dir, "ppo", 2, MODEL_FILES_SHARDS, 1));
    assert_int_equal(count_entries(dir), 1);
    ok(save(g, dir, "ppo", 2, MODEL_FILES_SHARDS, 1)); // a second time
    assert_int_equal(count_entries(dir), 1);
    expect_newest(g, dir, "ppo-000002");
    load(in(dir, "ppo-000002"), 2, 2);
    expect(save(g, dir, "dpo", 1, MODEL_FILES_SHARDS, 1), DS_ERR_BUG, "not a checkpoint's name");
}

// As above with matrices in strips: a shard a rank, one for two ranks, one file.
static void test_save_strips(void **state) {
    (void)state;
    const Group *g = group_world();
    char dir[96];
    Manifest m;
    Xxh128Hex hash;
    snprintf(dir, sizeof dir, "%s/tp", all);
    for (strips = 2; strips <= MAX_STRIPS; strips++)
        for (int kind = 0; kind < 3; kind++) {
            sharing = kind == 1 ? pairs : NULL;
            ok(save(g, dir, "ppo", 10 * strips + kind, kind == 2 ? MODEL_FILES_ONE : MODEL_FILES_SHARDS, 1));
            char name[32];
            snprintf(name, sizeof name, "ppo-%06d", 10 * strips + kind);
            expect_newest(g, dir, name);
            load(in(dir, name), 10 * strips + kind, 4);
            ok(manifest_read(&m, in(dir, name), &hash));
            int runs = 0;
            for (int64_t i = 0; i < m.n; i++) runs += !strncmp(m.line[i], "runs ", 5);
            assert_true(runs >= 2 * 3 * strips); // two models of three matrices
            manifest_free(&m);
            coll_barrier(g);
        }
    strips = 1;
    sharing = NULL;
}

// One file over shards over one file, under the same name.
static void test_replaced_model(void **state) {
    (void)state;
    const Group *g = group_world();
    char path[96];
    snprintf(path, sizeof path, "%s/actor.h5", all);
    for (int i = 0; i < 5; i++) {
        bool one_file = i % 2 == 0;
        H5Rows rows = {0};
        H5File *f;
        Share s = cut(group_rank(g), group_size(g), 1, i);
        const ModelSource source = {NULL, tensors, TENSORS, s.piece, s.n, give, &s, sharing};
        ok(modelfile_save(g, path, &source, one_file ? MODEL_FILES_ONE : MODEL_FILES_SHARDS, i % 3 ? &rows : NULL));
        if (i % 3 && group_rank(g) == 0) assert_true(rows.n >= TENSORS);
        h5_rows_free(&rows);
        assert_int_equal(file_exists(in(all, "actor.shards")), !one_file);
        ok(h5_open_checked(path, &f));
        s = cut(group_size(g) - 1 - group_rank(g), group_size(g), 1, i);
        ok(h5_parts_read(f, tensors, TENSORS, s.piece, s.n, take, &s));
        h5_close(&f);
        coll_barrier(g);
    }
}

// ---- damage ----

static void flip_middle(const char *path) {
    unsigned char c;
    int fd = open(path, O_RDWR);
    off_t at = lseek(fd, 0, SEEK_END) / 2;
    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 1;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

// Runs a command on rank 0 alone, between barriers.
static void on_root(const char *fmt, const char *dir) {
    const Group *g = group_world();
    coll_barrier(g);
    char command[600];
    snprintf(command, sizeof command, fmt, dir, dir, dir, dir);
    if (group_rank(g) == 0) assert_int_equal(system(command), 0); // lint: the harm done
    coll_barrier(g);
}

static void test_damage(void **state) {
    (void)state;
    const Group *g = group_world();
    char dir[96];
    snprintf(dir, sizeof dir, "%s/hurt", all);
    bool root = group_rank(g) == 0;
    const char *const files[] = {"trainer.h5", "actor.h5", "critic.shards/00000.h5", "manifest.txt", "DONE"};
    ok(save(g, dir, "sft", 1, MODEL_FILES_SHARDS, 5));
    for (int i = 0; i < DS_COUNT(files); i++) {
        ok(save(g, dir, "sft", 2, MODEL_FILES_SHARDS, 5));
        expect_newest(g, dir, "sft-000002");
        if (root) flip_middle(in(in(dir, "sft-000002"), files[i]));
        coll_barrier(g);
        expect_newest(g, dir, "sft-000001");
    }
    const char *const harm[] = {"rm %s/sft-000002/DONE",
                                "rm %s/sft-000002/critic.shards/00000.h5",
                                "rm -r %s/sft-000002/actor.shards",
                                "truncate -s -1 %s/sft-000002/trainer.h5",
                                "cp %s/sft-000001/DONE %s/sft-000002/DONE",
                                "mv %s/sft-000002/trainer.h5 %s/x && ln -s ../x %s/sft-000002/trainer.h5",
                                "cp %s/sft-000001/critic.shards/* %s/sft-000002/critic.shards/"};
    for (int i = 0; i < DS_COUNT(harm); i++) {
        ok(save(g, dir, "sft", 2, MODEL_FILES_SHARDS, 5));
        on_root(harm[i], dir);
        expect_newest(g, dir, "sft-000001");
    }
    for (int n = 0; n < 33; n++) { // a torn DONE is none
        char command[100];
        ok(save(g, dir, "sft", 2, MODEL_FILES_SHARDS, 5));
        snprintf(command, sizeof command, "truncate -s %d %%s/sft-000002/DONE", n);
        on_root(command, dir);
        if (root) expect(ckpt_check(in(dir, "sft-000002")), DS_ERR_DATA, "DONE: is torn");
    }
    on_root("mv %s/sft-000001 %s/away && ln -s away %s/sft-000001", dir);
    expect_newest(g, dir, ""); // a link is not a checkpoint
}

// What cannot be read now is not known to be damaged: it is neither skipped nor removed.
static void test_unreadable(void **state) {
    (void)state;
    const Group *g = group_world();
    char dir[96], *newest = NULL;
    snprintf(dir, sizeof dir, "%s/unreadable", all);
    ok(save(g, dir, "sft", 1, MODEL_FILES_SHARDS, 5));
    ok(save(g, dir, "sft", 2, MODEL_FILES_SHARDS, 5));
    on_root("rm %s/sft-000002/DONE && mkdir %s/sft-000002/DONE", dir);
    expect(ckpt_find_newest(g, dir, &newest), DS_ERR_IO, "sft-000002 to go on from what is older");
    assert_null(newest);
    ok(save(g, dir, "sft", 3, MODEL_FILES_SHARDS, 1));
    assert_int_equal(count_entries(dir), 2); // 1 is gone
    expect_newest(g, dir, "sft-000003");
    on_root("mv %s/sft-000003 %s/.tmp-old-sft-000002", dir);
    if (group_rank(g) == 0) expect(ckpt_clean(dir), DS_ERR_IO, "sft-000002/DONE: is not a regular file");
    coll_barrier(g);
    assert_int_equal(count_entries(dir), 2); // both are still there
    on_root("rm -r %s/sft-000002/DONE", dir);
    if (group_rank(g) == 0) ok(ckpt_clean(dir));
    coll_barrier(g);
    expect_newest(g, dir, "sft-000002");
}

static void test_clean(void **state) {
    (void)state;
    const Group *g = group_world();
    char dir[96];
    snprintf(dir, sizeof dir, "%s/clean", all);
    ok(save(g, dir, "sft", 1, MODEL_FILES_SHARDS, 5));
    on_root("mkdir -p %s/.tmp-sft-000002/x.shards && touch %s/.tmp-sft-000002/x.shards/00000.h5", dir);
    expect_newest(g, dir, "sft-000001");
    if (group_rank(g) == 0) ok(ckpt_clean(dir));
    coll_barrier(g);
    assert_int_equal(count_entries(dir), 1);
    ok(ckpt_clean(in(all, "missing")));
}

// ---- no room ----

// Writes beyond `bytes` fail, as on a full disk, in files of this process.
static void limit_files(rlim_t bytes) {
    struct rlimit r;
    getrlimit(RLIMIT_FSIZE, &r);
    r.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static void test_disk_full(void **state) {
    (void)state;
    const Group *g = group_world();
    char dir[96];
    snprintf(dir, sizeof dir, "%s/full", all);
    signal(SIGXFSZ, SIG_IGN);
    ok(save(g, dir, "sft", 1, MODEL_FILES_SHARDS, 5));
    int failed = 0;
    for (int files = 0; files < 3; files++)
        for (rlim_t limit = 0; limit < 24000; limit += 700) {
            bool last = group_rank(g) == group_size(g) - 1; // one rank has no room
            if (last) limit_files(limit);
            sharing = files == 2 ? pairs : NULL;
            Err err = save(g, dir, "sft", 2, files == 1 ? MODEL_FILES_ONE : MODEL_FILES_SHARDS, 5);
            limit_files(RLIM_INFINITY);
            if (!err) { // there was enough
                on_root("rm -r %s/sft-000002", dir);
                break;
            }
            failed++;
            expect(err, DS_ERR_IO, ": File too large");
            expect_newest(g, dir, "sft-000001");
            assert_int_equal(count_entries(dir), 1);
        }
    sharing = NULL;
    if (group_size(g) == 1) assert_true(failed > 10);
    expect(ckpt_save_check_space(dir, INT64_MAX), DS_ERR_IO, "a checkpoint needs");
    coll_barrier(g);
}

static void test_one_rank_fails(void **state) {
    (void)state;
    const Group *g = group_world();
    char dir[96];
    snprintf(dir, sizeof dir, "%s/lie", all);
    Share s = cut(group_rank(g), group_size(g), 1, 1);
    if (group_rank(g) == group_size(g) - 1) s.piece[0].count = 1 << 20; // lies about its share
    for (int files = 0; files < 3; files++) {
        sharing = files == 2 ? pairs : NULL;
        const CkptModel m = {"actor", {NULL, tensors, TENSORS, s.piece, s.n, give, &s, sharing}};
        const CkptOptions o = {dir, "sft", 1, files == 1 ? MODEL_FILES_ONE : MODEL_FILES_SHARDS, 1};
        Kv *kv = kv_create();
        expect(ckpt_save(g, &o, &m, 1, kv, NULL), DS_ERR_BUG, "lies outside it");
        kv_destroy(&kv);
        coll_barrier(g);
        assert_int_equal(count_entries(o.dir), 0);
    }
    sharing = NULL;
}

// Where an element is not finite nothing is written, and all ranks know which one.
static void test_not_finite(void **state) {
    (void)state;
    const Group *g = group_world();
    const float values[] = {NAN, INFINITY, -INFINITY};
    char dir[96], *path, words[96];
    snprintf(dir, sizeof dir, "%s/nan", all);
    path = mem_printf("%s/m.h5", all);
    for (int i = 0; i < 3 * TENSORS; i++) {
        hurt_tensor = i % TENSORS, hurt_place = i % 5, hurt_value = values[i / TENSORS];
        const ModelFiles files = i % 2 ? MODEL_FILES_ONE : MODEL_FILES_SHARDS;
        sharing = i % 3 == 2 ? pairs : NULL;
        snprintf(words, sizeof words, "%s: element %d is not a finite", tensors[hurt_tensor].path, (int)hurt_place);
        strips = 1 + i % MAX_STRIPS;
        expect(save(g, dir, "sft", 1, files, 1), DS_ERR_NUMERIC, words);
        coll_barrier(g);
        assert_int_equal(count_entries(dir), 0);
        Share s = cut(group_rank(g), group_size(g), strips, 1);
        const ModelSource source = {NULL, tensors, TENSORS, s.piece, s.n, give, &s, sharing};
        expect(modelfile_save(g, path, &source, files, NULL), DS_ERR_NUMERIC, words);
        assert_false(file_exists(path));
        coll_barrier(g);
    }
    hurt_tensor = -1, strips = 1, sharing = NULL;
    mem_free(path);
}

static int fresh(void **state) {
    (void)state;
    snprintf(own, sizeof own, "build/tmp/test_ckpt/rank%d", world_rank());
    snprintf(all, sizeof all, "build/tmp/test_ckpt/all");
    int bad = world_rank() == 0 && file_remove_tree("build/tmp/test_ckpt");
    coll_barrier(group_world());
    pairs = group_split(group_world(), world_rank() / 2, world_rank());
    bad = bad || file_make_dirs(own) || file_make_dirs(all);
    coll_barrier(group_world());
    return bad;
}

// For scripts: save DIR STAGE STEP rank|one KEEP, newest DIR (prints it, or "none"), load PATH STEP.
static int run_command(int argc, char **argv) {
    const Group *g = group_world();
    char *path = NULL;
    Err err = DS_OK;
    if (argc == 7 && !strcmp(argv[1], "save"))
        err = save(g, argv[2], argv[3], atoll(argv[4]), !strcmp(argv[5], "one") ? MODEL_FILES_ONE : MODEL_FILES_SHARDS,
                   atoi(argv[6]));
    else if (argc == 3 && !strcmp(argv[1], "newest")) {
        err = ckpt_clean(argv[2]);
        if (!err) err = ckpt_find_newest(g, argv[2], &path);
        if (!err) puts(path ? path : "none");
    } else if (argc == 4 && !strcmp(argv[1], "load")) load(argv[2], atoll(argv[3]), 5);
    else err = err_set(DS_ERR_PARAMS, "unknown command %s", argv[1]);
    if (err && group_rank(g) == 0) fprintf(stderr, "error: %s\n", err_text());
    mem_free(path);
    return (int)err;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_file),      cmocka_unit_test(test_names),
        cmocka_unit_test(test_save_and_load),  cmocka_unit_test(test_save_strips),
        cmocka_unit_test(test_replaced_model), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_unreadable),     cmocka_unit_test(test_clean),
        cmocka_unit_test(test_disk_full),      cmocka_unit_test(test_one_rank_fails),
        cmocka_unit_test(test_not_finite),
    };
    world_init();
    if (argc > 1) {
        int code = run_command(argc, argv);
        world_finalize();
        return code;
    }
    int failed = cmocka_run_group_tests_name("ckpt", tests, fresh, NULL);
    group_destroy(&pairs);
    world_finalize();
    return failed;
}
