// import_meta.h: what a model of others brings besides weights: tokenizer, chat template,
// generation_config.json, and where it came from.
// Not collective (all of it).
#ifndef DS_IMPORT_META_H
#define DS_IMPORT_META_H

#include "io/gguf.h"
#include "io/modelfile.h"
#include "io/origin.h"
#include "io/safetensors.h"

#define IMPORT_META_MAX ((size_t)64 << 20) // bytes of a config.json, tokenizer.json, ...

typedef struct {
    char *tokenizer; // the blob of token/bpe.h, NULL if there is none
    size_t tokenizer_bytes;
    Origin entries; // what `origin` points into
    ModelPair origin[ORIGIN_MAX];
    int n_origin;
    char *chat_template, *generation; // what `texts` points to: Jinja; generation_config.json
    ModelPair texts[2];
    int n_texts;
} ImportMeta;

// The path of file `name` in the folder `path`, or beside the file `path`. Owner: caller, mem_free.
char *import_meta_beside(const char *path, const char *name);

// gguf: the open GGUF file, or NULL: a Hugging Face source whose files `st` holds. vocab: the model's embeddings. A
// tokenizer that is there but cannot be used is an error (DS_ERR_DATA); none at all is fine. Owner: caller,
// import_meta_free.
Err import_meta_read(const char *path, const Gguf *gguf, const Safetensors *st, int64_t vocab, ImportMeta *meta);
void import_meta_free(ImportMeta *meta);

#endif
