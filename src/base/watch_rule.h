// watch_rule.h: how long is too long. Nothing here reads a clock: watchdog.c tells it the time. Not collective.
//
// A rank that moves (enters or leaves a section, ticks) is alive. How long it may be quiet in a section is learnt: a
// multiple of the longest that it was ever seen quiet there, at least WATCH_FLOOR seconds and at most the limit; the
// limit itself until it has been seen to move there often enough. What was learnt holds for what sleeps in the system:
// a rank that computes may come to a larger product, and a wait depends on the network too, so both have the limit.
#ifndef DS_WATCH_RULE_H
#define DS_WATCH_RULE_H

#include "base/types.h"

enum { WATCH_FLOOR = 60, WATCH_FACTOR = 20, WATCH_LEARNT = 20, WATCH_NAMES = 64, WATCH_FILES_FACTOR = 3 };

typedef enum { WATCH_WORK, WATCH_FILE, WATCH_WAIT } WatchKind; // computes | reads or writes | waits for other ranks

typedef struct {
    double limit;          // seconds; the cap
    double period;         // between polls, as planned
    double clock;          // at the last poll
    double awake;          // seconds in which this process was not itself stopped
    double moved, excused; // `awake` when it last moved; until when its waiting had a reason
    uint64_t moves;
    const char *doing; // the section at the last poll
    struct {
        const char *doing; // static words
        double longest;    // quiet
        int seen;          // polls that found it moving
    } past[WATCH_NAMES];
    int n_past;
} WatchRule;

// Begins; `now` in seconds.
void watch_rule_start(WatchRule *r, double limit, double now);
// A new limit.
void watch_rule_limit(WatchRule *r, double limit);

// What was found at time `now`: the section and a count that changes with every move. A step much longer than the
// period means that the process was stopped or suspended, and is forgiven.
void watch_rule_poll(WatchRule *r, double now, const char *doing, uint64_t moves);

// Seconds without a move; seconds without a move or an excuse.
double watch_rule_quiet(const WatchRule *r);
double watch_rule_unexcused(const WatchRule *r);
// The wait that goes on has a reason: others still work.
void watch_rule_excuse(WatchRule *r);

// What was learnt of the present section; what is allowed there to one of that kind whose thread sleeps or computes.
double watch_rule_deadline(const WatchRule *r);
double watch_rule_allowed(const WatchRule *r, WatchKind kind, bool asleep);

// The least that is allowed anywhere; with files, whose servers stand still for a while, too.
double watch_rule_floor(const WatchRule *r);
double watch_rule_files_floor(const WatchRule *r);

#endif
