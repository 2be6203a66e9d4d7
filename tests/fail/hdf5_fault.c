// hdf5_fault.c: LD_PRELOAD library that lets the n-th file-changing call below a folder fail, or ends the process
// there.
//
// FAULT_DIR: only calls on paths that contain this. FAULT_AT: n, 0 = none. FAULT_MODE: kill (SIGKILL before the call),
// once (that call fails), ever (it and all later ones fail). FAULT_ERRNO: number, default ENOSPC. FAULT_COUNT: file
// that gets the number of calls at exit.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static long calls;

static int matches(const char *path) {
    const char *dir = getenv("FAULT_DIR");
    return dir && path && strstr(path, dir) != NULL;
}

static int fd_matches(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return matches(path);
}

// Whether this call is to fail; errno is set then.
static int fault(void) {
    const char *at = getenv("FAULT_AT"), *mode = getenv("FAULT_MODE"), *number = getenv("FAULT_ERRNO");
    long n = at ? atol(at) : 0;
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
        return (flags & O_CREAT) && matches(path) && fault() ? -1 : real(path, flags, mode);                           \
    }
OPEN(open)
OPEN(open64)

#define WRITE(name, ...)                                                                                               \
    ssize_t name(int fd, const void *data, size_t n __VA_OPT__(, off_t at)) {                                          \
        REAL(ssize_t, name, int, const void *, size_t __VA_OPT__(, off_t));                                            \
        return fd_matches(fd) && fault() ? -1 : real(fd, data, n __VA_OPT__(, at));                                    \
    }
WRITE(write)
WRITE(pwrite, at)
WRITE(pwrite64, at)

#define ON_FD(name)                                                                                                    \
    int name(int fd) {                                                                                                 \
        REAL(int, name, int);                                                                                          \
        return fd_matches(fd) && fault() ? -1 : real(fd);                                                              \
    }
ON_FD(fsync)
ON_FD(fdatasync)

#define TRUNCATE(name)                                                                                                 \
    int name(int fd, off_t n) {                                                                                        \
        REAL(int, name, int, off_t);                                                                                   \
        return fd_matches(fd) && fault() ? -1 : real(fd, n);                                                           \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define ON_PATH(name)                                                                                                  \
    int name(const char *path) {                                                                                       \
        REAL(int, name, const char *);                                                                                 \
        return matches(path) && fault() ? -1 : real(path);                                                             \
    }
ON_PATH(unlink)
ON_PATH(rmdir)
ON_PATH(remove)

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    return matches(path) && fault() ? -1 : real(path, mode);
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    return matches(to) && fault() ? -1 : real(from, to);
}
