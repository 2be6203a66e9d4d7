// h5_inspect.h: HDF5 files looked at by a child process before this one opens them: the library can crash, loop or eat
// memory on a file made for that, and then it is the child that ends. The child is this program started anew (no fork:
// a copy of a process with MPI's registered memory is not safe) under another name; it opens the file, visits and
// checks everything (h5_check.h), and says what is wrong.
//
// A file is inspected once: its device, number, size and time of change are remembered.
#ifndef DS_H5_INSPECT_H
#define DS_H5_INSPECT_H

#include <sys/stat.h>

#include "comm/group.h"
#include "io/h5.h"

// Of an open file that the library has not been given yet. DS_ERR_DATA: refused, or the child's death. For h5.c.
Err h5_inspect(const H5File *file);

// What the child does, in this process and without its limits. For tests. wanted: the file that must have this name
// (NULL: any). DS_ERR_DATA: refused; DS_ERR_IO.
Err h5_inspect_here(const char *path, const struct stat *wanted);

// Rank 0 inspects for all: who opens the file afterwards does not. Of a path that may be missing (NULL, or no such
// file): nothing. Collective on g; all ranks return the same code.
Err h5_inspect_for_all(const Group *g, const char *path);

#endif
