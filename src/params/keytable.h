// keytable.h: INI files described by a table of keys: parse, override, defaults, echo. params.c has the table of params
// files; another program can bring its own. Not collective.
//
// The files: `[section]` and `key = value` lines (or `key: value`), read with inih. A comment is a line that begins
// with ; or #, or what follows ` ;` on a line. A list may go on: a line whose value ends with a comma is continued by
// the next one, which is indented. Nothing is expanded or included. At most 1 MiB, KEYTABLE_MAX_LINE bytes a line,
// strict UTF-8, LF or CR LF.
#ifndef DS_KEYTABLE_H
#define DS_KEYTABLE_H

#include <stdio.h>

#include "base/err.h"

#define KEYTABLE_MAX_LINE 198         // what inih takes in one piece
#define KEYTABLE_MAX_BYTES (1u << 20) // of a file

typedef enum {
    KEY_BOOL,  // bool: yes | no (also true, false, on, off)
    KEY_INT,   // int64_t in [min, max]
    KEY_REAL,  // double in [min, max], finite
    KEY_TEXT,  // char *: as it stands, never NULL
    KEY_ENUM,  // int (or an enum type): index into names
    KEY_SET,   // int: bit i stands for names[i]; comma-separated, at least one
    KEY_TEXTS, // TextList: comma-separated; \n \t \s (blank) \, \\ are decoded
} KeyType;

// Items of a KEY_TEXTS value. Owner: the struct that the table describes.
typedef struct {
    int n;
    char **item;
} TextList;

typedef struct {
    const char *section, *name;
    KeyType type;
    size_t offset;            // of the member in the struct, bytes
    const char *fallback;     // the default, as a user would write it
    double min, max;          // KEY_INT, KEY_REAL
    const char *const *names; // KEY_ENUM, KEY_SET: legal words, NULL after the last
    const char *unit, *help;
} ParamKey;

typedef struct {
    const char *name, *help;
} ParamSection;

typedef enum { KEY_FROM_DEFAULT, KEY_FROM_FILE, KEY_FROM_COMMAND_LINE, KEY_FROM_PRESET } KeyOrigin;

// Where a value came from.
typedef struct {
    KeyOrigin origin;
    int line; // KEY_FROM_FILE: its line; KEY_FROM_COMMAND_LINE: its number among the overrides, from 1
} KeySource;

// A table: keys in the order of sections. All memory is static.
typedef struct {
    const ParamSection *sections;
    int n_sections;
    const ParamKey *keys;
    int n_keys;
} KeyTable;

// Sets every member of target (zeroed by the caller, or already filled) to its default and from[n_keys] to
// KEY_FROM_DEFAULT.
void keytable_set_defaults(const KeyTable *t, void *target, KeySource *from);

// Reads text[bytes] into target; `path` is for messages. DS_ERR_PARAMS names the first error in the order of the file:
// file, line, key, what was expected, the closest legal word.
Err keytable_parse(const KeyTable *t, void *target, KeySource *from, const char *path, const char *text, size_t bytes);

// The same for a file. DS_ERR_PARAMS also if it cannot be read.
Err keytable_parse_file(const KeyTable *t, void *target, KeySource *from, const char *path);

// One "section.key=value" of the command line; number: its place, from 1. A key may be given once.
Err keytable_override(const KeyTable *t, void *target, KeySource *from, const char *assignment, int number);

// Sets key k to `value` (as a user would write it); `where` begins the message ("file:12", "command line").
Err keytable_set(const KeyTable *t, void *target, int k, const char *value, const char *where);

// Index of section.key, -1 if there is none.
int keytable_find(const KeyTable *t, const char *section, const char *name);

// The value of key k as a user would write it. Owner: caller, mem_free.
char *keytable_format(const KeyTable *t, const void *target, int k);

// Frees the strings and lists in target (not target itself) and zeroes those members.
void keytable_free(const KeyTable *t, void *target);

// "file:12", "command line", "default", "preset": where key k got its value. out[512]; returns out.
const char *keytable_where(const KeySource *from, int k, const char *path, char out[512]);

// For --keys: every key with type, default, range, unit and help, by sections.
void keytable_print(const KeyTable *t, FILE *f);

// A complete commented file of the defaults; `intro` (lines, each begins with #) comes first.
void keytable_write_template(const KeyTable *t, const char *intro, FILE *f);

// Every key as used, readable by keytable_parse; with_sources adds where each value came from as a comment.
void keytable_echo(const KeyTable *t, const void *target, const KeySource *from, bool with_sources, FILE *f);

#endif
