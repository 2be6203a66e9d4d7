// hang.c: LD_PRELOAD library in which one call of one rank never comes back.
//
// HANG_CALL: its name. HANG_RANK: the rank, as the launcher counts. HANG_AT: which call of that name, from 1 (default).
// HANG_PATH: of calls on files only those count whose path contains this. HANG_HOW: sleep (default), spin, fail (this
// call on a file gives EIO instead), abort (as a library that gives up), late (it comes back after 3 s), slow (every
// such call takes HANG_MS, 50 ms), or single: MPI_Init_thread comes back, but allows no threads. HANG_MARK: file that
// is made when the rank hangs. Only the main thread is concerned. The call "exit" is the end of the process, after
// main.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

// Any function whose arguments are numbers and addresses.
typedef long (*Call)(long, long, long, long, long, long, long, long);

static int concerned(const char *name) {
    const char *call = getenv("HANG_CALL"), *rank = getenv("HANG_RANK"), *own = getenv("PMI_RANK");
    if (!call || strcmp(call, name) || syscall(SYS_gettid) != getpid()) return 0;
    return rank && own && !strcmp(rank, own);
}

static int path_counts(const char *path) {
    const char *part = getenv("HANG_PATH");
    return !part || strstr(path, part);
}

static int file_counts(long fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%ld", fd);
    const ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return path_counts(path);
}

// Whether the call is to fail.
static int hang(void) {
    static long calls;
    const char *at = getenv("HANG_AT"), *how = getenv("HANG_HOW"), *mark = getenv("HANG_MARK");
    if (how && !strcmp(how, "slow")) {
        const char *ms = getenv("HANG_MS");
        usleep(ms ? 1000 * (useconds_t)atol(ms) : 50000);
        return 0;
    }
    if (++calls != (at ? atol(at) : 1)) return 0;
    if (mark) close((int)syscall(SYS_openat, AT_FDCWD, mark, O_CREAT | O_WRONLY, 0600));
    if (how && !strcmp(how, "fail")) return errno = EIO;
    if (how && !strcmp(how, "abort")) abort();
    if (how && !strcmp(how, "late")) return (int)usleep(3000000);
    for (volatile int never = 0; !never;)
        if (!how || strcmp(how, "spin")) syscall(SYS_pause);
    return 0;
}

#define PASS(name)                                                                                                     \
    static Call real;                                                                                                  \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);                                                              \
    return real(a, b, c, d, e, f, g, h)

#define HOOK(name, when)                                                                                               \
    long hook_##name(long a, long b, long c, long d, long e, long f, long g, long h) __asm__(#name);                   \
    long hook_##name(long a, long b, long c, long d, long e, long f, long g, long h) {                                 \
        if (concerned(#name) && (when) && hang()) return -1;                                                           \
        PASS(name);                                                                                                    \
    }

#define ANY(name) HOOK(name, 1)
#define ON_PATH(name) HOOK(name, path_counts((const char *)a))
#define ON_FILE(name) HOOK(name, file_counts(a))

ANY(MPI_Comm_dup)
ANY(MPI_Comm_split)
ANY(MPI_Comm_split_type)
ANY(MPI_Comm_free)
ANY(MPI_Finalize)
ANY(MPI_Allreduce)
ANY(MPI_Bcast)
ANY(MPI_Allgather)
ANY(MPI_Testall)
ANY(MPI_Iallgather)
ANY(MPI_Isend)
HOOK(MPI_File_open, path_counts((const char *)b))
ANY(MPI_File_write_at_all)
ANY(MPI_File_write_at)
ANY(MPI_File_sync)
ANY(MPI_File_close)
ON_PATH(open)
ON_PATH(rename)
ON_PATH(remove)
ON_FILE(read)
ON_FILE(pread)
ON_FILE(write)
ON_FILE(pwrite)
ON_FILE(fsync)
ON_FILE(ftruncate)

__attribute__((destructor)) static void at_exit(void) {
    if (concerned("exit")) hang();
}

long MPI_Init_thread(long a, long b, long c, long d, long e, long f, long g, long h) {
    static Call real;
    const char *how = getenv("HANG_HOW");
    const int single = concerned("MPI_Init_thread") && how && !strcmp(how, "single");
    if (concerned("MPI_Init_thread") && !single) hang();
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "MPI_Init_thread");
    const long rc = real(a, b, c, d, e, f, g, h);
    if (single) *(int *)d = 0;
    return rc;
}
