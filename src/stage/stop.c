// stop.c: the watcher of signals only sets flags; ranks compare them once a step.
#include "stage/stop.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/signals.h"
#include "base/watchdog.h"
#include "comm/coll.h"

static atomic_bool stop_signal, checkpoint_signal;
static struct {
    const char *file;
    double deadline, margin;
} limit;

static void on_signal(int sig) {
    if (sig == SIGQUIT) watchdog_quit();
    if (sig == SIGUSR2) checkpoint_signal = true;
    else if (atomic_exchange(&stop_signal, true))
        _exit(DS_STOP_FINAL); // lint: the second wish: now, with the last checkpoint as it is
}

void stop_catch(void) {
    signal(SIGXFSZ, SIG_IGN); // a write beyond the largest size of a file (ulimit -f) is an error like others
    signals_watch(5, (const int[]){SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGQUIT}, on_signal);
}

void stop_limit(const char *stop_file, double deadline, double margin) {
    limit.file = stop_file;
    limit.deadline = deadline;
    limit.margin = margin;
}

// From the weakest wish to the strongest.
enum { WHY_NONE, WHY_USR2, WHY_SIGNAL, WHY_TIME, WHY_FILE };
static const char *const words[] = {"", "signal USR2", "a signal", "the time limit", "the file STOP"};

void stop_say_limit(double checkpoint_seconds) {
    const char *text = getenv("DSCHAT_SIGNAL_LEAD");
    const double lead = text ? strtod(text, NULL) : 0, left = limit.deadline - clock_unix();
    const double kept = fmax(limit.margin, lead);
    if (limit.deadline <= 0) return;
    log_info("  time limit: in %.0f min; the last checkpoint begins %.1f min before it", left / 60, limit.margin / 60);
    if (left <= limit.margin)
        log_warn(
            "the time limit is %.0f s away, and [job] stop_margin_minutes keeps %.0f s of it free: no step will be "
            "made; ask for more time or lower the margin",
            left, limit.margin);
    else if (left <= lead)
        log_warn("the time limit is %.0f s away, and the batch system's signal comes %.0f s before it: no step will be "
                 "made; ask for more time or for a later signal",
                 left, lead);
    else if (left < 2 * kept)
        log_warn(
            "the time limit is %.0f s away, and %.0f s of it are kept free for the last checkpoint: more than half",
            left, kept);
    if (checkpoint_seconds > kept)
        log_warn("a checkpoint of this run took %.0f s, and only %.0f s are kept free for the last one ([job] "
                 "stop_margin_minutes)",
                 checkpoint_seconds, kept);
}

// *there: it was.
static Err remove_file(const char *path, bool *there) {
    *there = unlink(path) == 0;
    if (!*there && errno != ENOENT) return err_set(DS_ERR_IO, "%s: cannot remove: %s", path, strerror(errno));
    return DS_OK;
}

Err stop_leftover(const char *stop_file) {
    bool there;
    Err err = remove_file(stop_file, &there);
    if (!there) return err;
    return err_set(DS_STOP_FINAL,
                   "%s lay there before this start: it is removed, and nothing was run; start again to run", stop_file);
}

Err stop_fulfilled(void) {
    bool there;
    return limit.file ? remove_file(limit.file, &there) : DS_OK;
}

Err stop_without_step(StopWish wish, const char *why, int64_t steps, double seconds) {
    if (steps > 0 || wish != STOP_EARLY) return DS_OK;
    if (!strcmp(why, words[WHY_TIME]))
        return err_set(DS_STOP_FINAL,
                       "this start made no step in %.0f s: the time limit is %.0f s away, [job] stop_margin_minutes "
                       "keeps %.0f s free, and another start would come no further; ask for more time or lower the "
                       "margin",
                       seconds, limit.deadline - clock_unix(), limit.margin);
    log_warn("this start made no step: %s came %.0f s after it began. If a batch system sends its signal so early that "
             "every start ends so (--signal=USR1@600 in a job of 10 minutes), the third in a row ends with %d",
             why, seconds, DS_STOP_FINAL);
    return DS_OK;
}

StopWish stop_ask(const Group *g, double step_seconds, const char **why) {
    const bool checkpoint = atomic_exchange(&checkpoint_signal, false); // one that comes now is of the next step
    int64_t wish = stop_signal ? WHY_SIGNAL : checkpoint ? WHY_USR2 : WHY_NONE;
    if (group_rank(g) == 0) {
        if (limit.deadline > 0 && clock_unix() + limit.margin + step_seconds > limit.deadline) wish = WHY_TIME;
        if (limit.file && access(limit.file, F_OK) == 0) wish = WHY_FILE; // a disk that fails is no wish
    }
    coll_max_i64(g, &wish, 1);
    if (why) *why = words[wish];
    static const StopWish wishes[] = {STOP_NONE, STOP_CHECKPOINT, STOP_EARLY, STOP_EARLY, STOP_FOR_GOOD};
    return wishes[wish];
}
