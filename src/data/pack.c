// pack.c: items are dealt to lanes so that all have about the same tokens, and in each lane to as few micro-batches as
// hold them, again of about the same tokens.
#include "data/pack.h"

#include <stdlib.h>

#include "base/mem.h"
#include "data/partition.h"

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

// The items of one lane, and how they are cut.
typedef struct {
    int64_t n, *item; // ascending
    int64_t *tokens;  // [n] of each; those of one longer than a micro-batch count as a full one
    int64_t fewest;   // micro-batches that it needs
    int *batch;       // [n] the micro-batch of each
} Lane;

// As they come, a new micro-batch where the next does not fit; returns how many.
static int64_t cut_in_order(Lane *l, int64_t micro_tokens) {
    int64_t n = 0, tokens = 0;
    for (int64_t i = 0; i < l->n; i++) {
        if (n == 0 || tokens + l->tokens[i] > micro_tokens) n++, tokens = 0;
        l->batch[i] = (int)n - 1;
        tokens += l->tokens[i];
    }
    return n;
}

// Into n even ones; false: one of them is too large.
static bool cut_evenly(Lane *l, int64_t micro_tokens, int64_t n) {
    return n > 0 && partition_even(l->tokens, l->n, (int)n, l->batch) <= micro_tokens;
}

// The fewest that are found: never more than in order.
static int64_t fewest(Lane *l, int64_t micro_tokens) {
    int64_t high = cut_in_order(l, micro_tokens), sum = 0;
    for (int64_t i = 0; i < l->n; i++) sum += l->tokens[i];
    for (int64_t low = ds_ceil_div(sum, micro_tokens); low < high;) {
        const int64_t middle = (low + high) / 2;
        if (cut_evenly(l, micro_tokens, middle)) high = middle;
        else low = middle + 1;
    }
    return high;
}

// Turns take all lanes together, so a lane takes as many as the one that needs most, if it has the items: then the
// micro-batches of a turn are of like size, and nobody waits long.
static int64_t cut(Lane *l, int64_t micro_tokens, int64_t most) {
    const int64_t n = ds_min(most, l->n);
    if (cut_evenly(l, micro_tokens, n)) return n;
    if (cut_evenly(l, micro_tokens, l->fewest)) return l->fewest;
    return cut_in_order(l, micro_tokens);
}

typedef struct {
    int64_t tokens, items, first; // the first of its items
    int batch;
} Size;

static int fuller(const void *pa, const void *pb) {
    const Size *a = pa, *b = pb;
    if (a->tokens != b->tokens) return a->tokens < b->tokens ? 1 : -1;
    return (a->first > b->first) - (a->first < b->first);
}

// The lane's micro-batches, the fullest first: large ones meet large ones in a turn.
static void lay_out(const Lane *l, int64_t n, PackBatches *out) {
    Size *size = MEM_NEW(Size, n);
    int64_t *at = MEM_NEW(int64_t, n);
    for (int64_t i = l->n; i-- > 0;) {
        Size *s = &size[l->batch[i]];
        *s = (Size){s->tokens + l->tokens[i], s->items + 1, l->item[i], l->batch[i]};
    }
    qsort(size, (size_t)n, sizeof *size, fuller);
    *out = (PackBatches){.n = n, .start = MEM_NEW(int64_t, n + 1), .item = MEM_NEW(int64_t, l->n)};
    for (int64_t b = 0; b < n; b++) {
        at[size[b].batch] = out->start[b];
        out->start[b + 1] = out->start[b] + size[b].items;
    }
    for (int64_t i = 0; i < l->n; i++) out->item[at[l->batch[i]]++] = l->item[i];
    mem_free(size);
    mem_free(at);
}

static void gather_lane(const int64_t *lengths, int64_t n, const int *owner, int part, int64_t micro_tokens, Lane *l) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += owner[i] == part;
    *l = (Lane){.item = MEM_NEW(int64_t, count), .tokens = MEM_NEW(int64_t, count), .batch = MEM_NEW(int, count)};
    for (int64_t i = 0; i < n; i++) {
        if (owner[i] != part) continue;
        l->tokens[l->n] = ds_min(lengths[i], micro_tokens);
        l->item[l->n++] = i;
    }
    l->fewest = fewest(l, micro_tokens);
}

void pack_deal(const int64_t *lengths, int64_t n, int parts, int64_t micro_tokens, Deal *out) {
    int *owner = MEM_NEW(int, n);
    Lane *lane = MEM_NEW(Lane, parts);
    int64_t most = 0;
    *out = (Deal){.parts = parts, .part = MEM_NEW(PackBatches, parts)};
    partition_even(lengths, n, parts, owner);
    for (int p = 0; p < parts; p++) {
        gather_lane(lengths, n, owner, p, micro_tokens, &lane[p]);
        most = ds_max(most, lane[p].fewest);
    }
    for (int p = 0; p < parts; p++) {
        lay_out(&lane[p], cut(&lane[p], micro_tokens, most), &out->part[p]);
        mem_free(lane[p].item);
        mem_free(lane[p].tokens);
        mem_free(lane[p].batch);
    }
    mem_free(lane);
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
