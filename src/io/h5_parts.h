// h5_parts.h: a set of tensors kept in one file, or as virtual data sets over shards that ranks write on their own.
// Not collective (all of it): h5_parts_write_shard runs on every rank, the rows travel, h5_parts_write_virtual on one.
//
//     actor.h5               /weights/lm_head.weight          virtual, [vocab, width]
//     actor.shards/00000.h5  /weights/lm_head.weight@0        1-D, elements 0 ..
//     actor.shards/00001.h5  /weights/lm_head.weight@7077888  1-D, elements 7077888 ..
//
// A piece of a matrix may also be a strip of its columns (h5_runs.h), which its shard holds end to end.
// A row is at most H5_ROW_MAX elements of one tensor with their hash, the unit of reading and of verification.
// Attribute xxh3_128 of each tensor in actor.h5 (h5_rows.h) holds them, and where in which shard each lies: there this
// program reads it, and refuses what has not its hash, so that a shard is of its model or refused. The virtual data
// sets are for HDF5's tools. Rows survive h5repack, since they are attributes of the data set they speak of.
#ifndef DS_H5_PARTS_H
#define DS_H5_PARTS_H

#include "base/hash.h"
#include "io/h5_data.h"
#include "io/h5_sums.h"

enum { H5_ROW_MAX = 1 << 22 };

typedef struct {
    char path[256]; // in the file: "/weights/model.norm.weight", "/adam_m/..."
    DType dtype;    // DS_F32 or DS_BF16 for weights; any
    int ndim;       // 1 .. H5_MAX_NDIM
    int64_t shape[H5_MAX_NDIM];
} H5Tensor;

// Elements of a tensor that this rank holds: a flat range, or in a matrix whole runs of `run` elements, each one row of
// the matrix below the one before and inside its row. data: [count] in host memory, in its dtype, runs end to end, or
// NULL: it is fetched.
typedef struct {
    int tensor; // index into the list of tensors
    int64_t first, count;
    int64_t run; // 0, or not below count: a flat range
    const void *data;
} H5Piece;

// Copies elements [offset, offset + count) of piece `piece` to out (host), count <= H5_ROW_MAX. For device memory.
typedef Err (*H5Fetch)(void *context, int piece, int64_t offset, int64_t count, void *out);

// Fixed size and no pointers, so that a table of rows travels as bytes. Part of the piece that begins at piece_first.
typedef struct {
    int32_t tensor, shard;
    H5Runs runs;                 // of the tensor; run is the piece's, so that a row inside one run is a flat range
    int64_t piece_first, offset; // offset: where the row begins in its shard's file
    Xxh128Hex hash;              // of the elements as stored (little endian)
    char pad[7];
} H5Row;

typedef struct {
    int64_t n;
    H5Row *row; // [n]
} H5Rows;

void h5_rows_add(H5Rows *rows, const H5Row *row);
void h5_rows_free(H5Rows *rows); // accepts an empty one

// Elements of a tensor; -1 if its rank or shape is not legal.
int64_t h5_tensor_count(const H5Tensor *t);

// Room for the longest row that these tensors can have. Owner: caller, mem_free.
void *h5_parts_staging(const H5Tensor *tensors, int n_tensors);

// `<folder>/actor.shards/00003.h5` of `<folder>/actor.h5`; shard < 0 gives the folder. DS_ERR_DATA unless the name ends
// in ".h5". Owner: caller, mem_free.
Err h5_parts_shard_path(const char *master, int shard, char **path);

// Every piece lies inside its tensor in whole runs and has data, or is `fetched`. DS_ERR_BUG; `path` begins the
// message.
Err h5_parts_check_pieces(const char *path, const H5Tensor *tensors, int n_tensors, const H5Piece *pieces, int n_pieces,
                          bool fetched);

// The row of a legal piece of `t` that begins with the piece's element number `at`.
H5Runs h5_parts_row(const H5Tensor *t, const H5Piece *piece, int64_t at);

// Writes this rank's pieces into its shard file of `master` (its folder exists or is made), synced, and appends a row
// for each <= H5_ROW_MAX elements to `rows`. A rank without pieces writes no file. Needs room for one row. DS_ERR_IO.
Err h5_parts_write_shard(const char *master, int shard, const H5Tensor *tensors, int n_tensors, const H5Piece *pieces,
                         int n_pieces, H5Fetch fetch, void *context, H5Rows *rows);

// Adds every tensor as a virtual data set with its hashes to a file being written. All ranks' rows, in any order (they
// are sorted); DS_ERR_BUG unless they tile every tensor exactly.
Err h5_parts_write_virtual(H5File *master, const H5Tensor *tensors, int n_tensors, H5Rows *rows);

// One file: create all tensors, put pieces (with data) in any order, finish (writes the hashes; DS_ERR_BUG unless all
// is there).
Err h5_parts_create(H5File *file, const H5Tensor *tensors, int n_tensors);
Err h5_parts_put(H5File *file, const H5Tensor *tensors, const H5Piece *piece, H5Rows *rows);
Err h5_parts_finish(H5File *file, const H5Tensor *tensors, int n_tensors, H5Rows *rows);

// ---- reading ----

// The tensors of an open file, their rows, and the row read last. The file stays open.
typedef struct H5Parts H5Parts;

// Every tensor is there with its shape (its type is not looked at), and every shard is there and as long as the rows
// say. DS_ERR_DATA, DS_ERR_IO. `tensors` must live as long. Owner: caller, h5_parts_close (accepts NULL, sets NULL).
Err h5_parts_open(const H5File *file, const H5Tensor *tensors, int n_tensors, H5Parts **parts);
void h5_parts_close(H5Parts **parts);

DType h5_parts_stored(const H5Parts *parts, int tensor); // the type in the file

// out[runs.count] = elements of a tensor as `as` (conversions as in h5_read). Whole rows are read, from their shard or
// from the data set itself, and hashed: DS_ERR_DATA names the file, tensor and range that is not what was written. What
// others made (no hashes) is read as it is.
Err h5_parts_get(H5Parts *parts, int tensor, DType as, H5Runs runs, void *out);

// The other way round of H5Fetch: puts elements [offset, offset + count) of piece `piece`, count <= H5_ROW_MAX, where
// they belong.
typedef Err (*H5Store)(void *context, int piece, int64_t offset, int64_t count, const void *data);

// Reads this rank's pieces (their `data` is not looked at) as tensors[].dtype (fp32, bf16 converted as h5_read does),
// in parts of at most H5_ROW_MAX elements. Any pieces, whatever the layout that wrote them. Errors as h5_parts_open's
// and h5_parts_get's.
Err h5_parts_read(const H5File *file, const H5Tensor *tensors, int n_tensors, const H5Piece *pieces, int n_pieces,
                  H5Store store, void *context);

// Checks the hashes of every row number k with k % parts == part of the given tensors (rows counted through all of
// them), so that `parts` ranks share the work. DS_ERR_DATA names the file, tensor and range that changed, or a tensor
// without hashes.
Err h5_parts_verify(const H5File *file, const H5Tensor *tensors, int n_tensors, int part, int parts);

// The same up to a time, added to *v (h5_sums.h); tensors without hashes are no error.
Err h5_parts_verify_until(const H5File *file, const H5Tensor *tensors, int n_tensors, int part, int parts,
                          H5Verified *v);

#endif
