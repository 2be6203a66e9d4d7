// stop.h: why a job should write a checkpoint or stop: signals, the file STOP, the time limit.
#ifndef DS_STOP_H
#define DS_STOP_H

#include "comm/group.h"

// go on | checkpoint and go on | checkpoint and stop, to be queued again | the same, and not (a file STOP)
typedef enum { STOP_NONE, STOP_CHECKPOINT, STOP_EARLY, STOP_FOR_GOOD } StopWish;

// Catches TERM, INT, USR1 (stop with a checkpoint; a second one: stop now), USR2 (checkpoint and go on). Call it before
// the world begins (base/signals.h says why). Not collective.
void stop_catch(void);

// `stop_file` ends the run when it exists; `deadline` (Unix time, 0: none) minus margin seconds is the last moment to
// begin a checkpoint. Strings are views. Not collective.
void stop_limit(const char *stop_file, double deadline, double margin);

// Says what the limit leaves, and warns where that is too little for a step and the last checkpoint: beside the margin,
// `checkpoint_seconds` (what one took; NaN: not known) and the lead of the batch system's signal (DSCHAT_SIGNAL_LEAD,
// seconds). Not collective.
void stop_say_limit(double checkpoint_seconds);

// A file STOP that lies there before the first step: removed, and DS_STOP_FINAL with words. DS_ERR_IO. Rank 0.
Err stop_leftover(const char *stop_file);

// The wish of the file is fulfilled: removes it. DS_ERR_IO. Rank 0.
Err stop_fulfilled(void);

// A stop after `steps` steps of this start, which began `seconds` ago. If it made none: for the time limit
// DS_STOP_FINAL with words (the next start would come no further), for a signal a warning. Not collective.
Err stop_without_step(StopWish wish, const char *why, int64_t steps, double seconds);

// What all ranks together wish: the strongest of their wishes. *why (may be NULL): static words. step_seconds: how long
// the next step will take. Rank 0 looks at the file and the clock. Collective on g.
StopWish stop_ask(const Group *g, double step_seconds, const char **why);

#endif
