// runlock.h: one job at a time in a run's folder. Not collective: rank 0 takes the lock for all.
//
// `<dir>/.lock` is held with fcntl (an open file description's lock), which ends with the process whatever ends it, and
// says who holds it: host and its boot, process, batch job, since when, and a beat that a thread raises every few
// seconds; empty: no one. Where a file system has no such locks, or only within a node (Lustre without flock, NFS
// without lockd), the words decide: a process of this host (its name and its boot are the same) is looked up, one of
// another counts as dead when its beat has stood still for two minutes while this one watched (no clocks are compared).
// A holder whose words are no longer in the file has lost the folder (it was suspended, and another took over): its
// thread ends the process with DS_STOP_FINAL.
#ifndef DS_RUNLOCK_H
#define DS_RUNLOCK_H

#include "base/err.h"

typedef struct Runlock Runlock;

// Takes the lock of folder `dir`, which exists. Held by another: DS_STOP_FINAL (nothing is left to do for this start,
// and it must not be queued again while the other runs) with words: at once where that one runs on this host, after its
// next beat where it runs on another, after two minutes without one; where it writes its last checkpoint
// (runlock_leaving) after a minute. DS_ERR_IO: also if the lock cannot be read. Owner: caller, runlock_release. One a
// process.
Err runlock_take(const char *dir, Runlock **out);

// Words for the log if the lock was taken over from one that died, else NULL. Lives as long as the lock.
const char *runlock_note(const Runlock *l);

// From now on a job that wants the folder waits: the last checkpoint is being written. Accepts NULL.
void runlock_leaving(Runlock *l);

// Nothing in the folder is touched afterwards. Accepts NULL, sets NULL.
void runlock_release(Runlock **l);

#endif
