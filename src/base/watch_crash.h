// watch_crash.h: the signals that a bug raises, or a library in trouble, end the program with exit code 6 and words:
// which rank, in what, by which signal. For watchdog.c. Not collective.
#ifndef DS_WATCH_CRASH_H
#define DS_WATCH_CRASH_H

#include "base/watch_say.h"

// Call it once. add_self adds which rank this is; it is called from a signal's handler.
void watch_crash_catch(void (*add_self)(WatchText *t));

#endif
