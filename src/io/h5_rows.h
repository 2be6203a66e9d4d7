// h5_rows.h: the table of a tensor's rows, kept as attributes. For h5*.c only. Not collective.
//
// Attribute xxh3_128 of the data set is text, a line a row, piece after piece: "<first> <count> <hash>\n" of a flat
// range,
// "<first> <count> <hash> <run>\n" of a strip. Over shards the group /shards (so that h5diff finds equal data sets
// equal) has an attribute of the data set's path: what the virtual data set is, then for each row of the other table,
// in the same order, its shard and the byte of the shard's file at which it begins:
//
//     bf16 49152 576
//     3 2048
//
// Nothing in them is taken on trust.
#ifndef DS_H5_ROWS_H
#define DS_H5_ROWS_H

#include "io/h5_parts.h"

#define H5_ROWS_HASHES "xxh3_128"
#define H5_ROWS_SHARDS "/shards"

typedef struct {
    bool sharded; // then info is the tensor's, and each row has its shard and offset
    H5Info info;
    H5Rows rows;
} H5Table;

// row[0..n) of `t` as its attributes.
Err h5_rows_write(H5File *file, const H5Tensor *t, const H5Row *row, int64_t n, bool sharded);

// The table of a data set, empty if it has none. Owner: caller, h5_rows_free of its rows.
Err h5_rows_read(const H5File *file, const char *object, H5Table *table);

// row[0..n) tile a tensor of that shape exactly; else `code`, with what it is that the `what` of `object` do.
Err h5_rows_check_tiling(Err code, const char *what, const H5File *file, const char *object, const H5Info *info,
                         const H5Row *row, int64_t n);

// "0 to 11", or "3 to 29, 2 of each row of 12".
const char *h5_rows_words(int64_t cols, H5Runs r, char words[H5_RUNS_WORDS]);

#endif
