// keyprint.c: a table for the eye: --keys, the commented template, the echo.
#include <string.h>

#include "base/mem.h"
#include "params/keytable.h"
#include "params/keyvalue.h"

// Words of `text` after `mark`, lines of at most 100 columns.
static void print_wrapped(const char *mark, const char *text, FILE *f) {
    enum { WIDTH = 100 };
    size_t column = 0;
    for (const char *word = text; *word;) {
        size_t n = strcspn(word, " ");
        if (column && column + 1 + n > WIDTH) fprintf(f, "\n"), column = 0;
        if (!column) fprintf(f, "%s", mark), column = strlen(mark);
        fprintf(f, "%s%.*s", column > strlen(mark) ? " " : "", (int)n, word);
        column += n + 1;
        word += n + (word[n] == ' ');
    }
    fprintf(f, "\n");
}

// "Peak learning rate. A number from 0 to 10 [unit]" as one text. Owner: caller.
static char *describe(const ParamKey *key) {
    char *expected = keyvalue_expected(key);
    char *text = mem_printf("%s [%s%s%s]", key->help, expected, *key->unit ? ", " : "", key->unit);
    mem_free(expected);
    return text;
}

void keytable_print(const KeyTable *t, FILE *f) {
    for (int s = 0; s < t->n_sections; s++) {
        fprintf(f, "%s[%s]  %s\n", s ? "\n" : "", t->sections[s].name, t->sections[s].help);
        for (int k = 0; k < t->n_keys; k++) {
            const ParamKey *key = &t->keys[k];
            if (strcmp(key->section, t->sections[s].name)) continue;
            char *text = describe(key);
            fprintf(f, "%s.%s = %s\n", key->section, key->name, key->fallback);
            print_wrapped("    ", text, f);
            mem_free(text);
        }
    }
}

void keytable_write_template(const KeyTable *t, const char *intro, FILE *f) {
    fprintf(f, "%s", intro);
    for (int s = 0; s < t->n_sections; s++) {
        fprintf(f, "\n\n[%s]\n# %s\n", t->sections[s].name, t->sections[s].help);
        for (int k = 0; k < t->n_keys; k++) {
            const ParamKey *key = &t->keys[k];
            if (strcmp(key->section, t->sections[s].name)) continue;
            char *text = describe(key);
            fprintf(f, "\n");
            print_wrapped("# ", text, f);
            fprintf(f, *key->fallback ? ";%s = %s\n" : ";%s =%s\n", key->name, key->fallback);
            mem_free(text);
        }
    }
}

static char *source_text(KeySource source) {
    switch (source.origin) {
    case KEY_FROM_FILE: return mem_printf("line %d", source.line);
    case KEY_FROM_COMMAND_LINE: return mem_strdup("command line");
    case KEY_FROM_PRESET: return mem_strdup("preset");
    case KEY_FROM_DEFAULT: break;
    }
    return mem_strdup("default");
}

// A list, continued on an indented line where it would grow too long: an item a line then.
static void echo_list(const ParamKey *key, const TextList *list, FILE *f) {
    fprintf(f, "%s =", key->name);
    for (int i = 0; i < list->n; i++) {
        char *item = keyvalue_encode(list->item[i]);
        fprintf(f, "%s %s%s", i ? "\n   " : "", item, i + 1 < list->n ? "," : "");
        mem_free(item);
    }
}

void keytable_echo(const KeyTable *t, const void *target, const KeySource *from, bool with_sources, FILE *f) {
    enum { COLUMN = 40 };
    for (int k = 0; k < t->n_keys; k++) {
        const ParamKey *key = &t->keys[k];
        if (!k || strcmp(key->section, t->keys[k - 1].section)) fprintf(f, "%s[%s]\n", k ? "\n" : "", key->section);
        char *value = keytable_format(t, target, k), *source = source_text(from[k]);
        int width = (int)(strlen(key->name) + 3 + strlen(value));
        bool list = key->type == KEY_TEXTS && width > KEYTABLE_MAX_LINE - 40;
        if (with_sources && width > KEYTABLE_MAX_LINE - 40) fprintf(f, "# %s\n", source); // no room behind it
        if (list) echo_list(key, (const TextList *)((const char *)target + key->offset), f);
        else fprintf(f, *value ? "%s = %s" : "%s =%s", key->name, value);
        if (with_sources && width <= KEYTABLE_MAX_LINE - 40)
            fprintf(f, "%*s ; %s", width < COLUMN ? COLUMN - width : 0, "", source);
        fprintf(f, "\n");
        mem_free(value);
        mem_free(source);
    }
}
