// build_spec.h: what `dschat-data build` is told: an INI file of [data] and up to eight sources [source1] .. [source8].
// Not collective (all of it).
#ifndef DS_BUILD_SPEC_H
#define DS_BUILD_SPEC_H

#include "data/dataset.h"
#include "params/keytable.h"
#include "token/chat.h"

enum { BUILD_SOURCES = 8 };

// The fields of a record, see build_form.h. Values are the positions in the list of words.
typedef enum {
    FORM_AUTO,
    FORM_HH,
    FORM_PROMPT_ANSWER,
    FORM_PROMPT_PAIR,
    FORM_MESSAGES,
    FORM_TEXT,
    FORM_QUESTION_ANSWER,
    FORM_KINDS
} BuildForm;

typedef enum { CUT_DROP, CUT_LEFT } BuildCut;
typedef enum { ORDER_SHUFFLE, ORDER_FILE } BuildOrder;
typedef enum { BAD_ERROR, BAD_SKIP } BuildBad;

enum { STAGES_SPLIT = 1 << DATA_KINDS }; // in BuildSource.stages: by [data] split

typedef struct {
    char *path; // "": no such source
    BuildForm form;
    double weight;
    int64_t limit;
    int stages; // bits of DataKind, or STAGES_SPLIT
} BuildSource;

typedef struct {
    char *output, *tokenizer, *template;
    // template = custom: the strings of ChatRoles, each a list of at most one text
    TextList begin, system_prefix, system_suffix, user_prefix, user_suffix, assistant_prefix, assistant_suffix;
    int64_t max_tokens, max_prompt, max_answer; // 0: no limit
    BuildCut cut;
    TextList split;
    double eval_fraction;
    int64_t eval_count;
    BuildOrder order;
    int64_t seed;
    BuildBad on_bad;
    BuildSource source[BUILD_SOURCES];
    double share[DATA_PTX]; // split as shares of sft, rm, ppo; sum 1
} BuildSpec;

const KeyTable *build_spec_table(void);

// "hh", "prompt_answer", ...
const char *build_spec_form_name(BuildForm form);

// Reads and checks `path`, with overrides[n] ("section.key=value") on top. DS_ERR_PARAMS names file, line, key and the
// closest legal word. Owner: caller, build_spec_free (accepts NULL).
Err build_spec_load(const char *path, int n, char **overrides, BuildSpec **out);
void build_spec_free(BuildSpec **spec);

// The template's strings: views of spec. DS_ERR_PARAMS with the closest name.
Err build_spec_roles(const BuildSpec *spec, ChatRoles *roles);

#endif
