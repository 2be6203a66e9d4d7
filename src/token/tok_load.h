// tok_load.h: what the readers of tokenizer files share; for the files of src/token only. Not collective.
#ifndef DS_TOK_LOAD_H
#define DS_TOK_LOAD_H

#include <jansson.h>

#include "token/tok_vocab.h"

// Reads a JSON object; flags: jansson's, besides JSON_REJECT_DUPLICATES. DS_ERR_IO; DS_ERR_DATA with the line. Owner:
// caller, json_decref.
Err load_json(const char *path, size_t flags, json_t **root);

// The tokenizer_config.json beside `path`; *root = NULL if there is none.
Err load_config(const char *path, json_t **root);

// The next merge, "left right". DS_ERR_DATA names the line.
Err load_merge(Tokenizer *t, const char *s, int64_t n, int64_t rank, const char *what);
Err load_merge_pair(Tokenizer *t, TokStr left, TokStr right, int64_t rank, const char *what);

// tokenizer_config.json (NULL: none): its added tokens; bos, eos, pad and unk by name; add_bos_token and add_eos_token.
// What it does not name and t has not yet is guessed by the usual names, among special tokens only unless `any`. Before
// vocab_index.
Err load_ends(Tokenizer *t, const json_t *config, bool any, bool add_flags, const char *what);

// A tokenizer.json, and a tokenizer.model. Owner: caller, tok_free.
Err load_tokenizer_json(const char *path, Tokenizer **out);
Err load_sentencepiece(const char *path, Tokenizer **out);

// tok_load_arrays with a tokenizer_config.json (NULL: none).
Err load_arrays(const TokArrays *a, const json_t *config, const char *what, Tokenizer **out);

#endif
