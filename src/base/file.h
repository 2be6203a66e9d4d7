// file.h: the one way to open, map, replace and sync files. The umask says who may read and write what is made. Not
// collective.
#ifndef DS_FILE_H
#define DS_FILE_H

#include "base/err.h"

// A read-only mapping of a whole regular file. Owner: caller, file_unmap. bytes = 0: data is a valid empty string.
typedef struct {
    const char *data;
    size_t bytes;
    void *mapped; // what to unmap, NULL for an empty file
} FileMap;

// Opens a regular file that the user named (a symbolic link there is the user's own choice). DS_ERR_IO with words.
Err file_open_read(const char *path, int *fd, int64_t *bytes);

// Opens `name`, which came out of a file and not from the user, inside folder `dir`: a plain basename (no '/', not
// "..", not a symbolic link), regular.
Err file_open_inside(const char *dir, const char *name, int *fd, int64_t *bytes);

// Exactly `bytes` bytes at offset `at`, also where the system gives them in parts or is interrupted. `path` is for the
// words. DS_ERR_IO with errno's; DS_ERR_DATA: the file ends before.
Err file_pread(int fd, const char *path, void *out, size_t bytes, int64_t at);
Err file_pwrite(int fd, const char *path, const void *data, size_t bytes, int64_t at);

// A mapping cannot report a failed read (the process gets SIGBUS): for files that are looked at here and there.
Err file_map(const char *path, FileMap *map);
Err file_map_inside(const char *dir, const char *name, FileMap *map);
void file_unmap(FileMap *map); // accepts an empty one

// Whole file into fresh memory with a NUL after it (not counted). Refuses more than max_bytes. Owner: caller, mem_free.
Err file_read_all(const char *path, size_t max_bytes, char **data, size_t *bytes);

// Replaces `path` as a whole: temporary name beside it, fsync, rename, fsync of the folder.
Err file_write_atomic(const char *path, const void *data, size_t bytes);

Err file_sync(const char *path);                           // fsync of a file or a folder
Err file_sync_open(int fd, const char *path);              // the same: hears of every failed write since fd was opened
Err file_rename_durable(const char *from, const char *to); // rename, then fsync of the folder of `to`
Err file_make_dirs(const char *path);                      // like mkdir -p, but never writable by all
Err file_remove_tree(const char *path);                    // like rm -rf; follows no links; a missing path is fine
// False only where that is certain: what cannot be looked at (a failing file system, no permission) counts as there, so
// that who opens it says why, and nothing is done as if it were missing.
bool file_exists(const char *path);
// For who does without it where there is none: *there. DS_ERR_IO: that cannot be told.
Err file_look(const char *path, bool *there);
bool file_is_dir(const char *path);

// Bytes free for this user on the file system that holds `path` (a folder).
Err file_free_bytes(const char *path, uint64_t *bytes);

// Bytes of all files below `path`, as they lie on the disk; links are not followed.
Err file_tree_bytes(const char *path, int64_t *bytes);

#endif
