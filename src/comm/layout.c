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

static bool legal_zero(int64_t zero, int64_t data) { return data % zero == 0 && (zero == data || power_of_two(zero)); }

static bool legal_lanes(int64_t lanes, int64_t data) {
    return lanes % data == 0 && (lanes == data || power_of_two(data));
}

Err layout_check(int data, int64_t zero, int64_t lanes) {
    Err err = DS_OK;
    DS_CHECK(zero == 0 || legal_zero(zero, data), DS_ERR_PARAMS,
             "[layout] zero = %lld: %d data ranks can be partitioned over 1, 2, 4, 8 ... ranks that divide them, or "
             "over all of them; the nearest is %lld",
             (long long)zero, data, (long long)nearest(zero, data, legal_zero, data));
    DS_CHECK(lanes == 0 || legal_lanes(lanes, data), DS_ERR_PARAMS,
             "[layout] lanes = %lld: must be a multiple of the %d data ranks%s; the nearest is %lld", (long long)lanes,
             data, power_of_two(data) ? "" : ", and equal to them where they are not 1, 2, 4, 8 ...",
             (long long)nearest(lanes, ds_max(lanes, data) + data, legal_lanes, data));
done:
    return err;
}

void layout_create(Layout *l, const Group *data, int zero, int lanes) {
    const int size = group_size(data), rank = group_rank(data), part = zero ? zero : size;
    *l = (Layout){.data = data,
                  .zero = group_split(data, rank / part, rank),
                  .copies = group_split(data, rank % part, rank),
                  .lanes = lanes ? lanes : size};
    l->turns = l->lanes / size;
}

void layout_create_dry(Layout *l, int data, int zero, int lanes) {
    const int part = zero ? zero : data;
    *l = (Layout){.dry_data = group_dry(0, data),
                  .zero = group_dry(0, part),
                  .copies = group_dry(0, data / part),
                  .lanes = lanes ? lanes : data};
    l->data = l->dry_data;
    l->turns = l->lanes / data;
}

void layout_destroy(Layout *l) {
    group_destroy(&l->dry_data);
    group_destroy(&l->zero);
    group_destroy(&l->copies);
    *l = (Layout){0};
}
