// build_rows.h: writes the rows of a data set file (dataset.h): tokens as they come, the index at the end; and checks
// the hashes of a file that was written. Not collective (all of it).
//
// Every set has the attribute sha256. That of /samples/tokens is taken over the hexadecimal digests of its blocks of
// BUILD_BLOCK tokens, so that neither writing nor checking needs all of it in memory.
#ifndef DS_BUILD_ROWS_H
#define DS_BUILD_ROWS_H

#include "base/hash.h"
#include "data/dataset.h"
#include "io/h5_data.h"

enum { BUILD_BLOCK = 1 << 18 };

// The index so far; read-only but for stage and eval. Owner: build_rows_free.
typedef struct {
    H5File *file; // view
    H5Appender *tokens;
    int64_t n, n_spans, n_pairs; // rows, spans, pairs
    int64_t *start, *span_start; // [n + 1]
    int64_t *spans;              // [n_spans, 2]
    int64_t *prompt;             // [n]
    uint8_t *stage, *eval;       // [n]
    int64_t *chosen, *rejected;  // [n_pairs]
    int64_t room, span_room, pair_room;
    uint32_t *block; // [BUILD_BLOCK] tokens that are not hashed yet
    int64_t in_block;
    char *digests; // of the blocks so far
    int64_t digest_bytes, digest_room;
} BuildRows;

Err build_rows_create(H5File *file, BuildRows *r);
void build_rows_free(BuildRows *r); // accepts a zero one

// Appends id[n] with span[n_spans, 2]. The row's number is r->n before the call. DS_ERR_IO.
Err build_rows_add(BuildRows *r, const int32_t *id, int64_t n, const int64_t *span, int64_t n_spans, int64_t prompt,
                   uint8_t stage);
void build_rows_pair(BuildRows *r, int64_t chosen, int64_t rejected);

// Writes what is left, the index, the hashes and the longest rows; *hash: of all rows, also the attribute data_sha256
// of
// "/". DS_ERR_IO.
Err build_rows_finish(BuildRows *r, Sha256Hex *hash);

// Compares every set of the file `path` with its hash, and every token with the vocabulary. DS_ERR_DATA names what
// differs; *hash: of all rows.
Err build_rows_verify(const char *path, Sha256Hex *hash);

#endif
