// watch.h: how the watchdogs of a job (base/watchdog.h) find each other. Those of a node do when the world begins.
#ifndef DS_WATCH_H
#define DS_WATCH_H

#include "base/err.h"

// Ranks of different nodes see each other through files in `out`/.watch, which rank 0 makes; on one node there are
// none. Collective on world.
Err watch_share(const char *out);

#endif
