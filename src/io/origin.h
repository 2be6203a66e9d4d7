// origin.h: where a file came from, the same words for HDF5 attributes, netCDF attributes and summary.json. Not
// collective.
//
// Names and versions of libraries that only one file may name (MPI, HDF5, PnetCDF, oneDNN) come from that file through
// the caller; the shared objects that the process has really loaded are asked of the dynamic linker here.
#ifndef DS_ORIGIN_H
#define DS_ORIGIN_H

#include "base/err.h"

enum { ORIGIN_MAX = 32 };

// A library as it reports itself when running: {"HDF5", "1.10.8"}. Line breaks in a version become "; ".
typedef struct {
    const char *name, *version;
} OriginLib;

typedef struct {
    char name[32]; // lower case, digits and '_': fit for an attribute's name
    char *value;   // UTF-8, one line, never NULL
} OriginEntry;

// entries[0..n-1] in the order in which they are to be written. Owner: caller, origin_clear. Zero-initialised: empty.
typedef struct {
    OriginEntry entries[ORIGIN_MAX];
    int n;
} Origin;

// Fills an empty `o` with: program, version, commit, build (compiler, flags), host, system, date (UTC), one
// library_<name> for each of libs[n_libs], and shared_objects (names with full versions of all that are loaded).
void origin_fill(Origin *o, const char *program, const OriginLib *libs, int n_libs);

// The commit that the program was built from, "unknown" outside a clone.
const char *origin_commit(void);

// Appends a copy of (name, value), or replaces the value of a name that is there: params_sha256, data_sha256,
// model_sha256, ... Characters that a name cannot have become '_'. More than ORIGIN_MAX names is a bug (fatal).
void origin_add(Origin *o, const char *name, const char *value);

// The value of `name`, NULL if there is none.
const char *origin_find(const Origin *o, const char *name);

// All entries as lines "name = value\n". Owner of the result: caller, mem_free.
char *origin_text(const Origin *o);

// Frees the values and empties `o`.
void origin_clear(Origin *o);

#endif
