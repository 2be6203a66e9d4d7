// starts.c: see starts.h. The file is short: a run is started a few times.
#include "io/starts.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

enum { MAX_STARTS = 2, MAX_BYTES = 1 << 20, NAME = 64, DIED = -1 };

// One start as the log tells it.
typedef struct {
    char when[32], newest[NAME];
    int code; // DIED: no end is noted
} Start;

static bool counts(int code) {
    return code == DIED || code == DS_ERR_NUMERIC || code == DS_ERR_BUG || code == DS_STOP_REQUEUE;
}

// One line into the list; what is no line of this file is passed over.
static void take_line(const char *line, Start **list, int *n) {
    Start s = {.code = DIED};
    char when[32];
    int code;
    if (sscanf(line, "start %31s %63s", s.when, s.newest) == 2) {
        *list = mem_grow(*list, *n, *n + 1, sizeof **list);
        (*list)[(*n)++] = s;
    } else if (sscanf(line, "end %31s %d", when, &code) == 2 && *n > 0) (*list)[*n - 1].code = code;
}

static Err read_starts(const char *path, char **text, Start **list, int *n) {
    Err err = DS_OK;
    size_t bytes = 0;
    if (file_absent(path)) return DS_OK;
    DS_TRY(file_read_all(path, MAX_BYTES, text, &bytes));
    for (const char *line = *text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        take_line(line, list, n);
done:
    return err;
}

// Appends to *words: "2026-11-26T07:00:00Z: ended with 5".
static void add_words(char **words, const Start *s) {
    char end[48] = "was killed or died without a word";
    if (s->code != DIED) snprintf(end, sizeof end, "ended with %d", s->code);
    char *longer = mem_printf("%s%s%s: %s", *words, **words ? "; " : "", s->when, end);
    mem_free(*words);
    *words = longer;
}

static Err check_progress(const char *out, const Start *list, int n, const char *newest) {
    Err err = DS_OK;
    int count = 0;
    char *words = mem_strdup("");
    for (int i = n - 1; i >= 0 && list[i].code != DS_OK && !strcmp(list[i].newest, newest); i--)
        if (counts(list[i].code)) add_words(&words, &list[i]), count++;
    DS_CHECK(
        count < MAX_STARTS, DS_STOP_FINAL,
        "%s makes no progress: the last %d starts all found the same newest checkpoint (%s), and none wrote another "
        "(%s). Look at the end of %s/log.txt; when the cause is mended, remove %s/starts.log and start again",
        out, count, newest, words, out, out);
done:
    mem_free(words);
    return err;
}

// Appends a line.
static Err note(const char *path, const char *text, const char *line) {
    char *grown = mem_printf("%s%s", text ? text : "", line);
    Err err = file_write_atomic(path, grown, strlen(grown));
    mem_free(grown);
    return err;
}

Err starts_begin(const char *out, const char *newest) {
    Err err = DS_OK;
    Start *list = NULL;
    int n = 0;
    char *text = NULL, *path = mem_printf("%s/starts.log", out), line[128], when[32];
    const char *slash = newest ? strrchr(newest, '/') : NULL, *name = !newest ? "none" : slash ? slash + 1 : newest;
    DS_TRY(read_starts(path, &text, &list, &n));
    DS_TRY(check_progress(out, list, n, name));
    snprintf(line, sizeof line, "start %s %.63s\n", clock_iso(when), name);
    DS_TRY(note(path, text, line));
done:
    mem_free(list);
    mem_free(text);
    mem_free(path);
    return err;
}

Err starts_end(const char *out, Err code) {
    Err err = DS_OK;
    char *text = NULL, *path = mem_printf("%s/starts.log", out), line[64], when[32];
    size_t bytes = 0;
    if (!file_absent(path)) DS_TRY(file_read_all(path, MAX_BYTES, &text, &bytes));
    snprintf(line, sizeof line, "end %s %d\n", clock_iso(when), (int)code);
    DS_TRY(note(path, text, line));
done:
    mem_free(text);
    mem_free(path);
    return err;
}
