// jsonl.h: JSON lines, plain or gzip, one object a line, in constant memory. Not collective (all of it).
//
// Nothing is believed: a line is at most JSONL_MAX_LINE bytes once unpacked (so a gzip bomb ends as a long line), what
// holds no record (blank lines, bad ones) at most 100 times what it was unpacked from, 256 MiB are free; strict UTF-8,
// one JSON object without duplicate keys, nested at most as deep as jansson allows. Errors name the file and the line.
#ifndef DS_JSONL_H
#define DS_JSONL_H

#include <stdio.h>

#include "base/err.h"

enum { JSONL_MAX_LINE = 16 << 20 };

// What a line that was refused is.
typedef enum { JSONL_GOOD, JSONL_LONG, JSONL_UTF8, JSONL_SYNTAX } JsonlFault;

typedef struct Jsonl Jsonl;
typedef struct json_t JsonValue; // a view into the current line

// gzip is recognised by its first bytes. DS_ERR_IO. Owner: caller, jsonl_close.
Err jsonl_open(const char *path, Jsonl **out);
void jsonl_close(Jsonl **j); // accepts NULL

// The next line that is not blank: *object = NULL at the end of the file. Valid until the next call. After DS_ERR_DATA
// for a bad line (jsonl_fault) the next call goes on with the line after it; after DS_ERR_IO (a torn gzip stream) and
// DS_ERR_DATA without a fault (a bomb of blank lines) it must not be called.
Err jsonl_next(Jsonl *j, const JsonValue **object);
int64_t jsonl_line(const Jsonl *j); // number of the line last given, from 1
const char *jsonl_path(const Jsonl *j);
JsonlFault jsonl_fault(const Jsonl *j);   // of the last call
int64_t jsonl_bytes_read(const Jsonl *j); // of the file, for progress
int64_t jsonl_bytes(const Jsonl *j);      // the file's size

// ---- values ----

const JsonValue *jsonl_get(const JsonValue *object, const char *key); // NULL: missing, or not an object
const char *jsonl_string(const JsonValue *v, int64_t *bytes);         // NULL: not a string (v may be NULL)
int64_t jsonl_count(const JsonValue *v);                              // of an array, -1: not an array
const JsonValue *jsonl_item(const JsonValue *array, int64_t i);
bool jsonl_integer(const JsonValue *v, int64_t *value); // false: not an integer
const char *jsonl_key_list(const JsonValue *object, char *out,
                           size_t room); // its keys with commas, for messages; returns out

// Writes text[bytes] as a JSON string with its quotes; invalid UTF-8 as U+FFFD.
void jsonl_print_string(FILE *f, const char *text, int64_t bytes);

#endif
