// hybrid.h: the hybrid engine: the actor changes from its training layout to its generation layout and back once a
// rollout, never once a token.
//
//     ZeRO 0 to 2              generation reads the training weights in place; with adapters, effective weights made
//     once ZeRO 3, gather = whole   gathered once, on every rank ZeRO 3, gather = block   nothing is gathered: every
//     pass opens block by block, the ranks of a zero group together tensor > 1               ranks form tensor groups;
//     each cuts its part out of every block, which come (at ZeRO 3) some at a
//                              time; the ranks of a group answer the same prompts together
//
// The KV cache lies in the workspace of training's activations.
#ifndef DS_HYBRID_H
#define DS_HYBRID_H

#include "gen/decode.h"
#include "params/params.h"

typedef struct {
    int64_t slots, max_tokens, prefill_tokens, kv_block, max_prompt; // as gen_create, gen_reserve have them
    int64_t tensor, gather_blocks;                                   // 1: as in training
    bool by_block, release;                                          // gather = block, release_cache = yes
} HybridCfg;

// What [generate] and [ppo] ask for on `ranks` ranks, of which `data` train on different samples. Not collective.
HybridCfg hybrid_config(const Params *p, int ranks, int data);

// Whether `ranks` ranks can generate so with an actor of this shape. DS_ERR_PARAMS with the nearest legal value. Not
// collective.
Err hybrid_check(const Arch *a, int ranks, int64_t tensor);

// actor, its layout and world (NULL: a plan's ranks, which are not there) must outlive it. Owner: caller,
// hybrid_destroy. Collective on world (hybrid_destroy too).
typedef struct Hybrid Hybrid;
Hybrid *hybrid_create(const Model *actor, const Layout *layout, const Group *world, int ranks, const HybridCfg *cfg,
                      Workspace *shared);
void hybrid_destroy(Hybrid **h);

// The ranks that answer different prompts; those of one tensor group bring the same ones. Not collective.
const Group *hybrid_data(const Hybrid *h);

// Whether log-probs are those of training to the bit. Not collective.
bool hybrid_exact(const Hybrid *h);

// Into the generation layout, and back. Collective on world.
void hybrid_enter(Hybrid *h);
void hybrid_leave(Hybrid *h);

// Between the two: answers req[n]. Collective on world.
void hybrid_run(Hybrid *h, const GenCfg *cfg, GenRequest *req, int64_t n);

#endif
