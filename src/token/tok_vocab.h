// tok_vocab.h: what a Tokenizer is made of; for the files of src/token only. Not collective.
//
// A loader makes one with vocab_create, gives tokens (vocab_set), indexes them (vocab_index), gives merges
// (vocab_merge) and ends with vocab_finish, which checks all of it. Merges of every kind become one table (left, right)
// -> (rank, result).
#ifndef DS_TOK_VOCAB_H
#define DS_TOK_VOCAB_H

#include "base/hash.h"
#include "token/bpe.h"
#include "token/pretoken.h"

#define TOK_MAX_FILE ((size_t)256 << 20) // bytes of a tokenizer's file
#define TOK_MAX_PIECE 65535              // bytes of a token
#define TOK_MAX_SCORED 256               // bytes of a token whose merges come from scores

// Values are part of the stored form.
typedef enum { TOK_KIND_BYTES = 0, TOK_KIND_SPM = 1 } TokKind;
typedef enum { TOK_PREFIX_NONE = 0, TOK_PREFIX_FIRST = 1, TOK_PREFIX_ALWAYS = 2 } TokPrefix; // where a dummy blank goes

// type 0: a hole. Text: bytes as decoded: ' ' where SentencePiece has U+2581, the byte itself of <0x0A>.
typedef struct {
    int64_t at; // in pool
    int32_t n;
    uint8_t type; // TokType
    bool special; // as TOK_SPECIAL counts
    bool lstrip, rstrip;
} TokPiece;

typedef struct {
    int32_t left, right, rank, result;
} TokMerge;

typedef struct TokCache TokCache;

struct Tokenizer {
    // stored
    TokKind kind;
    PretokenKind pretoken;
    TokPrefix prefix;
    bool prefix_unless_blank; // no dummy blank where the text begins with one
    bool nfc;
    bool ignore_merges; // a word that is a token is that token
    bool byte_fallback; // SPM: characters without a token become their bytes' tokens
    bool fuse_unk;      // neighbouring unknown characters make one unk
    bool split_blanks;  // SPM: each blank begins a word (Metaspace's split)
    bool add_bos, add_eos;
    int32_t bos, eos, pad, unk;
    int64_t n; // ids
    TokPiece *piece;
    char *pool;
    int64_t n_merges;
    TokMerge *merge;
    // while loading
    int64_t room, pool_n, pool_room, merge_room;
    bool left_out; // a merge
    // derived
    int32_t *map; // open addressing: text -> id, -1 empty
    uint64_t map_mask;
    int32_t *pair; // open addressing: (left, right) -> merge, -1 empty
    uint64_t pair_mask;
    int32_t byte_id[256]; // token of a single byte, -1: none
    int32_t *added;       // tokens looked for in texts, by first byte, longest first
    int32_t added_from[257];
    bool exact_blanks; // SPM: no merge crosses from a non-blank to a blank, so texts may be cut there
    Pretoken *words;
    TokCache *cache;
    Sha256Hex hash;
};

static inline const char *piece_text(const Tokenizer *t, int32_t id) { return t->pool + t->piece[id].at; }

// A hash of bytes for tables.
uint64_t vocab_hash(const char *s, int64_t n);

Tokenizer *vocab_create(TokKind kind);

// Token `id` is s[n]. DS_ERR_DATA if the id is negative, taken, or above 2 * limit + 65536 (limit: number of tokens in
// the file), or the text too long.
Err vocab_set(Tokenizer *t, int64_t id, int64_t limit, TokType type, const char *s, int64_t n, const char *what);

// The same for the SentencePiece spelling of a token: U+2581 for a blank, <0x0A> for a byte.
Err vocab_set_spm(Tokenizer *t, int64_t id, int64_t limit, TokType type, const char *s, int64_t n, const char *what);

// The same for GPT-2's printable form of a token; one that is not such a form can never be produced (TOK_UNUSED).
Err vocab_set_printed(Tokenizer *t, int64_t id, int64_t limit, const char *s, int64_t n, const char *what);

// Token `id` is looked for in texts: s[n] as it stands, in place of a token of the model with that id and text.
Err vocab_set_added(Tokenizer *t, int64_t id, int64_t limit, TokType type, const char *s, int64_t n, const char *what);

// A token with this text, -1 if there is none. Slow, but works before vocab_index.
int32_t vocab_search(const Tokenizer *t, const char *s, int64_t n);

// Token `id` is a special one from now on, unless it is a byte's, unknown or a hole. Before vocab_index.
void vocab_make_special(Tokenizer *t, int32_t id);

// Builds the index by text; bos, eos, and pad and unk if
// they look like markers, become special. DS_ERR_DATA if two tokens have the same text.
Err vocab_index(Tokenizer *t, const char *what);

// The token of the model with this text, -1 if there is none. After vocab_index.
int32_t vocab_find(const Tokenizer *t, const char *s, int64_t n);

// The longest token that s[n], n > 0, begins with of those looked for in texts, special ones only if `special`; -1:
// none. After vocab_finish.
int32_t vocab_added_at(const Tokenizer *t, const char *s, int64_t n, bool special);

// The next merge, of rank `rank`; one that takes or gives a special token is left out. DS_ERR_DATA if the two together
// are no token.
Err vocab_merge(Tokenizer *t, int32_t left, int32_t right, int64_t rank, const char *what);

// SPM: every way to cut a token into two tokens is a merge, ranked by the token's score, highest
// first. score: [n_scores]; tokens beyond are never merged.
Err vocab_merges_by_score(Tokenizer *t, const float *score, int64_t n_scores, const char *what);

// Checks ids and ends, builds all that is derived. Takes *t: frees it and sets it NULL on error. DS_ERR_DATA.
Err vocab_finish(Tokenizer **t, const char *what);

// Merge number of a pair, -1 if there is none.
static inline int32_t vocab_pair(const Tokenizer *t, int32_t left, int32_t right) {
    uint64_t key = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    for (uint64_t at = key >> 20 & t->pair_mask;; at = (at + 1) & t->pair_mask) {
        int32_t m = t->pair[at];
        if (m < 0 || (t->merge[m].left == left && t->merge[m].right == right)) return m;
    }
}

// The bytes that GPT-2's printable form of a token stands for, into out (room for n); -1 if s[n] has a character
// outside it.
int64_t vocab_unprint(const char *s, int64_t n, char *out);

// That form of s[n], NUL-terminated. Owner: caller, mem_free.
char *vocab_print(const char *s, int64_t n);

#endif
