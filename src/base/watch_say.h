// watch_say.h: the words of a watchdog, and the processes that it may have to wake. For watchdog.c. Not collective.
#ifndef DS_WATCH_SAY_H
#define DS_WATCH_SAY_H

#include "base/watch_board.h"

// Text of a fixed size that is added to.
typedef struct {
    char text[4096];
    size_t n;
} WatchText;

void watch_add(WatchText *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// "rank 3 (host a, pid 17)".
void watch_add_rank(WatchText *t, int rank, const WatchSlot *s);
// ""reading a model" (x.h5) at sft step 12".
void watch_add_place(WatchText *t, const WatchSlot *s);

// Whether its main thread has not used the processor for most of the time that it has been quiet.
bool watch_asleep(const WatchSlot *s);

// To stderr, unless nobody takes it for two seconds.
void watch_write(const WatchText *t);

// The other ranks on this node, as far as they can be told without MPI: processes of this program under the same
// launcher, with another rank.
typedef struct {
    int pid, rank;
    bool stopped;
} WatchKin;
int watch_kin(WatchKin *kin, int max);

// Tells a launcher that can be told without MPI (Hydra) to end the whole job with this exit code; false: there is none.
bool watch_tell_launcher(int code);
enum { WATCH_LAUNCHER_SECONDS = 2 }; // in which one that was told has ended all

// What this thread of this process has read and written so far, in bytes; 0: not known.
uint64_t watch_thread_bytes(int thread);

// Whether a debugger holds this process of this node.
bool watch_debugged(int pid);

// A stopped process of this program goes on.
void watch_wake(int pid);

#endif
