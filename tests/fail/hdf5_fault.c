// hdf5_fault.c: LD_PRELOAD library that lets the n-th file-changing call below a folder fail, or ends the process
// there.
//
// FAULT_DIR: only calls on paths that contain this. FAULT_AT: n, 0 = none. FAULT_MODE: kill (SIGKILL before the call),
// once (that call fails), ever (it and all later ones fail). FAULT_ERRNO: number, default ENOSPC. FAULT_COUNT: file
// that gets the number of calls at exit. FAULT_CALL: only calls of this name count ("unlink"). FAULT_TRACE: file that
// gets a line "NAME PATH" of each ("rename FROM TO").
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static long calls;
static char about[4096]; // the path that matched last

static int matches(const char *path) {
    const char *dir = getenv("FAULT_DIR");
    if (!dir || !path || !strstr(path, dir)) return 0;
    if (path != about) snprintf(about, sizeof about, "%s", path);
    return 1;
}

// With system calls of its own: the functions here are replaced.
static void trace(const char *name, const char *from) {
    const char *path = getenv("FAULT_TRACE");
    char line[9000];
    if (!path) return;
    const int n = snprintf(line, sizeof line, "%s %s%s%s\n", name, from, *from ? " " : "", about);
    const long fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0 || syscall(SYS_write, fd, line, n) != n) abort();
    syscall(SYS_close, fd);
}

static int fd_matches(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return matches(path);
}

// Whether this call is to fail; errno is set then. from: of a rename, else "".
static int fault(const char *name, const char *from) {
    const char *at = getenv("FAULT_AT"), *mode = getenv("FAULT_MODE"), *number = getenv("FAULT_ERRNO"),
               *call = getenv("FAULT_CALL");
    long n = at ? atol(at) : 0;
    trace(name, from);
    if (call && strcmp(call, name)) return 0;
    calls++;
    if (n == 0 || !mode || calls < n) return 0;
    if (!strcmp(mode, "kill")) kill(getpid(), SIGKILL);
    if (!strcmp(mode, "once") && calls > n) return 0;
    errno = number ? atoi(number) : ENOSPC;
    return 1;
}

__attribute__((destructor)) static void report(void) {
    const char *path = getenv("FAULT_COUNT");
    if (!path) return;
    FILE *f = fopen(path, "w");
    if (f) fprintf(f, "%ld\n", calls), fclose(f);
}

#define REAL(type, name, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list ap;                                                                                                    \
        va_start(ap, flags);                                                                                           \
        mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;                                                        \
        va_end(ap);                                                                                                    \
        REAL(int, name, const char *, int, ...);                                                                       \
        return (flags & O_CREAT) && matches(path) && fault(#name, "") ? -1 : real(path, flags, mode);                  \
    }
OPEN(open)
OPEN(open64)

#define WRITE(name, ...)                                                                                               \
    ssize_t name(int fd, const void *data, size_t n __VA_OPT__(, off_t at)) {                                          \
        REAL(ssize_t, name, int, const void *, size_t __VA_OPT__(, off_t));                                            \
        return fd_matches(fd) && fault(#name, "") ? -1 : real(fd, data, n __VA_OPT__(, at));                           \
    }
WRITE(write)
WRITE(pwrite, at)
WRITE(pwrite64, at)

#define ON_FD(name)                                                                                                    \
    int name(int fd) {                                                                                                 \
        REAL(int, name, int);                                                                                          \
        return fd_matches(fd) && fault(#name, "") ? -1 : real(fd);                                                     \
    }
ON_FD(fsync)
ON_FD(fdatasync)

#define TRUNCATE(name)                                                                                                 \
    int name(int fd, off_t n) {                                                                                        \
        REAL(int, name, int, off_t);                                                                                   \
        return fd_matches(fd) && fault(#name, "") ? -1 : real(fd, n);                                                  \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define ON_PATH(name)                                                                                                  \
    int name(const char *path) {                                                                                       \
        REAL(int, name, const char *);                                                                                 \
        return matches(path) && fault(#name, "") ? -1 : real(path);                                                    \
    }
ON_PATH(unlink)
ON_PATH(rmdir)
ON_PATH(remove)

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    return matches(path) && fault("mkdir", "") ? -1 : real(path, mode);
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    return matches(to) && fault("rename", from) ? -1 : real(from, to);
}
