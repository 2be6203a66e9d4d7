// h5_check.h: the visit of an HDF5 file before anything of it is believed. For h5*.c only. Not collective (all of it).
#ifndef DS_H5_CHECK_H
#define DS_H5_CHECK_H

#include "io/h5_lib.h"

typedef struct {
    const char *path; // of the file
    int64_t bytes;    // of the file
    int64_t objects;  // visited so far
    int depth;
    char object[4096]; // path of the object being visited
    Err err;
} H5Check;

// Visits everything; DS_ERR_DATA names file and object.
Err h5_check_file(hid_t file, const char *path, int64_t bytes);

// h5_chunks.c: a chunked data set of `shape` [ndim] holds every chunk, and none inflates beyond its size.
Err h5_chunks_check(const H5Check *c, hid_t dataset, hid_t dcpl, int ndim, const hsize_t *shape, size_t type_bytes);

#endif
