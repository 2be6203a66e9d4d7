// build_take.h: one parsed record -> rows of the data set, or the reason why not. Not collective (all of it).
#ifndef DS_BUILD_TAKE_H
#define DS_BUILD_TAKE_H

#include "data/build_form.h"
#include "data/build_rows.h"

// Reasons to leave a record out. The first are bad lines ([data] on_bad), the others never stop the build.
typedef enum {
    DROP_NONE,
    DROP_LONG_LINE,
    DROP_UTF8,
    DROP_JSON,
    DROP_FIELDS,
    DROP_IDENTICAL,
    DROP_NO_ANSWER,
    DROP_EMPTY,
    DROP_PROMPT,
    DROP_ANSWER,
    DROP_TOKENS,
    DROP_NO_STAGE,
    DROP_WEIGHT,
    DROP_KINDS
} BuildDrop;

// A word fit for an attribute ("identical_pair"), and words for people.
const char *build_take_drop_name(BuildDrop drop);
const char *build_take_drop_words(BuildDrop drop);

// The rows of one record.
typedef struct {
    int64_t first, end;  // rows
    int64_t copies_from; // rows from here on repeat the ones before
    uint8_t stages;
} BuildUnit;

typedef struct {
    const BuildSpec *spec;
    const Tokenizer *tok;
    const Chat *chat;
    BuildRows *rows;
    ChatTokens chosen, rejected; // scratch
    int64_t cut;                 // rows that lost their beginning so far
} BuildTaker;

// Encodes and appends record number `number` of source `source` (from 0), `copies` times. *drop = DROP_NONE: *unit is
// filled; else nothing was appended. DS_ERR_DATA, begun with `where`: it lacks what the source's stages need.
Err build_take(BuildTaker *t, const BuildRecord *record, int source, int64_t number, int64_t copies, const char *where,
               BuildDrop *drop, BuildUnit *unit);
void build_take_free(BuildTaker *t);

#endif
