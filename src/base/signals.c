// signals.c: the watching thread waits in sigwait; all others have the signals blocked.
#include "base/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>

static struct {
    sigset_t set;
    void (*on)(int sig);
} watch;

static void *wait_for_signals(void *unused) {
    (void)unused;
    int sig;
    while (!sigwait(&watch.set, &sig)) watch.on(sig);
    return NULL;
}

void signals_watch(int n, const int *signals, void (*on)(int sig)) {
    pthread_t thread;
    watch.on = on;
    sigemptyset(&watch.set);
    for (int i = 0; i < n; i++) sigaddset(&watch.set, signals[i]);
    pthread_sigmask(SIG_BLOCK, &watch.set, NULL);
    // Without a thread for it (a machine at its limit of threads) the signals end the program, as they do by default.
    if (pthread_create(&thread, NULL, wait_for_signals, NULL)) pthread_sigmask(SIG_UNBLOCK, &watch.set, NULL);
    else pthread_detach(thread);
}
