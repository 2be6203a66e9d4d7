// dataset.c: the index in memory, tokens too where they are few, else read as they are asked for.
#include "data/dataset.h"

#include <string.h>

#include "base/mem.h"
#include "base/watchdog.h"
#include "io/filetype.h"
#include "io/h5.h"
#include "io/h5_attr.h"
#include "io/h5_data.h"

enum { KEEP_TOKENS = 1 << 26 }; // up to so many are kept in memory

struct Dataset {
    char *path;
    char *sha256; // of all rows, as the builder wrote it; NULL: another made the file
    ChatText template;
    int64_t n, n_spans, n_pairs, n_tokens, vocab, stop_id;
    int64_t *start, *span_start, *spans, *prompt, *chosen, *rejected;
    uint8_t *stage, *eval;
    uint32_t *tokens; // NULL: read from the file
    int64_t *list[DATA_KINDS][2], count[DATA_KINDS][2];
    int64_t longest[DATA_KINDS], longest_row[DATA_KINDS];
};

// Reads a whole data set of a known shape into fresh memory; n < 0: whatever it has, *count.
static Err read_all(const Dataset *d, const H5File *f, const char *object, DType type, int64_t n, int64_t *count,
                    void **out) {
    Err err = DS_OK;
    H5Info info;
    DS_TRY(h5_info(f, object, &info));
    DS_CHECK(n < 0 || info.count == n, DS_ERR_DATA, "%s: %s has %lld elements, expected %lld", d->path, object,
             (long long)info.count, (long long)n);
    if (count) *count = info.count;
    *out = mem_array(info.count, dtype_bytes(type));
    DS_TRY(h5_read(f, object, type, 0, info.count, *out));
done:
    return err;
}

static Err read_index(Dataset *d, const H5File *f) {
    Err err = DS_OK;
    int64_t n, spans;
    H5Info tokens;
    DS_TRY(read_all(d, f, "/samples/start", DS_I64, -1, &n, (void **)&d->start));
    DS_CHECK(n > 0, DS_ERR_DATA, "%s: /samples/start is empty", d->path);
    d->n = n - 1;
    DS_TRY(read_all(d, f, "/samples/span_start", DS_I64, n, NULL, (void **)&d->span_start));
    DS_TRY(read_all(d, f, "/samples/spans", DS_I64, -1, &spans, (void **)&d->spans));
    d->n_spans = spans / 2;
    DS_TRY(read_all(d, f, "/samples/prompt", DS_I64, d->n, NULL, (void **)&d->prompt));
    DS_TRY(read_all(d, f, "/samples/stage", DS_U8, d->n, NULL, (void **)&d->stage));
    DS_TRY(read_all(d, f, "/samples/eval", DS_U8, d->n, NULL, (void **)&d->eval));
    DS_TRY(read_all(d, f, "/pairs/chosen", DS_I64, -1, &d->n_pairs, (void **)&d->chosen));
    DS_TRY(read_all(d, f, "/pairs/rejected", DS_I64, d->n_pairs, NULL, (void **)&d->rejected));
    DS_TRY(h5_info(f, "/samples/tokens", &tokens));
    d->n_tokens = tokens.count;
    if (d->n_tokens <= KEEP_TOKENS)
        DS_TRY(read_all(d, f, "/samples/tokens", DS_U32, d->n_tokens, NULL, (void **)&d->tokens));
done:
    return err;
}

static Err read_sha256(const H5File *f, char **sha256) {
    *sha256 = NULL;
    return h5_attr_exists(f, "/", "data_sha256") ? h5_attr_get_str(f, "/", "data_sha256", sha256) : h5_trouble(f);
}

// Opens the file once more; DS_ERR_DATA if it is another one now, whose tokens lie elsewhere than the index says.
static Err reopen(const Dataset *d, H5File **f) {
    Err err = DS_OK;
    char *sha256 = NULL;
    DS_TRY(h5_open_checked(d->path, f));
    DS_TRY(read_sha256(*f, &sha256));
    DS_CHECK(!d->sha256 == !sha256 && (!sha256 || !strcmp(sha256, d->sha256)), DS_ERR_DATA,
             "%s: was replaced by another data set since this run opened it", d->path);
done:
    mem_free(sha256);
    return err;
}

static Err read_attributes(Dataset *d, const H5File *f) {
    Err err = DS_OK;
    int64_t version;
    DS_TRY(h5_attr_get_i64(f, "/", "format_version", &version));
    DS_CHECK(version == DATASET_FORMAT, DS_ERR_DATA, "%s: is of format %lld, this program reads %d", d->path,
             (long long)version, DATASET_FORMAT);
    DS_TRY(read_sha256(f, &d->sha256));
    DS_TRY(h5_attr_get_i64(f, "/", "vocab", &d->vocab));
    DS_TRY(h5_attr_get_i64(f, "/", "stop_id", &d->stop_id));
    DS_TRY(h5_attr_get_str(f, "/", "template", &d->template.name));
    for (int i = 0; i < CHAT_FIELDS; i++)
        if (h5_attr_exists(f, "/template", chat_field(i)))
            DS_TRY(h5_attr_get_str(f, "/template", chat_field(i), &d->template.field[i]));
    DS_CHECK(d->vocab > 0 && d->vocab <= INT32_MAX && d->stop_id >= -1 && d->stop_id < d->vocab, DS_ERR_DATA,
             "%s: attributes vocab = %lld, stop_id = %lld do not fit", d->path, (long long)d->vocab,
             (long long)d->stop_id);
    err = h5_trouble(f); // a text that seemed not to be there
done:
    return err;
}

static Err check_row(const Dataset *d, int64_t r) {
    const bool ordered = d->start[r] >= 0 && d->start[r] <= d->start[r + 1] && d->start[r + 1] <= d->n_tokens;
    const int64_t length = ordered ? d->start[r + 1] - d->start[r] : 0;
    bool good = length > 0 && length <= INT32_MAX && d->prompt[r] >= 0 && d->prompt[r] <= length &&
                d->span_start[r] <= d->span_start[r + 1] && d->span_start[r + 1] <= d->n_spans;
    int64_t end = 0;
    for (int64_t s = d->span_start[r]; good && s < d->span_start[r + 1]; s++) {
        good = d->spans[2 * s] >= end && d->spans[2 * s] < d->spans[2 * s + 1] && d->spans[2 * s + 1] <= length;
        end = d->spans[2 * s + 1];
    }
    if (good) return DS_OK;
    return err_set(DS_ERR_DATA, "%s: sample %lld has a start, prompt or answer span outside of its tokens", d->path,
                   (long long)r);
}

static Err check_index(const Dataset *d) {
    Err err = DS_OK;
    DS_CHECK(d->start[0] == 0 && d->start[d->n] == d->n_tokens && d->span_start[0] == 0 &&
                 d->span_start[d->n] == d->n_spans,
             DS_ERR_DATA, "%s: /samples/start or span_start does not cover all tokens or spans", d->path);
    for (int64_t r = 0; r < d->n; r++) DS_TRY(check_row(d, r));
    for (int64_t p = 0; p < d->n_pairs; p++)
        DS_CHECK(d->chosen[p] >= 0 && d->chosen[p] < d->n && d->rejected[p] >= 0 && d->rejected[p] < d->n, DS_ERR_DATA,
                 "%s: pair %lld names a sample that does not exist", d->path, (long long)p);
done:
    return err;
}

// ---- the longest row ----

static const char *const kind_names[DATA_KINDS] = {"sft", "rm", "ppo", "ptx"};

const char *dataset_kind_name(DataKind kind) { return kind_names[kind]; }

const char *dataset_longest_name(DataKind kind) {
    static const char *const names[DATA_KINDS] = {"longest_sft", "longest_rm", "longest_ppo", "longest_ptx"};
    return names[kind];
}

static void take_longer(const DatasetIndex *x, DataKind kind, int64_t r, int64_t *longest, int64_t *row) {
    const int64_t n = kind == DATA_PPO ? x->prompt[r] : x->start[r + 1] - x->start[r];
    if (n > *longest) *longest = n, *row = r;
}

int64_t dataset_index_longest(const DatasetIndex *x, DataKind kind, int64_t *row) {
    int64_t longest = 0;
    *row = -1;
    for (int64_t r = 0; r < x->n && kind != DATA_RM; r++)
        if (x->stage[r] & (1 << kind)) take_longer(x, kind, r, &longest, row);
    for (int64_t p = 0; p < x->n_pairs && kind == DATA_RM; p++) {
        if (!(x->stage[x->chosen[p]] & (1 << kind))) continue;
        take_longer(x, kind, x->chosen[p], &longest, row);
        take_longer(x, kind, x->rejected[p], &longest, row);
    }
    return longest;
}

int64_t dataset_longest_row(const Dataset *d, DataKind kind, int64_t *row) {
    *row = d->longest_row[kind];
    return d->longest[kind];
}

Err dataset_check_positions(const Dataset *d, DataKind kind, int64_t positions, const char *model) {
    if (d->longest[kind] <= positions) return DS_OK;
    return err_set(DS_ERR_DATA,
                   "%s: row %lld (%s) has %lld tokens, but %s has %lld positions: build the data set with [data] "
                   "max_tokens = %lld, or take a model with more ([actor] arch_positions of a new one)",
                   d->path, (long long)d->longest_row[kind], kind_names[kind], (long long)d->longest[kind], model,
                   (long long)positions, (long long)positions);
}

// The index says it; what the header says, which other programs read, must be the same. Older files have none.
static Err find_longest(Dataset *d, const H5File *f) {
    Err err = DS_OK;
    const DatasetIndex x = {d->n, d->n_pairs, d->start, d->prompt, d->chosen, d->rejected, d->stage};
    int64_t said;
    for (int kind = 0; kind < DATA_KINDS; kind++) {
        const char *name = dataset_longest_name((DataKind)kind);
        d->longest[kind] = dataset_index_longest(&x, (DataKind)kind, &d->longest_row[kind]);
        if (!h5_attr_exists(f, "/", name)) continue;
        DS_TRY(h5_attr_get_i64(f, "/", name, &said));
        DS_CHECK(said == d->longest[kind], DS_ERR_DATA, "%s: attribute %s is %lld, but its longest row has %lld tokens",
                 d->path, name, (long long)said, (long long)d->longest[kind]);
    }
done:
    return err;
}

// ---- records ----

static void add_record(Dataset *d, DataKind kind, int64_t row, int64_t record) {
    if (!(d->stage[row] & (1 << kind))) return;
    const int eval = d->eval[row] != 0;
    d->list[kind][eval][d->count[kind][eval]++] = record;
}

static void build_lists(Dataset *d) {
    for (int kind = 0; kind < DATA_KINDS; kind++)
        for (int e = 0; e < 2; e++) d->list[kind][e] = MEM_NEW(int64_t, kind == DATA_RM ? d->n_pairs : d->n);
    for (int64_t r = 0; r < d->n; r++) {
        add_record(d, DATA_SFT, r, r);
        add_record(d, DATA_PPO, r, r);
        add_record(d, DATA_PTX, r, r);
    }
    for (int64_t p = 0; p < d->n_pairs; p++) add_record(d, DATA_RM, d->chosen[p], p);
}

Err dataset_open(const char *path, Dataset **out) {
    Err err = DS_OK;
    H5File *f = NULL;
    Dataset *d = MEM_NEW(Dataset, 1);
    d->path = mem_strdup(path);
    watchdog_enter(WATCH_FILE, "opening a data set", path);
    DS_TRY(filetype_expect(path, FILETYPE_DATASET));
    DS_TRY(h5_open_checked(path, &f));
    DS_CHECK(h5_is_group(f, "/samples"), DS_ERR_DATA, "%s: has no /samples, so it is not a data set%s", path,
             h5_is_group(f, "/config") ? " but a model" : "");
    DS_TRY(read_attributes(d, f));
    DS_TRY(read_index(d, f));
    DS_TRY(check_index(d));
    DS_TRY(find_longest(d, f));
    build_lists(d);
done:
    watchdog_leave();
    if (f && h5_trouble(f)) err = h5_trouble(f); // which may be why something was not there
    h5_close(&f);
    if (err) dataset_close(&d);
    *out = d;
    return err;
}

void dataset_close(Dataset **pd) {
    Dataset *d = *pd;
    if (!d) return;
    void *const owned[] = {d->path,   d->sha256,   d->start, d->span_start, d->spans, d->prompt,
                           d->chosen, d->rejected, d->stage, d->eval,       d->tokens};
    for (int i = 0; i < DS_COUNT(owned); i++) mem_free(owned[i]);
    chat_text_free(&d->template);
    for (int kind = 0; kind < DATA_KINDS; kind++)
        for (int e = 0; e < 2; e++) mem_free(d->list[kind][e]);
    MEM_FREE(*pd);
}

int64_t dataset_count(const Dataset *d, DataKind kind, bool eval) { return d->count[kind][eval]; }
int64_t dataset_record(const Dataset *d, DataKind kind, bool eval, int64_t i) { return d->list[kind][eval][i]; }
int64_t dataset_rows(const Dataset *d) { return d->n; }
int64_t dataset_length(const Dataset *d, int64_t row) { return d->start[row + 1] - d->start[row]; }
int64_t dataset_prompt_length(const Dataset *d, int64_t row) { return d->prompt[row]; }
int dataset_stages(const Dataset *d, int64_t row) { return d->stage[row]; }
bool dataset_held_out(const Dataset *d, int64_t row) { return d->eval[row] != 0; }
int64_t dataset_vocab(const Dataset *d) { return d->vocab; }
int32_t dataset_stop_id(const Dataset *d) { return (int32_t)d->stop_id; }
const ChatText *dataset_template(const Dataset *d) { return &d->template; }

void dataset_pair(const Dataset *d, int64_t pair, int64_t *chosen, int64_t *rejected) {
    *chosen = d->chosen[pair];
    *rejected = d->rejected[pair];
}

static int64_t record_length(const Dataset *d, DataKind kind, int64_t r) {
    return kind == DATA_RM ? dataset_length(d, d->chosen[r]) + dataset_length(d, d->rejected[r]) : dataset_length(d, r);
}

int64_t dataset_longest(const Dataset *d, DataKind kind) {
    int64_t longest = 0;
    for (int eval = 0; eval < 2; eval++)
        for (int64_t i = 0; i < d->count[kind][eval]; i++)
            longest = ds_max(longest, record_length(d, kind, d->list[kind][eval][i]));
    return longest;
}

double dataset_mean(const Dataset *d, DataKind kind) {
    const int64_t n = d->count[kind][0];
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)record_length(d, kind, d->list[kind][0][i]);
    return n ? sum / (double)n : 0;
}

int64_t dataset_spans(const Dataset *d, int64_t row, const int64_t **spans) {
    *spans = d->spans + 2 * d->span_start[row];
    return d->span_start[row + 1] - d->span_start[row];
}

int64_t dataset_counted(const Dataset *d, int64_t row) {
    const int64_t *span;
    int64_t n = dataset_spans(d, row, &span), counted = 0;
    for (int64_t s = 0; s < n; s++) counted += span[2 * s + 1] - ds_max(span[2 * s], 1);
    return counted;
}

// Tokens first .. first + n of the whole file.
static Err read_range(const Dataset *d, const H5File *f, int64_t first, int64_t n, uint32_t *out) {
    if (!d->tokens) return h5_read(f, "/samples/tokens", DS_U32, first, n, out);
    memcpy(out, d->tokens + first, (size_t)n * sizeof *out);
    return DS_OK;
}

Err dataset_read(Dataset *d, const int64_t *row, int64_t n, int32_t *ids) {
    Err err = DS_OK;
    H5File *f = NULL;
    watchdog_enter(WATCH_FILE, "reading samples", d->path);
    if (!d->tokens) DS_TRY(reopen(d, &f));
    for (int64_t i = 0; i < n; i++) {
        const int64_t length = dataset_length(d, row[i]);
        DS_TRY(read_range(d, f, d->start[row[i]], length, (uint32_t *)ids));
        for (int64_t t = 0; t < length; t++)
            DS_CHECK((uint32_t)ids[t] < (uint64_t)d->vocab, DS_ERR_DATA,
                     "%s: sample %lld holds token %u of a vocabulary of %lld", d->path, (long long)row[i],
                     (uint32_t)ids[t], (long long)d->vocab);
        ids += length;
    }
done:
    watchdog_leave();
    h5_close(&f);
    return err;
}

Err dataset_prompt(Dataset *d, int64_t row, int32_t **ids, int64_t *n) {
    *ids = MEM_NEW(int32_t, dataset_length(d, row));
    *n = d->prompt[row];
    return dataset_read(d, &row, 1, *ids);
}

Err dataset_tokenizer(const Dataset *d, Tokenizer **tok) {
    Err err = DS_OK;
    H5File *f = NULL;
    char *blob = NULL;
    int64_t bytes;
    *tok = NULL;
    watchdog_enter(WATCH_FILE, "reading a tokenizer", d->path);
    DS_TRY(reopen(d, &f));
    if (!h5_exists(f, "/tokenizer")) {
        err = h5_trouble(f);
        goto done;
    }
    DS_TRY(read_all(d, f, "/tokenizer", DS_U8, -1, &bytes, (void **)&blob));
    DS_TRY(tok_load_blob(blob, (size_t)bytes, d->path, tok));
    DS_CHECK(d->vocab <= tok_vocab_size(*tok), DS_ERR_DATA, "%s: vocab = %lld, but its tokenizer has %lld tokens",
             d->path, (long long)d->vocab, (long long)tok_vocab_size(*tok));
done:
    if (err) tok_free(tok);
    watchdog_leave();
    h5_close(&f);
    mem_free(blob);
    return err;
}
