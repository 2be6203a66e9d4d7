// answer.h: what the asking tools (dschat-chat, dschat-eval) share: their arguments, and a file of prompts answered.
// Not collective: one process.
#ifndef DS_ANSWER_H
#define DS_ANSWER_H

#include <stdio.h>

#include "gen/talk.h"

// MODEL.h5 [--option VALUE ...] [key=value ...]
typedef struct {
    const char *model, *template, *system, *prompts; // NULL: not given
    const char *mode, *file;                         // dschat-eval: "logprobs", "tokens", ... and its file
    DType dtype;                                     // --dtype fp32 | bf16; default fp32
    char **overrides;                                // [n_overrides] "section.key=value"
    int n_overrides;
} AnswerArgs;

// Parses; handles --help and --version itself. False: the program ends with *err (words in err_text).
bool answer_args(int argc, char **argv, const char *help, const char *program, AnswerArgs *a, Err *err);
void answer_args_free(AnswerArgs *a);

// "temperature", "0.7" -> "generate.temperature=0.7"; seed and threads are keys of [job]. Owner: caller, mem_free.
char *answer_override(const char *key, const char *value);

// The keys of the arguments, the rest as they are by default; what is the model's is not checked here. DS_ERR_PARAMS.
Err answer_params(const AnswerArgs *a, Params **p);

// Answers the lines {"prompt": TEXT}, {"messages": [{"role", "content"}]} or {"ids": [...]} of a JSONL file through the
// chat template; one JSON line each: {"prompt"?, "answer", "ids", "logprobs", "stop"}. raw: a prompt's text is taken as
// it stands, without template. system: before those that do not begin with a system message; NULL: none. DS_ERR_DATA.
Err answer_file(Talk *t, const Params *p, const char *path, const char *system, bool raw, FILE *out);

// Says the error, if any; the exit code.
int answer_exit(Err err);

#endif
