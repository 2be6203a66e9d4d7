// loader.c: see loader.h. The order of the current epoch is kept; a cursor that is loaded makes it anew.
#include "data/loader.h"

#include "base/mem.h"
#include "base/rng.h"

void loader_create(Loader *l, const Params *p, DataKind kind, int64_t n) {
    loader_free(l);
    *l = (Loader){.n = n,
                  .kind = kind,
                  .seed = (uint64_t)p->data.order_seed,
                  .shuffle = p->data.shuffle,
                  .order = MEM_NEW(int64_t, n),
                  .ordered_epoch = -1};
    if (n < 1) err_fatal("a loader of %lld records", (long long)n);
}

void loader_free(Loader *l) {
    mem_free(l->order);
    *l = (Loader){0};
}

static void order_epoch(Loader *l) {
    if (l->ordered_epoch == l->epoch) return;
    if (l->shuffle) {
        uint64_t id = (uint64_t)l->epoch * DATA_KINDS + (uint64_t)l->kind;
        rng_permutation(l->seed, RNG_SHUFFLE, id, l->n, l->order);
    } else {
        for (int64_t i = 0; i < l->n; i++) l->order[i] = i;
    }
    l->ordered_epoch = l->epoch;
}

int64_t loader_next(Loader *l, int64_t count, bool wrap, int64_t *record) {
    int64_t done = 0;
    while (done < count) {
        if (l->position == l->n) {
            if (!wrap && done) break;
            l->epoch++;
            l->position = 0;
        }
        order_epoch(l);
        while (done < count && l->position < l->n) record[done++] = l->order[l->position++];
    }
    return done;
}

void loader_save(const Loader *l, const char *prefix, Kv *kv) {
    char *epoch = mem_printf("%s.epoch", prefix), *position = mem_printf("%s.position", prefix);
    kv_put_i64(kv, epoch, l->epoch);
    kv_put_i64(kv, position, l->position);
    mem_free(epoch);
    mem_free(position);
}

Err loader_load(Loader *l, const char *prefix, const Kv *kv) {
    Err err = DS_OK;
    int64_t epoch, position;
    char *epoch_key = mem_printf("%s.epoch", prefix), *position_key = mem_printf("%s.position", prefix);
    DS_TRY(kv_get_i64(kv, epoch_key, &epoch));
    DS_TRY(kv_get_i64(kv, position_key, &position));
    DS_CHECK(
        epoch >= 0 && epoch <= INT64_MAX / (2 * DATA_KINDS) && position >= 0 && position <= l->n, DS_ERR_DATA,
        "the checkpoint's cursor %s (epoch %lld, position %lld) lies outside of the %lld samples; is it of another "
        "data set?",
        prefix, (long long)epoch, (long long)position, (long long)l->n);
    l->epoch = epoch;
    l->position = position;
done:
    mem_free(epoch_key);
    mem_free(position_key);
    return err;
}
