// tok_merge.c: see tok_merge.h. Symbols are a doubly linked list in an array; a heap holds the pairs that can merge. A
// pair that has changed since it was put there is skipped when it comes up.
#include "token/tok_merge.h"

#include "base/mem.h"

void merge_free(MergeScratch *m) {
    mem_free(m->symbol);
    mem_free(m->heap);
    *m = (MergeScratch){0};
}

void merge_push(MergeScratch *m, int32_t id) {
    if (m->n == m->room) {
        m->symbol = mem_grow(m->symbol, m->n, ds_max(64, 2 * m->room), sizeof *m->symbol);
        m->room = ds_max(64, 2 * m->room);
    }
    if (m->n) m->symbol[m->n - 1].next = (int32_t)m->n;
    m->symbol[m->n] = (MergeSymbol){id, (int32_t)m->n - 1, -1};
    m->n++;
}

static void heap_push(MergeScratch *m, MergeCandidate c) {
    if (m->heap_n == m->heap_room) {
        m->heap = mem_grow(m->heap, m->heap_n, ds_max(64, 2 * m->heap_room), sizeof *m->heap);
        m->heap_room = ds_max(64, 2 * m->heap_room);
    }
    int64_t i = m->heap_n++;
    for (; i > 0 && c.order < m->heap[(i - 1) / 2].order; i = (i - 1) / 2) m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = c;
}

static MergeCandidate heap_pop(MergeScratch *m) {
    MergeCandidate top = m->heap[0], last = m->heap[--m->heap_n];
    int64_t i = 0;
    for (int64_t child; (child = 2 * i + 1) < m->heap_n; i = child) {
        if (child + 1 < m->heap_n && m->heap[child + 1].order < m->heap[child].order) child++;
        if (last.order <= m->heap[child].order) break;
        m->heap[i] = m->heap[child];
    }
    m->heap[i] = last;
    return top;
}

// Puts the pair that begins at symbol `at` into the heap, if it can merge.
static void offer_pair(const Tokenizer *t, MergeScratch *m, int32_t at) {
    const MergeSymbol *s = &m->symbol[at];
    if (s->next < 0) return;
    int32_t right = m->symbol[s->next].id, k = vocab_pair(t, s->id, right);
    if (k < 0) return;
    const MergeCandidate c = {(uint64_t)(uint32_t)t->merge[k].rank << 32 | (uint32_t)at, s->id, right,
                              t->merge[k].result};
    heap_push(m, c);
}

void merge_word(const Tokenizer *t, MergeScratch *m, TokIds *ids) {
    if (m->n == 0) return;
    m->heap_n = 0;
    for (int64_t i = 0; i + 1 < m->n; i++) offer_pair(t, m, (int32_t)i);
    while (m->heap_n) {
        MergeCandidate c = heap_pop(m);
        int32_t at = (int32_t)(uint32_t)c.order;
        MergeSymbol *s = &m->symbol[at];
        if (s->id != c.left || s->next < 0 || m->symbol[s->next].id != c.right) continue;
        MergeSymbol *dead = &m->symbol[s->next];
        s->id = c.result;
        s->next = dead->next;
        dead->id = -1;
        if (s->next >= 0) m->symbol[s->next].prev = at;
        if (s->prev >= 0) offer_pair(t, m, s->prev);
        offer_pair(t, m, at);
    }
    for (int32_t i = 0; i >= 0; i = m->symbol[i].next) tok_ids_push(ids, m->symbol[i].id);
}
