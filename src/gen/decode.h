// decode.h: the generation loop: prompts in, answers with their log-probs out. Not collective: each rank generates its
// own prompts.
//
// Continuous batching: one forward pass carries the next token of every running sequence and, as rows of their own, the
// prompts that were just admitted; a sequence that ends leaves at once and a waiting one takes its slot. Since the
// kernels are row exact and every draw is keyed by (seed, request id, position), an answer does not depend on what it
// was batched with.
//
// Requests with the same prompt (the same pointer and length), next to each other in the list, share it: its keys and
// values are computed once. Those admitted with the first of them draw their first token from its last row; one
// admitted later computes the prompt's last row again; and when one ends whose next is waiting, that one takes its slot
// with the prompt in place. So a prompt is never forgotten while some of its requests wait, and needs no memory of its
// own. Answers and log-probs are the same bits as those of equal prompts that are not shared.
#ifndef DS_DECODE_H
#define DS_DECODE_H

#include "gen/kvcache.h"
#include "model/head.h"
#include "token/bpe.h"

typedef enum { GEN_STOP_NONE, GEN_STOP_EOS, GEN_STOP_LENGTH, GEN_STOP_STRING, GEN_STOP_USER } GenStop;

// Stop conditions and sampling, the same for all requests of a run.
typedef struct {
    SampleCfg sample;
    uint64_t seed;
    const int32_t *stop_ids; // [n_stop_ids] tokens that end an answer and belong to it
    int n_stop_ids;
    char *const *stop_strings; // [n_stop_strings] strings that end an answer once its text holds them
    int n_stop_strings;
    const Tokenizer *tok; // for stop strings; NULL: none
} GenCfg;

typedef struct {
    const int32_t *prompt; // [n_prompt], n_prompt >= 1; the same pointer: a prompt to share
    int64_t n_prompt;
    uint64_t id; // keys the draws
    int64_t max_new;
    int32_t *ids; // out [max_new] the answer, its stop token included
    float *logp;  // out [max_new]
    int64_t n;    // out: tokens of the answer
    GenStop stop; // out
} GenRequest;

typedef struct Gen Gen;

// Told of every new token of a request; false ends that answer (GEN_STOP_USER).
typedef bool (*GenTold)(void *user, const GenRequest *r);

// slots: sequences decoded at once; max_tokens: longest prompt + answer; prefill_tokens: prompt tokens admitted a pass
// (a longer prompt goes alone). KV cache and activations lie in `shared`, for the time of a gen_run, unless it is NULL.
// Owner: caller, gen_destroy.
Gen *gen_create(const Model *m, int64_t slots, int64_t max_tokens, int64_t prefill_tokens, int64_t kv_block,
                Workspace *shared);
// Makes room for every pass with prompts of at most max_prompt tokens; else room grows with what comes.
void gen_reserve(Gen *g, int64_t max_prompt);
// The weights will not be whole in gen_run: the ranks of `together` make every pass together, those that have nothing
// left to do an empty one. NULL: each for itself. After this gen_run is collective on it.
void gen_together(Gen *g, const Group *together);
void gen_destroy(Gen **g);
const Model *gen_model(const Gen *g);

// Tokens of prompts that the last gen_run took through the model: a shared prompt's count once.
int64_t gen_prefilled(const Gen *g);

// Answers req[n]. told may be NULL.
void gen_run(Gen *g, const GenCfg *cfg, GenRequest *req, int64_t n, GenTold told, void *user);

// "eos", "length", "string", "user".
const char *gen_stop_name(GenStop s);

#endif
