// tok_decode.c: ids -> text, whole or as a stream.
#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "token/tok_norm.h"
#include "token/tok_vocab.h"

TokStr tok_piece(const Tokenizer *t, int32_t id) {
    if (id < 0 || id >= t->n) return (TokStr){"", 0};
    return (TokStr){piece_text(t, id), t->piece[id].n};
}

// What token `id` adds to a text; `start`: it is the first.
static TokStr shown(const Tokenizer *t, int32_t id, bool start) {
    if (id < 0 || id >= t->n || t->piece[id].special) return (TokStr){"", 0};
    TokStr s = tok_piece(t, id);
    const bool dummy =
        start && t->kind == TOK_KIND_SPM && t->prefix != TOK_PREFIX_NONE && t->piece[id].type == TOK_NORMAL;
    if (dummy && s.n && s.s[0] == ' ') s.s++, s.n--;
    return s;
}

// Does a token that is no special one stand before?
static bool begins(const Tokenizer *t, int32_t id) {
    return id >= 0 && id < t->n && t->piece[id].type && !t->piece[id].special;
}

void tok_decode(const Tokenizer *t, const int32_t *ids, int64_t n, char **text, size_t *bytes) {
    bool start = true;
    size_t k = 0;
    for (int64_t i = 0; i < n; i++) k += (size_t)shown(t, ids[i], false).n;
    char *out = *text = mem_alloc(k + 1);
    k = 0;
    for (int64_t i = 0; i < n; i++) {
        TokStr s = shown(t, ids[i], start);
        if (s.n) memcpy(out + k, s.s, (size_t)s.n);
        k += (size_t)s.n;
        if (begins(t, ids[i])) start = false;
    }
    out[k] = 0;
    *bytes = k;
}

char *tok_text(const Tokenizer *t, const int32_t *ids, int64_t n) {
    char *text, *fixed;
    size_t bytes;
    tok_decode(t, ids, n, &text, &bytes);
    int64_t m = (int64_t)bytes;
    norm_utf8(text, m, &fixed, &m);
    if (!fixed) return text;
    mem_free(text);
    return fixed; // has room for a NUL, and zeroes behind its text
}

static void append(char **text, size_t *bytes, const char *s, int64_t n) {
    *text = mem_grow(*text, (int64_t)*bytes, (int64_t)*bytes + n + 1, 1);
    memcpy(*text + *bytes, s, (size_t)n);
    *bytes += (size_t)n;
    (*text)[*bytes] = 0;
}

void tok_stream_next(const Tokenizer *t, TokStream *s, int32_t id, char **text, size_t *bytes) {
    const TokStr piece = shown(t, id, !s->started && !s->keep_blank);
    if (begins(t, id)) s->started = true;
    const int64_t n = s->n_held + piece.n;
    char *all = mem_alloc((size_t)n), *fixed = NULL;
    memcpy(all, s->held, (size_t)s->n_held);
    if (piece.n) memcpy(all + s->n_held, piece.s, (size_t)piece.n);
    // An incomplete character is at most three bytes long and begins no earlier than that.
    int64_t end = n;
    for (int64_t i = ds_max(0, n - 3); i < n && end == n; i++) {
        bool whole;
        int len = norm_begun(all + i, n - i, &whole);
        if (len && !whole && i + len == n) end = i;
    }
    s->n_held = (int)(n - end);
    memcpy(s->held, all + end, (size_t)s->n_held);
    int64_t m = end;
    norm_utf8(all, end, &fixed, &m);
    append(text, bytes, fixed ? fixed : all, m);
    mem_free(fixed);
    mem_free(all);
}

void tok_stream_end(TokStream *s, char **text, size_t *bytes) {
    append(text, bytes, "\xEF\xBF\xBD", s->n_held ? 3 : 0);
    s->n_held = 0;
}
