// build_form.h: a JSON object as users have them -> conversations. Not collective (all of it).
//
//   hh                      "chosen" (and "rejected"): a transcript "\n\nHuman: ...\n\nAssistant: ..." that ends with
//   an
//                           answer, or a list of messages
//   prompt_answer           "prompt", "answer"
//   prompt_chosen_rejected  "prompt", "chosen", "rejected"
//   messages                "messages": [{"role": ..., "content": ...}, ...]
//   text                    "text"
//   question_answer         "question", "answer"
// A prompt that begins with "\n\nHuman:" and ends with "Assistant:" is a transcript of turns. "system" (a string) may
// stand beside prompt and question. Other fields are ignored.
#ifndef DS_BUILD_FORM_H
#define DS_BUILD_FORM_H

#include "data/build_spec.h"
#include "io/jsonl.h"

// Turns of a conversation; texts are views into the JSON object.
typedef struct {
    ChatTurn *turn; // [n]
    int64_t n, room;
} BuildTurns;

// What a record says. Valid as long as the object. {0} is an empty one; reused; owner: caller, build_form_free.
typedef struct {
    bool is_text, has_pair;
    const char *text; // is_text: [text_bytes]
    int64_t text_bytes;
    BuildTurns chosen, rejected; // else; rejected if has_pair
} BuildRecord;

// DS_ERR_DATA, begun with `where` ("file:line"), names the field that is missing or wrong.
Err build_form_parse(const JsonValue *object, BuildForm form, const char *where, BuildRecord *out);
void build_form_free(BuildRecord *r);

// Whether both conversations of a pair are the same.
bool build_form_identical(const BuildRecord *r);

// Whether the conversation can be trained on: it ends with an assistant's text that is not blank (*empty: else), after
// at least one other turn.
bool build_form_ends_well(const BuildTurns *t, bool *empty);

#endif
