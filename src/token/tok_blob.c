// tok_blob.c: the stored form of a tokenizer. Little endian:
//   "dstok1\0\0"; int32 x 8: kind, pre-tokeniser, prefix, flags, bos, eos, pad, unk; int64 x 2: ids, merges;
//   a token: uint8 type, uint8 strip, uint16 bytes, the bytes; a merge, in order: int32 left, right, rank.
#include <string.h>

#include "base/mem.h"
#include "token/tok_vocab.h"

static const char magic[8] = "dstok1\0";

enum { HEADER = 8 + 8 * 4 + 2 * 8, TOKEN = 4, MERGE = 12, FLAGS = 8 };

static void put(char **p, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) *(*p)++ = (char)(value >> 8 * i);
}

static uint64_t get(const char **p, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t)(unsigned char)*(*p)++ << 8 * i;
    return value;
}

static int32_t get_i32(const char **p) { return (int32_t)(uint32_t)get(p, 4); }

static uint32_t pack_flags(const Tokenizer *t) {
    const bool flag[FLAGS] = {t->prefix_unless_blank, t->nfc,     t->ignore_merges, t->byte_fallback, t->fuse_unk,
                              t->split_blanks,        t->add_bos, t->add_eos};
    uint32_t bits = 0;
    for (int i = 0; i < FLAGS; i++) bits |= (uint32_t)flag[i] << i;
    return bits;
}

static void unpack_flags(Tokenizer *t, uint32_t bits) {
    bool *const flag[FLAGS] = {&t->prefix_unless_blank, &t->nfc,     &t->ignore_merges, &t->byte_fallback, &t->fuse_unk,
                               &t->split_blanks,        &t->add_bos, &t->add_eos};
    for (int i = 0; i < FLAGS; i++) *flag[i] = bits >> i & 1;
}

Err tok_save(const Tokenizer *t, char **blob, size_t *bytes) {
    int64_t text = 0;
    for (int64_t i = 0; i < t->n; i++) text += t->piece[i].n;
    *bytes = (size_t)(HEADER + t->n * TOKEN + text + t->n_merges * MERGE);
    char *p = *blob = mem_alloc(*bytes);
    memcpy(p, magic, sizeof magic);
    p += sizeof magic;
    const int32_t head[8] = {t->kind, t->pretoken, t->prefix, (int32_t)pack_flags(t), t->bos, t->eos, t->pad, t->unk};
    for (int i = 0; i < 8; i++) put(&p, (uint32_t)head[i], 4);
    put(&p, (uint64_t)t->n, 8);
    put(&p, (uint64_t)t->n_merges, 8);
    for (int32_t i = 0; i < t->n; i++) {
        const TokPiece *x = &t->piece[i];
        put(&p, x->type, 1);
        put(&p, (uint64_t)(x->lstrip | x->rstrip << 1), 1);
        put(&p, (uint64_t)x->n, 2);
        if (x->n) memcpy(p, piece_text(t, i), (size_t)x->n);
        p += x->n;
    }
    for (int64_t m = 0; m < t->n_merges; m++) {
        put(&p, (uint32_t)t->merge[m].left, 4);
        put(&p, (uint32_t)t->merge[m].right, 4);
        put(&p, (uint32_t)t->merge[m].rank, 4);
    }
    return DS_OK;
}

static Err read_head(const char **p, const char *end, const char *what, Tokenizer **out, int64_t *n, int64_t *merges) {
    Err err = DS_OK;
    Tokenizer *t = NULL;
    DS_CHECK(end - *p >= HEADER && !memcmp(*p, magic, sizeof magic), DS_ERR_DATA, "%s: holds no tokenizer in our form",
             what);
    *p += sizeof magic;
    int32_t head[8];
    for (int i = 0; i < 8; i++) head[i] = get_i32(p);
    *n = (int64_t)get(p, 8);
    *merges = (int64_t)get(p, 8);
    DS_CHECK(head[0] >= 0 && head[0] <= TOK_KIND_SPM && head[1] >= 0 && head[1] < PRETOKEN_KINDS && head[2] >= 0 &&
                 head[2] <= TOK_PREFIX_ALWAYS && head[3] >= 0 && head[3] < 1 << FLAGS,
             DS_ERR_DATA, "%s: a tokenizer of kind %d, pre-tokeniser %d, prefix %d, flags %d is not known", what,
             head[0], head[1], head[2], head[3]);
    DS_CHECK(*n > 0 && *n <= (end - *p) / TOKEN && *merges >= 0 && *merges <= (end - *p) / MERGE, DS_ERR_DATA,
             "%s: %lld tokens and %lld merges do not fit in its %lld bytes", what, (long long)*n, (long long)*merges,
             (long long)(end - *p));
    t = *out = vocab_create((TokKind)head[0]);
    t->pretoken = (PretokenKind)head[1];
    t->prefix = (TokPrefix)head[2];
    unpack_flags(t, (uint32_t)head[3]);
    t->bos = head[4], t->eos = head[5], t->pad = head[6], t->unk = head[7];
done:
    return err;
}

static Err read_tokens(Tokenizer *t, const char **p, const char *end, int64_t n, const char *what) {
    Err err = DS_OK;
    for (int64_t id = 0; id < n; id++) {
        DS_CHECK(end - *p >= TOKEN, DS_ERR_DATA, "%s: ends in token %lld of %lld", what, (long long)id, (long long)n);
        int type = (int)get(p, 1), strip = (int)get(p, 1);
        int64_t bytes = (int64_t)get(p, 2);
        DS_CHECK(bytes <= end - *p && type <= TOK_BYTE && strip < 4 && (type || !(bytes || strip)), DS_ERR_DATA,
                 "%s: token %lld has type %d, strip %d, %lld bytes", what, (long long)id, type, strip,
                 (long long)bytes);
        DS_CHECK(type != TOK_BYTE || (bytes == 1 && t->kind == TOK_KIND_SPM), DS_ERR_DATA,
                 "%s: token %lld is of type byte with %lld bytes", what, (long long)id, (long long)bytes);
        if (type) {
            DS_TRY(vocab_set(t, id, n, (TokType)type, *p, bytes, what));
            t->piece[id].lstrip = strip & 1;
            t->piece[id].rstrip = strip >> 1;
        }
        *p += bytes;
    }
    DS_CHECK(t->n == n, DS_ERR_DATA, "%s: the last of its %lld tokens is a hole", what, (long long)n);
done:
    return err;
}

Err tok_load_blob(const char *blob, size_t bytes, const char *what, Tokenizer **out) {
    Err err = DS_OK;
    const char *p = blob, *end = blob + bytes;
    int64_t n = 0, merges = 0;
    Tokenizer *t = NULL;
    *out = NULL;
    DS_TRY(read_head(&p, end, what, &t, &n, &merges));
    DS_TRY(read_tokens(t, &p, end, n, what));
    DS_TRY(vocab_index(t, what));
    DS_CHECK(end - p == merges * MERGE, DS_ERR_DATA, "%s: %lld bytes for %lld merges, expected %lld", what,
             (long long)(end - p), (long long)merges, (long long)merges * MERGE);
    for (int64_t m = 0; m < merges; m++) {
        int32_t left = get_i32(&p), right = get_i32(&p), rank = get_i32(&p);
        DS_TRY(vocab_merge(t, left, right, rank, what));
    }
    DS_TRY(vocab_finish(&t, what));
    *out = t;
    t = NULL;
done:
    tok_free(&t);
    return err;
}
