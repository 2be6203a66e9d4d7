// inspect.c: h5_inspect (io/h5_inspect.h) for the targets: the linker puts it in place of the program's (--wrap). Its
// child is a copy of this process and looks at many files, where the program starts one anew for each, which takes some
// hundred times as long. What the child covers counts as covered here. What a sanitizer finds in it is a find, if a
// fresh child finds it too and it is not in the HDF5 library, whose death is
// there to be survived (llvm-symbolizer tells them apart).
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/h5_inspect.h"
#include "io/h5_lib.h"

enum { CPU_SECONDS = 2, FILES = 200, DIED = 101 };

Err __wrap_h5_inspect(const H5File *file);

// libFuzzer's counters of this program's edges.
extern uint8_t __start___sancov_cntrs[] __attribute__((visibility("hidden")));
extern uint8_t __stop___sancov_cntrs[] __attribute__((visibility("hidden")));
static size_t edges(void) { return (size_t)(__stop___sancov_cntrs - __start___sancov_cntrs); }

// Of both processes.
static struct {
    char path[256], words[2048];
    Err err;
    uint8_t counters[];
} * common;
static pid_t child;
static int line, report, seen; // to the child; what a sanitizer says of it; files that it has looked at

// ---- the child ----

#ifdef FUZZ_COVER
int __llvm_profile_write_file(void);
static void at_death(int signal) {
    (void)signal;
    __llvm_profile_write_file();
    _exit(DIED);
}
static void prepare(void) {
    const int deadly[] = {SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGXCPU};
    for (int i = 0; i < DS_COUNT(deadly); i++) signal(deadly[i], at_death);
}
static void keep(void) {}
static void leave(void) { __llvm_profile_write_file(); } // once in a process
static bool found(const char *words) { return (void)words, false; }
#else
void __sanitizer_set_report_fd(void *fd);
void __sanitizer_set_death_callback(void (*callback)(void));
const char *__lsan_default_suppressions(void);

const char *__lsan_default_suppressions(void) { return "leak:libhdf5\n"; }
static void at_death(void) { _exit(DIED); }
static void prepare(void) {
    __sanitizer_set_report_fd((void *)(intptr_t)report);
    __sanitizer_set_death_callback(at_death);
}
static void keep(void) { memcpy(common->counters, __start___sancov_cntrs, edges()); }
static void leave(void) {}
// Whether our code comes before the library's on the stack.
static bool found(const char *words) {
    const char *library = strstr(words, "libhdf5"), *own = strstr(words, "/src/");
    return !library || (own && own < library);
}
#endif

static void inspect_one(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    const rlim_t now = (rlim_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec);
    setrlimit(RLIMIT_CPU, &(struct rlimit){now + CPU_SECONDS, RLIM_INFINITY});
    memset(__start___sancov_cntrs, 0, edges());
    common->err = h5_inspect_here(common->path, NULL);
    snprintf(common->words, sizeof common->words, "%s", err_text());
    err_clear();
    keep();
}

static void be_the_child(int in) {
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    prepare();
    for (char c; read(in, &c, 1) == 1;) {
        inspect_one();
        if (write(in, &c, 1) != 1) break;
    }
    leave();
    _exit(DS_OK);
}

// ---- the parent ----

// How it ended. Its report, if there is one, in words.
static int end_child(char *words, size_t room) {
    int status = 0;
    close(line);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    child = 0;
    const ssize_t n = pread(report, words, room - 1, 0);
    words[n > 0 ? n : 0] = 0;
    close(report);
    return status;
}

static void end_last_child(void) {
    char words[2];
    if (child) end_child(words, sizeof words);
}

static void start_child(void) {
    int ends[2];
    if (!common) {
        common = mmap(NULL, sizeof *common + edges(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        atexit(end_last_child);
    }
    report = memfd_create("report", MFD_CLOEXEC);
    if (common == MAP_FAILED || report < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) abort();
    child = fork();
    if (child < 0) abort();
    close(ends[child != 0]);
    if (!child) be_the_child(ends[1]);
    line = ends[0];
    seen = 0;
}

// false: the child died of it, *status and words say how.
static bool ask(const char *path, int *status, char *words, size_t room) {
    char c = 0;
    ssize_t n;
    if (child && seen == FILES) end_child(words, room);
    if (!child) start_child();
    seen++;
    snprintf(common->path, sizeof common->path, "%s", path);
    if (send(line, &c, 1, MSG_NOSIGNAL) != 1) abort();
    while ((n = read(line, &c, 1)) < 0 && errno == EINTR) {
    }
    if (n != 1) *status = end_child(words, room);
    return n == 1;
}

Err __wrap_h5_inspect(const H5File *file) {
    static char words[1 << 16];
    int status = 0;
    bool well = ask(h5_path(file), &status, words, sizeof words), fresh = seen == 1;
    if (!well && !fresh) well = ask(h5_path(file), &status, words, sizeof words);
    if (!well && WIFEXITED(status) && (WEXITSTATUS(status) != DIED || found(words))) {
        fprintf(stderr, "the child that inspects ended with %d: %s\n", WEXITSTATUS(status), words);
        abort();
    }
    if (!well) return err_set(DS_ERR_DATA, "%s: the HDF5 library dies of it", h5_path(file));
    for (size_t i = 0; i < edges(); i++) __start___sancov_cntrs[i] |= common->counters[i];
    return common->err ? err_set(common->err, "%s", common->words) : DS_OK;
}
