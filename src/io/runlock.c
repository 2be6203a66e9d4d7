// runlock.c: see runlock.h.
#include "io/runlock.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/launcher.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "base/watchdog.h"

enum {
    WORDS = 1024,  // bytes of the file
    BEAT = 5,      // seconds between two beats
    STILL = 120,   // seconds without a beat after which a holder on another host counts as dead
    PATIENCE = 60, // seconds that a start waits for a holder that writes its last checkpoint
    UNNAMED = 2,   // seconds in which one that has just taken the lock says who it is
    SETTLE = 2,    // seconds after which words on a file system of several nodes are read again
    STEP_MS = 250, // between two looks
};

// What the file says.
typedef struct {
    bool held, leaving;
    char host[65], boot[65], job[65], since[33]; // boot: of its machine, since machines can have the same name
    long pid;
    unsigned long long ticks; // when the process began, since boot: tells apart processes that had the same number
    unsigned long long token; // of this holding
    long beat;
} Holder;

typedef enum { SYSTEM_OURS, SYSTEM_THEIRS, SYSTEM_SILENT } System; // what fcntl says; silent: it has no locks here

struct Runlock {
    char *path, *dir, *note;
    int fd;
    bool local; // the file system is this node's own
    Holder me;
    pthread_t thread;
    pthread_mutex_t mutex; // of me, fd, ending
    pthread_cond_t wake;
    bool started, ending;
};

// ---- words ----

static size_t put_words(const Holder *h, char out[WORDS]) {
    return (size_t)snprintf(out, WORDS,
                            "dschat-lock 1\nhost %s\nboot %s\npid %ld\nticks %llu\njob %s\nsince %s\ntoken "
                            "%016llx\nstate %s\nbeat %010ld\n",
                            h->host, h->boot, h->pid, h->ticks, h->job, h->since, h->token,
                            h->leaving ? "leaving" : "running", h->beat);
}

// What is not a plain letter of ASCII would reach a terminal.
static void make_plain(char *s) {
    for (; *s; s++)
        if (!isgraph((unsigned char)*s)) *s = '?';
}

// False: errno says why; a file that cannot be read is not one that nobody holds.
static bool read_words(int fd, Holder *h) {
    char text[WORDS], state[17];
    ssize_t n;
    *h = (Holder){0};
    while ((n = pread(fd, text, WORDS - 1, 0)) < 0 && errno == EINTR) {
    }
    if (n < 0) return false;
    text[n] = 0;
    h->held = sscanf(text,
                     "dschat-lock 1\nhost %64s\nboot %64s\npid %ld\nticks %llu\njob %64s\nsince %32s\ntoken "
                     "%llx\nstate %16s\nbeat %ld\n",
                     h->host, h->boot, &h->pid, &h->ticks, h->job, h->since, &h->token, state, &h->beat) == 9;
    h->leaving = h->held && !strcmp(state, "leaving");
    make_plain(h->host), make_plain(h->job), make_plain(h->since);
    return true;
}

static Err write_words(const Runlock *l) {
    Err err = DS_OK;
    char text[WORDS];
    const size_t n = put_words(&l->me, text);
    DS_TRY(file_pwrite(l->fd, l->path, text, n, 0));
    DS_CHECK(!ftruncate(l->fd, (off_t)n) && (l->local || !fdatasync(l->fd)), DS_ERR_IO, "%s: cannot write: %s", l->path,
             strerror(errno));
done:
    return err;
}

// ---- who we are, who they are ----

// 0: there is no such process.
static unsigned long long process_ticks(long pid) {
    char name[64], text[1024];
    unsigned long long ticks = 0;
    snprintf(name, sizeof name, "/proc/%ld/stat", pid);
    FILE *f = fopen(name, "re");
    if (!f) return 0;
    const size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    const char *rest = strrchr(text, ')'); // behind the program's name, which may hold anything
    if (rest)
        sscanf(rest, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &ticks);
    return ticks;
}

static void introduce(Holder *me) {
    static const char *const jobs[] = {"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "JOB_ID"};
    *me = (Holder){.held = true, .boot = "-", .job = "-", .pid = (long)getpid()};
    FILE *boot = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (boot && fscanf(boot, "%64s", me->boot) != 1) snprintf(me->boot, sizeof me->boot, "-");
    if (boot) fclose(boot);
    if (gethostname(me->host, sizeof me->host - 1) || !me->host[0]) snprintf(me->host, sizeof me->host, "unknown");
    for (int i = DS_COUNT(jobs) - 1; i >= 0; i--)
        if (getenv(jobs[i]) && *getenv(jobs[i])) snprintf(me->job, sizeof me->job, "%s", getenv(jobs[i]));
    make_plain(me->host), make_plain(me->job);
    clock_iso(me->since);
    me->ticks = process_ticks(me->pid);
    if (getrandom(&me->token, sizeof me->token, 0) != sizeof me->token) me->token = me->ticks ^ (uint64_t)me->pid << 32;
}

// Of one kernel, and of one container in it: a process's number means the same.
static bool same_host(const Runlock *l, const Holder *h) {
    return !strcmp(l->me.host, h->host) && !strcmp(l->me.boot, h->boot);
}

static bool process_is_gone(const Holder *h) {
    if (kill((pid_t)h->pid, 0) && errno == ESRCH) return true;
    const unsigned long long ticks = process_ticks(h->pid);
    return ticks && h->ticks && ticks != h->ticks;
}

// "process 123 on node7 (batch job 77), since 2026-11-26T07:00:00Z". Owner: caller.
static char *describe(const Holder *h) {
    const bool batch = strcmp(h->job, "-") != 0;
    if (!h->held) return mem_strdup("a job that has not said who it is");
    return mem_printf("process %ld on %s%s%s%s, since %s", h->pid, h->host, batch ? " (batch job " : "",
                      batch ? h->job : "", batch ? ")" : "", h->since);
}

static bool is_local(int fd) {
    static const long local[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC,       BTRFS_SUPER_MAGIC, TMPFS_MAGIC,
                                 RAMFS_MAGIC,      OVERLAYFS_SUPER_MAGIC, F2FS_SUPER_MAGIC,  0x2FC12FC1 /* ZFS */};
    struct statfs s;
    if (fstatfs(fd, &s)) return false;
    for (int i = 0; i < DS_COUNT(local); i++)
        if ((long)s.f_type == local[i]) return true;
    return false;
}

// ---- the file ----

static System ask_system(int fd) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (!fcntl(fd, F_OFD_SETLK, &whole)) return SYSTEM_OURS;
    return errno == EAGAIN || errno == EACCES ? SYSTEM_THEIRS : SYSTEM_SILENT;
}

static void drop(Runlock *l) {
    if (l->fd >= 0) close(l->fd);
    l->fd = -1;
}

// Whether the name still means the open file.
static bool is_named(const Runlock *l) {
    struct stat open_file, named;
    return !fstat(l->fd, &open_file) && !lstat(l->path, &named) && open_file.st_ino == named.st_ino &&
           open_file.st_dev == named.st_dev;
}

static Err look(Runlock *l, System *system, Holder *h) {
    Err err = DS_OK;
    struct stat st;
    for (int tries = 0; tries < 20; tries++) { // there are file systems on which a file has no number of its own
        drop(l);
        l->fd = open(l->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0666);
        DS_CHECK(l->fd >= 0, DS_ERR_IO, "%s: cannot open: %s", l->path, strerror(errno));
        DS_CHECK(!fstat(l->fd, &st) && S_ISREG(st.st_mode), DS_ERR_IO, "%s: is not a regular file", l->path);
        *system = ask_system(l->fd);
        if (is_named(l)) break; // else it was removed meanwhile
        usleep(10000);
    }
    DS_CHECK(read_words(l->fd, h), DS_ERR_IO, "%s: cannot read: %s", l->path, strerror(errno));
    l->local = is_local(l->fd);
done:
    return err;
}

// The words of the file that has the name now; opened anew, so that NFS asks the server. False: errno says why.
static bool read_named(const Runlock *l, Holder *h) {
    const int fd = open(l->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return false;
    const bool read = read_words(fd, h);
    const int error = errno;
    close(fd);
    errno = error;
    return read;
}

// ---- taking it ----

typedef enum { TAKE, WAIT, REFUSE } Decision;

// What is seen of a holder over time.
typedef struct {
    double began, changed; // clock_now(): first look; when its words last changed
    Holder last;
    bool beats; // they have changed: it lives
    bool said;
} Watch;

static void watch(Watch *w, const Holder *h) {
    const double now = clock_now();
    const bool first = w->began == 0;
    if (first) w->began = w->changed = now;
    if (!first && (h->token != w->last.token || h->beat != w->last.beat || h->leaving != w->last.leaving)) {
        w->beats = true;
        w->changed = now;
    }
    w->last = *h;
}

static Decision decide(const Runlock *l, const Watch *w, System system, const Holder *h) {
    const double waited = clock_now() - w->began, still = clock_now() - w->changed;
    if (!h->held && system != SYSTEM_THEIRS) return TAKE;
    if (!h->held) return waited < UNNAMED ? WAIT : REFUSE;
    if (system == SYSTEM_OURS && (l->local || same_host(l, h))) return TAKE;
    if (system != SYSTEM_THEIRS && same_host(l, h) && process_is_gone(h)) return TAKE;
    if (!same_host(l, h) && !w->beats && still < STILL) return WAIT;
    if (system != SYSTEM_THEIRS && !same_host(l, h) && !w->beats) return TAKE;
    if (same_host(l, h) && process_is_gone(h) && waited < UNNAMED) return WAIT; // the words are of the one before
    return h->leaving && waited < PATIENCE ? WAIT : REFUSE;
}

static Err refuse(const Runlock *l, const Watch *w, const Holder *h) {
    char *who = describe(h);
    // Its node died and the file server has not heard of it.
    const bool silent = h->held && !same_host(l, h) && !w->beats;
    Err err = err_set(
        DS_STOP_FINAL,
        "%s: another job works in this folder: %s%s%s; this one has touched nothing. Wait until it ends, stop "
        "it (touch %s/STOP), or choose another [job] out",
        l->dir, who, h->leaving ? ", which still writes its last checkpoint" : "",
        silent ? ", which gives no sign of life but holds the lock (if its host is down, remove .lock there)" : "",
        l->dir);
    mem_free(who);
    return err;
}

static void say_waiting(const Runlock *l, Watch *w, const Holder *h) {
    if (w->said || !h->held) return;
    char *who = describe(h);
    if (h->leaving)
        log_info("%s: %s still writes its last checkpoint there: waiting for up to %d s", l->dir, who, PATIENCE);
    else log_info("%s: held by %s: looking for up to %d s whether it lives", l->dir, who, STILL);
    mem_free(who);
    w->said = true;
}

// Writes our words over those of `h`; false: another was faster.
static Err take(Runlock *l, const Holder *h, bool *taken) {
    Err err = DS_OK;
    DS_TRY(write_words(l));
    Holder now = l->me;
    if (!l->local) {
        sleep(SETTLE);
        if (!read_named(l, &now)) now.token = 0;
    }
    *taken = now.token == l->me.token;
    if (!*taken || !h->held) goto done;
    char *who = describe(h);
    l->note = mem_printf("this folder was held by %s, which did not end well: taken over", who);
    mem_free(who);
done:
    return err;
}

static Err acquire(Runlock *l) {
    Err err = DS_OK;
    Watch w = {0};
    for (bool taken = false; !taken;) {
        System system = SYSTEM_SILENT;
        Holder h;
        watchdog_tick();
        DS_TRY(look(l, &system, &h));
        watch(&w, &h);
        const Decision d = decide(l, &w, system, &h);
        if (d == REFUSE) DS_TRY(refuse(l, &w, &h));
        if (d == TAKE) DS_TRY(take(l, &h, &taken));
        if (d != WAIT) continue;
        say_waiting(l, &w, &h);
        drop(l);
        usleep(1000 * STEP_MS);
    }
done:
    return err;
}

// ---- holding it ----

static void lost(const Runlock *l, const Holder *h) {
    char *who = describe(h), *dir = text_shown(l->dir);
    dprintf(STDERR_FILENO,
            "error: %s: %s has taken over this run's folder, because this job (process %ld) showed no sign of life for "
            "long: it ends here and writes nothing more\n",
            dir, who, l->me.pid);
    launcher_pass_on();
    _exit(DS_STOP_FINAL); // lint: another writes; nothing may be closed or finished
}

// Someone has removed the file: it is made again, unless another has been faster, which the next beat sees.
static void restore(Runlock *l) {
    const int fd = open(l->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0) return;
    ask_system(fd);
    drop(l);
    l->fd = fd;
}

static void beat(Runlock *l) {
    Holder h;
    if (read_named(l, &h)) {
        if (h.held && h.token != l->me.token) lost(l, &h);
    } else if (errno == ENOENT) restore(l);
    l->me.beat++;
    if (write_words(l)) err_clear(); // a full disk ends the job where it matters
}

static void *keep_beating(void *arg) {
    Runlock *l = arg;
    pthread_mutex_lock(&l->mutex);
    while (!l->ending) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += BEAT;
        const int rc = pthread_cond_timedwait(&l->wake, &l->mutex, &until);
        if (rc == ETIMEDOUT && !l->ending) beat(l);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

static Err start_beating(Runlock *l) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&l->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    const int error = pthread_create(&l->thread, NULL, keep_beating, l);
    l->started = !error;
    return error ? err_set(DS_ERR_BUG, "%s: no thread for its beat: %s", l->path, strerror(error)) : DS_OK;
}

Err runlock_take(const char *dir, Runlock **out) {
    Runlock *l = MEM_NEW(Runlock, 1);
    l->dir = mem_strdup(dir);
    l->path = mem_printf("%s/.lock", dir);
    l->fd = -1;
    pthread_mutex_init(&l->mutex, NULL);
    introduce(&l->me);
    Err err = acquire(l);
    if (err) drop(l);
    else err = start_beating(l);
    if (err) runlock_release(&l);
    *out = l;
    return err;
}

const char *runlock_note(const Runlock *l) { return l->note; }

void runlock_leaving(Runlock *l) {
    if (!l) return;
    pthread_mutex_lock(&l->mutex);
    l->me.leaving = true;
    if (write_words(l)) err_clear();
    pthread_mutex_unlock(&l->mutex);
}

void runlock_release(Runlock **lock) {
    Runlock *l = *lock;
    if (!l) return;
    watchdog_enter(WATCH_FILE, "giving the run's folder back", l->path);
    if (l->started) {
        pthread_mutex_lock(&l->mutex);
        l->ending = true;
        pthread_cond_signal(&l->wake);
        pthread_mutex_unlock(&l->mutex);
        pthread_join(l->thread, NULL);
    }
    Holder h;
    const bool ours = l->fd >= 0 && read_named(l, &h) && h.token == l->me.token; // else another has taken over
    if (ours && ftruncate(l->fd, 0)) log_warn("%s: cannot empty it: %s", l->path, strerror(errno));
    drop(l);
    watchdog_leave();
    pthread_mutex_destroy(&l->mutex);
    mem_free(l->dir);
    mem_free(l->path);
    mem_free(l->note);
    MEM_FREE(*lock);
}
