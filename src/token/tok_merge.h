// tok_merge.h: BPE inside one word, O(n log n); for the files of src/token only. Not collective.
#ifndef DS_TOK_MERGE_H
#define DS_TOK_MERGE_H

#include "token/tok_vocab.h"

typedef struct {
    int32_t id, prev, next; // next: -1 at the end
} MergeSymbol;

typedef struct {
    uint64_t order; // rank, then position: the smallest is merged first
    int32_t left, right, result;
} MergeCandidate;

// Scratch memory of many words. {0} is an empty one. Owner: caller, merge_free.
typedef struct {
    MergeSymbol *symbol;
    MergeCandidate *heap;
    int64_t n, room, heap_n, heap_room;
} MergeScratch;

void merge_free(MergeScratch *m);

// Adds a symbol at the end of the word; m->n = 0 begins a word. At most INT32_MAX.
void merge_push(MergeScratch *m, int32_t id);

// Merges the word and appends what is left to *ids.
void merge_word(const Tokenizer *t, MergeScratch *m, TokIds *ids);

#endif
