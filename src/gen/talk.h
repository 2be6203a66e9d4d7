// talk.h: a model file opened to be asked: model, tokenizer, template, generator. For the tools. Not collective: one
// process.
#ifndef DS_TALK_H
#define DS_TALK_H

#include "gen/decode.h"
#include "params/params.h"
#include "token/chat.h"

typedef struct {
    const Kernels *k;
    Layout layout; // of this process
    Model model;
    Tokenizer *tok;    // NULL: the model has none (ids only)
    Chat *chat;        // NULL without a tokenizer, or before talk_template
    ChatText template; // the one noted in the file, then the one chosen
    char *jinja;       // the template of others that came with the model, if none is noted; NULL: none
    char *system;      // what that says before a conversation without a system message; NULL: nothing
    char *path;
    Gen *gen;
    int64_t slots, max_tokens; // that gen was made for
    int32_t stop_id;
} Talk;

// Opens path for compute in `dtype` on `threads` threads (0: all cores of this process). head: as load_arch.
// DS_ERR_DATA, DS_ERR_IO. Owner: caller, talk_close.
Err talk_open(Talk *t, const char *path, DType dtype, int head, int threads);
void talk_close(Talk *t); // accepts a zero one

// Chooses the template: `name`, else the one noted in the model file, else one that fits the tokenizer's special tokens
// (chatml, llama3, llama2), else hh, and with it the model's own system message. Needs a tokenizer. DS_ERR_PARAMS,
// DS_ERR_DATA.
Err talk_template(Talk *t, const char *name);

// [generate] keys as the generator wants them; strings are views of p and t. use_stop: the template's (or tokenizer's)
// end token ends answers.
GenCfg talk_config(const Talk *t, const Params *p);

// Answers req[n], at most `batch` at once. Prompt and answer have to fit the model's positions (talk_room). told: see
// gen_run.
void talk_answer(Talk *t, const GenCfg *cfg, GenRequest *req, int64_t n, int64_t batch, GenTold told, void *user);

// How many tokens an answer to a prompt of n_prompt tokens can have, at most max_answer; 0 or less: the prompt is too
// long.
int64_t talk_room(const Talk *t, int64_t n_prompt, int64_t max_answer);

#endif
