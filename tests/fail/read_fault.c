// read_fault.c: LD_PRELOAD library that lets the n-th call that looks at a file below a folder fail once.
//
// Counted are open, openat, fopen, read, pread, readv, preadv, mmap, access, lstat, fstat, lseek and close, with their
// 64-bit names.
//
// FAULT_DIR: only files whose path contains this. FAULT_AT: n, 0 = none. FAULT_MODE: fail (the call returns its error;
// close closes), short (a read gives half of what it would; other calls are not counted). FAULT_ERRNO: number, default
// EIO. FAULT_RANK: only this rank of an MPI job (PMI_RANK), default every one. FAULT_CALL: only calls of this name.
// FAULT_COUNT: file to which each process adds "<calls> <what failed>" when it ends.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static __thread int inside; // our own calls are not counted
static long calls;
static char hit[4300] = "nothing";

#define REAL(type, name, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

static int on_rank(void) {
    const char *want = getenv("FAULT_RANK"), *rank = getenv("PMI_RANK");
    return !want || !strcmp(want, rank ? rank : "0");
}

static int matches(const char *path) {
    const char *dir = getenv("FAULT_DIR");
    return dir && path && strstr(path, dir) != NULL;
}

// Whether this call on `path` is to fail; errno is set then.
static int fault_on(const char *path, const char *what, int reads) {
    const char *at = getenv("FAULT_AT"), *mode = getenv("FAULT_MODE"), *number = getenv("FAULT_ERRNO");
    const int is_short = mode && !strcmp(mode, "short");
    const char *only = getenv("FAULT_CALL");
    if (inside || !matches(path) || !on_rank() || (is_short && !reads) || (only && *only && strcmp(only, what)))
        return 0;
    if (__atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) != (at ? atol(at) : 0)) return 0;
    snprintf(hit, sizeof hit, "%s %s", what, path);
    errno = number ? atoi(number) : EIO;
    return 1;
}

static int fault_at(int fd, const char *what, int reads) {
    char link[64], path[4096];
    const int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (n < 0) return 0;
    path[n] = 0;
    return fault_on(path, what, reads);
}

static int is_short(void) {
    const char *mode = getenv("FAULT_MODE");
    return mode && !strcmp(mode, "short");
}

__attribute__((destructor)) static void report(void) {
    const char *path = getenv("FAULT_COUNT");
    inside = 1;
    FILE *f = path && on_rank() ? fopen(path, "a") : NULL;
    if (f) fprintf(f, "%ld %s\n", calls, hit), fclose(f);
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list ap;                                                                                                    \
        va_start(ap, flags);                                                                                           \
        mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;                                                        \
        va_end(ap);                                                                                                    \
        REAL(int, name, const char *, int, ...);                                                                       \
        return fault_on(path, #name, 0) ? -1 : real(path, flags, mode);                                                \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                   \
    int name(int dir, const char *path, int flags, ...) {                                                              \
        va_list ap;                                                                                                    \
        va_start(ap, flags);                                                                                           \
        mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;                                                        \
        va_end(ap);                                                                                                    \
        REAL(int, name, int, const char *, int, ...);                                                                  \
        int bad = path[0] == '/' ? fault_on(path, #name, 0) : fault_at(dir, #name, 0);                                 \
        return bad ? -1 : real(dir, path, flags, mode);                                                                \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                                                                    \
    FILE *name(const char *path, const char *mode) {                                                                   \
        REAL(FILE *, name, const char *, const char *);                                                                \
        return fault_on(path, #name, 0) ? NULL : real(path, mode);                                                     \
    }
FOPEN(fopen)
FOPEN(fopen64)

// read, pread: a short one asks for half.
#define READ(name, ...)                                                                                                \
    ssize_t name(int fd, void *data, size_t n __VA_OPT__(, off_t at)) {                                                \
        REAL(ssize_t, name, int, void *, size_t __VA_OPT__(, off_t));                                                  \
        if (!fault_at(fd, #name, 1)) return real(fd, data, n __VA_OPT__(, at));                                        \
        return is_short() && n > 1 ? real(fd, data, n / 2 __VA_OPT__(, at)) : -1;                                      \
    }
READ(read)
READ(pread, at)
READ(pread64, at)

#define READV(name, ...)                                                                                               \
    ssize_t name(int fd, const struct iovec *v, int n __VA_OPT__(, off_t at)) {                                        \
        REAL(ssize_t, name, int, const struct iovec *, int __VA_OPT__(, off_t));                                       \
        if (!fault_at(fd, #name, 1)) return real(fd, v, n __VA_OPT__(, at));                                           \
        return is_short() && n > 1 ? real(fd, v, n / 2 __VA_OPT__(, at)) : -1;                                         \
    }
READV(readv)
READV(preadv, at)
READV(preadv64, at)

#define MMAP(name)                                                                                                     \
    void *name(void *where, size_t bytes, int prot, int flags, int fd, off_t at) {                                     \
        REAL(void *, name, void *, size_t, int, int, int, off_t);                                                      \
        return fd >= 0 && fault_at(fd, #name, 0) ? MAP_FAILED : real(where, bytes, prot, flags, fd, at);               \
    }
MMAP(mmap)
MMAP(mmap64)

#define FSTAT(name, type)                                                                                              \
    int name(int fd, struct type *st) {                                                                                \
        REAL(int, name, int, struct type *);                                                                           \
        return fault_at(fd, #name, 0) ? -1 : real(fd, st);                                                             \
    }
FSTAT(fstat, stat)
FSTAT(fstat64, stat64)

#define LSTAT(name, type)                                                                                              \
    int name(const char *path, struct type *st) {                                                                      \
        REAL(int, name, const char *, struct type *);                                                                  \
        return fault_on(path, #name, 0) ? -1 : real(path, st);                                                         \
    }
LSTAT(lstat, stat)
LSTAT(lstat64, stat64)

int access(const char *path, int how) {
    REAL(int, access, const char *, int);
    return fault_on(path, "access", 0) ? -1 : real(path, how);
}

#define LSEEK(name)                                                                                                    \
    off_t name(int fd, off_t at, int from) {                                                                           \
        REAL(off_t, name, int, off_t, int);                                                                            \
        return fault_at(fd, #name, 0) ? -1 : real(fd, at, from);                                                       \
    }
LSEEK(lseek)
LSEEK(lseek64)

int close(int fd) {
    REAL(int, close, int);
    if (!fault_at(fd, "close", 0)) return real(fd);
    const int kept = errno;
    real(fd);
    errno = kept;
    return -1;
}
