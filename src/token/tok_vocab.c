// tok_vocab.c: see tok_vocab.h: tokens, their index by text, merges, and the checks of both.
#include "token/tok_vocab.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "token/tok_cache.h"
#include "token/tok_norm.h"

uint64_t vocab_hash(const char *s, int64_t n) {
    uint64_t h = (uint64_t)n * 0x9E3779B97F4A7C15u, w = 0;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&w, s, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    w = 0;
    memcpy(&w, s, (size_t)n);
    h = (h ^ w) * 0xff51afd7ed558ccdu;
    h ^= h >> 32;
    h *= 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 29;
}

Tokenizer *vocab_create(TokKind kind) {
    Tokenizer *t = MEM_NEW(Tokenizer, 1);
    t->kind = kind;
    t->pool = mem_alloc(0); // for the empty text of a hole
    t->bos = t->eos = t->pad = t->unk = -1;
    return t;
}

void tok_free(Tokenizer **t) {
    if (!*t) return;
    mem_free((*t)->piece);
    mem_free((*t)->pool);
    mem_free((*t)->merge);
    mem_free((*t)->map);
    mem_free((*t)->pair);
    mem_free((*t)->added);
    pretoken_destroy(&(*t)->words);
    cache_destroy(&(*t)->cache);
    MEM_FREE(*t);
}

// Added tokens that look like markers count as special: a user must not be able to write them.
static bool is_marker(const char *s, int64_t n) {
    return n >= 3 && ((s[0] == '<' && s[n - 1] == '>') || (s[0] == '[' && s[n - 1] == ']'));
}

Err vocab_set(Tokenizer *t, int64_t id, int64_t limit, TokType type, const char *s, int64_t n, const char *what) {
    Err err = DS_OK;
    DS_CHECK(id >= 0 && id <= 2 * limit + 65536, DS_ERR_DATA, "%s: token \"%.*s\" has id %lld, expected 0 .. %lld",
             what, (int)ds_min(n, 60), s, (long long)id, (long long)(2 * limit + 65536));
    DS_CHECK(n <= TOK_MAX_PIECE, DS_ERR_DATA, "%s: token %lld has %lld bytes, at most %d are read", what, (long long)id,
             (long long)n, TOK_MAX_PIECE);
    DS_CHECK(id >= t->n || t->piece[id].type == 0, DS_ERR_DATA, "%s: id %lld stands for \"%.*s\" and for \"%.*s\"",
             what, (long long)id, (int)ds_min(t->piece[id].n, 60), piece_text(t, (int32_t)id), (int)ds_min(n, 60), s);
    if (id >= t->room) {
        int64_t room = ds_max(2 * t->room, ds_max(id + 1, 1024));
        t->piece = mem_grow(t->piece, t->n, room, sizeof *t->piece);
        t->room = room;
    }
    if (t->pool_n + n > t->pool_room) {
        int64_t room = ds_max(2 * t->pool_room, t->pool_n + n + 4096);
        t->pool = mem_grow(t->pool, t->pool_n, room, 1);
        t->pool_room = room;
    }
    if (n) memcpy(t->pool + t->pool_n, s, (size_t)n);
    bool special = type == TOK_CONTROL || type == TOK_UNKNOWN || (type == TOK_USER && is_marker(s, n));
    t->piece[id] = (TokPiece){.at = t->pool_n, .n = (int32_t)n, .type = (uint8_t)type, .special = special};
    t->pool_n += n;
    t->n = ds_max(t->n, id + 1);
done:
    return err;
}

static int hex_digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

Err vocab_set_spm(Tokenizer *t, int64_t id, int64_t limit, TokType type, const char *s, int64_t n, const char *what) {
    if (type == TOK_BYTE) {
        if (n != 6 || memcmp(s, "<0x", 3) || hex_digit(s[3]) < 0 || hex_digit(s[4]) < 0 || s[5] != '>')
            return err_set(DS_ERR_DATA, "%s: token %lld is of type byte, but \"%.*s\" is not like <0x0A>", what,
                           (long long)id, (int)ds_min(n, 60), s);
        const char byte = (char)(hex_digit(s[3]) << 4 | hex_digit(s[4]));
        return vocab_set(t, id, limit, type, &byte, 1, what);
    }
    int64_t m = n;
    char *plain = norm_blanks(s, n, &m);
    Err err = vocab_set(t, id, limit, type, plain ? plain : s, m, what);
    mem_free(plain);
    return err;
}

Err vocab_set_printed(Tokenizer *t, int64_t id, int64_t limit, const char *s, int64_t n, const char *what) {
    char *bytes = mem_alloc((size_t)n);
    int64_t m = vocab_unprint(s, n, bytes);
    Err err =
        m < 0 ? vocab_set(t, id, limit, TOK_UNUSED, s, n, what) : vocab_set(t, id, limit, TOK_NORMAL, bytes, m, what);
    mem_free(bytes);
    return err;
}

int32_t vocab_search(const Tokenizer *t, const char *s, int64_t n) {
    for (int32_t id = 0; id < t->n; id++)
        if (t->piece[id].type && t->piece[id].type != TOK_BYTE && t->piece[id].n == n &&
            !memcmp(piece_text(t, id), s, (size_t)n))
            return id;
    return -1;
}

Err vocab_set_added(Tokenizer *t, int64_t id, int64_t limit, TokType type, const char *s, int64_t n, const char *what) {
    if (id >= 0 && id < t->n && t->piece[id].type) {
        const TokPiece *p = &t->piece[id];
        char *bytes = mem_alloc((size_t)n);
        int64_t m = vocab_unprint(s, n, bytes);
        bool same = (p->n == n && !memcmp(piece_text(t, (int32_t)id), s, (size_t)n)) ||
                    (p->n == m && !memcmp(piece_text(t, (int32_t)id), bytes, (size_t)m));
        mem_free(bytes);
        if (same) t->piece[id].type = 0; // to be set anew; otherwise vocab_set says what is wrong
    }
    return vocab_set(t, id, limit, type, s, n, what);
}

static uint64_t table_size(int64_t n) {
    uint64_t size = 64;
    while (size < 2 * (uint64_t)n) size *= 2;
    return size;
}

static int32_t *empty_table(uint64_t size) {
    int32_t *table = MEM_NEW(int32_t, (int64_t)size);
    memset(table, 0xff, size * sizeof *table);
    return table;
}

// Where s[n] stands in the index, or would stand.
static uint64_t slot(const Tokenizer *t, const char *s, int64_t n) {
    for (uint64_t at = vocab_hash(s, n) & t->map_mask;; at = (at + 1) & t->map_mask) {
        int32_t id = t->map[at];
        if (id < 0 || (t->piece[id].n == n && !memcmp(piece_text(t, id), s, (size_t)n))) return at;
    }
}

int32_t vocab_find(const Tokenizer *t, const char *s, int64_t n) { return t->map[slot(t, s, n)]; }

// Is the token looked for in texts, before BPE?
static bool is_added(const TokPiece *p) {
    return p->n > 0 && (p->type == TOK_CONTROL || p->type == TOK_USER || p->type == TOK_UNKNOWN);
}

void vocab_make_special(Tokenizer *t, int32_t id) {
    TokPiece *p = &t->piece[id];
    if (p->type == TOK_NORMAL || p->type == TOK_USER || p->type == TOK_UNUSED) p->type = TOK_CONTROL, p->special = true;
}

// Files may name these by number alone. What may be a word or a letter of texts stays one: a pad that is no marker, a
// token of one byte.
static void mark_ends(Tokenizer *t) {
    const int32_t ends[] = {t->bos, t->eos, t->pad, t->unk};
    for (int i = 0; i < DS_COUNT(ends); i++) {
        if (ends[i] < 0 || ends[i] >= t->n) continue;
        const int32_t n = t->piece[ends[i]].n;
        if (i < 2 ? n > 1 : is_marker(piece_text(t, ends[i]), n)) vocab_make_special(t, ends[i]);
    }
}

Err vocab_index(Tokenizer *t, const char *what) {
    mark_ends(t);
    uint64_t size = table_size(t->n);
    t->map = empty_table(size);
    t->map_mask = size - 1;
    // Normal tokens first: GPT-NeoX adds runs of blanks that its model has too, in another form.
    for (int added = 0; added < 2; added++) {
        for (int32_t id = 0; id < t->n; id++) {
            const TokPiece *p = &t->piece[id];
            if (added ? !is_added(p) : p->type != TOK_NORMAL) continue;
            uint64_t at = slot(t, piece_text(t, id), p->n);
            int32_t other = t->map[at];
            if (other >= 0 && (!added || is_added(&t->piece[other])))
                return err_set(DS_ERR_DATA, "%s: tokens %d and %d are both \"%.*s\"", what, other, id,
                               (int)ds_min(p->n, 60), piece_text(t, id));
            if (other < 0) t->map[at] = id;
        }
    }
    return DS_OK;
}

Err vocab_merge(Tokenizer *t, int32_t left, int32_t right, int64_t rank, const char *what) {
    Err err = DS_OK;
    char *both = NULL;
    DS_CHECK(left >= 0 && left < t->n && right >= 0 && right < t->n && rank >= 0 && rank < INT32_MAX, DS_ERR_DATA,
             "%s: merge %lld joins tokens %d and %d, expected 0 .. %lld", what, (long long)rank, left, right,
             (long long)t->n - 1);
    const TokPiece *l = &t->piece[left], *r = &t->piece[right];
    both = mem_alloc((size_t)l->n + (size_t)r->n);
    memcpy(both, piece_text(t, left), (size_t)l->n);
    memcpy(both + l->n, piece_text(t, right), (size_t)r->n);
    int32_t result = vocab_find(t, both, l->n + r->n);
    DS_CHECK(l->n && r->n && result >= 0, DS_ERR_DATA, "%s: merge %lld gives \"%.*s\", which is no token", what,
             (long long)rank, (int)ds_min(l->n + r->n, 60), both);
    if (l->special || r->special || t->piece[result].special) { // nobody can type a special token
        t->left_out = true;
        goto done;
    }
    if (t->n_merges == t->merge_room) {
        t->merge_room = ds_max(4096, 2 * t->merge_room);
        t->merge = mem_grow(t->merge, t->n_merges, t->merge_room, sizeof *t->merge);
    }
    t->merge[t->n_merges++] = (TokMerge){left, right, (int32_t)rank, result};
done:
    mem_free(both);
    return err;
}

typedef struct {
    float score;
    int32_t id;
} Scored;

static int by_score(const void *a, const void *b) {
    const Scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

// Every cut of token `id` into two normal tokens.
static Err add_cuts(Tokenizer *t, int32_t id, int64_t rank, const char *what) {
    Err err = DS_OK;
    const int64_t n = t->piece[id].n;
    if (n > TOK_MAX_SCORED)
        return err_set(DS_ERR_DATA, "%s: token %d has %lld bytes, at most %d are read here", what, id, (long long)n,
                       TOK_MAX_SCORED);
    for (int64_t i = 1; i < n; i++) {
        const char *s = piece_text(t, id);
        int32_t left = vocab_find(t, s, i), right = left < 0 ? -1 : vocab_find(t, s + i, n - i);
        if (right < 0 || t->piece[left].type != TOK_NORMAL || t->piece[right].type != TOK_NORMAL) continue;
        DS_TRY(vocab_merge(t, left, right, rank, what));
    }
done:
    return err;
}

Err vocab_merges_by_score(Tokenizer *t, const float *score, int64_t n_scores, const char *what) {
    Err err = DS_OK;
    Scored *order = MEM_NEW(Scored, t->n);
    int64_t n = 0, rank = -1;
    for (int32_t id = 0; id < ds_min(t->n, n_scores); id++) {
        if (t->piece[id].type != TOK_NORMAL) continue;
        DS_CHECK(score[id] == score[id], DS_ERR_DATA, "%s: the score of token %d is not a number", what, id);
        order[n++] = (Scored){score[id], id};
    }
    qsort(order, (size_t)n, sizeof *order, by_score);
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || order[i].score != order[i - 1].score) rank++;
        DS_TRY(add_cuts(t, order[i].id, rank, what));
    }
done:
    mem_free(order);
    return err;
}

// Merges that were left out leave no gaps: the stored form is that of a file which never had them.
static void close_gaps(Tokenizer *t) {
    for (int64_t m = 1; m < t->n_merges; m++)
        if (t->merge[m].rank < t->merge[m - 1].rank) return;
    for (int64_t m = 0, rank = -1, before = -1; m < t->n_merges; m++) {
        if (t->merge[m].rank != before) rank++;
        before = t->merge[m].rank;
        t->merge[m].rank = (int32_t)rank;
    }
}

static Err index_merges(Tokenizer *t, const char *what) {
    if (t->left_out) close_gaps(t);
    uint64_t size = table_size(t->n_merges);
    t->pair = empty_table(size);
    t->pair_mask = size - 1;
    for (int32_t m = 0; m < t->n_merges; m++) {
        const TokMerge *x = &t->merge[m];
        if (vocab_pair(t, x->left, x->right) >= 0)
            return err_set(DS_ERR_DATA, "%s: merge %d repeats the pair \"%.*s\" \"%.*s\"", what, x->rank,
                           (int)ds_min(t->piece[x->left].n, 60), piece_text(t, x->left),
                           (int)ds_min(t->piece[x->right].n, 60), piece_text(t, x->right));
        uint64_t key = ((uint64_t)(uint32_t)x->left << 32 | (uint32_t)x->right) * 0x9E3779B97F4A7C15u;
        uint64_t at = key >> 20 & t->pair_mask;
        while (t->pair[at] >= 0) at = (at + 1) & t->pair_mask;
        t->pair[at] = m;
    }
    return DS_OK;
}

// The tokens of single bytes.
static Err index_bytes(Tokenizer *t, const char *what) {
    memset(t->byte_id, 0xff, sizeof t->byte_id);
    for (int32_t id = 0; id < t->n; id++) {
        const TokPiece *p = &t->piece[id];
        if (p->type != (t->kind == TOK_KIND_SPM ? TOK_BYTE : TOK_NORMAL) || p->n != 1) continue;
        const int byte = (unsigned char)piece_text(t, id)[0];
        if (t->byte_id[byte] >= 0)
            return err_set(DS_ERR_DATA, "%s: tokens %d and %d are both byte %d", what, t->byte_id[byte], id, byte);
        t->byte_id[byte] = id;
    }
    return DS_OK;
}

static int by_added(const void *a, const void *b, void *arg) {
    const Tokenizer *t = arg;
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    int cx = (unsigned char)piece_text(t, x)[0], cy = (unsigned char)piece_text(t, y)[0];
    if (cx != cy) return cx - cy;
    if (t->piece[x].n != t->piece[y].n) return t->piece[y].n - t->piece[x].n;
    return x < y ? -1 : x > y;
}

static void index_added(Tokenizer *t) {
    int64_t n = 0;
    for (int64_t id = 0; id < t->n; id++) n += is_added(&t->piece[id]);
    t->added = MEM_NEW(int32_t, n);
    n = 0;
    for (int32_t id = 0; id < t->n; id++)
        if (is_added(&t->piece[id])) t->added[n++] = id;
    qsort_r(t->added, (size_t)n, sizeof *t->added, by_added, t);
    int64_t i = 0;
    for (int c = 0; c <= 256; c++) {
        while (i < n && (unsigned char)piece_text(t, t->added[i])[0] < c) i++;
        t->added_from[c] = (int32_t)i;
    }
}

// Is there no merge that puts a blank behind something else?
static bool has_exact_blanks(const Tokenizer *t) {
    for (int64_t m = 0; m < t->n_merges; m++) {
        const char *s = piece_text(t, t->merge[m].result);
        for (int32_t i = 1; i < t->piece[t->merge[m].result].n; i++)
            if (s[i] == ' ' && s[i - 1] != ' ') return false;
    }
    return true;
}

static Err check_ends(const Tokenizer *t, const char *what) {
    const struct {
        const char *name;
        int32_t id;
        bool needed;
    } ends[] = {
        {"bos", t->bos, t->add_bos}, {"eos", t->eos, t->add_eos}, {"pad", t->pad, false}, {"unk", t->unk, false}};
    for (int i = 0; i < DS_COUNT(ends); i++) {
        int32_t id = ends[i].id;
        if (id < -1 || id >= t->n || (id >= 0 && t->piece[id].type == 0))
            return err_set(DS_ERR_DATA, "%s: %s is token %d, which does not exist (there are %lld)", what, ends[i].name,
                           id, (long long)t->n);
        if (ends[i].needed && id < 0)
            return err_set(DS_ERR_DATA, "%s: adds a %s token, but has none", what, ends[i].name);
    }
    return DS_OK;
}

Err vocab_finish(Tokenizer **pt, const char *what) {
    Err err = DS_OK;
    Tokenizer *t = *pt;
    char *blob = NULL;
    size_t bytes = 0;
    DS_CHECK(t->n > 0, DS_ERR_DATA, "%s: has no tokens", what);
    DS_TRY(check_ends(t, what));
    DS_TRY(index_bytes(t, what));
    DS_TRY(index_merges(t, what));
    index_added(t);
    t->exact_blanks = t->kind == TOK_KIND_SPM && has_exact_blanks(t);
    t->words = pretoken_create(t->pretoken);
    t->cache = cache_create();
    DS_TRY(tok_save(t, &blob, &bytes));
    t->hash = hash_sha256(blob, bytes);
done:
    mem_free(blob);
    if (err) tok_free(pt);
    return err;
}

// ---- GPT-2's printable bytes ----

// The character of each byte: printable ones stand for themselves, the others for U+0100 and up.
static uint32_t byte_char(int byte) {
    if ((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174) return (uint32_t)byte;
    if (byte <= 32) return 256u + (uint32_t)byte;
    return byte == 173 ? 256u + 67u : 256u + 33u + (uint32_t)(byte - 127);
}

int64_t vocab_unprint(const char *s, int64_t n, char *out) {
    static _Thread_local int16_t byte_of[324];
    static _Thread_local bool ready;
    if (!ready) {
        memset(byte_of, 0xff, sizeof byte_of);
        for (int b = 0; b < 256; b++) byte_of[byte_char(b)] = (int16_t)b;
        ready = true;
    }
    int64_t k = 0;
    for (int64_t i = 0; i < n;) {
        int len = 1;
        uint32_t c = (unsigned char)s[i];
        if (c >= 0x80) { // two bytes hold all of them
            if (i + 1 >= n || (c != 0xC2 && c != 0xC3 && c != 0xC4 && c != 0xC5) || (s[i + 1] & 0xC0) != 0x80)
                return -1;
            c = (c & 0x1F) << 6 | ((unsigned char)s[i + 1] & 0x3F), len = 2;
        }
        if (c >= 324 || byte_of[c] < 0) return -1;
        out[k++] = (char)byte_of[c];
        i += len;
    }
    return k;
}

char *vocab_print(const char *s, int64_t n) {
    char *out = mem_array(2 * n + 1, 1), *p = out;
    for (int64_t i = 0; i < n; i++) {
        uint32_t c = byte_char((unsigned char)s[i]);
        if (c >= 0x80) *p++ = (char)(0xC0 | c >> 6), *p++ = (char)(0x80 | (c & 0x3F));
        else *p++ = (char)c;
    }
    return out;
}
