// layout.c: the arithmetic of groups.
#include "comm/layout.h"

#include <stdlib.h>

static bool power_of_two(int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

// The legal value nearest to `wish` among 1 .. limit.
static int64_t nearest(int64_t wish, int64_t limit, bool (*legal)(int64_t value, int64_t data), int64_t data) {
    int64_t best = 0;
    for (int64_t v = 1; v <= limit; v++)
        if (legal(v, data) && (best == 0 || llabs(v - wish) < llabs(best - wish))) best = v;
    return best;
}

static bool legal_tensor(int64_t tensor, int64_t ranks) { return ranks % tensor == 0; }

static bool legal_zero(int64_t zero, int64_t data) { return data % zero == 0 && (zero == data || power_of_two(zero)); }

static bool legal_lanes(int64_t lanes, int64_t data) {
    return lanes % data == 0 && (lanes == data || power_of_two(data));
}

Err layout_check(int ranks, LayoutWish w) {
    Err err = DS_OK;
    const int64_t tensor = w.tensor ? w.tensor : 1;
    DS_CHECK(legal_tensor(tensor, ranks), DS_ERR_PARAMS,
             "[layout] tensor = %lld: must divide the %d ranks; the nearest is %lld", (long long)tensor, ranks,
             (long long)nearest(tensor, ranks, legal_tensor, ranks));
    const int64_t data = ranks / tensor;
    DS_CHECK(w.zero == 0 || legal_zero(w.zero, data), DS_ERR_PARAMS,
             "[layout] zero = %lld: %lld data ranks can be partitioned over 1, 2, 4, 8 ... ranks that divide them, or "
             "over all of them; the nearest is %lld",
             (long long)w.zero, (long long)data, (long long)nearest(w.zero, data, legal_zero, data));
    DS_CHECK(w.lanes == 0 || legal_lanes(w.lanes, data), DS_ERR_PARAMS,
             "[layout] lanes = %lld: must be a multiple of the %lld data ranks%s; the nearest is %lld",
             (long long)w.lanes, (long long)data,
             power_of_two(data) ? "" : ", and equal to them where they are not 1, 2, 4, 8 ...",
             (long long)nearest(w.lanes, ds_max(w.lanes, data) + data, legal_lanes, data));
done:
    return err;
}

static void set_lanes(Layout *l, int64_t lanes) {
    const int data = group_size(l->data);
    l->lanes = lanes ? (int)lanes : data;
    l->turns = l->lanes / data;
}

void layout_create(Layout *l, const Group *world, LayoutWish w) {
    const int tensor = w.tensor ? (int)w.tensor : 1, rank = group_rank(world);
    *l = (Layout){.data = group_split(world, rank % tensor, rank), .tensor = group_split(world, rank / tensor, rank)};
    const int at = group_rank(l->data), part = w.zero ? (int)w.zero : group_size(l->data);
    l->zero = group_split(l->data, at / part, at);
    l->copies = group_split(l->data, at % part, at);
    set_lanes(l, w.lanes);
}

void layout_create_dry(Layout *l, int ranks, LayoutWish w) {
    const int tensor = w.tensor ? (int)w.tensor : 1, data = ranks / tensor, part = w.zero ? (int)w.zero : data;
    *l = (Layout){.data = group_dry(0, data),
                  .tensor = group_dry(0, tensor),
                  .zero = group_dry(0, part),
                  .copies = group_dry(0, data / part)};
    set_lanes(l, w.lanes);
}

void layout_destroy(Layout *l) {
    group_destroy(&l->data);
    group_destroy(&l->tensor);
    group_destroy(&l->zero);
    group_destroy(&l->copies);
    *l = (Layout){0};
}
