// h5_rows.h: the table of a tensor's rows, kept as attribute xxh3_128 of its data set. For h5*.c only. Not collective.
//
// It is text, a line a row, piece after piece: "<first> <count> <hash>\n" of a flat range, "<first> <count> <hash>
// <run>\n" of a strip. Over shards a first line tells what the virtual data set is, and each row where its bytes lie:
//
//     shards bf16 49152 576
//     0 4194304 <hash> 0 3 2048           run (0: a flat range), shard, byte of the shard's file
//
// Readers take the rows in any order, and nothing on trust.
#ifndef DS_H5_ROWS_H
#define DS_H5_ROWS_H

#include "io/h5_parts.h"

#define H5_ROWS_ATTRIBUTE "xxh3_128"

typedef struct {
    bool sharded; // then info is the tensor's, and each row has its shard and offset
    H5Info info;
    H5Rows rows;
} H5Table;

// row[0..n) of `t` as its attribute.
Err h5_rows_write(H5File *file, const H5Tensor *t, const H5Row *row, int64_t n, bool sharded);

// The table of a data set, empty if it has none. Owner: caller, h5_rows_free of its rows.
Err h5_rows_read(const H5File *file, const char *object, H5Table *table);

// row[0..n) tile a tensor of that shape exactly; else `code`, with what it is that the `what` of `object` do.
Err h5_rows_check_tiling(Err code, const char *what, const H5File *file, const char *object, const H5Info *info,
                         const H5Row *row, int64_t n);

// "0 to 11", or "3 to 29, 2 of each row of 12".
const char *h5_rows_words(int64_t cols, H5Runs r, char words[H5_RUNS_WORDS]);

#endif
