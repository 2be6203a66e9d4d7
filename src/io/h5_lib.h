// h5_lib.h: what the h5*.c files share: the library's header, handles and types. For them only. Not collective.
#ifndef DS_H5_LIB_H
#define DS_H5_LIB_H

#include "io/h5.h"
#include "io/h5_drive.h"

struct H5File {
    hid_t id;
    char *path;      // final
    char *temporary; // where it is being written; NULL: read-only
    H5Drive *drive;
    bool stuck; // the library could not close it
};

// The library's type of a DType, little endian, for files and memory alike (the host is little endian). Owned by h5.c.
hid_t h5_lib_type(DType t);

// The DType that a stored type stands for, either byte order. false: none of ours.
bool h5_lib_dtype(hid_t type, DType *t);

// Whether a stored type is a plain number that may be in a file at all: h5_lib_dtype's, or an integer of any width.
bool h5_lib_plain(hid_t type);

// What the library says went wrong (its innermost words). Valid until the next call.
const char *h5_lib_reason(void);

// `err`, the outcome of calls of the library, unless a read or write of this file failed meanwhile: then that, in its
// own words, also where the library made nothing of it. Every function that calls the library for a file ends with it.
Err h5_lib_judge(const H5File *file, Err err);

// A file for reading: its bytes and sums (DS_ERR_IO, DS_ERR_DATA), not given to the library yet; and that.
Err h5_lib_open(const char *path, H5File **file);
Err h5_lib_start(H5File *file);

#endif
