// modelfile.h: a model as one HDF5 file, or a small master over shards (design: "Files").
//
//     /config     attributes: format_version, every field of Arch
//     /tokenizer  uint8 [bytes], attribute sha256
//     /origin     attributes: where it came from
//     /texts      attributes: chat_template (Jinja, never run), generation_config (JSON): of others, as they came;
//                 template, the one it was trained with, and its strings
//     /weights/<Hugging Face name>   fp32 or bf16, [out, in] for linear weights (arch/weights.h), attribute xxh3_128
//
// Not collective unless a function says so.
#ifndef DS_MODELFILE_H
#define DS_MODELFILE_H

#include "arch/arch.h"
#include "io/h5_parts.h"

typedef struct {
    const char *key, *value;
} ModelPair;

// What a model file holds besides weights.
typedef struct {
    const Arch *arch;
    const void *tokenizer; // the tokenizer's own file as bytes; NULL: the model has none
    size_t tokenizer_bytes;
    const ModelPair *origin; // [n_origin] provenance: commit, params, parents' hashes
    int n_origin;
    const ModelPair *texts; // [n_texts] strings kept and shown: chat_template, ...
    int n_texts;
} ModelMeta;

// The tensors that a model of this arch has, in the order of arch/weights.h, paths "/weights/<name>". Owner: caller,
// mem_free.
void modelfile_tensors(const Arch *arch, DType dtype, H5Tensor **tensors, int *n_tensors);

// Writes everything but the weights into a file being written. DS_ERR_IO.
Err modelfile_write_meta(H5File *file, const ModelMeta *meta);

// One file, by one process: tensors in any order, each as flat ranges in any order, data[count] in dtype. Memory: one
// row.
typedef struct ModelWriter ModelWriter;
Err modelfile_create(const char *path, const ModelMeta *meta, DType dtype, ModelWriter **writer);
// tensor: index into modelfile_tensors' list.
Err modelfile_put(ModelWriter *writer, int tensor, int64_t first, int64_t count, const void *data);
Err modelfile_commit(ModelWriter **writer);   // DS_ERR_BUG if a weight is missing; sets NULL in any case
void modelfile_abandon(ModelWriter **writer); // accepts NULL

// The master over shards already written by h5_parts_write_shard(path, ...); rows of all ranks. Replaces an older
// master.
Err modelfile_write_master(const char *path, const ModelMeta *meta, const H5Tensor *tensors, int n_tensors,
                           H5Rows *rows);

// Opens through h5_open_checked, and checks the config and that every weight of its arch is there with its shape, fp32
// or bf16, and no other. A missing shard is named (tools would read it as nan). DS_ERR_DATA, DS_ERR_IO. Owner: caller.
typedef struct ModelFile ModelFile;
Err modelfile_open(const char *path, ModelFile **model);
void modelfile_close(ModelFile **model); // accepts NULL, sets NULL

const Arch *modelfile_arch(const ModelFile *model); // valid until closed
int modelfile_count(const ModelFile *model);        // weights
const H5Tensor *modelfile_tensor(const ModelFile *model, int i);
int modelfile_find(const ModelFile *model, const char *name); // Hugging Face name; -1 if none

// out[count] = flat range of weight i as DS_F32 or DS_BF16, from shards, one file or what h5repack made of them.
Err modelfile_read(const ModelFile *model, int i, DType as, int64_t first, int64_t count, void *out);
// out[count] = elements of a matrix in runs of `run`, the first at `first`, each one row below the one before and
// inside its row: a strip of columns, whoever wrote the file and however it was cut. run = 0: modelfile_read.
Err modelfile_read_runs(const ModelFile *model, int i, DType as, int64_t first, int64_t count, int64_t run, void *out);

// Checks this part's share of the weights' hashes (part of parts ranks; 0 of 1: all).
Err modelfile_verify(const ModelFile *model, int part, int parts);
// The same up to a time, added to *v (h5_parts.h); weights without hashes are no error.
Err modelfile_verify_until(const ModelFile *model, int part, int parts, H5Verified *v);

// The tokenizer's bytes with a NUL after them, its SHA-256 checked; *data = NULL if the model has none. Owner: caller,
// mem_free.
Err modelfile_tokenizer(const ModelFile *model, char **data, size_t *bytes);

// A string of /texts or /origin; NULL if there is none. Owner: caller, mem_free.
Err modelfile_text(const ModelFile *model, const char *key, char **value);
Err modelfile_origin(const ModelFile *model, const char *key, char **value);

#endif
