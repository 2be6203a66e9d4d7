// pack.c: longest first to the part with the fewest tokens; then each part's items, in ascending order, are cut into
// micro-batches.
#include "data/pack.h"

#include <stdlib.h>

#include "base/mem.h"

void batch_reserve(Batch *b, int64_t n, int64_t n_seq) {
    if (n > b->cap) {
        mem_free(b->ids);
        mem_free(b->pos);
        mem_free(b->counted);
        b->ids = MEM_NEW(int32_t, n);
        b->pos = MEM_NEW(int32_t, n);
        b->counted = MEM_NEW(uint8_t, n);
        b->cap = n;
    }
    if (n_seq > b->seq_cap || !b->starts) {
        mem_free(b->starts);
        mem_free(b->sample);
        b->starts = MEM_NEW(int32_t, n_seq + 1);
        b->sample = MEM_NEW(int64_t, n_seq);
        b->seq_cap = n_seq;
    }
}

void batch_free(Batch *b) {
    mem_free(b->ids);
    mem_free(b->pos);
    mem_free(b->counted);
    mem_free(b->starts);
    mem_free(b->sample);
    *b = (Batch){0};
}

void batch_empty(Batch *b) {
    batch_reserve(b, 1, 1);
    b->n = b->n_seq = b->starts[1] = 1;
    b->starts[0] = b->ids[0] = b->pos[0] = 0;
    b->counted[0] = 0;
    b->sample[0] = -1;
}

typedef struct {
    int64_t length, item;
} Entry;

// Longest first; equals in the order of their numbers, so that the deal is the same everywhere.
static int longer(const void *pa, const void *pb) {
    const Entry *a = pa, *b = pb;
    if (a->length != b->length) return a->length < b->length ? 1 : -1;
    return (a->item > b->item) - (a->item < b->item);
}

// owner[i] = part of item i.
static void assign(const int64_t *lengths, int64_t n, int parts, int *owner) {
    Entry *order = MEM_NEW(Entry, n);
    int64_t *load = MEM_NEW(int64_t, parts), *items = MEM_NEW(int64_t, parts);
    for (int64_t i = 0; i < n; i++) order[i] = (Entry){lengths[i], i};
    qsort(order, (size_t)n, sizeof *order, longer);
    for (int64_t i = 0; i < n; i++) {
        int best = 0;
        for (int p = 1; p < parts; p++)
            if (load[p] < load[best] || (load[p] == load[best] && items[p] < items[best])) best = p;
        owner[order[i].item] = best;
        load[best] += order[i].length;
        items[best]++;
    }
    mem_free(order);
    mem_free(load);
    mem_free(items);
}

static void cut(const int64_t *lengths, int64_t n, const int *owner, int part, int64_t micro_tokens, PackBatches *out) {
    int64_t tokens = 0, at = 0;
    *out = (PackBatches){.start = MEM_NEW(int64_t, n + 1), .item = MEM_NEW(int64_t, n)};
    for (int64_t i = 0; i < n; i++) {
        if (owner[i] != part) continue;
        if (at > out->start[out->n] && tokens + lengths[i] > micro_tokens) {
            out->start[++out->n] = at;
            tokens = 0;
        }
        out->item[at++] = i;
        tokens += lengths[i];
    }
    if (at > out->start[out->n]) out->start[++out->n] = at;
}

void pack_deal(const int64_t *lengths, int64_t n, int parts, int64_t micro_tokens, Deal *out) {
    int *owner = MEM_NEW(int, n);
    *out = (Deal){.parts = parts, .part = MEM_NEW(PackBatches, parts)};
    assign(lengths, n, parts, owner);
    for (int p = 0; p < parts; p++) cut(lengths, n, owner, p, micro_tokens, &out->part[p]);
    mem_free(owner);
}

void pack_deal_free(Deal *d) {
    for (int p = 0; p < d->parts; p++) {
        mem_free(d->part[p].start);
        mem_free(d->part[p].item);
    }
    mem_free(d->part);
    *d = (Deal){0};
}

int64_t pack_turns(const Deal *d, int ranks) {
    int64_t rounds = 0;
    for (int p = 0; p < d->parts; p++) rounds = ds_max(rounds, d->part[p].n);
    return rounds * (d->parts / ranks);
}

int64_t pack_turn(const Deal *d, int ranks, int rank, int64_t turn, const int64_t **item) {
    const int64_t lanes = d->parts / ranks, round = turn / lanes;
    const PackBatches *lane = &d->part[turn % lanes * ranks + rank];
    if (round >= lane->n) return 0;
    *item = lane->item + lane->start[round];
    return lane->start[round + 1] - lane->start[round];
}
