// export_meta.h: what an exported model needs besides weights and config: chat template, generation_config.json and
// tokenizer files.
// Not collective (all of it).
#ifndef DS_EXPORT_META_H
#define DS_EXPORT_META_H

#include "base/file.h"
#include "io/modelfile.h"

typedef struct {
    int64_t bos, eos;
} ExportTokens; // ids for config.json, -1: none

// Writes chat_template.jinja, generation_config.json and the tokenizer's files into `dir`, where the model has them: as
// they came with the model of others, or, of a model trained here, the template that it was trained with and the tokens
// that end an answer. DS_ERR_IO.
Err export_meta_write(const ModelFile *model, const char *dir, ExportTokens *ids);

#endif
