// err.h: how a function says that it failed. Not collective; src/comm/agree makes a code the same on all ranks.
//
// A function that can fail returns Err, declares `Err err = DS_OK;` and has one label `done:` which frees and returns
// err. The words of the first failure are kept per thread (err_text) until err_clear.
#ifndef DS_ERR_H
#define DS_ERR_H

#include "base/types.h"

// Also the exit codes of every program of the project.
typedef enum {
    DS_OK = 0,
    DS_ERR_PARAMS = 2,    // params file, command line
    DS_ERR_DATA = 3,      // data sets, tokenizers, models of others
    DS_ERR_IO = 4,        // files that cannot be opened, written, synced
    DS_ERR_NUMERIC = 5,   // NaN, overflow, KL beyond its limit
    DS_ERR_BUG = 6,       // a bug or a broken machine
    DS_STOP_REQUEUE = 10, // stopped early with a checkpoint: requeue me
    DS_STOP_FINAL = 11    // stopped: do not requeue
} Err;

// Records "message" (printf), one line, unless one is recorded already, and returns `code`. What files and users gave
// goes in as it is: control bytes are made visible here (base/text.h).
Err err_set(Err code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// The recorded message, "" if none. Valid until err_set or err_clear on this thread.
const char *err_text(void);

void err_clear(void);

// For a bug or a broken machine: prints place, message and rank, then ends the whole job with exit code 6.
void err_fatal_at(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4), noreturn));
#define err_fatal(...) err_fatal_at(__FILE__, __LINE__, __VA_ARGS__)

// world.c installs MPI_Abort here; before that the process just exits.
void err_set_abort(void (*abort_job)(int code), int rank);

#define DS_TRY(call)                                                                                                   \
    do {                                                                                                               \
        if ((err = (call)) != DS_OK) goto done;                                                                        \
    } while (0)

#define DS_FAIL(code, ...)                                                                                             \
    do {                                                                                                               \
        err = err_set((code), __VA_ARGS__);                                                                            \
        goto done;                                                                                                     \
    } while (0)

#define DS_CHECK(cond, code, ...)                                                                                      \
    do {                                                                                                               \
        if (!(cond)) DS_FAIL((code), __VA_ARGS__);                                                                     \
    } while (0)

#endif
