// acts.h: activations of one packed micro-batch: what the forward pass keeps for the backward pass, and scratch. Not
// collective.
//
// Own rows: what lies between the parts that tensor parallelism splits is kept for this rank's tokens. Without sequence
// parallelism they are all n; with it, rank r's are r * share .. min(n, (r + 1) * share), share = ceil(n / size), which
// for the last ranks may be none. All rows are together in `whole` for a while: share * size of them, so that equal
// shares travel; what rows n and beyond hold is never read.
#ifndef DS_ACTS_H
#define DS_ACTS_H

#include "arch/arch_part.h"
#include "params/params.h"
#include "tensor/workspace.h"

// What one layer keeps. Norms' outputs and the activation are not kept: the backward pass computes them again from
// what is, for about a hundredth of a step's time and a third less memory.
typedef struct {
    Dev *sum1, *sum2;     // dt [own, width] inputs of norms that follow the sums (OPT-350M), else NULL
    Dev *stats1, *stats2; // fp32 [own, 2]
    Dev *qkv;             // dt [n, (heads + 2 kv_heads) head_dim], after rotary
    Dev *q_raw, *k_raw;   // dt, before the per-head norm (Qwen3)
    Dev *q_rstd, *k_rstd; // fp32 [n, heads]
    Dev *o, *lse;         // dt [n, heads head_dim]; fp32 [heads, n]
    Dev *mid;             // dt [own, width] residual stream between attention and MLP
    Dev *up;              // dt [n, ffn or 2 ffn] before the activation
} LayerActs;

typedef struct {
    const Kernels *k;     // view
    const ArchPart *part; // view
    DType dt;
    bool keep;            // for a backward pass
    int64_t kept;         // of the last layers: they have buffers of their own, those below use the first of these
    int64_t cap, row_cap; // tokens and head rows that the arena has room for
    int64_t n, n_seq;     // of the current micro-batch
    // Rows of every tensor rank; this rank's first, and how many it has.
    int64_t share, own_first, own;
    Dev *arena; // own, or in `shared`
    size_t arena_bytes;
    Workspace *shared; // view; NULL: none
    size_t shared_at;
    int32_t *starts; // host [n_seq + 1]
    int64_t starts_cap;
    Dev *ids, *pos, *pos_rows;    // int32 [n]; pos_rows: [own] pos + pos_offset
    Dev *embed;                   // dt [own, embed_width] where it differs from width
    Dev *embed_raw, *embed_stats; // input of the embedding's norm (BLOOM)
    Dev **x;                      // [layers + 1] residual stream, own rows; without `keep` two buffers take turns
    LayerActs *layer;             // [layers]; the first layers - kept have the buffers of the layer after them
    Dev *normed, *act;            // dt [own, width], [n, ffn]: of the norm and the activation that were computed last
    // scratch
    Dev *t1, *t2; // dt [own, width]
    Dev *t3;      // dt [n, embed_width]
    Dev *dx;      // dt [own, width] gradient of the residual stream
    Dev *whole;   // dt [share * size, width or embed_width]; NULL without sequence parallelism
    Dev *d_o, *dqkv, *delta;
    Dev *dact, *dup;
    // head, for up to row_cap rows
    Dev *rows, *targets;        // int32
    Dev *hx, *hstats, *hf, *hp; // gathered rows, norm's statistics, normed rows, projected rows (OPT-350M; else = hf)
    Dev *dhf, *dhp;             // their gradients
    Dev *logits, *dlogits;      // [chunk, own vocab]: fp32; dt (the same buffer when dt is fp32)
    Dev *parts, *all_logits;    // sampling on several tensor ranks: fp32 [ranks][chunk, own vocab]; [chunk, vocab]
    Dev *scalars;               // fp32 [6, row_cap]
    float *host;                // [4, row_cap] the same on the host
    int32_t *own_targets;       // host [row_cap] targets counted from this rank's first; -1: another rank's
    int64_t chunk;              // rows of logits at a time
    int64_t n_rows;
} Acts;

// part must outlive a. Owner: caller, acts_destroy. keep: training; else scoring and generation. kept: how many of the
// last layers, 1 .. layers, still have their activations when the backward pass begins: of the others it finds x and
// runs the forward pass again. 1 without keep.
void acts_create(Acts *a, const Kernels *k, const ArchPart *part, DType dt, bool keep, int64_t kept);
void acts_destroy(Acts *a);

// What the keys recompute and keep_layers of a model of so many layers make of `kept`.
int64_t acts_kept(const ModelParams *keys, int64_t layers);

// From now on the activations lie in `shared`, `at` bytes from its beginning (a multiple of 64), for the time from one
// acts_reserve (which model_fwd calls) to the next user's. shared must outlive a. Before the first acts_reserve.
void acts_share(Acts *a, Workspace *shared, size_t at);

// Makes room for n tokens, `rows` of them through the head; what the arena held is lost when it grows.
void acts_reserve(Acts *a, int64_t n, int64_t rows);

// The current micro-batch has n tokens, for which there is room.
void acts_set_rows(Acts *a, int64_t n);

// Where all rows lie of what ends as own rows in `own`: there, where own rows are all.
static inline Dev *acts_whole(const Acts *a, Dev *own) { return a->part->sequence ? a->whole : own; }

#endif
