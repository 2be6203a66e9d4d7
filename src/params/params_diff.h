// params_diff.h: two params of one run, when it began and now: which keys differ, and what a difference means for what
// the run has made. Not collective.
#ifndef DS_PARAMS_DIFF_H
#define DS_PARAMS_DIFF_H

#include "params/params.h"

typedef enum {
    CHANGE_SILENT,  // not worth a word: it acts through other keys, or only now
    CHANGE_FREE,    // the results stay what they are
    CHANGE_BITS,    // documented to give the same results in other last bits
    CHANGE_EXTENT,  // how long a stage runs: more of it is a wish that an unfinished stage can be granted
    CHANGE_FILE,    // a path of an input: its content decides
    CHANGE_STAGES,  // [job] stages
    CHANGE_RESULTS, // other results
} ChangeKind;

typedef struct {
    const ParamKey *key;
    ChangeKind kind;
    int stages;     // bits 1 << StageKind that the key acts on
    char *was, *is; // as a user would write them; owner: the list
} ParamChange;

// What a change of key k of params_table() means, and *stages on which it acts. A key without a row changes the results
// of all stages.
ChangeKind params_change_kind(int k, int *stages);

// True if every key has a row of its own or its section's, and every row a key; else *name: the first without. For
// tests.
bool params_changes_complete(const char **name);

// The keys that differ, in the order of the table. Keys that `was` does not have (params of an older version) are left
// out. Owner of *list: caller, params_diff_free.
int params_diff(const Params *was, const Params *is, ParamChange **list);
void params_diff_free(ParamChange **list, int n); // accepts NULL, sets NULL

// Whether a CHANGE_EXTENT is to more (0, no limit, is the most).
bool params_is_more(const ParamChange *c);

#endif
