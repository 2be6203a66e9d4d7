// watchdog.h: a thread of every rank that ends the job when the job stands still, and says where.
//
// The main thread names what it does: sections, entered and left, one inside another. Leaving, entering and ticking are
// moves. A section in which nothing moves for longer than its deadline (watch_rule.h) is a hang; bytes that a
// WATCH_FILE section reads or writes count as moves too. A rank that waits for others does so as long as one of them
// works, moves, and its watchdog lives; ranks see each other through a board in shared memory, and between nodes
// through small files in the run's folder (watch_files.h). Past the deadline one rank says which rank stands still and
// where, and all end with exit code 6. Nothing here needs MPI, so it works while the main thread is inside a library.
//
// Sections belong to the main thread; without watchdog_start (tools, tests) they cost the same and nobody looks. No
// function here is collective, but watchdog_end waits for the other ranks of the node.
#ifndef DS_WATCHDOG_H
#define DS_WATCHDOG_H

#include "base/watch_board.h"
#include "base/watch_rule.h"

// Ranks that wait for each other. Must outlive every wait that names it.
typedef struct {
    uint64_t id; // the same on all of them, not 0
    int n;
    const int *ranks; // [n], of the job
} WatchGroup;

// Starts the thread, and lets signals of a bug (ABRT, BUS, SEGV ...) end the program with code 6 and words. Call it
// before MPI starts, from the main thread, after signals_watch. A second call does nothing.
void watchdog_start(void);

// [job] deadline_minutes: no section may be quiet for longer (before: 600 s).
void watchdog_limit(double seconds);

// The board of this node, with size slots. `local` [n_local], this rank among them: the ranks that write it. Kept.
void watchdog_join(WatchBoard *board, int rank, const int *local, int n_local);

// A section, such as ("reading a model", "out/x/models/sft.h5"). `doing`: static words, of which those before a '(' are
// shown; `what` is copied, NULL: none.
void watchdog_enter(WatchKind kind, const char *doing, const char *what);
// A wait for the others of a group, in the group's exchange number `call`.
void watchdog_wait(const char *doing, const char *what, const WatchGroup *group, uint64_t call);
void watchdog_leave(void);
// Still moving. Any thread.
void watchdog_tick(void);

// What the rank is at: "sft", 12. `stage` is copied; step 0: none.
void watchdog_step(const char *stage, int64_t step);

// "in "reading a model" (x.h5), sft step 12" of this rank; "" if it is in no section. Any thread. Returns out.
char *watchdog_where(char *out, size_t size);

// The program ends by itself, and has said why: it is gone in `seconds`, if need be by the watchdog, with code 6.
void watchdog_ending(double seconds);

// Another rank's watchdog ends the job (SIGQUIT): so does this one, at the same moment.
_Noreturn void watchdog_quit(void);

// The rank has done its work: waits, under watch, until the others of the node have too; what is left is watched to the
// end of the process. Call it last.
void watchdog_end(void);

#endif
