// starts.h: `<out>/starts.log`: when a run was started, from which checkpoint, and how each start ended, so that a
// batch job that dies again and again at the same place is not queued for ever. Not collective: rank 0, which holds the
// run's lock (io/runlock.h).
//
//     start 2026-11-26T07:00:00Z sft-000010
//     end 2026-11-26T07:30:00Z 10
#ifndef DS_STARTS_H
#define DS_STARTS_H

#include "base/err.h"

// Notes a start that found `newest` (path of a checkpoint, NULL: none). Starts in a row that found the same one and
// died (no end is noted), or ended with DS_ERR_NUMERIC, DS_ERR_BUG or DS_STOP_REQUEUE, count; those that ended
// otherwise (a wrong path, a full disk, a STOP) do not. After two that count the third gives DS_STOP_FINAL with words,
// and is not noted. DS_ERR_IO.
Err starts_begin(const char *out, const char *newest);

// Notes how the start ended. DS_ERR_IO.
Err starts_end(const char *out, Err code);

#endif
