// history.h: what a run did, step by step: history.nc (scalars) and rollouts.nc (every answer of PPO), through PnetCDF.
// All functions are collective on world unless they say otherwise; the Err they return is the same on all ranks.
//
// history.nc (CDF-2; ncdump, ncview, xarray), one record a step, and the evaluations before (step 0) and after
// (the last step once more):
//     dimension record (unlimited); int stage(record) with flag_values and flag_meanings; int step(record);
//     double time(record), seconds since 1970-01-01; double <scalar>(record), NaN where a stage has no such scalar.
// rollouts.nc (CDF-5), one record an answer, ordered by (iteration, sample id):
//     dimensions answer (unlimited), position (the longest answer allowed); int iteration(answer); int64
//     sample(answer); int length(answer); uint token_id(answer, position); float <quantity>(answer, position). What
//     lies past an answer's length is _FillValue (NaN).
// Both hold an int checksum of every record (recordsum.h), CF-1.8 attributes and the origin of the start that made
// them, as global attributes. After a kill at any moment a file is readable up to its last whole record. Files of
// others, damaged ones and ones with other variables are refused.
#ifndef DS_HISTORY_H
#define DS_HISTORY_H

#include "io/origin.h"

// One variable: units as UDUNITS spells them, "1" for a pure number.
typedef struct {
    const char *name, *units, *long_name;
} HistoryVar;

// What a file holds. Everything is copied or written at open; nothing has to outlive the call.
typedef struct {
    const HistoryVar *vars; // [n_vars], the caller's scalars (history) or per-token quantities (rollouts)
    int n_vars;
    const char
        *stages; // history only: names with blanks between, "sft rm ppo"; variable stage = place in this list + 1
    int64_t max_answer;   // rollouts only: tokens of the longest answer allowed
    const Origin *origin; // NULL: none
} HistorySpec;

typedef struct History History;
typedef struct Rollouts Rollouts;

// Creates `path`, or goes on with it: the first keep_records records stay, later ones are dropped (a run that continues
// from a checkpoint passes the count that was there then; 0 starts anew). A missing file with keep_records > 0 is
// created, with a warning. DS_ERR_DATA: the file is not ours, is damaged (of a record that stays: by its checksum), has
// other variables, or fewer records than are to be kept. DS_ERR_IO.
Err history_open(const char *path, const HistorySpec *spec, int64_t keep_records, History **out);

// Appends a record; values[n_vars] in the order of the spec, NaN: does not apply. Only rank 0's arguments count. Not
// collective: it never waits for another rank, and a failure is reported by the next history_sync or history_close.
void history_put(History *h, const char *stage, int64_t step, double time_unix, const double *values);

// Records in the file. Meaningful on rank 0 only. Not collective.
int64_t history_records(const History *h);

// Brings everything put so far onto the disk (fsync); reports failures of history_put. Call it before a checkpoint's
// DONE.
Err history_sync(History *h);

// Syncs and closes; accepts NULL in *h, sets NULL.
Err history_close(History **h);

// One answer of this rank. Nothing is kept after the call.
typedef struct {
    int64_t sample;             // unique within the iteration, over all ranks; decides the place in the file
    int64_t length;             // tokens of the answer, 0 .. max_answer
    const uint32_t *tokens;     // [length]
    const float *const *values; // [n_vars][length], in the order of the spec
} RolloutAnswer;

// As history_open; records of iterations >= from_iteration are dropped.
Err history_open_rollouts(const char *path, const HistorySpec *spec, int64_t from_iteration, Rollouts **out);

// Appends the answers of all ranks (n of them here, 0 is fine), in the order of their sample ids, so the file does not
// depend on who held which. `iteration` is the same on all ranks and greater than any in the file (DS_ERR_BUG).
Err history_put_rollouts(Rollouts *r, int64_t iteration, const RolloutAnswer *answers, int64_t n);

// Brings everything onto the disk (fsync).
Err history_sync_rollouts(Rollouts *r);

// Syncs and closes; accepts NULL in *r, sets NULL.
Err history_close_rollouts(Rollouts **r);

// PnetCDF as linked: "1.12.3 of 21 Aug 2022". Not collective.
const char *history_library(void);

#endif
