// test_runlock.c: the lock of a run's folder between processes of one machine, which may pretend: to be on another
// host, on a file system of several nodes, on one without locks, and that time goes faster.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "io/runlock.h"

static struct {
    const char *host;     // NULL: the real one
    bool silent;          // fcntl has no locks, as Lustre without flock
    bool granted;         // fcntl grants every lock, as Lustre with localflock does to each node
    bool theirs;          // fcntl says that another has it, as a server does that has not heard of a node's end
    bool shared;          // the file system is of several nodes
    bool unreadable;      // reads fail
    _Atomic double speed; // of time, 0: as it is; the lock's thread looks, too
} pretend;

int fcntl(int fd, int cmd, ...) {
    va_list ap;
    va_start(ap, cmd);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    if (cmd == F_OFD_SETLK && pretend.silent) return errno = ENOSYS, -1;
    if (cmd == F_OFD_SETLK && pretend.granted) return 0;
    if (cmd == F_OFD_SETLK && pretend.theirs) return errno = EAGAIN, -1;
    int (*real)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, "fcntl");
    return real(fd, cmd, arg);
}

int gethostname(char *name, size_t n) {
    if (pretend.host) return snprintf(name, n, "%s", pretend.host), 0;
    int (*real)(char *, size_t) = (int (*)(char *, size_t))dlsym(RTLD_NEXT, "gethostname");
    return real(name, n);
}

int fstatfs(int fd, struct statfs *s) {
    int (*real)(int, struct statfs *) = (int (*)(int, struct statfs *))dlsym(RTLD_NEXT, "fstatfs");
    const int rc = real(fd, s);
    if (pretend.shared) s->f_type = NFS_SUPER_MAGIC;
    else s->f_type = EXT4_SUPER_MAGIC;
    return rc;
}

int clock_gettime(clockid_t id, struct timespec *t) {
    int (*real)(clockid_t, struct timespec *) =
        (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const int rc = real(id, t);
    if (pretend.speed > 0 && id == CLOCK_MONOTONIC) {
        const double now = ((double)t->tv_sec + 1e-9 * (double)t->tv_nsec) * pretend.speed;
        t->tv_sec = (time_t)now, t->tv_nsec = (long)((now - (double)t->tv_sec) * 1e9);
    }
    return rc;
}

// Between looking and writing there is time for another.
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    ssize_t (*real)(int, const void *, size_t, off_t) =
        (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    if (pretend.shared) usleep(300000);
    return real(fd, data, n, at);
}

ssize_t pread(int fd, void *data, size_t n, off_t at) {
    ssize_t (*real)(int, void *, size_t, off_t) = (ssize_t(*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread");
    return pretend.unreadable ? (errno = EIO, -1) : real(fd, data, n, at);
}

static char dir[] = "/tmp/dschat-lock-XXXXXX";

// What the processes of a test share.
static struct { atomic_int held, most, ready, refused; } * all;

static void expect(Err got, Err want, const char *words) {
    if (got != want || !strstr(err_text(), words))
        fail_msg("got %d \"%s\", expected %d and the words \"%s\"", got, err_text(), want, words);
    err_clear();
}

static void fresh(void) {
    char *path = mem_printf("%s/.lock", dir);
    unlink(path);
    mem_free(path);
    memset(&pretend, 0, sizeof pretend);
    memset(all, 0, sizeof *all);
    err_clear();
}

static char *words(void) { // Owner: caller
    char *path = mem_printf("%s/.lock", dir), *text;
    size_t bytes;
    if (file_read_all(path, 4096, &text, &bytes)) fail_msg("%s", err_text());
    mem_free(path);
    return text;
}

static void put(const char *text) {
    char *path = mem_printf("%s/.lock", dir);
    const int fd = open(path, O_WRONLY | O_CREAT, 0666), n = (int)strlen(text); // never empty between two words
    assert_int_equal(write(fd, text, (size_t)n), n);
    assert_int_equal(ftruncate(fd, n), 0);
    close(fd);
    mem_free(path);
}

static char boot[65]; // of this machine

static void put_holder(const char *host, long pid, const char *state, int beat) {
    char *text =
        mem_printf("dschat-lock 1\nhost %s\nboot %s\npid %ld\nticks 1\njob 77\nsince 2026-01-01T00:00:00Z\ntoken "
                   "00000000000000ab\nstate %s\nbeat %010d\n",
                   host, boot, pid, state, beat);
    put(text);
    mem_free(text);
}

// A process that takes the lock, says so, and goes on with `then` (which may be NULL), holding it.
static pid_t holder(void (*then)(Runlock *l)) {
    const pid_t pid = fork();
    if (!pid) {
        Runlock *l;
        if (runlock_take(dir, &l)) _exit(99);
        all->ready = 1;
        if (then) then(l);
        for (;;) pause();
    }
    while (!all->ready) usleep(1000);
    return pid;
}

static int end_of(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void kill_now(pid_t pid) {
    kill(pid, SIGKILL);
    end_of(pid);
}

static void test_alone(void **state) {
    (void)state;
    Runlock *l;
    fresh();
    for (int i = 0; i < 2; i++) {
        expect(runlock_take(dir, &l), DS_OK, "");
        assert_null(runlock_note(l));
        char *text = words();
        assert_non_null(strstr(text, "state running\nbeat 0000000000\n"));
        mem_free(text);
        runlock_release(&l);
        assert_null(l);
        text = words();
        assert_string_equal(text, "");
        mem_free(text);
    }
}

static void test_held(void **state) {
    (void)state;
    Runlock *l;
    fresh();
    setenv("SLURM_JOB_ID", "77", 1);
    const pid_t pid = holder(NULL);
    unsetenv("SLURM_JOB_ID");
    char *before = words(), *who = mem_printf("process %d on ", pid);
    assert_int_equal(runlock_take(dir, &l), DS_STOP_FINAL);
    assert_null(l);
    assert_non_null(strstr(err_text(), who));
    assert_non_null(strstr(err_text(), "(batch job 77), since 20"));
    err_clear();
    char *after = words();
    assert_string_equal(before, after);
    kill(pid, SIGSTOP); // a suspended job holds it as well
    expect(runlock_take(dir, &l), DS_STOP_FINAL, who);
    kill_now(pid);
    expect(runlock_take(dir, &l), DS_OK, "");
    assert_non_null(runlock_note(l));
    assert_non_null(strstr(runlock_note(l), who));
    runlock_release(&l);
    mem_free(before), mem_free(after), mem_free(who);
}

static void leave(Runlock *l) {
    runlock_leaving(l);
    all->ready = 2;
    usleep(700000);
    runlock_release(&l);
    _exit(0);
}

static void test_leaving(void **state) {
    (void)state;
    Runlock *l;
    fresh();
    const pid_t pid = holder(leave);
    while (all->ready < 2) usleep(1000);
    expect(runlock_take(dir, &l), DS_OK, "");
    assert_null(runlock_note(l));
    assert_int_equal(end_of(pid), 0);
    runlock_release(&l);
}

// fcntl says nothing: the words decide.
static void test_silent(void **state) {
    (void)state;
    Runlock *l;
    fresh();
    pretend.silent = true;
    const pid_t pid = holder(NULL);
    expect(runlock_take(dir, &l), DS_STOP_FINAL, "another job works in this folder");
    kill_now(pid);
    expect(runlock_take(dir, &l), DS_OK, "");
    assert_non_null(runlock_note(l));
    runlock_release(&l);
    // A process that has the number of a dead one.
    put_holder("here", (long)getpid(), "running", 1);
    pretend.host = "here";
    expect(runlock_take(dir, &l), DS_OK, "");
    runlock_release(&l);
}

static void test_other_host(void **state) {
    (void)state;
    Runlock *l;
    fresh();
    // On a file system of this node alone fcntl knows.
    put_holder("elsewhere", 1, "running", 1);
    const double began = clock_now();
    expect(runlock_take(dir, &l), DS_OK, "");
    assert_true(clock_now() - began < 60); // without looking whether it lives
    assert_non_null(strstr(runlock_note(l), "process 1 on elsewhere (batch job 77), since 2026-01-01T00:00:00Z"));
    runlock_release(&l);
    // On another it stands still for two minutes, here of a hundredth of their length.
    for (int i = 0; i < 2; i++) {
        pretend.shared = true, pretend.silent = i == 0, pretend.granted = i == 1, pretend.speed = 100;
        put_holder("elsewhere", 1, "running", 1);
        const double looked = clock_now();
        expect(runlock_take(dir, &l), DS_OK, "");
        assert_true(clock_now() - looked >= 120 + 200); // and two true seconds in which the words settle
        assert_non_null(runlock_note(l));
        pretend.speed = 0; // its thread waits in true seconds
        runlock_release(&l);
        // It beats.
        const pid_t pid = fork();
        if (!pid)
            for (int beat = 2;; beat++) put_holder("elsewhere", 1, "running", beat), usleep(300000);
        usleep(100000);
        expect(runlock_take(dir, &l), DS_STOP_FINAL, "process 1 on elsewhere");
        kill_now(pid);
    }
}

// Machines can have one name: a process that is not there is not dead, it is elsewhere; and the lock that is granted is
// this node's.
static void test_same_name(void **state) {
    (void)state;
    Runlock *l;
    char here[65];
    memcpy(here, boot, sizeof boot);
    for (int silent = 0; silent < 2; silent++) {
        fresh();
        pretend.shared = true, pretend.silent = silent, pretend.granted = !silent, pretend.host = "localhost";
        const pid_t pid = fork();
        snprintf(boot, sizeof boot, "another");
        if (!pid)
            for (int beat = 2;; beat++) put_holder("localhost", 999999999, "running", beat), usleep(300000);
        usleep(100000);
        expect(runlock_take(dir, &l), DS_STOP_FINAL, "process 999999999 on localhost");
        kill_now(pid);
        memcpy(boot, here, sizeof boot);
    }
}

// A node died, and the server still keeps its lock: the words say what to do.
static void test_kept_by_server(void **state) {
    (void)state;
    Runlock *l;
    fresh();
    pretend.shared = true, pretend.theirs = true, pretend.speed = 100;
    put_holder("elsewhere", 1, "running", 1);
    const double looked = clock_now();
    expect(runlock_take(dir, &l), DS_STOP_FINAL, "if its host is down, remove .lock there");
    assert_true(clock_now() - looked >= 120);
}

// What cannot be read is not free.
static void test_unreadable(void **state) {
    (void)state;
    Runlock *l;
    fresh();
    pretend.silent = true;
    const pid_t pid = holder(NULL);
    char *before = words();
    pretend.unreadable = true;
    expect(runlock_take(dir, &l), DS_ERR_IO, ".lock: cannot read: Input/output error");
    pretend.unreadable = false;
    char *after = words();
    assert_memory_equal(before, after, strstr(before, "beat") - before);
    kill_now(pid);
    mem_free(before), mem_free(after);
}

// Whoever lost the folder does not empty the words of the next one.
static void test_release_of_lost(void **state) {
    (void)state;
    Runlock *l;
    fresh();
    pretend.silent = true;
    expect(runlock_take(dir, &l), DS_OK, "");
    put_holder("elsewhere", 1, "running", 1);
    runlock_release(&l);
    char *text = words();
    assert_non_null(strstr(text, "host elsewhere\n"));
    mem_free(text);
}

// Another host has taken over what stood still: the one that comes back ends before it writes. And a removed file is
// made again.
static void test_lost(void **state) {
    (void)state;
    fresh();
    pretend.silent = true;
    const pid_t pid = holder(NULL);
    char *mine = words(), *path = mem_printf("%s/.lock", dir);
    unlink(path);
    for (int i = 0; i < 100 && !file_exists(path); i++) usleep(100000);
    usleep(100000);
    char *again = words();
    assert_memory_equal(mine, again, strstr(mine, "beat") - mine);
    while (!strstr(again, "beat 0000000002")) { // it goes on
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
        usleep(100000);
        mem_free(again);
        again = words();
    }
    put_holder("elsewhere", 1, "running", 1);
    assert_int_equal(end_of(pid), DS_STOP_FINAL);
    mem_free(mine), mem_free(again), mem_free(path);
}

static void race(int starters) {
    pid_t pid[8];
    for (int i = 0; i < starters; i++) {
        pid[i] = fork();
        if (pid[i]) continue;
        char host[16];
        snprintf(host, sizeof host, "node%d", i);
        if (pretend.shared && !(pretend.silent && pretend.granted)) pretend.host = host;
        Runlock *l;
        while (!all->ready) continue;
        const Err err = runlock_take(dir, &l);
        if (err) {
            all->refused++;
            _exit(err);
        }
        const int now = ++all->held;
        if (now > all->most) all->most = now;
        // Until all others have been sent away.
        for (int ms = 0; ms < 30000 && all->refused < starters - 1 && all->held < 2; ms++) usleep(1000);
        all->held--;
        runlock_release(&l);
        _exit(0);
    }
    all->ready = 1;
    int winners = 0;
    for (int i = 0; i < starters; i++) {
        const int code = end_of(pid[i]);
        winners += code == 0;
        assert_true(code == 0 || code == DS_STOP_FINAL);
    }
    assert_int_equal(winners, 1);
    assert_int_equal(all->most, 1);
}

static void test_races(void **state) {
    (void)state;
    const bool whole = getenv("DSCHAT_TEST_ALL") != NULL;
    for (int i = 0; i < (whole ? 200 : 50); i++) {
        fresh();
        race(2 + 2 * (i % 2));
    }
    // Nodes whose fcntl grants each its own, or has no locks; processes of one node without locks.
    for (int i = 0; i < (whole ? 51 : 1); i++) {
        fresh();
        pretend.shared = true, pretend.granted = i % 3 != 1, pretend.silent = i % 3 > 0;
        race(4);
    }
}

static void test_hostile(void **state) {
    (void)state;
    Runlock *l;
    fresh();
    char *path = mem_printf("%s/.lock", dir), *target = mem_printf("%s/victim", dir);
    assert_int_equal(symlink(target, path), 0);
    expect(runlock_take(dir, &l), DS_ERR_IO, "cannot open");
    assert_false(file_exists(target));
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect(runlock_take(dir, &l), DS_ERR_IO, "not a regular file");
    unlink(path);
    put("dschat-lock 1\nhost \033[2J\npid x\n");
    expect(runlock_take(dir, &l), DS_OK, "");
    runlock_release(&l);
    mem_free(path), mem_free(target);
}

static int open_folder(void **state) {
    (void)state;
    all = mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (!f || fscanf(f, "%64s", boot) != 1) return -1;
    fclose(f);
    return mkdtemp(dir) ? 0 : -1;
}
static int remove_folder(void **state) { return (void)state, file_remove_tree(dir); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_alone),           cmocka_unit_test(test_held),
                                       cmocka_unit_test(test_leaving),         cmocka_unit_test(test_silent),
                                       cmocka_unit_test(test_other_host),      cmocka_unit_test(test_same_name),
                                       cmocka_unit_test(test_kept_by_server),  cmocka_unit_test(test_unreadable),
                                       cmocka_unit_test(test_release_of_lost), cmocka_unit_test(test_lost),
                                       cmocka_unit_test(test_races),           cmocka_unit_test(test_hostile)};
    return cmocka_run_group_tests(tests, open_folder, remove_folder);
}
