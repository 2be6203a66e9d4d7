// Runs of a matrix and whether they tile it, against a count of every element.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "io/h5_runs.h"

enum { MAX_ROWS = 9, MAX_COLS = 9, MAX_TOTAL = MAX_ROWS * MAX_COLS, MAX_RUNS = 2 * MAX_TOTAL };

static uint64_t drawn;
static int64_t draw(int64_t below) { return (int64_t)(rng_uniform(3, RNG_INIT, 0, drawn++) * (double)below); }

static int64_t place(H5Runs r, int64_t cols, int64_t k) {
    return h5_runs_strided(r) ? r.first + k / r.run * cols + k % r.run : r.first + k;
}

// How often each element is held; true: each once.
static bool count(const H5Runs *runs, int64_t n, int64_t total, int64_t cols) {
    int held[MAX_TOTAL] = {0};
    bool once = true;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < runs[i].count; k++) held[place(runs[i], cols, k)]++;
    for (int64_t i = 0; i < total; i++) once = once && held[i] == 1;
    return once;
}

// A matrix in uneven strips, each cut at any of its elements into pieces.
static int64_t cut(int64_t rows, int64_t cols, H5Runs *out) {
    int64_t n = 0;
    for (int64_t col = 0, width; col < cols; col += width) {
        width = 1 + draw(cols - col);
        const H5Runs strip = {col, rows * width, width};
        for (int64_t at = 0, share; at < strip.count; at += share) {
            share = 1 + draw(strip.count - at);
            for (int64_t done = 0; done < share; done += out[n++].count)
                out[n] = h5_runs_part(strip, cols, at + done, share - done);
        }
    }
    return n;
}

static void shuffle(H5Runs *runs, int64_t n) {
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t k = draw(i + 1);
        H5Runs r = runs[i];
        runs[i] = runs[k], runs[k] = r;
    }
}

static void test_tilings(void **state) {
    (void)state;
    H5Runs runs[MAX_RUNS], copy[MAX_RUNS];
    char words[H5_RUNS_WORDS];
    int64_t strided = 0, broken = 0;
    for (int trial = 0; trial < 20000; trial++) {
        int64_t rows = 1 + draw(MAX_ROWS), cols = 1 + draw(MAX_COLS), total = rows * cols, n = cut(rows, cols, runs);
        shuffle(runs, n);
        assert_true(count(runs, n, total, cols));
        for (int64_t i = 0; i < n; i++) strided += h5_runs_strided(runs[i]);
        memcpy(copy, runs, sizeof runs);
        if (!h5_runs_tile(total, cols, copy, n, words)) fail_msg("a tiling is refused: they %s", words);
        // one piece is moved, made longer or shorter, wider or narrower, left out or doubled
        H5Runs *r = &runs[draw(n)];
        int kind = (int)draw(5);
        if (kind == 0) r->first += draw(5) - 2;
        if (kind == 1) r->count += r->run ? r->run * (draw(3) - 1) : draw(5) - 2;
        if (kind == 2) r->run += draw(3) - 1;
        if (kind == 3) *r = runs[--n];
        if (kind == 4) runs[n++] = *r;
        bool legal = true;
        for (int64_t i = 0; i < n; i++) legal = legal && runs[i].count > 0 && h5_runs_ok(runs[i], total, cols);
        bool exact = legal && count(runs, n, total, cols);
        broken += !exact;
        if (h5_runs_tile(total, cols, runs, n, words) != exact)
            fail_msg("[%d, %d] in %d runs, kind %d: expected %d", (int)rows, (int)cols, (int)n, kind, exact);
    }
    assert_true(strided > 20000 && broken > 10000);
}

// A part and the next end to end are the whole, in its order, whatever fits into one.
static void test_parts(void **state) {
    (void)state;
    const H5Runs whole[] = {{11, 12, 3}, {8, 24, 6}, {5, 17, 0}, {9, 2, 2}, {2, 20, 5}};
    const int64_t cols = 8;
    for (int i = 0; i < DS_COUNT(whole); i++)
        for (int64_t most = 1; most < 30; most++)
            for (int64_t start = 0; start < whole[i].count; start++)
                for (int64_t at = start, n; at < whole[i].count; at += n) {
                    H5Runs p = h5_runs_part(whole[i], cols, at, most);
                    n = p.count;
                    assert_true(n >= 1 && n <= ds_min(most, whole[i].count - at) && h5_runs_ok(p, 64, cols));
                    for (int64_t k = 0; k < n; k++) assert_int_equal(place(p, cols, k), place(whole[i], cols, at + k));
                    if (whole[i].run && most >= 2 * whole[i].run && at % whole[i].run == 0)
                        assert_true(n == whole[i].count - at || n >= 2 * whole[i].run); // as much as one can be
                }
}

// What lies inside a [4, 6] matrix, drawn in h5_runs.h.
static void test_legal(void **state) {
    (void)state;
    static const struct {
        H5Runs r;
        bool legal;
    } all[] = {{{0, 24, 0}, true},        {{20, 4, 0}, true},  {{20, 5, 0}, false}, {{24, 0, 0}, true},
               {{24, 1, 0}, false},       {{25, 0, 0}, false}, {{1, 24, 0}, false}, {{-1, 4, 0}, false},
               {{8, 6, 2}, true},         {{8, 8, 2}, false},  {{10, 6, 2}, true},  {{11, 6, 2}, false},
               {{8, 5, 2}, false},        {{0, 24, 6}, true},  {{0, 28, 7}, false}, {{INT64_MAX, 1, 0}, false},
               {{1, INT64_MAX, 0}, false}};
    for (int i = 0; i < DS_COUNT(all); i++)
        if (h5_runs_ok(all[i].r, 24, 6) != all[i].legal) fail_msg("run %d: expected %d", i, all[i].legal);
    assert_false(h5_runs_ok((H5Runs){8, 6, 2}, 24, 0)); // not a matrix
}

static void test_words(void **state) {
    (void)state;
    char words[H5_RUNS_WORDS];
    // [4, 6]: two strips of 2 and 4 columns, the second in two boxes
    const H5Runs good[3] = {{0, 8, 2}, {2, 8, 4}, {14, 8, 4}};
    const struct {
        int at;
        H5Runs r;
        const char *words;
    } bad[] = {{2, {20, 4, 4}, "leave a hole at element 14 of 24"},
               {1, {2, 12, 4}, "overlap at element 14 of 24"},
               {0, {0, 12, 3}, "overlap at element 2 of 24"},
               {0, {0, 6, 2}, "leave a hole at element 18 of 24"},
               {0, {0, 4, 1}, "leave a hole at element 1 of 24"},
               {0, {6, 6, 2}, "leave a hole at element 0 of 24"},
               {0, {0, 10, 2}, "are not legal at element 0 of 24"},
               {0, {0, 7, 2}, "are not legal at element 0"},
               {1, {4, 8, 4}, "are not legal at element 4"},
               {1, {2, INT64_MAX, 4}, "are not legal at element 2"},
               {1, {-6, 8, 4}, "are not legal"},
               {1, {2, 8, -4}, "are not legal"},
               {1, {INT64_MAX, 8, 4}, "are not legal"},
               {1, {2, 0, 0}, "are not legal at element 2"}};
    for (int i = -1; i < DS_COUNT(bad); i++) {
        H5Runs r[3] = {good[0], good[1], good[2]};
        if (i >= 0) r[bad[i].at] = bad[i].r;
        bool exact = h5_runs_tile(24, 6, r, 3, words);
        assert_int_equal(exact, i < 0);
        if (i >= 0 && !strstr(words, bad[i].words)) fail_msg("%d: \"%s\", not \"%s\"", i, words, bad[i].words);
    }
    assert_false(h5_runs_tile(24, 0, (H5Runs[]){{0, 8, 2}, {2, 16, 4}}, 2, words)); // not a matrix
    assert_true(h5_runs_tile(0, 5, NULL, 0, words));
}

// Few rows, each in pieces of one column, and a strip over all of them a row: every strip would be visited every row.
static void test_budget(void **state) {
    (void)state;
    enum { COLS = 1 << 16, ROWS = 1 << 12 };
    char words[H5_RUNS_WORDS];
    H5Runs *runs = MEM_NEW(H5Runs, COLS + ROWS);
    int64_t n = 0;
    runs[n++] = (H5Runs){0, 2, 1}; // what makes boxes of all of them
    for (int64_t i = 1; i < COLS; i++) runs[n++] = (H5Runs){i, 1, 0};
    runs[n++] = (H5Runs){COLS + 1, COLS - 1, 0};
    for (int64_t i = 2; i < ROWS; i++) runs[n++] = (H5Runs){i * COLS, COLS, 0};
    assert_false(h5_runs_tile((int64_t)ROWS * COLS, COLS, runs, n, words));
    assert_non_null(strstr(words, "are cut too finely to be checked"));
    assert_true(h5_runs_tile(512 * COLS, COLS, runs, COLS + 511, words)); // the first 512 rows
    mem_free(runs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tilings), cmocka_unit_test(test_parts),  cmocka_unit_test(test_legal),
        cmocka_unit_test(test_words),   cmocka_unit_test(test_budget),
    };
    return cmocka_run_group_tests_name("h5_runs", tests, NULL, NULL);
}
