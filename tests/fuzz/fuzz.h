// fuzz.h: what the targets share. Each target is one file with LLVMFuzzerTestOneInput, which takes any bytes as the
// file (or text) of its parser: whatever they are, the parser gives an error or something that its other half agrees
// with. `make fuzz` builds them with libFuzzer, `make test` runs what is in corpus/ through them.
#ifndef DS_FUZZ_H
#define DS_FUZZ_H

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

// Writes data[n] as file `name` in that folder; its path, in one buffer of each caller.
static inline const char *fuzz_file(const char *name, const uint8_t *data, size_t n) {
    static char path[128];
    static int first = 1;
    if (first) atexit(fuzz_remove_folder);
    first = 0;
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f)) abort();
    return path;
}

#endif
