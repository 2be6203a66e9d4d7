// watch_rule.c: see watch_rule.h.
#include "base/watch_rule.h"

#include <string.h>

static double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

double watch_rule_floor(const WatchRule *r) { return r->limit < WATCH_FLOOR ? r->limit : WATCH_FLOOR; }

double watch_rule_files_floor(const WatchRule *r) {
    const double floor = WATCH_FILES_FACTOR * watch_rule_floor(r);
    return floor < r->limit ? floor : r->limit;
}

void watch_rule_limit(WatchRule *r, double limit) {
    r->limit = limit;
    r->period = clamp(watch_rule_floor(r) / 20, 0.05, 0.5);
}

void watch_rule_start(WatchRule *r, double limit, double now) {
    *r = (WatchRule){.clock = now, .doing = ""};
    watch_rule_limit(r, limit);
}

static int find(const WatchRule *r, const char *doing) {
    for (int i = 0; i < r->n_past; i++)
        if (!strcmp(r->past[i].doing, doing)) return i;
    return -1;
}

static void learn(WatchRule *r, double quiet) {
    int i = find(r, r->doing);
    if (i < 0 && r->n_past == WATCH_NAMES) return;
    if (i < 0) {
        i = r->n_past++;
        r->past[i].doing = r->doing;
    }
    if (quiet > r->past[i].longest) r->past[i].longest = quiet;
    r->past[i].seen++;
}

void watch_rule_poll(WatchRule *r, double now, const char *doing, uint64_t moves) {
    const double step = now - r->clock;
    r->awake += step > r->period + 1 ? r->period : step;
    r->clock = now;
    if (moves != r->moves) {
        learn(r, watch_rule_quiet(r));
        r->moved = r->awake;
        r->moves = moves;
    }
    r->doing = doing;
}

double watch_rule_quiet(const WatchRule *r) { return r->awake - r->moved; }

double watch_rule_unexcused(const WatchRule *r) { return r->awake - (r->moved > r->excused ? r->moved : r->excused); }

void watch_rule_excuse(WatchRule *r) { r->excused = r->awake; }

double watch_rule_deadline(const WatchRule *r) {
    const int i = find(r, r->doing);
    if (i < 0 || r->past[i].seen < WATCH_LEARNT) return r->limit;
    return clamp(WATCH_FACTOR * r->past[i].longest, watch_rule_floor(r), r->limit);
}

double watch_rule_allowed(const WatchRule *r, WatchKind kind, bool asleep) {
    if (kind == WATCH_WAIT || (kind == WATCH_WORK && !asleep)) return r->limit;
    const double learnt = watch_rule_deadline(r), least = kind == WATCH_FILE ? watch_rule_files_floor(r) : 0;
    return learnt > least ? learnt : least;
}
