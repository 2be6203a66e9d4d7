// manifest.h: manifest.txt of a checkpoint: size and xxh3-128 of every file, and of every row of every tensor. Not
// collective (all of it).
//
//     dschat-manifest 1
//     file <bytes> <hash> actor.shards/00000.h5
//     rows <first> <count> <hash> actor.h5:/weights/lm_head.weight
//     runs <first> <count> <hash> <run> actor.h5:/weights/lm_head.weight
//
// A line "runs" is a row of a strip (h5_runs.h), "rows" one of a flat range. Lines are sorted, so that equal
// checkpoints have equal manifests.
#ifndef DS_MANIFEST_H
#define DS_MANIFEST_H

#include "base/hash.h"
#include "io/h5_runs.h"

typedef struct {
    int64_t n;
    char **line; // [n] without newline, owner: the manifest
} Manifest;

void manifest_free(Manifest *m); // accepts an empty one

// Adds the file `folder`/`name`; name is "x" or "x.shards/00000.h5". Reads it whole to hash it. DS_ERR_IO.
Err manifest_add_file(Manifest *m, const char *folder, const char *name);
void manifest_add_rows(Manifest *m, const char *file, const char *object, H5Runs row, Xxh128Hex hash);

// All lines with newlines as one string, to send; and the other way (DS_ERR_DATA for a line that is not one).
char *manifest_pack(const Manifest *m, size_t *bytes); // Owner: caller, mem_free
Err manifest_unpack(Manifest *m, const char *text, size_t bytes, const char *what);

// Sorts, writes `folder`/manifest.txt durably, gives the hash of its text.
Err manifest_write(Manifest *m, const char *folder, Xxh128Hex *hash);
// Reads and checks the form of every line; hash of its text.
Err manifest_read(Manifest *m, const char *folder, Xxh128Hex *hash);

// Every file is there with its size. DS_ERR_DATA names the first that is not.
Err manifest_check_sizes(const Manifest *m, const char *folder);
// Hashes the files number k with k % parts == part.
Err manifest_check_hashes(const Manifest *m, const char *folder, int part, int parts);

#endif
