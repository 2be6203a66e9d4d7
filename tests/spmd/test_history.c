// test_history.c: history.nc and rollouts.nc on any number of ranks: the same bytes whoever holds which answer, restart
// from a checkpoint, a file cut short, files of others. What ncdump makes of them: tests/cli/report.sh.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "comm/agree.h"
#include "comm/coll.h"
#include "comm/world.h"
#include "io/history.h"

enum { ANSWERS = 23, MAX_LENGTH = 9 };

static const HistoryVar scalars[] = {{"loss", "1", "training loss"}, {"lr", "1", "learning rate"}, {"kl", "1", "KL"}};
static const HistoryVar quantities[] = {{"logprob", "1", "log-probability"}, {"value", "1", "critic's value"}};
static const HistorySpec spec = {scalars, 3, "sft rm ppo", 0, NULL};
static const HistorySpec rollout_spec = {quantities, 2, NULL, MAX_LENGTH, NULL};

typedef enum { DEAL_FIRST, DEAL_LAST, DEAL_ROUND, DEAL_BLOCKS, DEALS } Deal;

static char dir[64];

// "<dir>/<name>" in one of four static buffers.
static const char *in_dir(const char *name) {
    static char paths[4][128];
    static int next;
    next = (next + 1) % 4;
    snprintf(paths[next], sizeof paths[0], "%s/%s", dir, name);
    return paths[next];
}

static Sha256Hex sha_of(const char *path) {
    Sha256Hex hex = {""};
    coll_barrier(group_world());
    assert_int_equal(hash_sha256_file(path, &hex), DS_OK);
    return hex;
}

static void put_steps(History *h, int64_t from, int64_t to) {
    for (int64_t s = from; s < to; s++) {
        double v[] = {1.0 / (double)(1 + s), s < 5 ? 0.5 : NAN, (double)s};
        history_put(h, s < 5 ? "sft" : "ppo", s < 5 ? s : s - 5, 1e9 + (double)s, v);
    }
}

static void write_history(const char *path, int64_t keep, int64_t to) {
    History *h = NULL;
    assert_int_equal(history_open(path, &spec, keep, &h), DS_OK);
    put_steps(h, keep, to);
    assert_int_equal(history_sync(h), DS_OK);
    if (world_rank() == 0) assert_int_equal(history_records(h), to);
    assert_int_equal(history_close(&h), DS_OK);
    assert_null(h);
}

static int64_t length_of(int64_t iteration, int64_t i) { return (iteration * 7 + i * 5) % (MAX_LENGTH + 1); }

// Ids ascend in no rank's order: answer i of the iteration has id 1000 * iteration + (i * 9 mod 23).
static void put_iteration(Rollouts *r, int64_t iteration, Deal deal) {
    static uint32_t tokens[ANSWERS][MAX_LENGTH];
    static float values[ANSWERS][2][MAX_LENGTH];
    static const float *rows[ANSWERS][2];
    RolloutAnswer mine[ANSWERS];
    int size = world_size(), n = 0;
    for (int i = 0; i < ANSWERS; i++) {
        int owner = deal == DEAL_FIRST   ? 0
                    : deal == DEAL_LAST  ? size - 1
                    : deal == DEAL_ROUND ? i % size
                                         : i * size / ANSWERS;
        if (owner != world_rank()) continue;
        int64_t id = 1000 * iteration + i * 9 % ANSWERS, length = length_of(iteration, i);
        for (int t = 0; t < length; t++) {
            tokens[n][t] = (uint32_t)(id * 10 + t);
            values[n][0][t] = -(float)id - 0.1f * (float)t;
            values[n][1][t] = (float)(t * t);
        }
        rows[n][0] = values[n][0];
        rows[n][1] = values[n][1];
        mine[n] = (RolloutAnswer){id, length, tokens[n], rows[n]};
        n++;
    }
    assert_int_equal(history_put_rollouts(r, iteration, mine, n), DS_OK);
}

static void write_rollouts(const char *path, int64_t from, int64_t to, Deal deal) {
    Rollouts *r = NULL;
    assert_int_equal(history_open_rollouts(path, &rollout_spec, from, &r), DS_OK);
    for (int64_t i = from; i < to; i++) put_iteration(r, i, deal);
    assert_int_equal(history_sync_rollouts(r), DS_OK);
    assert_int_equal(history_close_rollouts(&r), DS_OK);
}

static void test_restart_same_bytes(void **state) {
    (void)state;
    write_history(in_dir("whole.nc"), 0, 9);
    write_history(in_dir("parts.nc"), 0, 7); // two steps past the checkpoint at 5
    write_history(in_dir("parts.nc"), 5, 9);
    assert_string_equal(sha_of(in_dir("whole.nc")).hex, sha_of(in_dir("parts.nc")).hex);
}

static void test_shorter_after_restart(void **state) {
    (void)state;
    write_history(in_dir("long.nc"), 0, 9);
    write_history(in_dir("long.nc"), 4, 5);
    write_history(in_dir("short.nc"), 0, 5);
    assert_string_equal(sha_of(in_dir("long.nc")).hex, sha_of(in_dir("short.nc")).hex);
}

static void test_missing_file_goes_on(void **state) {
    (void)state;
    History *h = NULL;
    if (world_rank() == 0) unlink(in_dir("gone.nc"));
    coll_barrier(group_world());
    assert_int_equal(history_open(in_dir("gone.nc"), &spec, 3, &h), DS_OK);
    if (world_rank() == 0) assert_int_equal(history_records(h), 0);
    assert_int_equal(history_close(&h), DS_OK);
}

static void test_rollouts_any_owner(void **state) {
    (void)state;
    Sha256Hex first = {""};
    for (Deal deal = 0; deal < DEALS; deal++) {
        write_rollouts(in_dir("deal.nc"), 0, 3, deal);
        Sha256Hex now = sha_of(in_dir("deal.nc"));
        if (deal == 0) first = now;
        assert_string_equal(now.hex, first.hex);
        coll_barrier(group_world());
    }
}

static void test_rollouts_restart(void **state) {
    (void)state;
    write_rollouts(in_dir("r-whole.nc"), 0, 4, DEAL_ROUND);
    write_rollouts(in_dir("r-parts.nc"), 0, 3, DEAL_BLOCKS);
    write_rollouts(in_dir("r-parts.nc"), 2, 4, DEAL_LAST);
    assert_string_equal(sha_of(in_dir("r-whole.nc")).hex, sha_of(in_dir("r-parts.nc")).hex);
}

static void test_rollouts_refuse(void **state) {
    (void)state;
    Rollouts *r = NULL;
    uint32_t token = 1;
    float value = 0;
    const float *rows[] = {&value, &value};
    RolloutAnswer twice[] = {{7, 1, &token, rows}, {7, 1, &token, rows}};
    assert_int_equal(history_open_rollouts(in_dir("r-bad.nc"), &rollout_spec, 0, &r), DS_OK);
    assert_int_equal(history_put_rollouts(r, 0, twice, world_rank() == 0 ? 2 : 0), DS_ERR_BUG);
    assert_non_null(strstr(err_text(), "sample id 7"));
    err_clear();
    put_iteration(r, 3, DEAL_ROUND);
    assert_int_equal(history_put_rollouts(r, 3, twice, 0), DS_ERR_BUG);
    err_clear();
    assert_int_equal(history_close_rollouts(&r), DS_OK);
}

static void test_unknown_stage_reported(void **state) {
    (void)state;
    History *h = NULL;
    double v[3] = {0};
    assert_int_equal(history_open(in_dir("stage.nc"), &spec, 0, &h), DS_OK);
    history_put(h, "pp", 0, 0, v);
    assert_int_equal(history_sync(h), DS_ERR_BUG);
    assert_non_null(strstr(err_text(), "'pp'"));
    err_clear();
    assert_int_equal(history_close(&h), DS_ERR_BUG);
    err_clear();
}

// Opens `path` to go on at record 2 and expects words with `why`, on every rank.
static void expect_code(Err code, const char *path, const HistorySpec *s, int64_t keep, const char *why) {
    History *h = NULL;
    coll_barrier(group_world());
    assert_int_equal(history_open(path, s, keep, &h), code);
    assert_null(h);
    if (!strstr(err_text(), why)) fail_msg("expected '%s' in '%s'", why, err_text());
    err_clear();
}

static void expect_refused(const char *path, const HistorySpec *s, int64_t keep, const char *why) {
    expect_code(DS_ERR_DATA, path, s, keep, why);
}

// Rank 0 writes bytes at `at` of a fresh nine-record file, or cuts it there if there are none.
static const char *damaged(int64_t at, const void *bytes, size_t n) {
    const char *path = in_dir("damaged.nc");
    write_history(path, 0, 9);
    if (world_rank() == 0) {
        int fd = open(path, O_WRONLY);
        assert_true(fd >= 0);
        if (n == 0) assert_int_equal(ftruncate(fd, at), 0);
        else assert_int_equal(pwrite(fd, bytes, n, at), n);
        close(fd);
    }
    return path;
}

static void test_damaged_refused(void **state) {
    (void)state;
    expect_refused(damaged(700, NULL, 0), &spec, 2, "damaged");
    expect_refused(damaged(1200, NULL, 0), &spec, 2, "cut short");
    expect_refused(damaged(2, NULL, 0), &spec, 2, "not a netCDF file");
    expect_refused(damaged(0, NULL, 0), &spec, 2, "not a netCDF file");
    expect_refused(damaged(0, "\x89HDF", 4), &spec, 2, "not a netCDF file");
    expect_refused(damaged(4, "\x7f\xff\xff\xff", 4), &spec, 2, "cut short");
    for (int64_t at = 8; at < 400; at += 4) { // no number of the header may crash the reader
        History *h = NULL;
        const char *path = damaged(at, "\xff\xff\xff\xf0", 4);
        coll_barrier(group_world());
        if (history_open(path, &spec, 2, &h) == DS_OK) assert_int_equal(history_close(&h), DS_OK);
        err_clear();
    }
}

// Any bit of a record that stays, or of where the records lie.
static void test_flipped_refused(void **state) {
    (void)state;
    const char *path = in_dir("damaged.nc");
    write_history(path, 0, 9);
    char *data;
    size_t bytes;
    assert_int_equal(file_read_all(path, 1 << 20, &data, &bytes), DS_OK);
    const int64_t record = 44, begin = (int64_t)bytes - 9 * record;
    for (int64_t at = begin; at < begin + 2 * record; at += 3) {
        char flipped = (char)(data[at] ^ 1 << at % 8);
        if (at < begin + record)
            expect_refused(damaged(at, &flipped, 1), &spec, 2, "record 0 of 2, or the header, is damaged");
        else expect_refused(damaged(at, &flipped, 1), &spec, 2, "record 1 of 2, or the header, is damaged");
    }
    for (int64_t at = 12; at < begin - 512; at += 7) { // of the header, which ends less than that before record 0
        History *h = NULL;
        char flipped = (char)(data[at] ^ 1 << at % 8);
        damaged(at, &flipped, 1);
        coll_barrier(group_world());
        assert_int_equal(history_open(path, &spec, 2, &h), DS_ERR_DATA);
        err_clear();
    }
    char other = (char)~data[begin + 2 * record];
    damaged(begin + 2 * record, &other, 1);
    coll_barrier(group_world());
    write_history(path, 2, 9); // what lies past the checkpoint is written anew
    mem_free(data);
}

static void test_flipped_rollouts(void **state) {
    (void)state;
    Rollouts *r = NULL;
    const char *path = in_dir("r-flipped.nc");
    write_rollouts(path, 0, 4, DEAL_ROUND);
    char *data;
    size_t bytes;
    assert_int_equal(file_read_all(path, 1 << 20, &data, &bytes), DS_OK);
    const int64_t record = 4 + 8 + 4 + 4 + 3 * 4 * MAX_LENGTH, at = (int64_t)bytes - 92 * record + 5 * record + 50;
    if (world_rank() == 0) {
        char flipped = (char)(data[at] ^ 4);
        int fd = open(path, O_WRONLY);
        assert_int_equal(pwrite(fd, &flipped, 1, at), 1);
        close(fd);
    }
    coll_barrier(group_world());
    mem_free(data);
    assert_int_equal(history_open_rollouts(path, &rollout_spec, 2, &r), DS_ERR_DATA);
    if (!strstr(err_text(), "record 5 of 46, or the header, is damaged")) fail_msg("said '%s'", err_text());
    err_clear();
}

static void test_others_refused(void **state) {
    (void)state;
    static const HistoryVar renamed[] = {{"loss", "1", "l"}, {"lr", "1", "l"}, {"entropy", "1", "e"}};
    static const HistorySpec other = {renamed, 3, "sft rm ppo", 0, NULL}, fewer = {scalars, 2, "sft rm ppo", 0, NULL};
    const char *path = in_dir("other.nc");
    write_history(path, 0, 9);
    expect_refused(path, &other, 2, "no variable 'entropy'");
    expect_refused(path, &fewer, 2, "7 variables, expected 6");
    expect_refused(path, &spec, 10, "9 records, the checkpoint was written after 10");
    write_rollouts(path, 0, 1, DEAL_ROUND);
    expect_refused(path, &spec, 1, "not a netCDF file of format CDF-2");
    expect_code(DS_ERR_IO, dir, &spec, 1, dir);
}

static void test_unwritable(void **state) {
    (void)state;
    History *h = NULL;
    Rollouts *r = NULL;
    assert_int_equal(history_open(in_dir("no/such/history.nc"), &spec, 0, &h), DS_ERR_IO);
    assert_non_null(strstr(err_text(), "no/such/history.nc"));
    err_clear();
    assert_int_equal(history_open_rollouts(in_dir("no/such/rollouts.nc"), &rollout_spec, 0, &r), DS_ERR_IO);
    err_clear();
}

static void test_origin(void **state) {
    (void)state;
    Origin o = {0};
    OriginLib libs[] = {{"MPI", world_mpi_version()}, {"PnetCDF", history_library()}};
    origin_fill(&o, "test", libs, 2);
    origin_add(&o, "Params-SHA256", "12\n34\n");
    origin_add(&o, "params_sha256", "ab\ncd\n");
    assert_string_equal(origin_find(&o, "params_sha256"), "ab; cd");
    assert_string_equal(origin_find(&o, "library_pnetcdf"), history_library());
    assert_non_null(strstr(origin_find(&o, "shared_objects"), "libmpich.so."));
    assert_null(origin_find(&o, "nothing"));
    char *text = origin_text(&o);
    assert_non_null(strstr(text, "\nparams_sha256 = ab; cd\n"));
    mem_free(text);
    HistorySpec with = spec;
    History *h = NULL;
    with.origin = &o;
    assert_int_equal(history_open(in_dir("origin.nc"), &with, 0, &h), DS_OK);
    put_steps(h, 0, 9);
    assert_int_equal(history_close(&h), DS_OK);
    origin_clear(&o);
    assert_int_equal(o.n, 0);
}

int main(void) {
    world_init();
    snprintf(dir, sizeof dir, "build/tmp/history-%d", world_size());
    if (file_make_dirs(dir)) return 1;
    coll_barrier(group_world());
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_restart_same_bytes),
                                       cmocka_unit_test(test_shorter_after_restart),
                                       cmocka_unit_test(test_missing_file_goes_on),
                                       cmocka_unit_test(test_rollouts_any_owner),
                                       cmocka_unit_test(test_rollouts_restart),
                                       cmocka_unit_test(test_rollouts_refuse),
                                       cmocka_unit_test(test_unknown_stage_reported),
                                       cmocka_unit_test(test_damaged_refused),
                                       cmocka_unit_test(test_flipped_refused),
                                       cmocka_unit_test(test_flipped_rollouts),
                                       cmocka_unit_test(test_others_refused),
                                       cmocka_unit_test(test_unwritable),
                                       cmocka_unit_test(test_origin)};
    int failed = cmocka_run_group_tests_name("history", tests, NULL, NULL);
    world_finalize();
    return failed != 0;
}
