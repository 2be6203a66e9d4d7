// stop.c: the watcher of signals only sets flags; ranks compare them once a step.
#include "stage/stop.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/signals.h"
#include "comm/coll.h"

static atomic_bool stop_signal, checkpoint_signal;
static struct {
    const char *file;
    double deadline, margin;
} limit;

static void on_signal(int sig) {
    if (sig == SIGUSR2) checkpoint_signal = true;
    else if (atomic_exchange(&stop_signal, true))
        _exit(DS_STOP_FINAL); // lint: the second wish: now, with the last checkpoint as it is
}

void stop_catch(void) { signals_watch(4, (const int[]){SIGTERM, SIGINT, SIGUSR1, SIGUSR2}, on_signal); }

void stop_limit(const char *stop_file, double deadline, double margin) {
    limit.file = stop_file;
    limit.deadline = deadline;
    limit.margin = margin;
}

enum { WHY_NONE, WHY_USR2, WHY_SIGNAL, WHY_FILE, WHY_TIME };

StopWish stop_ask(const Group *g, double step_seconds, const char **why) {
    static const char *const words[] = {"", "signal USR2", "a signal", "the file STOP", "the time limit"};
    int64_t wish = stop_signal ? WHY_SIGNAL : checkpoint_signal ? WHY_USR2 : WHY_NONE;
    checkpoint_signal = false;
    if (group_rank(g) == 0) {
        if (limit.file && file_exists(limit.file)) wish = WHY_FILE;
        if (limit.deadline > 0 && clock_unix() + limit.margin + step_seconds > limit.deadline) wish = WHY_TIME;
    }
    coll_max_i64(g, &wish, 1);
    if (why) *why = words[wish];
    return wish == WHY_NONE ? STOP_NONE : wish == WHY_USR2 ? STOP_CHECKPOINT : STOP_EARLY;
}
