// fuzz.h: what the targets share. Each target is one file with LLVMFuzzerTestOneInput, which takes any bytes as the
// file (or text) of its parser: whatever they are, the parser gives an error or something that its other half agrees
// with. `make fuzz` builds them with libFuzzer, `make test` runs what is in corpus/ through them.
#ifndef DS_FUZZ_H
#define DS_FUZZ_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

// What must hold; libFuzzer keeps the input where it does not.
#define FUZZ_HOLDS(x)                                                                                                  \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: %s does not hold: %s\n", __FILE__, __LINE__, #x, err_text());                      \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

// A folder of this process, in memory where the system has such a place.
static inline const char *fuzz_folder(void) {
    static char path[64];
    if (path[0]) return path;
    snprintf(path, sizeof path, "%s/dschat-fuzz-%ld", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "build/tmp",
             (long)getpid());
    if (file_make_dirs(path)) abort();
    return path;
}

static inline void fuzz_remove_folder(void) { file_remove_tree(fuzz_folder()); }

// Writes data[n] as file `name` in that folder; its path, in one buffer of each caller. Files stay open: to make them
// anew each time would take longer than most parsers.
static inline const char *fuzz_file(const char *name, const uint8_t *data, size_t n) {
    static struct {
        char path[128];
        int fd;
    } file[4];
    char path[128];
    int i = 0;
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    while (file[i].path[0] && strcmp(file[i].path, path) != 0)
        if (++i == 4) abort();
    if (!file[0].path[0]) atexit(fuzz_remove_folder);
    if (!file[i].path[0]) {
        memcpy(file[i].path, path, sizeof path);
        file[i].fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (file[i].fd < 0) abort();
    }
    if (pwrite(file[i].fd, data, n, 0) != (ssize_t)n || ftruncate(file[i].fd, (off_t)n)) abort();
    return file[i].path;
}

#endif
