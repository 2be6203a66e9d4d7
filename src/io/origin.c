// origin.c: collects where a file came from. Versions are those of what runs, not of the headers it was compiled with.
#include "io/origin.h"

#include <ctype.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/clock.h"
#include "base/mem.h"

#ifndef DS_COMMIT
#define DS_COMMIT "unknown"
#endif
#ifndef DS_FLAGS
#define DS_FLAGS "flags unknown"
#endif

static void clean_name(char out[32], const char *name) {
    size_t n = 0;
    for (; name[n] && n < 31; n++)
        out[n] = isalnum((unsigned char)name[n]) ? (char)tolower((unsigned char)name[n]) : '_';
    out[n] = 0;
}

// A copy of `s` on one line: a run of line breaks and tabs becomes "; ", none stays at the end.
static char *one_line(const char *s) {
    size_t n = strlen(s), used = 0, room = 0;
    if (!mem_mul(n, 2, &room) || !mem_add(room, 1, &room)) err_fatal("a text of %zu bytes is too long", n);
    char *out = mem_alloc(room);
    bool gap = false;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\n' || s[i] == '\r' || s[i] == '\t') {
            gap = true;
            continue;
        }
        if (gap && used > 0) out[used++] = ';', out[used++] = ' ';
        gap = false;
        out[used++] = s[i];
    }
    return out;
}

void origin_add(Origin *o, const char *name, const char *value) {
    char clean[32];
    clean_name(clean, name);
    int i = 0;
    while (i < o->n && strcmp(o->entries[i].name, clean) != 0) i++;
    if (i == ORIGIN_MAX) err_fatal("no room for '%s': an origin has at most %d entries", name, ORIGIN_MAX);
    if (i == o->n) o->n++;
    char *copy = one_line(value);
    mem_free(o->entries[i].value);
    o->entries[i].value = copy;
    memcpy(o->entries[i].name, clean, sizeof clean);
}

const char *origin_find(const Origin *o, const char *name) {
    for (int i = 0; i < o->n; i++)
        if (strcmp(o->entries[i].name, name) == 0) return o->entries[i].value;
    return NULL;
}

// Appends " <file name with its full version>" of one loaded object to the text *arg.
static int add_object(struct dl_phdr_info *info, size_t size, void *arg) {
    (void)size;
    char **text = arg, real[PATH_MAX];
    if (!info->dlpi_name || info->dlpi_name[0] != '/' || !realpath(info->dlpi_name, real)) return 0;
    const char *base = strrchr(real, '/') + 1;
    char *longer = mem_printf("%s%s%s", *text, **text ? " " : "", base);
    mem_free(*text);
    *text = longer;
    return 0;
}

static void add_printf(Origin *o, const char *name, char *owned) {
    origin_add(o, name, owned);
    mem_free(owned);
}

const char *origin_commit(void) { return DS_COMMIT; }

void origin_fill(Origin *o, const char *program, const OriginLib *libs, int n_libs) {
    char date[32];
    struct utsname u = {0};
    uname(&u);
    origin_add(o, "program", program);
    origin_add(o, "version", DS_VERSION);
    origin_add(o, "commit", DS_COMMIT);
    add_printf(o, "build", mem_printf("gcc %s, %s", __VERSION__, DS_FLAGS));
    origin_add(o, "host", u.nodename);
    add_printf(o, "system", mem_printf("%s %s %s", u.sysname, u.release, u.machine));
    origin_add(o, "date", clock_iso(date));
    for (int i = 0; i < n_libs; i++) {
        char name[32];
        snprintf(name, sizeof name, "library_%.20s", libs[i].name);
        origin_add(o, name, libs[i].version);
    }
    char *objects = mem_strdup("");
    dl_iterate_phdr(add_object, &objects);
    add_printf(o, "shared_objects", objects);
}

char *origin_text(const Origin *o) {
    char *text = mem_strdup("");
    for (int i = 0; i < o->n; i++) {
        char *longer = mem_printf("%s%s = %s\n", text, o->entries[i].name, o->entries[i].value);
        mem_free(text);
        text = longer;
    }
    return text;
}

void origin_clear(Origin *o) {
    for (int i = 0; i < o->n; i++) MEM_FREE(o->entries[i].value);
    o->n = 0;
}
