// feed.c: an item of the deal is a record: a row, or the two rows of a pair.
#include "stage/feed.h"

#include <string.h>

#include "base/mem.h"
#include "comm/agree.h"
#include "io/h5_inspect.h"

// The rows of a record, 1 or 2.
static int rows_of(const Feed *f, int64_t record, int64_t row[2]) {
    row[0] = record;
    if (f->kind != DATA_RM) return 1;
    dataset_pair(f->data, record, &row[0], &row[1]);
    return 2;
}

Err feed_open(const Run *run, const char *path, DataKind kind, int64_t micro_tokens, bool all_tokens, Feed *f) {
    static const char *const words[] = {"samples for sft", "pairs for rm", "prompts for ppo", "texts for ptx"};
    Err err = DS_OK;
    Tokenizer *tok = NULL;
    *f = (Feed){.kind = kind,
                .lanes = run->layout.lanes,
                .ranks = group_size(run->layout.data),
                .rank = group_rank(run->layout.data),
                .micro_tokens = micro_tokens,
                .all_tokens = all_tokens};
    err = h5_inspect_for_all(run->world, path);
    if (err) return err;
    DS_TRY(dataset_open(path, &f->data));
    f->n_train = dataset_count(f->data, kind, false);
    f->n_eval = dataset_count(f->data, kind, true);
    DS_CHECK(f->n_train > 0, DS_ERR_DATA, "%s: holds no %s", path, words[kind]);
    DS_TRY(dataset_tokenizer(f->data, &tok));
    DS_CHECK(!tok == !run->tok && (!tok || !strcmp(tok_hash(tok), tok_hash(run->tok))), DS_ERR_DATA,
             "%s: was made with another tokenizer than the run's other data sets", path);
    loader_create(&f->train, run->p, kind, f->n_train);
done:
    tok_free(&tok);
    return agree_err(run->world, err);
}

void feed_close(Feed *f) {
    dataset_close(&f->data);
    loader_free(&f->train);
    pack_deal_free(&f->deal);
    mem_free(f->record);
    *f = (Feed){0};
}

int64_t feed_room(const Feed *f) { return ds_max(f->micro_tokens, dataset_longest(f->data, f->kind)); }

int64_t feed_steps(const Feed *f, int64_t global_batch, int64_t epochs, int64_t max_steps) {
    int64_t steps = epochs * ds_ceil_div(f->n_train, global_batch);
    return max_steps > 0 ? ds_min(steps, max_steps) : steps;
}

// Deals the records in f->record.
static void deal(Feed *f) {
    int64_t *length = MEM_NEW(int64_t, f->n), row[2];
    f->tokens = f->counted = 0;
    for (int64_t i = 0; i < f->n; i++) {
        for (int r = rows_of(f, f->record[i], row); r-- > 0;) {
            length[i] += dataset_length(f->data, row[r]);
            f->counted += f->all_tokens ? dataset_length(f->data, row[r]) - 1 : dataset_counted(f->data, row[r]);
        }
        f->tokens += length[i];
    }
    pack_deal_free(&f->deal);
    pack_deal(length, f->n, f->lanes, f->micro_tokens, &f->deal);
    mem_free(length);
}

static void reserve(Feed *f, int64_t count) {
    mem_free(f->record);
    f->record = MEM_NEW(int64_t, count);
}

Err feed_next(Feed *f, int64_t count) {
    reserve(f, count);
    f->n = loader_next(&f->train, count, f->kind == DATA_PTX, f->record);
    for (int64_t i = 0; i < f->n; i++) f->record[i] = dataset_record(f->data, f->kind, false, f->record[i]);
    deal(f);
    return DS_OK;
}

Err feed_eval(Feed *f, int64_t first, int64_t count) {
    reserve(f, count);
    f->n = count;
    for (int64_t i = 0; i < count; i++) f->record[i] = dataset_record(f->data, f->kind, true, first + i);
    deal(f);
    return DS_OK;
}

int64_t feed_turns(const Feed *f) { return pack_turns(&f->deal, f->ranks); }

// Positions and counted tokens of sequence s of the batch, whose ids are there.
static void mark(const Feed *f, Batch *b, int64_t s) {
    const int64_t start = b->starts[s], length = b->starts[s + 1] - start, *span;
    const int64_t n = dataset_spans(f->data, b->sample[s], &span);
    for (int64_t t = 0; t < length; t++) {
        b->pos[start + t] = (int32_t)t;
        b->counted[start + t] = f->all_tokens && t > 0;
    }
    if (f->all_tokens) return;
    for (int64_t i = 0; i < n; i++)
        for (int64_t t = ds_max(span[2 * i], 1); t < span[2 * i + 1]; t++) b->counted[start + t] = 1;
}

Err feed_batch(Feed *f, int64_t turn, Batch *b) {
    Err err = DS_OK;
    const int64_t *item, items = pack_turn(&f->deal, f->ranks, f->rank, turn, &item);
    if (items == 0) return batch_empty(b), DS_OK;
    int64_t *rows = MEM_NEW(int64_t, 2 * items), n = 0, tokens = 0;
    for (int64_t i = 0; i < items; i++) n += rows_of(f, f->record[item[i]], rows + n);
    for (int64_t i = 0; i < n; i++) tokens += dataset_length(f->data, rows[i]);
    batch_reserve(b, tokens, n);
    b->n = tokens;
    b->n_seq = n;
    b->starts[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        b->sample[i] = rows[i];
        b->starts[i + 1] = b->starts[i] + (int32_t)dataset_length(f->data, rows[i]);
    }
    DS_TRY(dataset_read(f->data, rows, n, b->ids));
    for (int64_t i = 0; i < n; i++) mark(f, b, i);
done:
    mem_free(rows);
    return err;
}

int64_t feed_targets(const Batch *b, int32_t *rows, int32_t *targets) {
    int64_t n = 0;
    for (int64_t s = 0; s < b->n_seq; s++)
        for (int32_t t = b->starts[s] + 1; t < b->starts[s + 1]; t++)
            if (b->counted[t]) {
                rows[n] = t - 1;
                targets[n++] = b->ids[t];
            }
    return n;
}
