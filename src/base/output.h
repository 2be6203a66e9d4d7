// output.h: where a run writes: into folders of its own, never through a link that somebody else may have put there.
// Not collective.
#ifndef DS_OUTPUT_H
#define DS_OUTPUT_H

#include <stdio.h>

#include "base/err.h"

// The run's folder, as the user named it (a link there is the user's own choice): made, with its parents, where it is
// missing, then checked: its owner is who new files of this process belong to, and not everybody may write in it unless
// the sticky bit keeps them off each other's files. A group may. DS_ERR_IO with words.
Err output_folder(const char *path);

// The same for a folder inside it, which must not be a link.
Err output_folder_inside(const char *path);

// What a library is about to create or change by its path (PnetCDF): nothing is there, or a regular file.
Err output_check(const char *path);

// Opens a file to append to it, made where it is missing; follows no link. *fd: -1 on error.
Err output_append(const char *path, int *fd);

// At a program's end: what was printed to f goes out. DS_ERR_IO: not all of it did (a full disk).
Err output_flush(FILE *f);

#endif
