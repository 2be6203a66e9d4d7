// build_spec.c: the table of keys, and what one key cannot tell by itself.
#include "data/build_spec.h"

#include <stdlib.h>
#include <string.h>

#include "base/expand.h"
#include "base/mem.h"

#define MOST 9007199254740991.0 // whole numbers up to here are exact as doubles

static const char *const form_names[] = {"auto",     "hh",   "prompt_answer",   "prompt_chosen_rejected",
                                         "messages", "text", "question_answer", NULL};
static const char *const stage_names[] = {"sft", "rm", "ppo", "ptx", "split", NULL};
static const char *const cut_names[] = {"drop", "left", NULL};
static const char *const order_names[] = {"shuffle", "file", NULL};
static const char *const bad_names[] = {"error", "skip", NULL};

// clang-format off
#define ROW(SECTION, NAME, TYPE, MEMBER, DEF, MIN, MAX, NAMES, UNIT, HELP)                                             \
    {SECTION, NAME, TYPE, offsetof(BuildSpec, MEMBER), DEF, MIN, MAX, NAMES, UNIT, HELP}
#define TEXT(NAME, DEF, HELP) ROW("data", #NAME, KEY_TEXT, NAME, DEF, 0, 0, NULL, "", HELP)
#define LIST(NAME, DEF, HELP) ROW("data", #NAME, KEY_TEXTS, NAME, DEF, 0, 0, NULL, "", HELP)
#define INT(NAME, DEF, UNIT, HELP) ROW("data", #NAME, KEY_INT, NAME, DEF, 0, MOST, NULL, UNIT, HELP)
#define REAL(NAME, DEF, MAX, HELP) ROW("data", #NAME, KEY_REAL, NAME, DEF, 0, MAX, NULL, "", HELP)
#define ENUM(NAME, DEF, NAMES, HELP) ROW("data", #NAME, KEY_ENUM, NAME, DEF, 0, 0, NAMES, "", HELP)
#define SOURCE(I)                                                                                                      \
    ROW("source" #I, "path", KEY_TEXT, source[I - 1].path, "", 0, 0, NULL, "", "A .jsonl or .jsonl.gz file."),         \
    ROW("source" #I, "form", KEY_ENUM, source[I - 1].form, "auto", 0, 0, form_names, "",                               \
        "The fields of its records; auto: told by their names, record by record."),                                    \
    ROW("source" #I, "weight", KEY_REAL, source[I - 1].weight, "1", 0, 1000, NULL, "",                                 \
        "How often a record is taken: 0.5 every second one by chance, 3 each three times."),                           \
    ROW("source" #I, "limit", KEY_INT, source[I - 1].limit, "0", 0, MOST, NULL, "records",                             \
        "Stop after so many usable records; 0: all."),                                                                 \
    ROW("source" #I, "stages", KEY_SET, source[I - 1].stages, "split", 0, 0, stage_names, "",                          \
        "Every record goes to all of these; split: to one, drawn by [data] split (text: to ptx).")
// clang-format on

static const ParamKey keys[] = {
    TEXT(output, "", "The file to write; needed."),
    TEXT(tokenizer, "", "A tokenizer.json, another tokenizer file or folder, or a model.h5; needed."),
    TEXT(template, "hh", "Chat template: hh, chatml, llama2, llama3, plain, or custom: the seven strings below."),
    LIST(begin, "", "custom: what a conversation begins with. \\n is a line break, \\s a blank, {bos} {eos} tokens."),
    LIST(system_prefix, "", "custom: before a system text."),
    LIST(system_suffix, "", "custom: after it."),
    LIST(user_prefix, "", "custom: before a user's text."),
    LIST(user_suffix, "", "custom: after it."),
    LIST(assistant_prefix, "", "custom: before an answer."),
    LIST(assistant_suffix, "", "custom: after it; its first special token ends an answer."),
    INT(max_tokens, "1024", "tokens",
        "Most tokens of prompt and answer; 0: no limit. Longer texts (ptx) become several."),
    INT(max_prompt, "0", "tokens", "Most tokens of a prompt; 0: no limit."),
    INT(max_answer, "0", "tokens", "Most tokens of an answer; a longer one is dropped; 0: no limit."),
    ENUM(cut, "drop", cut_names, "What is too long is dropped, or loses its beginning: left keeps the last tokens."),
    LIST(split, "2, 4, 4", "Shares of the records for sft, rm and ppo. Records without a pair: for sft and ppo."),
    REAL(eval_fraction, "0.05", 0.9, "Share of the records of a stage that is held out."),
    INT(eval_count, "0", "records", "Held-out records of a stage instead; 0: by eval_fraction."),
    ENUM(order, "shuffle", order_names, "Held out are records drawn by chance, or (file) the last ones."),
    INT(seed, "1", "", "Seed of every draw."),
    ENUM(on_bad, "error", bad_names, "A line that is no JSON, no UTF-8 or lacks a field: stop, or count it and go on."),
    SOURCE(1), // each 5 rows
    SOURCE(2),
    SOURCE(3),
    SOURCE(4),
    SOURCE(5),
    SOURCE(6),
    SOURCE(7),
    SOURCE(8),
};

static const ParamSection sections[] = {
    {"data", "The data set to build."}, {"source1", "Where records come from."}, {"source2", "Another source."},
    {"source3", "Another source."},     {"source4", "Another source."},          {"source5", "Another source."},
    {"source6", "Another source."},     {"source7", "Another source."},          {"source8", "Another source."}};

const KeyTable *build_spec_table(void) {
    static const KeyTable table = {sections, DS_COUNT(sections), keys, DS_COUNT(keys)};
    return &table;
}

const char *build_spec_form_name(BuildForm form) { return form_names[form]; }

static Err check_split(const char *path, BuildSpec *s) {
    Err err = DS_OK;
    double sum = 0;
    DS_CHECK(s->split.n == DATA_PTX, DS_ERR_PARAMS, "%s: [data] split: expected three numbers, as in 2, 4, 4", path);
    for (int i = 0; i < DATA_PTX; i++) {
        char *end;
        s->share[i] = strtod(s->split.item[i], &end);
        DS_CHECK(end != s->split.item[i] && !*end && s->share[i] >= 0 && s->share[i] <= 1e6, DS_ERR_PARAMS,
                 "%s: [data] split: '%s' is not a share, expected a number from 0 to 1e6", path, s->split.item[i]);
        sum += s->share[i];
    }
    DS_CHECK(sum > 0, DS_ERR_PARAMS, "%s: [data] split: one share at least must be above 0", path);
    for (int i = 0; i < DATA_PTX; i++) s->share[i] /= sum;
done:
    return err;
}

static Err check_roles(const char *path, const BuildSpec *s) {
    Err err = DS_OK;
    const TextList *const lists[] = {&s->begin,       &s->system_prefix,    &s->system_suffix,   &s->user_prefix,
                                     &s->user_suffix, &s->assistant_prefix, &s->assistant_suffix};
    static const char *const names[] = {"begin",       "system_prefix",    "system_suffix",   "user_prefix",
                                        "user_suffix", "assistant_prefix", "assistant_suffix"};
    bool custom = !strcmp(s->template, "custom");
    for (int i = 0; i < DS_COUNT(lists); i++) {
        DS_CHECK(lists[i]->n <= 1, DS_ERR_PARAMS, "%s: [data] %s: expected one text; write a comma as \\,", path,
                 names[i]);
        DS_CHECK(custom || !lists[i]->n, DS_ERR_PARAMS, "%s: [data] %s is for template = custom, but template = %s",
                 path, names[i], s->template);
    }
    DS_CHECK(!custom || s->assistant_suffix.n, DS_ERR_PARAMS,
             "%s: [data] template = custom needs assistant_suffix, such as {eos}", path);
done:
    return err;
}

static Err check_sources(const char *path, const BuildSpec *s) {
    Err err = DS_OK;
    bool any = false;
    for (int i = 0; i < BUILD_SOURCES; i++) {
        const BuildSource *from = &s->source[i];
        if (!from->path[0]) continue;
        any = true;
        DS_CHECK(!(from->stages & STAGES_SPLIT) || from->stages == STAGES_SPLIT, DS_ERR_PARAMS,
                 "%s: [source%d] stages: 'split' stands alone, or name stages", path, i + 1);
        bool pair = from->form == FORM_AUTO || from->form == FORM_HH || from->form == FORM_PROMPT_PAIR ||
                    from->form == FORM_MESSAGES;
        DS_CHECK(from->stages & STAGES_SPLIT || !(from->stages & 1 << DATA_RM) || pair, DS_ERR_PARAMS,
                 "%s: [source%d] stages: rm needs pairs, and form = %s has none", path, i + 1, form_names[from->form]);
        DS_CHECK(from->form != FORM_TEXT || !(from->stages & (1 << DATA_PPO)), DS_ERR_PARAMS,
                 "%s: [source%d] stages: ppo needs prompts, and form = text has none", path, i + 1);
    }
    DS_CHECK(any, DS_ERR_PARAMS, "%s: no source: expected a path in [source1]", path);
done:
    return err;
}

static Err check_path(const char *spec, const char *section, const char *key, const char *value) {
    char *why = expand_refusal(value);
    Err err = why ? err_set(DS_ERR_PARAMS, "%s: [%s] %s = %s: %s", spec, section, key, value, why) : DS_OK;
    mem_free(why);
    return err;
}

static Err check(const char *path, BuildSpec *s) {
    Err err = DS_OK;
    DS_TRY(check_path(path, "data", "output", s->output));
    DS_TRY(check_path(path, "data", "tokenizer", s->tokenizer));
    for (int i = 0; i < BUILD_SOURCES; i++) DS_TRY(check_path(path, sections[1 + i].name, "path", s->source[i].path));
    DS_CHECK(s->output[0], DS_ERR_PARAMS, "%s: [data] output is missing: the file to write", path);
    DS_CHECK(s->tokenizer[0], DS_ERR_PARAMS, "%s: [data] tokenizer is missing: a tokenizer.json or a model.h5", path);
    DS_CHECK(s->max_tokens == 0 || s->max_tokens >= 2, DS_ERR_PARAMS,
             "%s: [data] max_tokens = %lld: expected 0 or 2 and more",
             path, (long long)s->max_tokens);
    DS_TRY(check_split(path, s));
    DS_TRY(check_roles(path, s));
    DS_TRY(check_sources(path, s));
done:
    return err;
}

Err build_spec_load(const char *path, int n, char **overrides, BuildSpec **out) {
    Err err = DS_OK;
    BuildSpec *s = MEM_NEW(BuildSpec, 1);
    KeySource *from = MEM_NEW(KeySource, DS_COUNT(keys));
    *out = NULL;
    keytable_set_defaults(build_spec_table(), s, from);
    DS_TRY(keytable_parse_file(build_spec_table(), s, from, path));
    for (int i = 0; i < n; i++) DS_TRY(keytable_override(build_spec_table(), s, from, overrides[i], i + 1));
    DS_TRY(check(path, s));
    *out = s;
    s = NULL;
done:
    mem_free(from);
    build_spec_free(&s);
    return err;
}

void build_spec_free(BuildSpec **spec) {
    if (!*spec) return;
    keytable_free(build_spec_table(), *spec);
    MEM_FREE(*spec);
}

static const char *only(const TextList *list) { return list->n ? list->item[0] : ""; }

Err build_spec_roles(const BuildSpec *s, ChatRoles *roles) {
    if (strcmp(s->template, "custom")) return chat_roles(s->template, roles);
    *roles = (ChatRoles){.begin = only(&s->begin),
                         .system_prefix = only(&s->system_prefix),
                         .system_suffix = only(&s->system_suffix),
                         .user_prefix = only(&s->user_prefix),
                         .user_suffix = only(&s->user_suffix),
                         .assistant_prefix = only(&s->assistant_prefix),
                         .assistant_suffix = only(&s->assistant_suffix)};
    return DS_OK;
}
