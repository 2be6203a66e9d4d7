// keytable.c: the file as a whole, read through inih. Our reader hands inih one line at a time, checked: inih would cut
// a long line, skip an unknown empty section and take an indented key for more of the value above. The first error ends
// the reading.
#include "params/keytable.h"

#include <ini.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/text.h"

// One file being read.
typedef struct {
    const KeyTable *table;
    void *target;
    KeySource *from;
    const char *path;
    const char *next, *end;  // text not read yet
    int line;                // of the line that inih has
    bool indented;           // it begins with a blank
    int section;             // index of the section it is in, -1 before the first
    int open_key, open_line; // list that waits for its next line, -1 if none
    char *open_value;        // what it has so far
    Err err;
} Reading;

int keytable_find(const KeyTable *t, const char *section, const char *name) {
    for (int k = 0; k < t->n_keys; k++)
        if (!strcmp(t->keys[k].section, section) && !strcmp(t->keys[k].name, name)) return k;
    return -1;
}

static int find_section(const KeyTable *t, const char *name, size_t bytes) {
    for (int s = 0; s < t->n_sections; s++)
        if (strlen(t->sections[s].name) == bytes && !memcmp(t->sections[s].name, name, bytes)) return s;
    return -1;
}

static Err fail_section(const KeyTable *t, const char *where, const char *name) {
    const char **names = MEM_NEW(const char *, t->n_sections);
    for (int s = 0; s < t->n_sections; s++) names[s] = t->sections[s].name;
    const char *near = text_closest(name, names, t->n_sections);
    mem_free(names);
    return err_set(DS_ERR_PARAMS, "%s: unknown section [%s]%s%s%s", where, name, near ? "; did you mean [" : "",
                   near ? near : "", near ? "]?" : "");
}

// The key is not in this section: it is another section's, or looks like one of this section's.
static Err fail_key(const KeyTable *t, const char *where, const char *section, const char *name) {
    const char **names = MEM_NEW(const char *, t->n_keys), *home = NULL;
    int n = 0;
    for (int k = 0; k < t->n_keys; k++) {
        if (!strcmp(t->keys[k].section, section)) names[n++] = t->keys[k].name;
        else if (!home && !strcmp(t->keys[k].name, name)) home = t->keys[k].section;
    }
    const char *near = text_closest(name, names, n);
    mem_free(names);
    if (near)
        return err_set(DS_ERR_PARAMS, "%s: unknown key '%s' in [%s]; did you mean '%s'?", where, name, section, near);
    return err_set(DS_ERR_PARAMS, "%s: unknown key '%s' in [%s]%s%s%s", where, name, section,
                   home ? "; it is a key of [" : "", home ? home : "", home ? "]" : "");
}

// Records the first error at the line that is being read.
static void fail(Reading *r, const char *message) {
    if (!r->err) r->err = err_set(DS_ERR_PARAMS, "%s:%d: %s", r->path, r->line, message);
}

// Sets the key unless it has been set before.
static Err set_once(const KeyTable *t, void *target, KeySource *from, int k, const char *value, KeySource source,
                    const char *where) {
    const ParamKey *key = &t->keys[k];
    Err err = DS_OK;
    DS_CHECK(from[k].origin != source.origin, DS_ERR_PARAMS, "%s: [%s] %s is set already %s %d", where, key->section,
             key->name, source.origin == KEY_FROM_FILE ? "in line" : "by override", from[k].line);
    DS_TRY(keytable_set(t, target, k, value, where));
    from[k] = source;
done:
    return err;
}

static void set_value(Reading *r, int k, const char *value, int line) {
    char *where = mem_printf("%s:%d", r->path, line);
    r->err = set_once(r->table, r->target, r->from, k, value, (KeySource){KEY_FROM_FILE, line}, where);
    mem_free(where);
}

// An indented line: more of the list that is open.
static void continue_list(Reading *r, const char *name, const char *value) {
    if (r->open_key < 0 || strcmp(name, r->table->keys[r->open_key].name)) {
        fail(
            r,
            "an indented line continues a list whose last line ends with a comma; remove the blanks in front of a key");
        return;
    }
    char *whole = mem_printf("%s %s", r->open_value, value);
    mem_free(r->open_value);
    r->open_value = whole;
}

static void close_list(Reading *r) {
    if (!r->err) set_value(r, r->open_key, r->open_value, r->open_line);
    MEM_FREE(r->open_value);
    r->open_key = -1;
}

static void take_key(Reading *r, const char *name, const char *value) {
    const char *section = r->table->sections[r->section].name;
    int k = keytable_find(r->table, section, name);
    if (k < 0) {
        char *where = mem_printf("%s:%d", r->path, r->line);
        r->err = fail_key(r->table, where, section, name);
        mem_free(where);
        return;
    }
    bool list = r->table->keys[k].type == KEY_TEXTS || r->table->keys[k].type == KEY_SET;
    if (list && *value && value[strlen(value) - 1] == ',') {
        r->open_key = k, r->open_line = r->line;
        r->open_value = mem_strdup(value);
    } else {
        set_value(r, k, value, r->line);
    }
}

// inih's handler: 0 says stop.
static int on_value(void *user, const char *section, const char *name, const char *value) {
    (void)section; // cut to 49 bytes; the reader keeps the real one
    Reading *r = user;
    if (r->err) return 0;
    if (r->indented) {
        continue_list(r, name, value);
        size_t n = r->open_value ? strlen(r->open_value) : 0;
        if (n && r->open_value[n - 1] != ',') close_list(r);
    } else {
        take_key(r, name, value);
    }
    return !r->err;
}

// "[name]", then nothing but a comment.
static void enter_section(Reading *r, const char *s, size_t n) {
    const char *close = memchr(s, ']', n);
    if (!close) {
        fail(r, "expected ']' at the end of the section's name");
        return;
    }
    size_t after = (size_t)(close - s) + 1;
    while (after < n && (s[after] == ' ' || s[after] == '\t')) after++;
    if (after < n && s[after] != ';' && s[after] != '#') {
        fail(r, "expected nothing behind the section's ']'");
        return;
    }
    r->section = find_section(r->table, s + 1, (size_t)(close - s - 1));
    if (r->section >= 0) return;
    char *where = mem_printf("%s:%d", r->path, r->line), *name = mem_strndup(s + 1, (size_t)(close - s - 1));
    r->err = fail_section(r->table, where, name);
    mem_free(where);
    mem_free(name);
}

static bool has_assignment(const char *s, size_t n) {
    size_t i = 0;
    while (i < n && s[i] != '=' && s[i] != ':' && !(i && s[i] == ';' && (s[i - 1] == ' ' || s[i - 1] == '\t'))) i++;
    return i && i < n && s[i] != ';';
}

// What inih would pass over in silence, or name by its line only.
static void check_line(Reading *r, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < 32 && s[i] != '\t') {
            fail(r, "the line holds a control byte: not a text file");
            return;
        }
    if (text_utf8_bad(s, (int64_t)n) >= 0) fail(r, "the line is not UTF-8");
    r->indented = n && (*s == ' ' || *s == '\t');
    while (n && (*s == ' ' || *s == '\t')) s++, n--;
    if (!n || *s == ';' || *s == '#') return;
    if (r->open_key >= 0 && !r->indented) fail(r, "the list above ends with a comma: expected more of it, indented");
    else if (*s == '[' && !r->indented) enter_section(r, s, n);
    else if (!r->indented && !has_assignment(s, n)) fail(r, "expected 'key = value', '[section]' or a comment");
    else if (r->section < 0) fail(r, "expected a '[section]' before the first key");
}

// inih's reader: the next line with its end into out[room], NULL at the end of the text or after an error.
static char *next_line(char *out, int room, void *user) {
    Reading *r = user;
    if (r->err || r->next == r->end) return NULL;
    r->line++;
    const char *s = r->next, *newline = memchr(s, '\n', (size_t)(r->end - s));
    const char *stop = newline ? newline : r->end;
    r->next = newline ? newline + 1 : r->end;
    size_t n = (size_t)(stop - s);
    if (n && s[n - 1] == '\r') n--;
    size_t most = room - 2 < KEYTABLE_MAX_LINE ? (size_t)(room - 2) : KEYTABLE_MAX_LINE;
    if (n > most) {
        r->err =
            err_set(DS_ERR_PARAMS, "%s:%d: the line has %zu bytes, expected at most %zu", r->path, r->line, n, most);
        return NULL;
    }
    check_line(r, s, n);
    if (r->err) return NULL;
    memcpy(out, s, n);
    memcpy(out + n, "\n", 2);
    return out;
}

Err keytable_parse(const KeyTable *t, void *target, KeySource *from, const char *path, const char *text, size_t bytes) {
    Reading r = {.table = t,
                 .target = target,
                 .from = from,
                 .path = path,
                 .next = text,
                 .end = text + bytes,
                 .section = -1,
                 .open_key = -1};
    if (bytes >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) r.next += 3;
    int bad_line = ini_parse_stream(next_line, &r, on_value, &r);
    if (!r.err && r.open_key >= 0)
        fail(&r, "the list ends with a comma: expected more of it, indented, on the next line");
    if (!r.err && bad_line)
        r.err = err_set(DS_ERR_PARAMS, "%s:%d: expected 'key = value', '[section]' or a comment", path, bad_line);
    mem_free(r.open_value);
    return r.err;
}

Err keytable_parse_file(const KeyTable *t, void *target, KeySource *from, const char *path) {
    char *text = NULL;
    size_t bytes;
    Err err = DS_OK;
    if (file_read_all(path, KEYTABLE_MAX_BYTES, &text, &bytes)) return DS_ERR_PARAMS; // the words are file_read_all's
    DS_TRY(keytable_parse(t, target, from, path, text, bytes));
done:
    mem_free(text);
    return err;
}

void keytable_set_defaults(const KeyTable *t, void *target, KeySource *from) {
    for (int k = 0; k < t->n_keys; k++) {
        from[k] = (KeySource){KEY_FROM_DEFAULT, 0};
        if (keytable_set(t, target, k, t->keys[k].fallback, "default")) err_fatal("illegal default: %s", err_text());
    }
}

// Cuts the blanks off both ends of s[n]. Owner: caller.
static char *trimmed(const char *s, size_t n) {
    while (n && (*s == ' ' || *s == '\t')) s++, n--;
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\t')) n--;
    return mem_strndup(s, n);
}

// "lr=0.1": the sections that have such a key, or the key that looks like it.
static Err fail_bare(const KeyTable *t, const char *assignment) {
    const char *equals = strchr(assignment, '='), **names = MEM_NEW(const char *, t->n_keys);
    char *name = trimmed(assignment, equals ? (size_t)(equals - assignment) : strlen(assignment)),
         *words = mem_strdup("");
    for (int k = 0; k < t->n_keys; k++) names[k] = t->keys[k].name;
    const char *near = equals ? text_closest(name, names, t->n_keys) : NULL;
    for (int k = 0; k < t->n_keys && near; k++) {
        if (strcmp(near, t->keys[k].name)) continue;
        char *longer =
            mem_printf("%s%s%s.%s%s", words, *words ? " or " : "; did you mean ", t->keys[k].section, near, equals);
        mem_free(words);
        words = longer;
    }
    Err err = err_set(DS_ERR_PARAMS, "command line: '%s': expected section.key=value%s%s", assignment, words,
                      *words ? "?" : "");
    mem_free(words);
    mem_free(name);
    mem_free(names);
    return err;
}

Err keytable_override(const KeyTable *t, void *target, KeySource *from, const char *assignment, int number) {
    const char *equals = strchr(assignment, '=');
    const char *dot = memchr(assignment, '.', equals ? (size_t)(equals - assignment) : strlen(assignment));
    if (!equals || !dot) return fail_bare(t, assignment);
    char *section = trimmed(assignment, (size_t)(dot - assignment));
    char *name = trimmed(dot + 1, (size_t)(equals - dot - 1)), *value = trimmed(equals + 1, strlen(equals + 1));
    char *where = mem_printf("command line (%s.%s)", section, name);
    int k = keytable_find(t, section, name);
    Err err;
    if (find_section(t, section, strlen(section)) < 0) err = fail_section(t, where, section);
    else if (k < 0) err = fail_key(t, where, section, name);
    else err = set_once(t, target, from, k, value, (KeySource){KEY_FROM_COMMAND_LINE, number}, where);
    mem_free(section);
    mem_free(name);
    mem_free(value);
    mem_free(where);
    return err;
}

const char *keytable_where(const KeySource *from, int k, const char *path, char out[512]) {
    switch (from[k].origin) {
    case KEY_FROM_DEFAULT: snprintf(out, 512, "default"); break;
    case KEY_FROM_FILE: snprintf(out, 512, "%s:%d", path, from[k].line); break;
    case KEY_FROM_COMMAND_LINE: snprintf(out, 512, "command line"); break;
    case KEY_FROM_PRESET: snprintf(out, 512, "preset"); break;
    }
    return out;
}
