// expand.c: see expand.h.
#include "base/expand.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static bool is_name(char c) { return c == '_' || isalnum((unsigned char)c); }

// The bytes of a variable at s ("$NAME", "${NAME}"), 0 if there is none; *name, *n: of the name alone.
static size_t variable(const char *s, const char **name, size_t *n) {
    if (*s != '$') return 0;
    const bool braces = s[1] == '{';
    *name = s + 1 + braces;
    *n = 0;
    while (is_name((*name)[*n])) ++*n;
    if (*n == 0 || isdigit((unsigned char)**name) || (braces && (*name)[*n] != '}')) return 0;
    return 1 + *n + 2 * (size_t)braces;
}

static bool wanted(const char *path) {
    const char *name;
    size_t n;
    if (*path == '~') return true;
    for (const char *s = path; *s; s++)
        if (variable(s, &name, &n)) return true;
    return false;
}

// text + more[n]; text is given back. more = NULL: nothing is known, and stays so.
static char *append(char *text, const char *more, size_t n) {
    char *longer = text && more ? mem_printf("%s%.*s", text, (int)n, more) : NULL;
    mem_free(text);
    return longer;
}

char *expand_path(const char *path) {
    if (!wanted(path)) return NULL;
    char *out = mem_strdup("");
    while (*path && out) {
        const char *name = "HOME", *at = path;
        size_t n = 4, bytes = *path == '~' && !*out && (path[1] == '/' || !path[1]) ? 1 : variable(path, &name, &n);
        if (bytes) {
            char *key = mem_strndup(name, n);
            const char *value = getenv(key);
            mem_free(key);
            out = append(out, value, value ? strlen(value) : 0);
        } else out = append(out, at, bytes = *path == '~' && !*out ? 0 : 1);
        if (!bytes) return append(out, NULL, 0); // ~somebody
        path += bytes;
    }
    return out;
}

char *expand_refusal(const char *path) {
    if (!wanted(path)) return NULL;
    char *plain = expand_path(path);
    char *words = mem_printf("~ and $ are not expanded in paths; write %s", plain ? plain : "the whole path");
    mem_free(plain);
    return words;
}
