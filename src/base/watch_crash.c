// watch_crash.c: see watch_crash.h.
#include "base/watch_crash.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/watchdog.h"

enum { LAST_SECONDS = 5 };

static void (*say_who)(WatchText *t);

// Signals that a bug or a library in trouble raises, and what they mean for the one who reads it.
static const struct {
    int sig;
    const char *name, *words;
} fatal_signals[] = {
    {SIGABRT, "ABRT", "a library gave up, for want of memory if it says nothing else above"},
#ifndef DS_SANITIZED // sanitizers have better words for these
    {SIGBUS, "BUS", "memory that it was given is not there (is /dev/shm full, a mapped file cut short?)"},
    {SIGSEGV, "SEGV", "a bug, or a library that does not look for want of memory"},
    {SIGFPE, "FPE", "a bug"},
    {SIGILL, "ILL", "an instruction that this CPU does not have"},
#endif
};

// One thread speaks: those that crash together with it wait for its end; a crash on the way is the end.
static void be_the_speaker(void) {
    static _Atomic pid_t speaker;
    pid_t other = 0;
    const pid_t own_id = (pid_t)syscall(SYS_gettid);
    if (atomic_compare_exchange_strong(&speaker, &other, own_id)) return;
    if (other == own_id) _exit(DS_ERR_BUG); // lint: a signal's handler
    for (;;) pause();
}

// The process is lost: that the handler runs on a computing thread's stack does no more harm.
static void last_words(int sig) {
    WatchText t = {0};
    char where[256];
    be_the_speaker();
    watchdog_ending(LAST_SECONDS);
    watch_add(&t, "dschat: ");
    say_who(&t);
    for (int i = 0; i < DS_COUNT(fatal_signals); i++)
        if (fatal_signals[i].sig == sig)
            watch_add(&t, " ends by signal %s %s: %s\ndschat: the job ends with exit code %d\n", fatal_signals[i].name,
                      watchdog_where(where, sizeof where), fatal_signals[i].words, DS_ERR_BUG);
    watch_write(&t);
    if (watch_tell_launcher(DS_ERR_BUG)) clock_sleep_until(clock_now() + WATCH_LAUNCHER_SECONDS);
    _exit(DS_ERR_BUG); // lint: a signal's handler
}

void watch_crash_catch(void (*add_self)(WatchText *t)) {
    static char stack[64 << 10]; // of the handler: the thread's own may be what is missing
    const struct sigaction how = {.sa_handler = last_words, .sa_flags = SA_ONSTACK};
    say_who = add_self;
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    for (int i = 0; i < DS_COUNT(fatal_signals); i++) sigaction(fatal_signals[i].sig, &how, NULL);
}
