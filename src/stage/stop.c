// stop.c: handlers only set flags; ranks compare them once a step.
#include "stage/stop.h"

#include <signal.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "comm/coll.h"

static volatile sig_atomic_t stop_signal, checkpoint_signal;
static struct {
    const char *file;
    double deadline, margin;
} limit;

static void on_stop(int sig) {
    if (stop_signal) _exit(DS_STOP_FINAL); // lint: the second wish: now, with the last checkpoint as it is
    stop_signal = sig;
}

static void on_checkpoint(int sig) { checkpoint_signal = sig; }

void stop_install(const char *stop_file, double deadline, double margin) {
    limit.file = stop_file;
    limit.deadline = deadline;
    limit.margin = margin;
    struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    struct sigaction checkpoint = {.sa_handler = on_checkpoint, .sa_flags = SA_RESTART};
    sigemptyset(&stop.sa_mask);
    sigemptyset(&checkpoint.sa_mask);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGUSR1, &stop, NULL);
    sigaction(SIGUSR2, &checkpoint, NULL);
}

enum { WHY_NONE, WHY_USR2, WHY_SIGNAL, WHY_FILE, WHY_TIME };

StopWish stop_ask(const Group *g, double step_seconds, const char **why) {
    static const char *const words[] = {"", "signal USR2", "a signal", "the file STOP", "the time limit"};
    int64_t wish = stop_signal ? WHY_SIGNAL : checkpoint_signal ? WHY_USR2 : WHY_NONE;
    checkpoint_signal = 0;
    if (group_rank(g) == 0) {
        if (limit.file && file_exists(limit.file)) wish = WHY_FILE;
        if (limit.deadline > 0 && clock_unix() + limit.margin + step_seconds > limit.deadline) wish = WHY_TIME;
    }
    coll_max_i64(g, &wish, 1);
    if (why) *why = words[wish];
    return wish == WHY_NONE ? STOP_NONE : wish == WHY_USR2 ? STOP_CHECKPOINT : STOP_EARLY;
}
