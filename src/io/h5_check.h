// h5_check.h: the checks of h5_open_checked. For h5*.c only. Not collective (all of it).
#ifndef DS_H5_CHECK_H
#define DS_H5_CHECK_H

#include "io/h5_lib.h"
#include "io/h5_runs.h"

// One source of a virtual data set as a file claims it.
typedef struct {
    char *target;  // the virtual data set's path
    char *dataset; // in the shard
    int shard;
    DType dtype;
    H5Runs runs; // of the target
    int ndim;    // of the source's selection, and its last corner, to compare with the shard's own data set
    hsize_t last[H5S_MAX_RANK];
} H5CheckSource;

typedef struct {
    const char *path; // of the file
    int64_t bytes;    // of the file
    char *stem;       // its base name without ".h5"
    bool virtual_ok;  // false inside a shard
    int64_t objects;  // visited so far
    int depth;
    char object[4096];     // path of the object being visited
    H5CheckSource *source; // all sources of all virtual data sets
    int64_t n_sources;
    Err err;
} H5Check;

// Visits everything; DS_ERR_DATA names file and object.
Err h5_check_file(hid_t file, const char *path, int64_t bytes);

// h5_chunks.c: a chunked data set of `shape` [ndim] holds every chunk, and none inflates beyond its size.
Err h5_chunks_check(const H5Check *c, hid_t dataset, hid_t dcpl, int ndim, const hsize_t *shape, size_t type_bytes);

// h5_vds.c: every source is named as it must be. Asks for no extent.
Err h5_vds_names(const H5Check *c, hid_t dcpl);
// Collects and checks the sources that one virtual data set claims; they tile it.
Err h5_vds_collect(H5Check *c, hid_t dcpl, DType dtype, int ndim, const hsize_t *shape);
// Opens every shard named so far, checks it whole, and compares its data sets with the claims.
Err h5_vds_check_shards(H5Check *c);
// Visits one open file with `c` prepared.
Err h5_check_walk(H5Check *c, hid_t file);

#endif
