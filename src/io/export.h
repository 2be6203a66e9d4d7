// export.h: HDF5 model files -> Hugging Face folders that transformers loads. Not collective.
#ifndef DS_EXPORT_H
#define DS_EXPORT_H

#include "base/err.h"

// Writes config.json, model.safetensors (or shards of at most max_shard_bytes with their index), and the tokenizer,
// chat template and generation_config.json where the model has them (export_meta.h), into folder `dir`, which is made
// if need be. Weights keep the file's dtype, bit by bit; a scalar head is "v_head.weight". DS_ERR_IO if the folder
// already holds a model. What is refused or fails leaves nothing behind.
Err export_model(const char *path, const char *dir, double max_shard_bytes);

#endif
