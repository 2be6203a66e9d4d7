// filetype.h: what a file is, by its first bytes, for the words where another one was expected. Not collective.
#ifndef DS_FILETYPE_H
#define DS_FILETYPE_H

#include "base/err.h"

typedef enum { FILETYPE_MODEL, FILETYPE_DATASET, FILETYPE_FOREIGN_MODEL, FILETYPE_LINES } FileWanted;

// DS_ERR_DATA where `path` is plainly something else than a model.h5, a data set.h5, a model of others to import, or
// JSON lines: what it is, what was expected and what makes that of it. DS_OK: it may be what is wanted, is of no known
// kind, or cannot be read, which its reader will say.
Err filetype_expect(const char *path, FileWanted wanted);

// What to do with weights that are pickles.
const char *filetype_pickle_advice(void);

// Begins as a GGUF file does.
bool filetype_is_gguf(const char *path);

#endif
