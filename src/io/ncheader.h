// ncheader.h: is the header of a classic netCDF file sound? Asked before PnetCDF reads it, because PnetCDF allocates
// what the header's counts say, whatever the file's size. Not collective.
#ifndef DS_NCHEADER_H
#define DS_NCHEADER_H

#include "base/err.h"

// Opens `path` as base/file.h says, expects format CDF-`cdf` (2 or 5) and walks the header: every count and length must
// fit into what is left of it (at most 1 MiB), every type must be known, every dimension id in range. *file_bytes: the
// file's size. DS_ERR_DATA with path and the byte at which the header goes wrong; DS_ERR_IO.
Err ncheader_check(const char *path, int cdf, int64_t *file_bytes);

#endif
