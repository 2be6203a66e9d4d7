// checker.c: see checker.h.
#include "stage/checker.h"

#include <string.h>

#include "base/text.h"

enum { MAX_WORDS = 64 };

typedef struct {
    const char *at[MAX_WORDS];
    size_t bytes[MAX_WORDS];
    int n;
} Words;

// Cuts at blanks, up to the end of the line or text.
static void split(const char *s, Words *w) {
    w->n = 0;
    while (w->n < MAX_WORDS) {
        s += strspn(s, " \t");
        size_t n = strcspn(s, " \t\n");
        if (n == 0) return;
        w->at[w->n] = s;
        w->bytes[w->n++] = n;
        s += n;
    }
}

static void reverse(Words *w) {
    for (int i = 0, j = w->n - 1; i < j; i++, j--) {
        const char *at = w->at[i];
        size_t bytes = w->bytes[i];
        w->at[i] = w->at[j], w->bytes[i] = w->bytes[j];
        w->at[j] = at, w->bytes[j] = bytes;
    }
}

// What follows the last "Human:" and its blanks.
static const char *last_request(const char *prompt) {
    const char *found = prompt;
    for (const char *s = prompt; (s = strstr(s, "Human:")); s += 6) found = s + 6;
    return found + strspn(found, " \n");
}

// The solution of a request; false if it is not one of the tasks.
static bool solve(const char *request, Words *w) {
    static const struct {
        const char *begin;
        enum { ALL, BACKWARDS, FIRST, LAST } task;
    } tasks[] = {{"Say these words backwards:", BACKWARDS},
                 {"Say these words:", ALL},
                 {"Say the first of these words:", FIRST},
                 {"Say the last of these words:", LAST}};
    for (int i = 0; i < DS_COUNT(tasks); i++) {
        size_t n = strlen(tasks[i].begin);
        if (strncmp(request, tasks[i].begin, n)) continue;
        split(request + n, w);
        if (tasks[i].task == BACKWARDS || tasks[i].task == LAST) reverse(w);
        if (tasks[i].task >= FIRST && w->n > 1) w->n = 1;
        return w->n > 0;
    }
    return false;
}

double checker_words(const char *prompt, const char *answer) {
    Words want, got;
    if (!solve(last_request(prompt), &want)) return 0;
    split(answer, &got);
    int same = 0;
    for (int i = 0; i < want.n && i < got.n; i++)
        same += want.bytes[i] == got.bytes[i] && !memcmp(want.at[i], got.at[i], got.bytes[i]);
    return (double)same / (double)ds_max(want.n, got.n);
}

Err checker_find(const char *name, Checker *out) {
    static const char *const names[] = {"words"};
    *out = NULL;
    if (!name[0]) return DS_OK;
    if (!strcmp(name, names[0])) {
        *out = checker_words;
        return DS_OK;
    }
    const char *near = text_closest(name, names, DS_COUNT(names));
    return err_set(DS_ERR_PARAMS, "[ppo] checker = %s is unknown; known: %s%s%s", name, names[0],
                   near ? "; did you mean " : "", near ? near : "");
}
