// h5_inspect.c: see h5_inspect.h. The child is recognised by its name, argv[0], before main.
#include "io/h5_inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/watchdog.h"
#include "comm/agree.h"
#include "io/h5_check.h"

#define CHILD "dschat-inspects-hdf5"
enum { CPU_SECONDS = 10, BYTES_A_SECOND = 20 << 20, FILES = 64 };

extern char **environ;

// ---- the child ----

static void limit(int what, rlim_t most) {
    struct rlimit now;
    if (getrlimit(what, &now) != 0) return;
    now.rlim_max = now.rlim_max < most + 1 ? now.rlim_max : most + 1; // at the harder one of time there is no SIGXCPU
    now.rlim_cur = now.rlim_max < most ? now.rlim_max : most;
    setrlimit(what, &now);
}

// Compressed chunks are inflated once: time goes with the file's size.
static void set_limits(int64_t bytes) {
    limit(RLIMIT_CPU, (rlim_t)(CPU_SECONDS + bytes / BYTES_A_SECOND));
    limit(RLIMIT_NOFILE, FILES);
    limit(RLIMIT_CORE, 0);
#ifndef DS_SANITIZED // a sanitizer writes its report to a file, and reserves more memory than any limit
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_AS, (rlim_t)4 << 30);
#endif
}

Err h5_inspect_here(const char *path, const struct stat *wanted) {
    Err err = DS_OK;
    H5File *f = NULL;
    struct stat is;
    DS_TRY(h5_lib_open(path, &f));
    DS_CHECK(fstat(h5_drive_fd(f->drive), &is) == 0, DS_ERR_IO, "%s: cannot stat: %s", path, strerror(errno));
    DS_CHECK(!wanted || (is.st_dev == wanted->st_dev && is.st_ino == wanted->st_ino), DS_ERR_IO,
             "%s: was replaced while it was opened", path);
    DS_TRY(h5_lib_start(f));
    err = h5_lib_judge(f, h5_check_file(f->id, path, h5_drive_bytes(f->drive)));
done:
    h5_close(&f);
    return err;
}

__attribute__((constructor)) static void be_the_child(int argc, char **argv) {
    struct stat st; // of the parent's file, which is the input
    if (argc != 2 || strcmp(argv[0], CHILD) != 0) return;
    if (fstat(STDIN_FILENO, &st) != 0) _exit(DS_ERR_BUG); // lint: main is not to run
    set_limits((int64_t)st.st_size);
    Err err = h5_inspect_here(argv[1], &st);
    size_t n = strlen(err_text());
    bool said = write(STDOUT_FILENO, err_text(), n) == (ssize_t)n;
    _exit(said ? (int)err : DS_ERR_BUG); // lint: main is not to run
}

// ---- the parent ----

// Starts it with the open file as its input and `out` as its output. Returns 0, or an errno.
static int start_child(const char *path, int file, int out, pid_t *pid) {
    char *argv[] = {(char[]){CHILD}, (char *)(uintptr_t)path, NULL};
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, file, STDIN_FILENO);
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int failed = posix_spawn(pid, "/proc/self/exe", &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    return failed;
}

// Everything that the child says, and how it ended. False: that cannot be known.
static bool hear_child(int in, pid_t pid, char *words, size_t room, int *status) {
    pid_t ended;
    size_t n = 0;
    for (ssize_t got; n < room - 1 && (got = read(in, words + n, room - 1 - n)) != 0;) {
        if (got > 0) n += (size_t)got;
        else if (errno != EINTR) break;
    }
    words[n] = 0;
    while ((ended = waitpid(pid, status, 0)) < 0 && errno == EINTR) {
    }
    return ended == pid;
}

static Err judge_child(const char *path, int status, const char *words) {
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (code == DS_OK) return DS_OK;
    if ((code == DS_ERR_DATA || code == DS_ERR_IO) && words[0]) return err_set((Err)code, "%s", words);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)
        return err_set(DS_ERR_DATA,
                       "%s: is damaged, or made to do harm: the HDF5 library does not come to an end with it", path);
    return err_set(DS_ERR_DATA, "%s: is damaged, or made to do harm: a process that inspected it ended with %s %d (%s)",
                   path, WIFSIGNALED(status) ? "signal" : "code", WIFSIGNALED(status) ? WTERMSIG(status) : code,
                   WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "out of memory?");
}

static Err run_child(const char *path, int file) {
    int ends[2], status = 0;
    bool known = false;
    pid_t pid;
    char words[2048];
    if (pipe2(ends, O_CLOEXEC) != 0) return err_set(DS_ERR_BUG, "%s: no pipe: %s", path, strerror(errno));
    // A launcher may have had the signal ignored: then the system keeps no ended child's status.
    const struct sigaction plain = {.sa_handler = SIG_DFL};
    struct sigaction was;
    sigaction(SIGCHLD, &plain, &was);
    int failed = start_child(path, file, ends[1], &pid);
    close(ends[1]);
    if (!failed) known = hear_child(ends[0], pid, words, sizeof words, &status);
    close(ends[0]);
    sigaction(SIGCHLD, &was, NULL);
    if (failed) return err_set(DS_ERR_BUG, "%s: cannot start a process that inspects it: %s", path, strerror(failed));
    if (!known) return err_set(DS_ERR_BUG, "%s: how the process that inspected it ended is not known", path);
    return judge_child(path, status, words);
}

// ---- once for a file ----

typedef struct {
    dev_t device;
    ino_t number;
    off_t bytes;
    struct timespec changed; // its time of change, which nobody can set
} Identity;

// Whether that file was remembered; it is afterwards.
static bool remember(const struct stat *st, bool add) {
    static Identity *known;
    static int64_t n;
    for (int64_t i = 0; i < n; i++)
        if (known[i].device == st->st_dev && known[i].number == st->st_ino && known[i].bytes == st->st_size &&
            known[i].changed.tv_sec == st->st_ctim.tv_sec && known[i].changed.tv_nsec == st->st_ctim.tv_nsec)
            return true;
    if (!add) return false;
    known = mem_grow(known, n, n + 1, sizeof *known);
    known[n++] = (Identity){st->st_dev, st->st_ino, st->st_size, st->st_ctim};
    return false;
}

Err h5_inspect(const H5File *file) {
    Err err = DS_OK;
    struct stat st;
    DS_CHECK(fstat(h5_drive_fd(file->drive), &st) == 0, DS_ERR_IO, "%s: cannot stat: %s", file->path, strerror(errno));
    if (remember(&st, false)) return DS_OK;
    watchdog_enter(WATCH_FILE, "inspecting a file", file->path);
    err = run_child(file->path, h5_drive_fd(file->drive));
    watchdog_leave();
    DS_TRY(err);
    remember(&st, true);
done:
    return err;
}

Err h5_inspect_for_all(const Group *g, const char *path) {
    struct stat st;
    Err err = DS_OK;
    H5File *f = NULL;
    if (group_rank(g) == 0 && path && file_exists(path)) err = h5_open_checked(path, &f);
    h5_close(&f);
    err = agree_err(g, err);
    if (!err && path && stat(path, &st) == 0) remember(&st, true);
    return err;
}
