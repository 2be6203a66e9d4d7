// h5.h: HDF5 files as this program opens, checks and replaces them. Not collective (all of it).
//
// Files whose name begins with h5 are the only ones that name the HDF5 library; h5_attr.h and h5_data.h read and write
// what an open file holds. The serial library is not thread-safe: one thread of a process at a time. No file stays open
// across a training step.
#ifndef DS_H5_H
#define DS_H5_H

#include "base/err.h"

// An open file: read-only (h5_open_checked) or being written under a temporary name (h5_create).
typedef struct H5File H5File;

// Plug-ins off, HDF5's path variables unset, its own error printing off, no work at exit. Every function here calls it;
// main calls it before anything else could touch the library. Idempotent.
void h5_init(void);

// The library as loaded, "1.10.8". Static.
const char *h5_library_version(void);

// Opens an HDF5 file that may come from a stranger, and believes nothing in it: a child process with limits of time and
// memory visits every object first (h5_inspect.h), once for a file. Accepted are groups, contiguous, compact and
// chunked data sets of integers, fp16, bf16, fp32 and fp64, filters none, shuffle, deflate and fletcher32 in this
// order, and virtual data sets, which are not read through the library (h5_parts.h). Refused: external storage, soft,
// external and user-defined links, references, other types, shapes that the file's bytes cannot hold, chunks never
// written, depth above 16, more than 2^20 objects. Variable-length strings may be there as attributes, but are not
// read: the library overruns its buffers on a crafted one. A file that this program wrote carries its hashes
// (h5_sums.h): each of its bytes is checked when it is read. DS_ERR_IO: cannot be opened or read. DS_ERR_DATA: refused,
// with file and object named; not what was written. Owner: caller, h5_close.
Err h5_open_checked(const char *path, H5File **file);

// The same of a file that this program wrote and nobody else had in his hands, a checkpoint's: it must have its hashes,
// and is not inspected.
Err h5_open_own(const char *path, H5File **file);

// A failed or damaged read of this file so far, with words: for who asked whether something is there, was told no, and
// goes on without.
Err h5_trouble(const H5File *file);

// The path it was opened by, symbolic links resolved. Valid until closed.
const char *h5_path(const H5File *file);

// Accepts NULL, sets NULL. A file that is being written is abandoned.
void h5_close(H5File **file);

// Starts a new file: under a temporary name in the same folder until h5_commit. DS_ERR_IO. Owner: caller, h5_commit or
// h5_abandon.
Err h5_create(const char *path, H5File **file);

// Closes, puts the file's hashes behind it (not behind a shard, whose rows have theirs in the master), syncs, renames
// to the path given to h5_create, syncs the folder. Sets NULL. DS_ERR_IO (disk full, ...): nothing is left of the new
// file, and the old one of that name, if any, is untouched.
Err h5_commit(H5File **file);
Err h5_commit_shard(H5File **file);

// Closes and removes an unfinished file. Accepts NULL, sets NULL.
void h5_abandon(H5File **file);

// Whether `object` ("/weights/x") exists; whether it is a group.
bool h5_exists(const H5File *file, const char *object);
bool h5_is_group(const H5File *file, const char *object);

// Makes a group and its parents; fine if it is there. DS_ERR_IO.
Err h5_make_group(H5File *file, const char *group);

// Names inside a group, sorted by name. Owner: caller, h5_names_free.
typedef struct {
    int64_t n;
    char **name; // [n]
} H5Names;
Err h5_list(const H5File *file, const char *group, H5Names *names);
void h5_names_free(H5Names *names);

// Whether `name` may be one component of a path in a file: 1 to 200 printable ASCII bytes, no '/', not "." or "..".
bool h5_name_ok(const char *name);

#endif
