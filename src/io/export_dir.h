// export_dir.h: a folder of files that appears as a whole, or leaves nothing behind. Not collective.
#ifndef DS_EXPORT_DIR_H
#define DS_EXPORT_DIR_H

#include "base/err.h"

// Files are written into `work`, a folder of its own until export_dir_commit. {0} is an empty one.
typedef struct {
    char *dir, *work;
    char *made; // the highest folder above dir that was made for it, NULL: none
} ExportDir;

// Begins: refused, and nothing is made, if `dir` holds one of names[n] (a * at the end: any that begins so) or is no
// folder. DS_ERR_IO. Owner: caller, export_dir_end.
Err export_dir_begin(const char *dir, const char *const *names, int n, ExportDir *d);

// Everything in `work` gets its place in `dir`. DS_ERR_IO.
Err export_dir_commit(ExportDir *d);

// Frees; without a commit that succeeded, removes all that was made. Accepts an empty one.
void export_dir_end(ExportDir *d);

#endif
