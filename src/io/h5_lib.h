// h5_lib.h: what the h5*.c files share: the library's header, handles and types. For them only. Not collective.
#ifndef DS_H5_LIB_H
#define DS_H5_LIB_H

#define H5_USE_110_API // the same calls with newer libraries
#include <hdf5.h>

#include "io/h5.h"

struct H5File {
    hid_t id;
    char *path;      // final
    char *temporary; // where it is being written; NULL: read-only
};

// The library's type of a DType, little endian, for files and memory alike (the host is little endian). Owned by h5.c.
hid_t h5_lib_type(DType t);

// The DType that a stored type stands for, either byte order. false: none of ours.
bool h5_lib_dtype(hid_t type, DType *t);

// Whether a stored type is a plain number that may be in a file at all: h5_lib_dtype's, or an integer of any width.
bool h5_lib_plain(hid_t type);

// What the library says went wrong (its innermost words). Valid until the next call.
const char *h5_lib_reason(void);

// Opens read-only with our settings and no checks. H5I_INVALID_HID if it cannot.
hid_t h5_lib_open(const char *path);

#endif
