// params.c: the table made of params.def, and a params file from text to a struct whose values are all legal.
#include "params/params.h"

#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "params/params_check.h"
#include "params/params_preset.h"

// ---- the table ----

#define WORD(NAME, TEXT) TEXT,
#define ROW(S, P, NAME, TYPE, DEF, MIN, MAX, NAMES, UNIT, HELP)                                                        \
    {#S, #NAME, TYPE, offsetof(Params, P.NAME), DEF, MIN, MAX, NAMES, UNIT, HELP},
#define WORDS(LIST)                                                                                                    \
    (const char *const[]) { LIST(WORD) NULL }

#define SECTION(S, HELP)
#define END(S)
#define MODEL(S, PREVIOUS) MODEL_ROWS(S, S.common, PREVIOUS)
#define TRAIN(S, BATCH, LR, WARMUP) TRAIN_ROWS(S, S.train, BATCH, LR, WARMUP)
#define BOOL_AT(S, P, NAME, DEF, HELP) ROW(S, P, NAME, KEY_BOOL, DEF, 0, 0, NULL, "", HELP)
#define INT_AT(S, P, NAME, DEF, MIN, MAX, UNIT, HELP) ROW(S, P, NAME, KEY_INT, DEF, MIN, MAX, NULL, UNIT, HELP)
#define REAL_AT(S, P, NAME, DEF, MIN, MAX, UNIT, HELP) ROW(S, P, NAME, KEY_REAL, DEF, MIN, MAX, NULL, UNIT, HELP)
#define TEXT_AT(S, P, NAME, DEF, HELP) ROW(S, P, NAME, KEY_TEXT, DEF, 0, 0, NULL, "", HELP)
#define ENUM_AT(S, P, NAME, T, LIST, DEF, HELP) ROW(S, P, NAME, KEY_ENUM, DEF, 0, 0, WORDS(LIST), "", HELP)
#define SET_AT(S, P, NAME, LIST, DEF, HELP) ROW(S, P, NAME, KEY_SET, DEF, 0, 0, WORDS(LIST), "", HELP)
#define TEXTS_AT(S, P, NAME, DEF, HELP) ROW(S, P, NAME, KEY_TEXTS, DEF, 0, 0, NULL, "", HELP)
static const ParamKey keys[] = {
#include "params/params.def"
};

// The sections' names and help, the same rows once more.
#define SECTION(S, HELP) {#S, HELP},
#define END(S)
#define MODEL(S, PREVIOUS)
#define TRAIN(S, BATCH, LR, WARMUP)
#define BOOL_AT(...)
#define INT_AT(...)
#define REAL_AT(...)
#define TEXT_AT(...)
#define ENUM_AT(...)
#define SET_AT(...)
#define TEXTS_AT(...)
static const ParamSection sections[] = {
#include "params/params.def"
};

const KeyTable *params_table(void) {
    static const KeyTable table = {sections, DS_COUNT(sections), keys, DS_COUNT(keys)};
    return &table;
}

int params_quant_bits(Quant q) {
    static const int bits[QUANT_KINDS] = {[QUANT_INT8] = 8, [QUANT_INT4] = 4};
    return bits[q];
}

// ---- life ----

static Params *create(const char *path) {
    Params *p = MEM_NEW(Params, 1);
    p->from = MEM_NEW(KeySource, DS_COUNT(keys));
    p->path = mem_strdup(path);
    keytable_set_defaults(params_table(), p, p->from);
    return p;
}

void params_free(Params **p) {
    if (!*p) return;
    keytable_free(params_table(), *p);
    mem_free((*p)->from);
    mem_free((*p)->path);
    MEM_FREE(*p);
}

Err params_parse(const char *path, const char *text, size_t bytes, int n_overrides, char **overrides, Params **out) {
    Params *p = create(path);
    Err err = DS_OK;
    *out = NULL;
    DS_TRY(keytable_parse(params_table(), p, p->from, path, text, bytes));
    for (int i = 0; i < n_overrides; i++) DS_TRY(keytable_override(params_table(), p, p->from, overrides[i], i + 1));
    params_preset_apply(p);
    DS_TRY(params_check(p));
    *out = p, p = NULL;
done:
    params_free(&p);
    return err;
}

Err params_asking(int n_overrides, char **overrides, Params **out) {
    Params *p = create("defaults");
    Err err = DS_OK;
    *out = NULL;
    for (int i = 0; i < n_overrides; i++) DS_TRY(keytable_override(params_table(), p, p->from, overrides[i], i + 1));
    *out = p, p = NULL;
done:
    params_free(&p);
    return err;
}

// Whether a line of an echo belongs to a key of this version. Keeps the section it is in; an indented line goes with
// the one before.
static bool is_known(const char *line, char section[32], bool before) {
    char name[64];
    if (*line == ' ') return before;
    if (sscanf(line, "[%31[a-z_]]", section) == 1) {
        int s = 0;
        while (s < DS_COUNT(sections) && strcmp(sections[s].name, section) != 0) s++;
        return s < DS_COUNT(sections);
    }
    return sscanf(line, "%63[a-z0-9_] =", name) != 1 || keytable_find(params_table(), section, name) >= 0;
}

Err params_recall(const char *path, const char *text, size_t bytes, Params **out) {
    Params *p = create(path);
    char *known = mem_alloc(bytes + 1), section[32] = "";
    size_t n = 0;
    bool keep = true;
    for (const char *line = text, *next; line < text + bytes; line = next) {
        const char *end = memchr(line, '\n', (size_t)(text + bytes - line));
        next = end ? end + 1 : text + bytes;
        keep = is_known(line, section, keep);
        if (keep) memcpy(known + n, line, (size_t)(next - line)), n += (size_t)(next - line);
        else known[n++] = '\n'; // lines keep their numbers
    }
    Err err = keytable_parse(params_table(), p, p->from, path, known, n);
    mem_free(known);
    if (err) params_free(&p);
    *out = p;
    return err;
}

Err params_read(const char *path, char **text, size_t *bytes) {
    const Err err = file_read_all(path, KEYTABLE_MAX_BYTES, text, bytes);
    // A wrong name is the user's, a disk that fails is not; the words are file_read_all's.
    return err == DS_ERR_IO && file_exists(path) && !file_is_dir(path) ? err : err ? DS_ERR_PARAMS : DS_OK;
}

Err params_load(const char *path, int n_overrides, char **overrides, Params **out) {
    char *text = NULL;
    size_t bytes;
    *out = NULL;
    Err err = params_read(path, &text, &bytes);
    if (!err) err = params_parse(path, text, bytes, n_overrides, overrides, out);
    mem_free(text);
    return err;
}

// ---- questions and output ----

bool params_was_set(const Params *p, const char *key) {
    for (int k = 0; k < DS_COUNT(keys); k++) {
        size_t n = strlen(keys[k].section);
        if (strncmp(key, keys[k].section, n) || key[n] != '.' || strcmp(key + n + 1, keys[k].name)) continue;
        return p->from[k].origin == KEY_FROM_FILE || p->from[k].origin == KEY_FROM_COMMAND_LINE;
    }
    err_fatal("params_was_set: no key %s", key);
}

void params_list_preset(const Params *p, void (*say)(const char *line, void *user), void *user) {
    int preset = keytable_find(params_table(), "ppo", "preset");
    for (int k = 0; k < DS_COUNT(keys); k++) {
        if (p->from[k].origin != KEY_FROM_PRESET) continue;
        char *value = keytable_format(params_table(), p, k);
        char *line = mem_printf("%s.%s = %s (preset %s; default %s)", keys[k].section, keys[k].name, value,
                                keys[preset].names[p->ppo.preset], keys[k].fallback);
        say(line, user);
        mem_free(line);
        mem_free(value);
    }
}

void params_print_keys(FILE *f) { keytable_print(params_table(), f); }

void params_write_template(FILE *f) {
    static const char intro[] =
        "# params.in: every key of a params file, with its default, meaning, legal values and unit.\n"
        "#\n"
        "#     mpirun -np N ./dschat params.in [section.key=value ...]      run, or resume\n"
        "#     ./dschat --check params.in                                   read and validate, look at the files\n"
        "#\n"
        "# Copy this file, take the ';' off the keys to change, and delete the rest as you like. A line that begins "
        "with\n"
        "# ';' or '#' is a comment, and so is what follows ' ;' on a line. A list may go on after a comma on the next "
        "line,\n"
        "# which is indented. Paths are taken as they stand ($VAR and ~ are not expanded), from the folder of the "
        "run.\n";
    keytable_write_template(params_table(), intro, f);
}

char *params_text(const Params *p, bool with_sources) {
    MemStream s;
    FILE *f = mem_stream_open(&s);
    if (with_sources) fprintf(f, "# Every key as used; behind it, where its value came from.\n");
    keytable_echo(params_table(), p, p->from, with_sources, f);
    return mem_stream_text(&s);
}

char *params_hash(const Params *p) {
    char *text = params_text(p, false), *hex = mem_strdup(hash_sha256(text, strlen(text)).hex);
    mem_free(text);
    return hex;
}
