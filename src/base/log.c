// log.c: three voices and a progress line.
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/output.h"
#include "base/text.h"

static int my_rank;
static FILE *file;
static bool line_open; // a progress line without its newline stands on the terminal
static double last_plain;

void log_init(int rank) { my_rank = rank; }

Err log_to_file(const char *path) {
    int fd = -1;
    if (my_rank) return DS_OK;
    if (file) fclose(file);
    file = NULL;
    Err err = path ? output_append(path, &fd) : DS_OK;
    if (fd >= 0) file = fdopen(fd, "a");
    return err;
}

static void close_line(void) {
    if (line_open) fputc('\n', stdout);
    line_open = false;
}

// One write a line, so that those of several ranks do not mix.
static void say(FILE *to, const char *prefix, const char *fmt, va_list ap) {
    char *text = mem_vprintf(fmt, ap), *shown = text_shown(text);
    close_line();
    if (to != stdout) fflush(stdout); // in the order in which things were said, in a pipe too
    fprintf(to, "%s%s\n", prefix, shown);
    fflush(to);
    if (file) fprintf(file, "%s%s\n", prefix, shown), fflush(file);
    mem_free(shown);
    mem_free(text);
}

#define SAY(to, prefix)                                                                                                \
    va_list ap;                                                                                                        \
    va_start(ap, fmt);                                                                                                 \
    say(to, prefix, fmt, ap);                                                                                          \
    va_end(ap)

void log_info(const char *fmt, ...) {
    if (my_rank) return;
    SAY(stdout, "");
}

void log_warn(const char *fmt, ...) {
    if (my_rank) return;
    SAY(stderr, "warning: ");
}

void log_error(const char *fmt, ...) {
    if (my_rank) return;
    SAY(stderr, "error: ");
}

void log_rank(const char *fmt, ...) {
    char prefix[32];
    snprintf(prefix, sizeof prefix, "rank %d: ", my_rank);
    SAY(stderr, prefix);
}

static void format_left(char *out, size_t size, double seconds) {
    long s = (long)(seconds + 0.5);
    if (s >= 3600) snprintf(out, size, "%ldh%02ldm left", s / 3600, s / 60 % 60);
    else if (s >= 60) snprintf(out, size, "%ldm%02lds left", s / 60, s % 60);
    else snprintf(out, size, "%lds left", s);
}

static void show_line(const char *line, bool tty, bool last) {
    if (tty) {
        fprintf(stdout, "\r\033[K%s", line);
        line_open = true;
        if (last) close_line();
    } else {
        fprintf(stdout, "%s\n", line);
    }
    fflush(stdout);
}

void log_progress(const char *label, int64_t done, int64_t total, double rate, const char *unit, const char *extra,
                  bool keep) {
    static char label_now[32];
    static double started;
    static int64_t done_at_start;
    if (my_rank) return;
    double now = clock_now();
    if (strcmp(label, label_now) != 0 || done < done_at_start) {
        snprintf(label_now, sizeof label_now, "%s", label);
        started = now, done_at_start = done, last_plain = 0;
    }
    const bool tty = isatty(STDOUT_FILENO), last = done >= total;
    const bool shown = tty || last || last_plain <= 0 || now - last_plain >= 10;
    keep = file && (keep || last);
    if (!shown && !keep) return;
    char left[48] = "";
    if (!last && done > done_at_start)
        format_left(left, sizeof left, (now - started) / (double)(done - done_at_start) * (double)(total - done));
    char line[256], raw[200];
    snprintf(raw, sizeof raw, "%-4s %5lld/%lld  %9.0f %s  %s  %s", label, (long long)done, (long long)total, rate, unit,
             extra ? extra : "", left);
    text_visible(raw, (int64_t)strlen(raw), false, line, sizeof line);
    if (shown) show_line(line, tty, last), last_plain = now;
    if (keep) fprintf(file, "%s\n", line), fflush(file);
}
