// bpe.c: see bpe.h: text -> ids. A text is cut at the special and added tokens in it, each part normalised, cut into
// words, and each word merged, or taken from the cache.
#include "token/bpe.h"

#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "token/tok_cache.h"
#include "token/tok_merge.h"
#include "token/tok_norm.h"
#include "token/tok_vocab.h"

#define MAX_TEXT ((int64_t)1 << 29) // bytes

typedef struct {
    const Tokenizer *t;
    MergeScratch scratch;
    TokIds *ids;
} Encoder;

void tok_ids_push(TokIds *ids, int32_t id) {
    if (ids->n == ids->room) {
        int64_t room = ds_max(64, 2 * ids->room);
        ids->id = mem_grow(ids->id, ids->n, room, sizeof *ids->id);
        ids->room = room;
    }
    ids->id[ids->n++] = id;
}

void tok_ids_free(TokIds *ids) {
    mem_free(ids->id);
    *ids = (TokIds){0};
}

// ---- one word ----

static void push_byte_symbols(Encoder *e, const char *s, int64_t n) {
    const Tokenizer *t = e->t;
    for (int64_t i = 0; i < n; i++) {
        int32_t id = t->byte_id[(unsigned char)s[i]];
        if (id >= 0) merge_push(&e->scratch, id);
        else if (t->unk >= 0 && t->fuse_unk && e->scratch.n && e->scratch.symbol[e->scratch.n - 1].id == t->unk)
            continue;
        else if (t->unk >= 0) merge_push(&e->scratch, t->unk);
    }
}

// A character that is no token: its bytes' tokens, or unk, or nothing.
static void push_fallback(Encoder *e, const char *s, int len) {
    const Tokenizer *t = e->t;
    bool all = t->byte_fallback;
    for (int i = 0; i < len && all; i++) all = t->byte_id[(unsigned char)s[i]] >= 0;
    if (all) push_byte_symbols(e, s, len);
    else if (t->unk >= 0 && !(t->fuse_unk && e->scratch.n && e->scratch.symbol[e->scratch.n - 1].id == t->unk))
        merge_push(&e->scratch, t->unk);
}

static void push_char_symbols(Encoder *e, const char *s, int64_t n) {
    for (int64_t i = 0; i < n;) {
        int len;
        text_utf8_next(s + i, n - i, &len);
        int32_t id = vocab_find(e->t, s + i, len);
        if (id >= 0 && e->t->piece[id].type == TOK_NORMAL) merge_push(&e->scratch, id);
        else push_fallback(e, s + i, len);
        i += len;
    }
}

static void encode_word(Encoder *e, const char *s, int64_t n) {
    const Tokenizer *t = e->t;
    const uint64_t hash = n <= CACHE_MAX_WORD ? vocab_hash(s, n) : 0;
    const CacheEntry *hit = n <= CACHE_MAX_WORD ? cache_find(t->cache, hash, s, n) : NULL;
    if (hit) {
        for (int i = 0; i < hit->ids; i++) tok_ids_push(e->ids, hit->id[i]);
        return;
    }
    const int64_t before = e->ids->n;
    const int32_t whole = t->ignore_merges ? vocab_find(t, s, n) : -1;
    if (whole >= 0 && t->piece[whole].type == TOK_NORMAL) {
        tok_ids_push(e->ids, whole);
    } else {
        e->scratch.n = 0;
        if (t->kind == TOK_KIND_BYTES) push_byte_symbols(e, s, n);
        else push_char_symbols(e, s, n);
        merge_word(t, &e->scratch, e->ids);
    }
    const int64_t given = e->ids->n - before;
    if (n <= CACHE_MAX_WORD && given > 0) cache_put(t->cache, hash, s, n, e->ids->id + before, given);
}

// ---- a part between added tokens ----

static Err encode_byte_words(Encoder *e, const char *s, int64_t n) {
    Err err = DS_OK;
    for (int64_t at = 0, end; at < n; at = end) {
        DS_TRY(pretoken_next(e->t->words, s, n, at, &end));
        encode_word(e, s + at, end - at);
    }
done:
    return err;
}

// Cut before each blank (split_blanks), or where a blank follows something else if that changes nothing.
static void encode_spm_words(Encoder *e, const char *s, int64_t n) {
    const Tokenizer *t = e->t;
    int64_t start = 0;
    if (t->split_blanks || t->exact_blanks)
        for (int64_t i = 1; i < n; i++)
            if (s[i] == ' ' && (t->split_blanks || s[i - 1] != ' ')) encode_word(e, s + start, i - start), start = i;
    if (n > start) encode_word(e, s + start, n - start);
}

// first: at the start of the text. go_on: no dummy blank.
static Err encode_part(Encoder *e, const char *s, int64_t n, bool first, bool go_on) {
    Err err = DS_OK;
    const Tokenizer *t = e->t;
    char *composed = NULL, *blanks = NULL;
    if (n == 0) goto done;
    if (t->nfc) DS_TRY(norm_nfc(s, n, &composed, &n));
    if (composed) s = composed;
    if (t->kind == TOK_KIND_SPM && (blanks = norm_blanks(s, n, &n))) s = blanks;
    bool prefix = !go_on && (t->prefix == TOK_PREFIX_ALWAYS || (t->prefix == TOK_PREFIX_FIRST && first));
    if (prefix && !(t->prefix_unless_blank && s[0] == ' ')) {
        char *longer = mem_array(n + 1, 1);
        longer[0] = ' ';
        memcpy(longer + 1, s, (size_t)n++);
        mem_free(blanks);
        s = blanks = longer;
    }
    if (t->kind == TOK_KIND_SPM) encode_spm_words(e, s, n);
    else DS_TRY(encode_byte_words(e, s, n));
done:
    mem_free(composed);
    mem_free(blanks);
    return err;
}

int32_t vocab_added_at(const Tokenizer *t, const char *s, int64_t n, bool special) {
    const int c = (unsigned char)s[0];
    for (int32_t i = t->added_from[c]; i < t->added_from[c + 1]; i++) {
        const TokPiece *p = &t->piece[t->added[i]];
        if (p->n <= n && (special || !p->special) && !memcmp(piece_text(t, t->added[i]), s, (size_t)p->n))
            return t->added[i];
    }
    return -1;
}

// s[n]: valid UTF-8.
static Err encode_text(Encoder *e, const char *s, int64_t n, int flags) {
    Err err = DS_OK;
    const Tokenizer *t = e->t;
    int64_t start = 0;
    for (int64_t i = 0; i < n;) {
        const int c = (unsigned char)s[i];
        int32_t id =
            t->added_from[c] == t->added_from[c + 1] ? -1 : vocab_added_at(t, s + i, n - i, flags & TOK_SPECIAL);
        if (id < 0) {
            i++;
            continue;
        }
        const TokPiece *p = &t->piece[id];
        int64_t end = i - (p->lstrip ? norm_space_after(s + start, i - start) : 0);
        DS_TRY(encode_part(e, s + start, end - start, start == 0, start == 0 && flags & TOK_NO_PREFIX));
        tok_ids_push(e->ids, id);
        i += p->n;
        if (p->rstrip) i += norm_space_before(s + i, n - i);
        start = i;
    }
    DS_TRY(encode_part(e, s + start, n - start, start == 0, start == 0 && flags & TOK_NO_PREFIX));
done:
    return err;
}

Err tok_encode(const Tokenizer *t, const char *s, int64_t n, int flags, TokIds *ids) {
    Err err = DS_OK;
    char *fixed = NULL;
    Encoder e = {.t = t, .ids = ids};
    DS_CHECK(n >= 0 && n <= MAX_TEXT, DS_ERR_DATA, "a text of %lld bytes is too long to encode at once, at most %lld",
             (long long)n, (long long)MAX_TEXT);
    norm_utf8(s, n, &fixed, &n);
    if (t->add_bos && flags & TOK_ENDS) tok_ids_push(ids, t->bos);
    DS_TRY(encode_text(&e, fixed ? fixed : s, n, flags));
    if (t->add_eos && flags & TOK_ENDS) tok_ids_push(ids, t->eos);
done:
    merge_free(&e.scratch);
    mem_free(fixed);
    return err;
}

// ---- what is in it ----

int64_t tok_vocab_size(const Tokenizer *t) { return t->n; }
int32_t tok_bos(const Tokenizer *t) { return t->bos; }
int32_t tok_eos(const Tokenizer *t) { return t->eos; }
int32_t tok_pad(const Tokenizer *t) { return t->pad; }
int32_t tok_unk(const Tokenizer *t) { return t->unk; }
bool tok_adds_bos(const Tokenizer *t) { return t->add_bos; }
const char *tok_hash(const Tokenizer *t) { return t->hash.hex; }

bool tok_is_special(const Tokenizer *t, int32_t id) { return id >= 0 && id < t->n && t->piece[id].special; }

int32_t tok_special_id(const Tokenizer *t, const char *text, int64_t n) {
    if (n <= 0) return -1;
    int32_t id = vocab_added_at(t, text, n, true);
    return id >= 0 && t->piece[id].n == n && t->piece[id].special ? id : -1;
}

char *tok_describe(const Tokenizer *t) {
    if (t->kind == TOK_KIND_SPM)
        return mem_printf("SentencePiece BPE%s, %lld tokens", t->byte_fallback ? " with byte fallback" : "",
                          (long long)t->n);
    return mem_printf("byte-level BPE, %lld tokens, pre-tokeniser %s%s", (long long)t->n, pretoken_name(t->pretoken),
                      t->nfc ? ", NFC" : "");
}
