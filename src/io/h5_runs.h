// h5_runs.h: which elements of a flattened tensor are meant: a range, or a strip of a matrix's columns; and whether
// many of them tile the tensor. Not collective (all of it).
//
// A plain range may begin and end anywhere; a strided one is a box, here {first 8, count 6, run 2} of a [4, 6] matrix:
//
//      0  1  2  3  4  5
//      6  7 [8  9]10 11
//     12 13[14 15]16 17
//     18 19[20 21]22 23
//
// `cols` is the last dimension of a tensor of two dimensions everywhere, and 0 for any other: those have no strips.
#ifndef DS_H5_RUNS_H
#define DS_H5_RUNS_H

#include "base/err.h"

// `count` elements in runs of `run` consecutive ones, the first at `first`, each `cols` after the one before. run = 0,
// or not below count: one run.
typedef struct {
    int64_t first, count, run;
} H5Runs;

enum { H5_RUNS_WORDS = 96 };

int64_t h5_runs_cols(int ndim, const int64_t *shape);

// Whether there is more than one run.
bool h5_runs_strided(H5Runs r);

// Whether all of it lies inside a tensor of `total` elements, whole runs that each stay inside a row. Believes nothing.
bool h5_runs_ok(H5Runs r, int64_t total, int64_t cols);

// From element number `at` of r (in r's order) on, as much as one H5Runs can be, at most `most` elements: whole runs of
// a strided r, where one fits into `most`; else what is left of a run. r: h5_runs_ok; 0 <= at < r.count; most >= 1.
H5Runs h5_runs_part(H5Runs r, int64_t cols, int64_t at, int64_t most);

// Copies the elements that `from` and `to` share, each a series of runs of one tensor (h5_runs_ok) held end to end in
// `src` and `dst`, elements of `size` bytes. Returns how many there are; src = NULL: only counts.
int64_t h5_runs_copy(int64_t total, int64_t cols, H5Runs from, const void *src, H5Runs to, void *dst, size_t size);

// Whether runs[0..n) (they are sorted, and may be anything) hold every element exactly once. If not, `words` says what
// they do: "leave a hole at element 9 of 20". Refuses what takes more than 2^26 steps: a few rows cut into millions.
bool h5_runs_tile(int64_t total, int64_t cols, H5Runs *runs, int64_t n, char words[H5_RUNS_WORDS]);

#endif
