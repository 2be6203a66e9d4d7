// partition.c: largest differencing: every item begins as a split of its own: it in one pile, all others empty. The two
// splits with the largest spread (largest less smallest pile) become one: the largest pile of one joins the smallest of
// the other, and so on, so that their spreads cancel. One split is left.
//
//     {8} {7} {6} {5} {4}  ->  {6} {5} {4} {8 | 7}  ->  {4} {8 | 7} {6 | 5}  ->  {8 | 7} {6 | 5, 4}  ->  {8, 6 | 7, 5,
//     4}
//
// Splits hold only the piles that are not empty, which keeps the work of many parts small.
#include "data/partition.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

// Above it the list of splits costs too much, and so many items come out even longest first.
enum { DIFFERENCED = 1 << 13 };

typedef struct {
    int64_t sum, head, tail; // of a list of items
} Pile;

typedef struct {
    Pile *pile; // [n] by falling sum
    int64_t n;  // piles that are not empty
    int64_t spread;
} Split;

typedef struct {
    int64_t weight, item;
} Entry;

// Longest first; equals in the order of their numbers, so that the deal is the same everywhere.
static int longer(const void *pa, const void *pb) {
    const Entry *a = pa, *b = pb;
    if (a->weight != b->weight) return a->weight < b->weight ? 1 : -1;
    return (a->item > b->item) - (a->item < b->item);
}

static int larger(const void *pa, const void *pb) {
    const Pile *a = pa, *b = pb;
    if (a->sum != b->sum) return a->sum < b->sum ? 1 : -1;
    return (a->head > b->head) - (a->head < b->head);
}

static int64_t longest_first(const Entry *order, int64_t n, int parts, int *owner) {
    int64_t *sum = MEM_NEW(int64_t, parts), *items = MEM_NEW(int64_t, parts), largest = 0;
    for (int64_t i = 0; i < n; i++) {
        int best = 0;
        for (int p = 1; p < parts; p++)
            if (sum[p] < sum[best] || (sum[p] == sum[best] && items[p] < items[best])) best = p;
        owner[order[i].item] = best;
        sum[best] += order[i].weight;
        items[best]++;
        largest = ds_max(largest, sum[best]);
    }
    mem_free(sum);
    mem_free(items);
    return largest;
}

// b's piles into a's, largest to smallest; next[item] = the next in its pile. Takes what both hold.
static Split join(Split a, Split b, int parts, int64_t *next) {
    if (a.n < b.n) return join(b, a, parts, next);
    const int64_t n = ds_min(a.n + b.n, parts), both = a.n + b.n - n, alone = a.n - both;
    Split s = {.pile = MEM_NEW(Pile, n), .n = n};
    for (int64_t i = 0; i < both; i++) { // a's smallest with the largest of b that find no empty pile
        Pile *x = &b.pile[b.n - both + i], *y = &a.pile[a.n - 1 - i];
        next[x->tail] = y->head;
        x->tail = y->tail;
        x->sum += y->sum;
    }
    qsort(b.pile, (size_t)b.n, sizeof *b.pile, larger);
    for (int64_t i = 0, p = 0, q = 0; i < n; i++)
        s.pile[i] = q == b.n || (p < alone && larger(&a.pile[p], &b.pile[q]) < 0) ? a.pile[p++] : b.pile[q++];
    s.spread = s.pile[0].sum - (n == parts ? s.pile[n - 1].sum : 0);
    mem_free(a.pile);
    mem_free(b.pile);
    return s;
}

static int64_t differencing(const Entry *order, int64_t n, int parts, int *owner) {
    Split *list = MEM_NEW(Split, n); // by falling spread; equals: the older first
    int64_t *next = MEM_NEW(int64_t, n);
    for (int64_t i = 0; i < n; i++) {
        list[i] = (Split){.pile = MEM_NEW(Pile, 1), .n = 1, .spread = parts > 1 ? order[i].weight : 0};
        *list[i].pile = (Pile){order[i].weight, order[i].item, order[i].item};
        next[i] = -1;
    }
    for (int64_t first = 0; first + 1 < n; first++) { // the splits from `first` on are left
        const Split s = join(list[first], list[first + 1], parts, next);
        int64_t at = first + 1;
        while (at + 1 < n && list[at + 1].spread >= s.spread) at++;
        memmove(&list[first + 1], &list[first + 2], (size_t)(at - first - 1) * sizeof *list);
        list[at] = s;
    }
    const Split *all = &list[n - 1];
    const int64_t largest = all->pile[0].sum;
    for (int p = 0; p < all->n; p++)
        for (int64_t i = all->pile[p].head; i >= 0; i = next[i]) owner[i] = p;
    mem_free(all->pile);
    mem_free(list);
    mem_free(next);
    return largest;
}

int64_t partition_even(const int64_t *weight, int64_t n, int parts, int *owner) {
    Entry *order = MEM_NEW(Entry, n);
    int64_t sum = 0;
    for (int64_t i = 0; i < n; i++) {
        order[i] = (Entry){weight[i], i};
        sum += weight[i];
    }
    qsort(order, (size_t)n, sizeof *order, longer);
    int64_t largest = longest_first(order, n, parts, owner);
    if (n > 1 && n <= DIFFERENCED && largest > ds_max(ds_ceil_div(sum, parts), order[0].weight)) {
        int *other = MEM_NEW(int, n);
        const int64_t least = differencing(order, n, parts, other);
        if (least < largest) memcpy(owner, other, (size_t)n * sizeof *owner);
        largest = ds_min(least, largest);
        mem_free(other);
    }
    mem_free(order);
    return largest;
}
