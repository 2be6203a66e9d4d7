// feed.h: data sets to micro-batches: which records a step takes, which of them this rank gets, packed. Not collective
// but for feed_open: all ranks compute the same deal from the data set's index and read the tokens they need.
#ifndef DS_FEED_H
#define DS_FEED_H

#include "data/dataset.h"
#include "data/loader.h"
#include "data/pack.h"
#include "stage/stage.h"

typedef struct {
    Dataset *data;
    DataKind kind;
    int lanes, ranks, rank; // of the layout
    int64_t micro_tokens;
    Loader train;            // order of the training records
    int64_t n_train, n_eval; // records
    bool all_tokens;         // every token but a sequence's first counts, not only answers
    // the step that was dealt last
    int64_t n;       // its records
    int64_t *record; // [n]
    Deal deal;
    int64_t tokens;  // over all ranks
    int64_t counted; // tokens that count, over all ranks
} Feed;

// Opens `path` for records of `kind`. DS_ERR_DATA if there are none to train on, or the tokenizer is not the run's.
// Collective on the run's world; all ranks return the same code. Owner: caller, feed_close.
Err feed_open(const Run *run, const char *path, DataKind kind, int64_t micro_tokens, bool all_tokens, Feed *f);
void feed_close(Feed *f); // accepts a zero one

// Tokens of the largest micro-batch that can come.
int64_t feed_room(const Feed *f);

// Optimizer steps of `global_batch` records in `epochs` passes, at most max_steps (0: no limit). An epoch ends with a
// shorter step.
int64_t feed_steps(const Feed *f, int64_t global_batch, int64_t epochs, int64_t max_steps);

// Deals the next training step of up to `count` records, or records first .. first + count of the held-out part.
Err feed_next(Feed *f, int64_t count);
Err feed_eval(Feed *f, int64_t first, int64_t count);

// The turns of the step (pack.h), the same number on all ranks, and this rank's micro-batch of one: read and packed, or
// batch_empty. DS_ERR_DATA, DS_ERR_IO.
int64_t feed_turns(const Feed *f);
Err feed_batch(Feed *f, int64_t turn, Batch *b);

// The rows that predict counted tokens and these tokens: rows[], targets[] have room for b->n. Returns how many.
int64_t feed_targets(const Batch *b, int32_t *rows, int32_t *targets);

#endif
