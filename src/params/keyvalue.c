// keyvalue.c: one value of a table: from text to the member, and back. The words of every type error are here.
#include "params/keytable.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "params/keyvalue.h"

static const char ESCAPES[] = "n\nt\ts ,,\\\\\"\"##;;"; // pairs: letter after the backslash, byte it stands for

static void *member(const KeyTable *t, const void *target, int k) { return (char *)target + t->keys[k].offset; }

static int names_count(const char *const *names) {
    int n = 0;
    while (names[n]) n++;
    return n;
}

// "linear, cosine, constant". Owner: caller.
static char *names_join(const char *const *names) {
    char *all = mem_strdup("");
    for (int i = 0; names[i]; i++) {
        char *more = mem_printf("%s%s%s", all, i ? ", " : "", names[i]);
        mem_free(all);
        all = more;
    }
    return all;
}

char *keyvalue_expected(const ParamKey *key) {
    char *names = key->names ? names_join(key->names) : NULL, *text = NULL;
    switch (key->type) {
    case KEY_BOOL: text = mem_strdup("yes or no"); break;
    case KEY_INT: text = mem_printf("a whole number from %.0f to %.0f", key->min, key->max); break;
    case KEY_REAL: text = mem_printf("a number from %.10g to %.10g", key->min, key->max); break;
    case KEY_TEXT: text = mem_strdup("text"); break;
    case KEY_ENUM: text = mem_printf(key->names[1] ? "one of %s" : "%s", names); break;
    case KEY_SET: text = mem_printf("a list out of %s", names); break;
    case KEY_TEXTS: text = mem_strdup("a list, separated by commas"); break;
    }
    mem_free(names);
    return text;
}

static Err fail_expected(const ParamKey *key, const char *where, const char *value, const char *why) {
    char *expected = keyvalue_expected(key);
    const char *near = key->names ? text_closest(value, key->names, names_count(key->names)) : NULL;
    Err err = err_set(DS_ERR_PARAMS, "%s: [%s] %s = %s: %sexpected %s%s%s%s", where, key->section, key->name, value,
                      why, expected, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    mem_free(expected);
    return err;
}

static Err set_bool(const ParamKey *key, const char *value, const char *where, bool *out) {
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on"};
    for (int i = 0; i < DS_COUNT(words); i++)
        if (!strcmp(value, words[i])) {
            *out = i % 2;
            return DS_OK;
        }
    return fail_expected(key, where, value, "");
}

static Err set_int(const ParamKey *key, const char *value, const char *where, int64_t *out) {
    char *end;
    errno = 0;
    long long v = strtoll(value, &end, 10);
    if (end == value || *end) return fail_expected(key, where, value, "not a whole number; ");
    if (errno || v < (int64_t)key->min || v > (int64_t)key->max)
        return fail_expected(key, where, value, "out of range; ");
    *out = v;
    return DS_OK;
}

static Err set_real(const ParamKey *key, const char *value, const char *where, double *out) {
    char *end;
    double v = strtod(value, &end);
    if (end == value || *end || strpbrk(value, "xX")) return fail_expected(key, where, value, "not a number; ");
    if (!isfinite(v)) return fail_expected(key, where, value, "not finite; ");
    if (v < key->min || v > key->max) return fail_expected(key, where, value, "out of range; ");
    *out = v;
    return DS_OK;
}

static Err set_enum(const ParamKey *key, const char *value, const char *where, int *out) {
    for (int i = 0; key->names[i]; i++)
        if (!strcmp(value, key->names[i])) {
            *out = i;
            return DS_OK;
        }
    return fail_expected(key, where, value, "");
}

static char decode(char letter) {
    for (const char *e = ESCAPES; *e; e += 2)
        if (e[0] == letter) return e[1];
    return 0;
}

// One item, which ends at a comma or the end of the text: decoded, without the blanks around it. *next: after the
// comma, or NULL at the end. False for a backslash that stands for nothing.
static bool next_item(const char *s, char **item, const char **next) {
    char *out = MEM_NEW(char, (int64_t)strlen(s) + 1);
    int n = 0, keep = 0; // keep: bytes up to the last one that is not a plain blank
    for (; *s && *s != ','; s++) {
        bool blank = *s == ' ' || *s == '\t';
        if (blank && !n) continue;
        if (*s == '\\') {
            char c = decode(s[1]);
            if (!c) {
                mem_free(out);
                return false;
            }
            out[n++] = c, s++;
        } else {
            out[n++] = *s;
        }
        if (!blank) keep = n;
    }
    out[keep] = 0;
    *item = out;
    *next = *s ? s + 1 : NULL;
    return true;
}

static void texts_free(TextList *list) {
    for (int i = 0; i < list->n; i++) mem_free(list->item[i]);
    mem_free(list->item);
    *list = (TextList){0};
}

static Err parse_texts(const ParamKey *key, const char *value, const char *where, TextList *out) {
    TextList list = {0};
    Err err = DS_OK;
    for (const char *s = *value ? value : NULL; s;) {
        list.item = mem_grow(list.item, list.n, list.n + 1, sizeof *list.item);
        if (!next_item(s, &list.item[list.n], &s))
            DS_FAIL(DS_ERR_PARAMS, "%s: [%s] %s: expected n t s , ; # \" or another backslash after a backslash", where,
                    key->section, key->name);
        if (!list.item[list.n++][0])
            DS_FAIL(DS_ERR_PARAMS, "%s: [%s] %s: item %d of the list is empty", where, key->section, key->name, list.n);
    }
    texts_free(out);
    *out = list;
    return DS_OK;
done:
    texts_free(&list);
    return err;
}

static Err set_set(const ParamKey *key, const char *value, const char *where, int *out) {
    TextList words = {0};
    Err err = DS_OK;
    int bits = 0;
    DS_TRY(parse_texts(key, value, where, &words));
    if (!words.n) DS_TRY(fail_expected(key, where, value, ""));
    for (int i = 0; i < words.n; i++) {
        int bit = 0;
        DS_TRY(set_enum(key, words.item[i], where, &bit));
        DS_CHECK(!(bits >> bit & 1), DS_ERR_PARAMS, "%s: [%s] %s: %s is named twice", where, key->section, key->name,
                 words.item[i]);
        bits |= 1 << bit;
    }
    *out = bits;
done:
    texts_free(&words);
    return err;
}

// Text that every type refuses: it would not survive the echo, or is a slip.
static Err check_text(const ParamKey *key, const char *value, const char *where) {
    Err err = DS_OK;
    for (const char *s = value; *s; s++) {
        bool after_blank = s > value && (s[-1] == ' ' || s[-1] == '\t');
        DS_CHECK((unsigned char)*s >= 32 || *s == '\t', DS_ERR_PARAMS,
                 "%s: [%s] %s: the value holds the control byte 0x%02x", where, key->section, key->name,
                 (unsigned char)*s);
        DS_CHECK(!(after_blank && (*s == '#' || *s == ';')), DS_ERR_PARAMS,
                 "%s: [%s] %s: the value holds ' %c': a comment after a value begins with ' ;', and neither can be "
                 "part of one",
                 where, key->section, key->name, *s);
    }
    DS_CHECK(*value != '"', DS_ERR_PARAMS, "%s: [%s] %s = %s: expected a value without quotes", where, key->section,
             key->name, value);
    DS_CHECK(*value != ';' && *value != '#', DS_ERR_PARAMS,
             "%s: [%s] %s: the value begins with '%c', which begins a comment", where, key->section, key->name, *value);
    DS_CHECK(text_utf8_bad(value, (int64_t)strlen(value)) < 0, DS_ERR_PARAMS, "%s: [%s] %s: the value is not UTF-8",
             where, key->section, key->name);
    size_t most = KEYTABLE_MAX_LINE - strlen(key->name) - 3;
    DS_CHECK(key->type == KEY_TEXTS || strlen(value) <= most, DS_ERR_PARAMS,
             "%s: [%s] %s: the value has %zu bytes, expected at most %zu", where, key->section, key->name,
             strlen(value), most);
done:
    return err;
}

// Each item has to fit on a line of the echo.
static Err check_items(const ParamKey *key, const TextList *list, const char *where) {
    for (int i = 0; i < list->n; i++) {
        char *item = keyvalue_encode(list->item[i]);
        size_t bytes = strlen(item), most = KEYTABLE_MAX_LINE - strlen(key->name) - 5;
        mem_free(item);
        if (bytes > most)
            return err_set(DS_ERR_PARAMS, "%s: [%s] %s: item %d has %zu bytes, expected at most %zu", where,
                           key->section, key->name, i + 1, bytes, most);
    }
    return DS_OK;
}

static Err set_texts(const ParamKey *key, const char *value, const char *where, TextList *out) {
    TextList list = {0};
    Err err = DS_OK;
    DS_TRY(parse_texts(key, value, where, &list));
    DS_TRY(check_items(key, &list, where));
    texts_free(out);
    *out = list;
    return DS_OK;
done:
    texts_free(&list);
    return err;
}

Err keytable_set(const KeyTable *t, void *target, int k, const char *value, const char *where) {
    const ParamKey *key = &t->keys[k];
    void *m = member(t, target, k);
    Err err = check_text(key, value, where);
    if (err) return err;
    switch (key->type) {
    case KEY_BOOL: return set_bool(key, value, where, m);
    case KEY_INT: return set_int(key, value, where, m);
    case KEY_REAL: return set_real(key, value, where, m);
    case KEY_ENUM: return set_enum(key, value, where, m);
    case KEY_SET: return set_set(key, value, where, m);
    case KEY_TEXTS: return set_texts(key, value, where, m);
    case KEY_TEXT: break;
    }
    char **text = m, *copy = mem_strdup(value); // copied first: value may be the old text
    mem_free(*text);
    *text = copy;
    return DS_OK;
}

char *keyvalue_encode(const char *item) {
    char *out = MEM_NEW(char, 2 * (int64_t)strlen(item) + 1);
    size_t n = 0, last = strlen(item) - 1;
    for (size_t i = 0; i <= last && item[0]; i++) {
        const char *e = ESCAPES;
        while (*e && e[1] != item[i]) e += 2;
        bool inside = i && i < last;
        if (!*e || (inside && (item[i] == ' ' || item[i] == '"'))) out[n++] = item[i];
        else out[n++] = '\\', out[n++] = e[0];
    }
    return out;
}

// A short decimal that reads back as v.
static char *format_real(double v) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    return mem_strdup(text);
}

static char *join(char *all, const char *more) {
    char *text = mem_printf("%s%s%s", all, *all ? ", " : "", more);
    mem_free(all);
    return text;
}

char *keytable_format(const KeyTable *t, const void *target, int k) {
    const ParamKey *key = &t->keys[k];
    const void *m = member(t, target, k);
    char *text = NULL;
    switch (key->type) {
    case KEY_BOOL: return mem_strdup(*(const bool *)m ? "yes" : "no");
    case KEY_INT: return mem_printf("%lld", (long long)*(const int64_t *)m);
    case KEY_REAL: return format_real(*(const double *)m);
    case KEY_TEXT: return mem_strdup(*(char *const *)m);
    case KEY_ENUM: return mem_strdup(key->names[*(const int *)m]);
    case KEY_SET:
        text = mem_strdup("");
        for (int i = 0; key->names[i]; i++)
            if (*(const int *)m >> i & 1) text = join(text, key->names[i]);
        break;
    case KEY_TEXTS:
        text = mem_strdup("");
        for (int i = 0; i < ((const TextList *)m)->n; i++) {
            char *item = keyvalue_encode(((const TextList *)m)->item[i]);
            text = join(text, item);
            mem_free(item);
        }
        break;
    }
    return text;
}

void keytable_free(const KeyTable *t, void *target) {
    for (int k = 0; k < t->n_keys; k++) {
        if (t->keys[k].type == KEY_TEXT) MEM_FREE(*(char **)member(t, target, k));
        if (t->keys[k].type == KEY_TEXTS) texts_free(member(t, target, k));
    }
}
