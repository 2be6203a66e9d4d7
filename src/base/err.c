// err.c: one message a thread, and the one place that ends a job.
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/launcher.h"
#include "base/text.h"
#include "base/watchdog.h"

enum { ABORT_SECONDS = 5 };

static _Thread_local char message[2048];
static void (*abort_hook)(int code);
static int world_rank;

Err err_set(Err code, const char *fmt, ...) {
    char raw[sizeof message];
    if (message[0]) return code; // the first failure is the cause; later ones are its echo
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(raw, sizeof raw, fmt, ap);
    va_end(ap);
    text_visible(raw, (int64_t)strlen(raw), false, message, sizeof message);
    return code;
}

const char *err_text(void) { return message; }

void err_clear(void) { message[0] = 0; }

void err_set_abort(void (*abort_job)(int code), int rank) {
    abort_hook = abort_job;
    world_rank = rank;
}

void err_fatal_at(const char *file, int line, const char *fmt, ...) {
    char text[2048], where[256], raw[2560], visible[2 * sizeof raw]; // no memory is asked for: there may be none
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    watchdog_where(where, sizeof where);
    const int n = snprintf(raw, sizeof raw, "dschat: fatal on rank %d at %s:%d%s%s: %s", world_rank, file, line,
                           where[0] ? ", " : "", where, text);
    text_visible(raw, n < (int)sizeof raw ? n : (int)sizeof raw - 1, false, visible, sizeof visible);
    fprintf(stderr, "%s\n", visible);
    fflush(stderr);
    watchdog_ending(ABORT_SECONDS); // MPI_Abort may itself wait for ever
    if (launcher_rank() >= 0) launcher_pass_on();
    if (abort_hook) abort_hook(DS_ERR_BUG);
    exit(DS_ERR_BUG);
}
