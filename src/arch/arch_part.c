// arch_part.c: see arch_part.h.
#include "arch/arch_part.h"

int64_t arch_part_limit(const Arch *a) { return ds_min(ds_min(a->heads, a->ffn), a->vocab); }

static int64_t begin(int64_t n, int64_t rank, int64_t size) { return ds_ceil_div(n * rank, size); }

static void take(int64_t n, int rank, int size, int64_t *first, int64_t *count) {
    *first = begin(n, rank, size);
    *count = begin(n, rank + 1, size) - *first;
}

// More ranks than key heads: each has one, and a share of its query heads.
static void take_shared_heads(ArchPart *p, const Arch *a) {
    const int64_t kv = a->kv_heads, group = a->heads / kv;
    int64_t head = 0;
    while ((head + 1) * p->size / kv <= p->rank) head++;
    const int64_t from = head * p->size / kv, to = (head + 1) * p->size / kv;
    p->kv_rank = p->rank - (int)from;
    p->kv_size = (int)(to - from);
    p->kv_first = head;
    p->own.kv_heads = 1;
    take(group, p->kv_rank, p->kv_size, &p->head_first, &p->own.heads);
    p->head_first += head * group;
}

void arch_part(ArchPart *p, const Arch *a, int rank, int size) {
    *p = (ArchPart){.own = *a, .rank = rank, .size = size, .vocab = a->vocab, .kv_size = 1};
    take(a->ffn, rank, size, &p->ffn_first, &p->own.ffn);
    take(a->vocab, rank, size, &p->vocab_first, &p->own.vocab);
    if (size > a->kv_heads) {
        take_shared_heads(p, a);
        return;
    }
    take(a->kv_heads, rank, size, &p->kv_first, &p->own.kv_heads);
    p->head_first = p->kv_first * (a->heads / a->kv_heads);
    p->own.heads = p->own.kv_heads * (a->heads / a->kv_heads);
}
