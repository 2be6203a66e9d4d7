// stop.h: why a job should write a checkpoint or stop: signals, the file STOP, the time limit.
#ifndef DS_STOP_H
#define DS_STOP_H

#include "comm/group.h"

typedef enum { STOP_NONE, STOP_CHECKPOINT, STOP_EARLY } StopWish; // go on | checkpoint and go on | checkpoint and stop

// Catches TERM, INT, USR1 (stop with a checkpoint; a second one: stop now), USR2 (checkpoint and go on). Call it before
// the world begins (base/signals.h says why). Not collective.
void stop_catch(void);

// `stop_file` ends the run when it exists; `deadline` (Unix time, 0: none) minus margin seconds is the last moment to
// begin a checkpoint. Strings are views. Not collective.
void stop_limit(const char *stop_file, double deadline, double margin);

// What all ranks together wish: the strongest of their wishes. *why (may be NULL): static words. step_seconds: how long
// the next step will take. Rank 0 looks at the file and the clock. Collective on g.
StopWish stop_ask(const Group *g, double step_seconds, const char **why);

#endif
