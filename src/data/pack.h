// pack.h: micro-batches: sequences end to end, never padded, and who takes which. Not collective.
#ifndef DS_PACK_H
#define DS_PACK_H

#include "base/err.h"

// One packed micro-batch in host memory. Capacity by batch_reserve; owner: batch_free. Zero-initialised: empty.
typedef struct {
    int64_t n, n_seq;     // tokens, sequences
    int32_t *ids, *pos;   // [n]; position within its own sequence
    int32_t *starts;      // [n_seq + 1]
    uint8_t *counted;     // [n] 1: this token is a target that counts (an answer token); the row before it predicts it
    int64_t *sample;      // [n_seq] row number in the data set (or caller's id)
    int64_t cap, seq_cap; // room
} Batch;

// Makes room for n tokens and n_seq sequences; what was in it is lost when it grows.
void batch_reserve(Batch *b, int64_t n, int64_t n_seq);
void batch_free(Batch *b);

// One sequence of one token that does not count: for a rank that has nothing to do where others compute together.
void batch_empty(Batch *b);

// The micro-batches of one part (lane), the one with the most tokens first: batch m is the items item[start[m]] ..
// item[start[m + 1] - 1], in ascending order.
typedef struct {
    int64_t n;      // micro-batches, may be 0
    int64_t *start; // [n + 1]
    int64_t *item;
} PackBatches;

typedef struct {
    int parts;
    PackBatches *part; // [parts]
} Deal;

// Deals the n items of one global step (an item: a sequence, or a pair that stays together) of lengths[n] >= 1 tokens
// to `parts` lanes, and each lane's to micro-batches of at most micro_tokens (a longer item goes alone). Lanes have
// about the same tokens, as have the micro-batches that lanes take in the same turn; no lane has more of them than
// filling them in order would give. A pure function of its arguments. Owner: caller, pack_deal_free.
void pack_deal(const int64_t *lengths, int64_t n, int parts, int64_t micro_tokens, Deal *out);
void pack_deal_free(Deal *d); // accepts a zero one

// The deal in turns: `ranks` divides d->parts; in turn t rank r has micro-batch t / (parts / ranks) of lane
// t % (parts / ranks) * ranks + r. As many turns for all ranks as the lane with the most micro-batches needs.
int64_t pack_turns(const Deal *d, int ranks);
// *item = the items of a rank's turn; returns how many, 0 if the lane has no more.
int64_t pack_turn(const Deal *d, int ranks, int rank, int64_t turn, const int64_t **item);

#endif
