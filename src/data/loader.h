// loader.h: the order in which a stage takes its training records, and the cursor in it. Not collective (all of it).
//
// The order of an epoch is a permutation keyed by (seed, stage, epoch) alone, or with shuffle = no the order of the
// file; so a cursor is two numbers, and every rank computes the same order.
#ifndef DS_LOADER_H
#define DS_LOADER_H

#include "data/dataset.h"
#include "io/kv.h"
#include "params/params.h"

// Zero-initialised: empty. Owner: caller, loader_free.
typedef struct {
    int64_t n; // records of an epoch, numbered 0 .. n - 1
    DataKind kind;
    uint64_t seed;
    bool shuffle;
    int64_t epoch, position; // the cursor: the next record is number `position` of `epoch`
    int64_t *order;          // [n] of ordered_epoch
    int64_t ordered_epoch;   // -1: none yet
} Loader;

// n >= 1 records, by [data] order_seed and shuffle. Replaces what l was.
void loader_create(Loader *l, const Params *p, DataKind kind, int64_t n);
void loader_free(Loader *l);

// record[0 ..] = the next `count` numbers; returns how many. At the end of an epoch it returns fewer, at least one,
// unless `wrap`: then it goes on with the next epoch.
int64_t loader_next(Loader *l, int64_t count, bool wrap, int64_t *record);

// The cursor as <prefix>.epoch and <prefix>.position. loader_load: DS_ERR_DATA if it does not fit.
void loader_save(const Loader *l, const char *prefix, Kv *kv);
Err loader_load(Loader *l, const char *prefix, const Kv *kv);

#endif
