// watch_say.c: see watch_say.h. Nothing here takes stdio's locks: the main thread may hold them.
#include "base/watch_say.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/launcher.h"
#include "base/text.h"

void watch_add(WatchText *t, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(t->text + t->n, sizeof t->text - t->n, fmt, ap);
    va_end(ap);
    if (n > 0) t->n += (size_t)n;
    if (t->n >= sizeof t->text) t->n = sizeof t->text - 1;
}

// The text of a slot may be half-written.
#define TEXT_OF(field) (int)sizeof(field), field

void watch_add_rank(WatchText *t, int rank, const WatchSlot *s) {
    WatchWords w;
    watch_board_copy(&w, &s->words, sizeof w);
    if (rank < 0) watch_add(t, "a rank (host %.*s, pid %d)", TEXT_OF(w.host), s->pid);
    else watch_add(t, "rank %d (host %.*s, pid %d)", rank, TEXT_OF(w.host), s->pid);
}

void watch_add_place(WatchText *t, const WatchSlot *s) {
    WatchWords w;
    watch_board_copy(&w, &s->words, sizeof w);
    watch_add(t, "\"%.*s\"", TEXT_OF(w.doing));
    if (w.what[0]) watch_add(t, " (%.*s)", TEXT_OF(w.what));
    if (w.stage[0]) watch_add(t, " at %.*s", TEXT_OF(w.stage));
    if (w.stage[0] && w.step > 0) watch_add(t, " step %lld", (long long)w.step);
}

bool watch_asleep(const WatchSlot *s) { return s->idle > 1 && s->idle > 0.5F * s->quiet; }

void watch_write(const WatchText *t) {
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    char text[2 * sizeof t->text]; // paths may hold anything
    const size_t all = text_visible(t->text, (int64_t)t->n, true, text, sizeof text);
    for (size_t at = 0; at < all;) {
        if (poll(&p, 1, 2000) <= 0) return;
        const size_t rest = all - at;
        const ssize_t n = write(STDERR_FILENO, text + at, rest < 512 ? rest : 512); // a pipe takes that much at once
        if (n < 0 && errno != EINTR) return;
        if (n > 0) at += (size_t)n;
    }
}

// A small file of /proc into buffer, with a NUL; its length, 0 if it cannot be read.
static size_t read_proc(int pid, const char *name, char *buffer, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    size_t n = 0;
    for (ssize_t got; n < size - 1 && (got = read(fd, buffer + n, size - 1 - n)) > 0;) n += (size_t)got;
    close(fd);
    buffer[n] = 0;
    return n;
}

uint64_t watch_thread_bytes(int thread) {
    static const char *const names[] = {"rchar: ", "wchar: ", "read_bytes: ", "\nwrite_bytes: "};
    char name[64], text[512];
    unsigned long long sum = 0, x;
    snprintf(name, sizeof name, "task/%d/io", thread);
    if (!read_proc((int)getpid(), name, text, sizeof text)) return 0;
    for (int i = 0; i < DS_COUNT(names); i++) {
        const char *at = strstr(text, names[i]);
        if (at && sscanf(at + strlen(names[i]), "%llu", &x) == 1) sum += x;
    }
    return sum;
}

static int rank_of(int pid) {
    static char text[1 << 16];
    const size_t n = read_proc(pid, "environ", text, sizeof text);
    return launcher_rank_in(text, n);
}

static bool same_program(int pid) {
    char path[64], own[512], other[512];
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    const ssize_t a = readlink("/proc/self/exe", own, sizeof own), b = readlink(path, other, sizeof other);
    return a > 0 && a == b && !memcmp(own, other, (size_t)a);
}

// The state letter of a process, 0 if there is none.
static char state_of(int pid, int *parent) {
    char text[512], state = 0;
    if (!read_proc(pid, "stat", text, sizeof text)) return 0;
    const char *after = strrchr(text, ')'); // the name in brackets may hold anything
    return after && sscanf(after + 1, " %c %d", &state, parent) == 2 ? state : 0;
}

bool watch_debugged(int pid) {
    int parent;
    return state_of(pid, &parent) == 't';
}

int watch_kin(WatchKin *kin, int max) {
    const int own = launcher_rank();
    int n = 0;
    DIR *d = own < 0 ? NULL : opendir("/proc");
    if (!d) return 0;
    for (struct dirent *e; n < max && (e = readdir(d));) {
        const int pid = atoi(e->d_name);
        int parent = 0;
        const char state = pid > 0 && pid != getpid() ? state_of(pid, &parent) : 0;
        if (!state || parent != getppid() || !same_program(pid)) continue;
        const int rank = rank_of(pid);
        if (rank >= 0 && rank != own) kin[n++] = (WatchKin){pid, rank, state == 'T' || state == 't'};
    }
    closedir(d);
    return n;
}

// What MPI_Abort says, on the connection that Hydra gives each rank: only thus are the ranks of other nodes ended too,
// those that are stopped, and with this code. The main thread says nothing there: it waits.
bool watch_tell_launcher(int code) {
    char path[64], parent[512], words[64];
    const char *number = getenv("PMI_FD");
    const int fd = number ? atoi(number) : -1;
    struct stat st;
    snprintf(path, sizeof path, "/proc/%d/exe", (int)getppid());
    const ssize_t n = readlink(path, parent, sizeof parent - 1);
    // After MPI_Finalize the number is that of another file, or of none.
    if (n <= 0 || fstat(fd, &st) || !S_ISSOCK(st.st_mode)) return false;
    parent[n] = 0;
    if (!strstr(parent, "/hydra_pmi_proxy")) return false;
    launcher_pass_on();
    const int length = snprintf(words, sizeof words, "cmd=abort exitcode=%d\n", code);
    return send(fd, words, (size_t)length, MSG_NOSIGNAL) == length;
}

void watch_wake(int pid) {
    if (pid > 0 && same_program(pid)) kill(pid, SIGCONT); // the number may stand for a process of someone else by now
}
