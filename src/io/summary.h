// summary.h: summary.json: the figures of the last screen, for programs and for a run that goes on. Not collective:
// rank 0 writes.
//
// A flat list of keys with numbers or strings, in the order in which they were first put.
#ifndef DS_SUMMARY_H
#define DS_SUMMARY_H

#include "base/err.h"

typedef struct Summary Summary;

// Reads `path` if it exists, else empty. DS_ERR_DATA if it is not a summary. Owner: caller, summary_destroy.
Err summary_open(const char *path, Summary **out);
void summary_destroy(Summary **s); // accepts NULL

void summary_put(Summary *s, const char *key, double value); // replaces; a value that is not finite is kept as null
void summary_put_text(Summary *s, const char *key, const char *value);
double summary_get(const Summary *s, const char *key);           // NaN if missing
const char *summary_get_text(const Summary *s, const char *key); // "" if missing; valid until it is replaced

// Replaces the file as a whole. DS_ERR_IO.
Err summary_write(const Summary *s);

#endif
