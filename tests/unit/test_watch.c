// test_watch.c: how long is too long: learning, floor, cap, ticks, clock jumps, excuses; what a thread really does with
// it, in a child process: a section that hangs ends it with code 6, one that moves does not.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/watch_rule.h"
#include "base/watchdog.h"

// `seconds` of polls in section `doing`, moving every `every` seconds (0: never).
static double go_on(WatchRule *r, double now, const char *doing, double seconds, double every, uint64_t *moves) {
    double last = now;
    for (const double end = now + seconds; now < end; now += 0.5) {
        if (every > 0 && now - last >= every) {
            last = now;
            ++*moves;
        }
        watch_rule_poll(r, now, doing, *moves);
    }
    return now;
}

static void deadlines(void **state) {
    (void)state;
    WatchRule r;
    uint64_t moves = 0;
    watch_rule_start(&r, 600, 100);
    double now = go_on(&r, 100, "a", 5, 1, &moves);
    assert_true(watch_rule_deadline(&r) == 600); // not seen often enough: the cap
    now = go_on(&r, now, "a", 60, 1, &moves);
    assert_true(watch_rule_deadline(&r) == 60); // 20 times a second: the floor
    now = go_on(&r, now, "b", 1, 0, &moves);
    assert_true(watch_rule_deadline(&r) == 600); // another section learns for itself
    now = go_on(&r, now, "a", 8, 8, &moves);
    now = go_on(&r, now, "a", 20, 1, &moves);
    const double learnt = watch_rule_deadline(&r);
    assert_true(learnt > 20 * 7 && learnt < 20 * 12); // the longest counts
    now = go_on(&r, now, "a", 200, 40, &moves);
    assert_true(watch_rule_deadline(&r) == 600); // never above the cap
    watch_rule_start(&r, 600, now);
    go_on(&r, now, "a", 60, 1, &moves);
    // What was learnt is for what sleeps: a larger product, a slower network and a server that starts anew are no hang.
    assert_true(watch_rule_allowed(&r, WATCH_WORK, true) == 60);
    assert_true(watch_rule_allowed(&r, WATCH_WORK, false) == 600);
    assert_true(watch_rule_allowed(&r, WATCH_WAIT, true) == 600);
    assert_true(watch_rule_allowed(&r, WATCH_FILE, true) == 180);
    watch_rule_limit(&r, 90);
    assert_true(watch_rule_allowed(&r, WATCH_FILE, true) == 90);
    watch_rule_limit(&r, 3);
    assert_true(watch_rule_deadline(&r) == 3 && watch_rule_floor(&r) == 3);
}

static void quiet(void **state) {
    (void)state;
    WatchRule r;
    uint64_t moves = 0;
    watch_rule_start(&r, 600, 0);
    double now = go_on(&r, 0, "a", 30, 0, &moves);
    assert_true(watch_rule_quiet(&r) > 28 && watch_rule_quiet(&r) < 31);
    now = go_on(&r, now, "a", 1, 0.5, &moves); // a tick
    assert_true(watch_rule_quiet(&r) < 1);
    now = go_on(&r, now, "a", 10, 0, &moves);
    watch_rule_poll(&r, now + 3600, "a", moves); // stopped or suspended for an hour
    assert_true(watch_rule_quiet(&r) < 12);
    now = go_on(&r, now + 3600, "a", 10, 0, &moves);
    assert_true(watch_rule_quiet(&r) > 18 && watch_rule_quiet(&r) < 23);
    assert_true(watch_rule_unexcused(&r) > 18);
    watch_rule_excuse(&r);
    assert_true(watch_rule_unexcused(&r) == 0 && watch_rule_quiet(&r) > 18);
    go_on(&r, now, "a", 5, 0, &moves);
    assert_true(watch_rule_unexcused(&r) > 3 && watch_rule_unexcused(&r) < 6);
}

static void rest(double seconds) {
    nanosleep(&(struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = (long)(1e9 * (seconds - (time_t)seconds))},
              NULL);
}

enum { SLEEPS, TICKS, READS, HANGS_AFTER_LEAVING, FATAL_HOOK_HANGS, THREADS_CRASH };

static void never(int code) {
    (void)code;
    for (;;) pause();
}

static pthread_barrier_t all_there;

static void *crash(void *unused) {
    pthread_barrier_wait(&all_there);
    raise(SIGABRT);
    return unused;
}

// As computing threads do that are given a bad address: all at once.
static void crash_together(void) {
    enum { THREADS = 4 };
    pthread_t thread;
    pthread_barrier_init(&all_there, NULL, THREADS);
    for (int i = 1; i < THREADS; i++) pthread_create(&thread, NULL, crash, NULL);
    crash(NULL);
}

static void child_does(int what) {
    watchdog_start();
    watchdog_limit(1.5);
    watchdog_step("sft", 12);
    watchdog_enter(WATCH_FILE, "reading a thing", "x/thing.h5");
    const int fd = open("/dev/zero", O_RDONLY);
    char bytes[100];
    for (int i = 0; i < 35 && (what == TICKS || what == READS); i++) {
        if (what == TICKS) watchdog_tick();
        else if (read(fd, bytes, sizeof bytes) != sizeof bytes) _exit(1);
        rest(0.1);
    }
    if (what == SLEEPS) rest(20);
    if (what == THREADS_CRASH) crash_together();
    if (what == FATAL_HOOK_HANGS) {
        err_set_abort(never, 3);
        err_fatal("as it should");
    }
    if (what == TICKS || what == READS) watchdog_limit(60);
    watchdog_leave();
    if (what == HANGS_AFTER_LEAVING) rest(20);
    _exit(0);
}

// The exit code of a child that does it; what it said.
static int child_that(int what, char *said, size_t size, double *seconds) {
    int ends[2], status = 0;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    const double began = clock_now();
    const pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        child_does(what);
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t got; n < size - 1 && (got = read(ends[0], said + n, size - 1 - n)) > 0;) n += (size_t)got;
    said[n] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    *seconds = clock_now() - began;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void threads(void **state) {
    (void)state;
    char said[4096];
    double seconds;
    assert_int_equal(child_that(SLEEPS, said, sizeof said, &seconds), DS_ERR_BUG);
    assert_true(seconds < 15);
    assert_non_null(strstr(said, "\"reading a thing\" (x/thing.h5) at sft step 12"));
    assert_int_equal(child_that(TICKS, said, sizeof said, &seconds), 0);
    assert_int_equal(child_that(READS, said, sizeof said, &seconds), 0);
    assert_string_equal(said, "");
    assert_int_equal(child_that(HANGS_AFTER_LEAVING, said, sizeof said, &seconds), DS_ERR_BUG);
    assert_non_null(strstr(said, "\"computing\" at sft step 12"));
}

// What ends a job by itself says where, and is gone even if MPI_Abort does not come back.
static void fatal(void **state) {
    (void)state;
    char said[4096];
    double seconds;
    assert_int_equal(child_that(FATAL_HOOK_HANGS, said, sizeof said, &seconds), DS_ERR_BUG);
    assert_true(seconds < 25);
    assert_non_null(strstr(said, "fatal on rank 3"));
    assert_non_null(strstr(said, "in \"reading a thing\" (x/thing.h5) at sft step 12: as it should"));
}

static int count(const char *text, const char *part) {
    int n = 0;
    for (; (text = strstr(text, part)); text++) n++;
    return n;
}

// Threads that crash together: one speaks, and none ends the process before it has.
static void crashes(void **state) {
    (void)state;
    char said[4096];
    double seconds;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(child_that(THREADS_CRASH, said, sizeof said, &seconds), DS_ERR_BUG);
        assert_int_equal(count(said, " ends by signal ABRT in \"reading a thing\""), 1);
        assert_int_equal(count(said, "the job ends with exit code 6"), 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(deadlines), cmocka_unit_test(quiet), cmocka_unit_test(threads),
                                       cmocka_unit_test(fatal), cmocka_unit_test(crashes)};
    return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}
