// bpe.h: text <-> token ids. Byte-level BPE (GPT-2, OPT, SmolLM2, Llama-3, Qwen2, ...) and SentencePiece BPE with byte
// fallback (Llama-2, Mistral), read from every form that models come in, and kept in our own files as one canonical
// blob. Not collective (all of it). A Tokenizer caches words as it encodes, so one thread at a time may encode with it;
// all else is read-only.
//
// Texts are byte strings of a stated length. Invalid UTF-8 in a text counts as U+FFFD for each maximal invalid part, as
// Python's errors="replace". Ids are int32_t, 0 .. tok_vocab_size - 1; there may be holes, whose ids are never
// produced.
#ifndef DS_BPE_H
#define DS_BPE_H

#include "base/err.h"

typedef struct Tokenizer Tokenizer;

// A text, not NUL-terminated. A view: whoever gives it owns it.
typedef struct {
    const char *s;
    int64_t n;
} TokStr;

// A growable array of ids. {0} is an empty one. Owner: caller, tok_ids_free.
typedef struct {
    int32_t *id; // [n]
    int64_t n, room;
} TokIds;

void tok_ids_push(TokIds *ids, int32_t id);
void tok_ids_free(TokIds *ids);

// ---- load and save ----

// `path`: a tokenizer.json; a tokenizer.model (SentencePiece); a folder with one of tokenizer.json, vocab.json +
// merges.txt, encoder.json + vocab.bpe, tokenizer.model (the first of these that is there); or one of such a pair of
// files. Names of bos, eos, pad and unk come from the tokenizer_config.json beside it where there is one. DS_ERR_IO;
// DS_ERR_DATA names file and field. Owner: caller, tok_free.
Err tok_load(const char *path, Tokenizer **out);

// The pair of files, whatever their names. DS_ERR_IO, DS_ERR_DATA.
Err tok_load_pair(const char *vocab_path, const char *merges_path, Tokenizer **out);

// Ids of TokArrays.types, as GGUF and SentencePiece number them.
typedef enum { TOK_NORMAL = 1, TOK_UNKNOWN, TOK_CONTROL, TOK_USER, TOK_UNUSED, TOK_BYTE } TokType;

// What a GGUF file holds under tokenizer.ggml.*. Numbers that are missing: -1.
typedef struct {
    const char *model;    // "gpt2" (byte-level) or "llama" (SentencePiece)
    const char *pre;      // "smollm", "gpt-2", "llama-bpe", "qwen2", ...; NULL: missing
    const TokStr *tokens; // [n_tokens]
    const int64_t *types; // [n_tokens] TokType, NULL: all normal
    const float *scores;  // [n_tokens], "llama" only
    const TokStr *merges; // [n_merges] "left right", "gpt2" only
    int64_t n_tokens, n_merges;
    int64_t bos, eos, pad, unk;
    int add_bos, add_eos, add_space_prefix; // 0, 1 or -1
} TokArrays;

// what: names the file in messages. DS_ERR_DATA. Owner: caller, tok_free.
Err tok_load_arrays(const TokArrays *a, const char *what, Tokenizer **out);

// The stored form: the same bytes for the same tokenizer, whatever it was read from. *blob: [*bytes]. Owner: caller,
// mem_free.
Err tok_save(const Tokenizer *t, char **blob, size_t *bytes);
Err tok_load_blob(const char *blob, size_t bytes, const char *what, Tokenizer **out); // DS_ERR_DATA

// Writes tokenizer.json and tokenizer_config.json, as Hugging Face tokenizers reads them, into the folder `dir`.
// DS_ERR_IO.
Err tok_export_hf(const Tokenizer *t, const char *dir);

// SHA-256 of the blob, 64 hexadecimal digits; lives as long as t.
const char *tok_hash(const Tokenizer *t);

// Accepts NULL, and sets *t to NULL.
void tok_free(Tokenizer **t);

// ---- encode and decode ----

enum {
    TOK_SPECIAL = 1, // special tokens are recognised in the text; without it they are letters like all others, and no
                     // text gives a special token but unk, for a character that the tokenizer has no token for. Counted
                     // as special: those marked so, bos, eos, and added tokens that look like markers: <...> or [...]
    TOK_ENDS = 2,    // also the begin (and end) token that this tokenizer's own post-processor adds
    TOK_NO_PREFIX = 4, // the text goes on a text before it: no dummy blank in front (SentencePiece)
};

// Appends the ids of s[n] to *ids. DS_ERR_DATA only where PCRE2 gives up, which it does not do on its own.
Err tok_encode(const Tokenizer *t, const char *s, int64_t n, int flags, TokIds *ids);

// The text of ids[n] as bytes (tokens may cut UTF-8 characters apart), special tokens and ids that do not exist left
// out; of SentencePiece the dummy blank in front, too. *text is NUL-terminated, [*bytes]. Owner: caller, mem_free.
void tok_decode(const Tokenizer *t, const int32_t *ids, int64_t n, char **text, size_t *bytes);

// The same as valid UTF-8 (U+FFFD for broken parts). Owner: caller, mem_free.
char *tok_text(const Tokenizer *t, const int32_t *ids, int64_t n);

// Decodes token by token and never gives broken UTF-8: holds incomplete characters back. Zero it to begin;
// `keep_blank`: the first token goes on a text before it, so its blank stays.
typedef struct {
    char held[8];
    int n_held;
    bool started, keep_blank;
} TokStream;

// The text that token `id` completes: appended to *text (grown; [*bytes], NUL-terminated, NULL at first). Owner:
// caller, mem_free.
void tok_stream_next(const Tokenizer *t, TokStream *s, int32_t id, char **text, size_t *bytes);

// What is still held back at the end, as U+FFFD.
void tok_stream_end(TokStream *s, char **text, size_t *bytes);

// ---- what is in it ----

int64_t tok_vocab_size(const Tokenizer *t); // largest id + 1
int32_t tok_bos(const Tokenizer *t);        // -1: none; tok_eos, tok_pad, tok_unk alike
int32_t tok_eos(const Tokenizer *t);
int32_t tok_pad(const Tokenizer *t);
int32_t tok_unk(const Tokenizer *t);
bool tok_adds_bos(const Tokenizer *t); // its own post-processor begins texts with bos

bool tok_is_special(const Tokenizer *t, int32_t id); // also false for ids out of range

// The id of the special token (as TOK_SPECIAL counts) with exactly this text, -1 if there is none.
int32_t tok_special_id(const Tokenizer *t, const char *text, int64_t n);

// The bytes of one token (of a special one its text, "" of a hole); a view that lives as long as t.
TokStr tok_piece(const Tokenizer *t, int32_t id);

// "byte-level BPE, 49152 tokens, pre-tokeniser smollm" into fresh memory. Owner: caller, mem_free.
char *tok_describe(const Tokenizer *t);

#endif
