// build_rows.c: see build_rows.h.
#include "data/build_rows.h"

#include <string.h>

#include "base/mem.h"
#include "io/h5_attr.h"

enum { CHUNK = 1 << 15 }; // tokens of a chunk in the file

static const char tokens_set[] = "/samples/tokens";

// The sets of the index in the order in which they are written and hashed.
static const struct {
    const char *name;
    DType dtype;
    int columns;
} sets[] = {{"/samples/start", DS_I64, 1},  {"/samples/span_start", DS_I64, 1}, {"/samples/spans", DS_I64, 2},
            {"/samples/prompt", DS_I64, 1}, {"/samples/stage", DS_U8, 1},       {"/samples/eval", DS_U8, 1},
            {"/pairs/chosen", DS_I64, 1},   {"/pairs/rejected", DS_I64, 1}};

// ---- hashes ----

static void add_digest(BuildRows *r) {
    enum { HEX = 64 };
    Sha256Hex h = hash_sha256(r->block, (size_t)r->in_block * sizeof *r->block);
    if (r->digest_bytes + HEX > r->digest_room) {
        int64_t room = 2 * r->digest_room + 64 * HEX;
        r->digests = mem_grow(r->digests, r->digest_room, room, 1);
        r->digest_room = room;
    }
    memcpy(r->digests + r->digest_bytes, h.hex, HEX);
    r->digest_bytes += HEX;
    r->in_block = 0;
}

static void hash_tokens(BuildRows *r, const uint32_t *token, int64_t n) {
    for (int64_t done = 0; done < n;) {
        int64_t k = ds_min(n - done, BUILD_BLOCK - r->in_block);
        memcpy(r->block + r->in_block, token + done, (size_t)k * sizeof *token);
        r->in_block += k;
        done += k;
        if (r->in_block == BUILD_BLOCK) add_digest(r);
    }
}

static Sha256Hex tokens_digest(BuildRows *r) {
    if (r->in_block) add_digest(r);
    return hash_sha256(r->digests ? r->digests : "", (size_t)r->digest_bytes);
}

// Of all sets' digests, the tokens' first.
typedef struct {
    char text[(DS_COUNT(sets) + 1) * 65 + 1];
    size_t n;
} Digests;

static void collect(Digests *all, const Sha256Hex *h) {
    memcpy(all->text + all->n, h->hex, 64);
    all->text[all->n + 64] = '\n';
    all->n += 65;
}

// ---- rows ----

Err build_rows_create(H5File *file, BuildRows *r) {
    *r = (BuildRows){.file = file,
                     .block = MEM_NEW(uint32_t, BUILD_BLOCK),
                     .start = MEM_NEW(int64_t, 1),
                     .span_start = MEM_NEW(int64_t, 1)};
    return h5_appender_open(file, tokens_set, DS_U32, CHUNK, &r->tokens);
}

void build_rows_free(BuildRows *r) {
    if (r->tokens) (void)h5_appender_close(&r->tokens);
    void *const owned[] = {r->start, r->span_start, r->spans,    r->prompt, r->stage,
                           r->eval,  r->chosen,     r->rejected, r->block,  r->digests};
    for (int i = 0; i < DS_COUNT(owned); i++) mem_free(owned[i]);
    *r = (BuildRows){0};
}

static void grow_rows(BuildRows *r) {
    if (r->n < r->room) return;
    int64_t room = 2 * r->room + 256;
    r->start = mem_grow(r->start, r->room + 1, room + 1, sizeof *r->start);
    r->span_start = mem_grow(r->span_start, r->room + 1, room + 1, sizeof *r->span_start);
    r->prompt = mem_grow(r->prompt, r->room, room, sizeof *r->prompt);
    r->stage = mem_grow(r->stage, r->room, room, sizeof *r->stage);
    r->eval = mem_grow(r->eval, r->room, room, sizeof *r->eval);
    r->room = room;
}

Err build_rows_add(BuildRows *r, const int32_t *id, int64_t n, const int64_t *span, int64_t n_spans, int64_t prompt,
                   uint8_t stage) {
    grow_rows(r);
    if (r->n_spans + n_spans > r->span_room) {
        int64_t room = 2 * r->span_room + n_spans + 256;
        r->spans = mem_grow(r->spans, 2 * r->span_room, 2 * room, sizeof *r->spans);
        r->span_room = room;
    }
    memcpy(r->spans + 2 * r->n_spans, span, (size_t)n_spans * 2 * sizeof *span);
    r->n_spans += n_spans;
    r->prompt[r->n] = prompt;
    r->stage[r->n] = stage;
    r->start[r->n + 1] = r->start[r->n] + n;
    r->span_start[r->n + 1] = r->n_spans;
    r->n++;
    hash_tokens(r, (const uint32_t *)id, n);
    return h5_append(r->tokens, id, n);
}

void build_rows_pair(BuildRows *r, int64_t chosen, int64_t rejected) {
    if (r->n_pairs == r->pair_room) {
        int64_t room = 2 * r->pair_room + 256;
        r->chosen = mem_grow(r->chosen, r->pair_room, room, sizeof *r->chosen);
        r->rejected = mem_grow(r->rejected, r->pair_room, room, sizeof *r->rejected);
        r->pair_room = room;
    }
    r->chosen[r->n_pairs] = chosen;
    r->rejected[r->n_pairs++] = rejected;
}

static Err put_longest(BuildRows *r) {
    Err err = DS_OK;
    const DatasetIndex x = {r->n, r->n_pairs, r->start, r->prompt, r->chosen, r->rejected, r->stage};
    int64_t row;
    for (int kind = 0; kind < DATA_KINDS; kind++)
        DS_TRY(h5_attr_put_i64(r->file, "/", dataset_longest_name((DataKind)kind),
                               dataset_index_longest(&x, (DataKind)kind, &row)));
done:
    return err;
}

Err build_rows_finish(BuildRows *r, Sha256Hex *hash) {
    Err err = DS_OK;
    const void *const data[] = {r->start, r->span_start, r->spans,  r->prompt,
                                r->stage, r->eval,       r->chosen, r->rejected};
    const int64_t count[] = {r->n + 1, r->n + 1, r->n_spans, r->n, r->n, r->n, r->n_pairs, r->n_pairs};
    Digests all = {.n = 0};
    *hash = tokens_digest(r);
    collect(&all, hash);
    DS_TRY(h5_appender_close(&r->tokens));
    DS_TRY(h5_attr_put_str(r->file, tokens_set, "sha256", hash->hex));
    DS_TRY(h5_attr_put_i64(r->file, tokens_set, "sha256_block", BUILD_BLOCK));
    for (int i = 0; i < DS_COUNT(sets); i++) {
        const int64_t shape[] = {count[i], sets[i].columns}, elements = count[i] * sets[i].columns;
        const void *from = data[i] ? data[i] : "";
        *hash = hash_sha256(from, (size_t)elements * dtype_bytes(sets[i].dtype));
        collect(&all, hash);
        DS_TRY(h5_write_new(r->file, sets[i].name, sets[i].dtype, sets[i].columns, shape, from)); // 1-D, or [n, 2]
        DS_TRY(h5_attr_put_str(r->file, sets[i].name, "sha256", hash->hex));
    }
    *hash = hash_sha256(all.text, all.n);
    DS_TRY(h5_attr_put_str(r->file, "/", "data_sha256", hash->hex));
    DS_TRY(put_longest(r));
done:
    return err;
}

// ---- verify ----

static Err compare(const H5File *f, const char *set, const char *attribute, const Sha256Hex *h) {
    Err err = DS_OK;
    char *kept = NULL;
    DS_TRY(h5_attr_get_str(f, set, attribute, &kept));
    DS_CHECK(!strcmp(kept, h->hex), DS_ERR_DATA, "%s: %s is not what was written: its SHA-256 is %s, expected %s",
             h5_path(f), set, h->hex, kept);
done:
    mem_free(kept);
    return err;
}

static Err verify_tokens(const H5File *f, Digests *all) {
    Err err = DS_OK;
    BuildRows r = {.block = MEM_NEW(uint32_t, BUILD_BLOCK)};
    uint32_t *token = MEM_NEW(uint32_t, BUILD_BLOCK);
    int64_t vocab, block;
    H5Info info;
    DS_TRY(h5_attr_get_i64(f, "/", "vocab", &vocab));
    DS_TRY(h5_attr_get_i64(f, tokens_set, "sha256_block", &block));
    DS_CHECK(block == BUILD_BLOCK, DS_ERR_DATA, "%s: %s is hashed in blocks of %lld, expected %d", h5_path(f),
             tokens_set, (long long)block, BUILD_BLOCK);
    DS_TRY(h5_info(f, tokens_set, &info));
    for (int64_t at = 0; at < info.count; at += BUILD_BLOCK) {
        int64_t n = ds_min(BUILD_BLOCK, info.count - at);
        DS_TRY(h5_read(f, tokens_set, DS_U32, at, n, token));
        for (int64_t i = 0; i < n; i++)
            DS_CHECK(token[i] < vocab, DS_ERR_DATA, "%s: token %lld is %u, the vocabulary has %lld", h5_path(f),
                     (long long)(at + i), token[i], (long long)vocab);
        hash_tokens(&r, token, n);
    }
    Sha256Hex h = tokens_digest(&r);
    collect(all, &h);
    DS_TRY(compare(f, tokens_set, "sha256", &h));
done:
    mem_free(token);
    build_rows_free(&r);
    return err;
}

static Err verify_set(const H5File *f, const char *set, DType dtype, Digests *all) {
    Err err = DS_OK;
    H5Info info;
    void *data = NULL;
    DS_TRY(h5_info(f, set, &info));
    data = mem_array(info.count, dtype_bytes(dtype));
    DS_TRY(h5_read(f, set, dtype, 0, info.count, data));
    Sha256Hex h = hash_sha256(data, (size_t)info.count * dtype_bytes(dtype));
    if (all) collect(all, &h);
    DS_TRY(compare(f, set, "sha256", &h));
done:
    mem_free(data);
    return err;
}

Err build_rows_verify(const char *path, Sha256Hex *hash) {
    Err err = DS_OK;
    H5File *f = NULL;
    Digests all = {.n = 0};
    DS_TRY(h5_open_checked(path, &f));
    DS_TRY(verify_tokens(f, &all));
    for (int i = 0; i < DS_COUNT(sets); i++) DS_TRY(verify_set(f, sets[i].name, sets[i].dtype, &all));
    if (h5_exists(f, "/tokenizer")) DS_TRY(verify_set(f, "/tokenizer", DS_U8, NULL));
    DS_TRY(h5_trouble(f));
    *hash = hash_sha256(all.text, all.n);
    DS_TRY(compare(f, "/", "data_sha256", hash));
done:
    h5_close(&f);
    return err;
}
