// h5_sums.h: what lies behind the HDF5 part of a file that this program wrote: the hash of every block before it.
// HDF5's tools do not look there; one that changes the file cuts it off, so that a file with sums is as it was written.
//
//     blocks of 1048576 of 2500000        bytes of the HDF5 part
//     <xxh3-128 of block 0>
//     <xxh3-128 of block 1>
//     <xxh3-128 of block 2>               the rest
//     dschat-sums <bytes of these lines> <their xxh3-128>
//
// In the file itself and not beside it, so that no crash, copy or renaming can part the two.
// They tell damage, not who wrote the file: a stranger can write sums too. Not collective (all of it).
#ifndef DS_H5_SUMS_H
#define DS_H5_SUMS_H

#include "base/hash.h"

enum { H5_SUM_BLOCK = 1 << 20 };

typedef struct {
    int64_t bytes;  // of the HDF5 part
    int64_t blocks; // 0: the file has no sums
    Xxh128Hex *sum; // [blocks]
} H5Sums;

// Hashes a file that is open to read and write, and puts its sums behind it. DS_ERR_IO.
Err h5_sums_append(int fd, const char *path);

// The sums of an open file of `bytes` bytes. Owner: caller, h5_sums_free. DS_ERR_IO; DS_ERR_DATA: they are damaged.
Err h5_sums_load(int fd, const char *path, int64_t bytes, H5Sums *sums);
void h5_sums_free(H5Sums *sums); // accepts an empty one

// Block number k into `out`. DS_ERR_IO; DS_ERR_DATA: it is not what was written.
Err h5_sums_read_block(const H5Sums *sums, int fd, const char *path, int64_t k, void *out);

// How far a verification came: bytes of this part, those of them that were verified, and those of files without sums
// (which are counted to part 0). It goes on until clock_now() is `until`.
typedef struct {
    double until;
    int64_t bytes, verified, without;
} H5Verified;

// What the hashes in a file say of its content, as one hash, without reading the content; *there: false if it has none.
// DS_ERR_IO; DS_ERR_DATA: they are damaged.
Err h5_sums_content(const char *path, Xxh128Hex *content, bool *there);

// Checks the blocks number k with k % parts == part of a file, so that ranks can share the work; added to *v. A file
// without sums is no error.
Err h5_sums_verify(const char *path, int part, int parts, H5Verified *v);

#endif
