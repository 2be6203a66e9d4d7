// import.h: models of others -> HDF5 model files. Not collective.
//
// Sources: a Hugging Face folder (config.json, model.safetensors or shards with their index), a .safetensors file or
// index with config.json beside it, a .gguf file. Nothing in them is believed (safetensors.h, gguf.h, arch_hf.h,
// arch_gguf.h).
#ifndef DS_IMPORT_H
#define DS_IMPORT_H

#include "arch/arch.h"
#include "arch/weights.h"

// A foreign model, open, its tensors matched one to one with the weights of its arch.
typedef struct ImportSource ImportSource;

// DS_ERR_DATA, DS_ERR_IO. Owner: caller, import_close.
Err import_open(const char *path, ImportSource **source);
void import_close(ImportSource **source); // accepts NULL, sets NULL

const Arch *import_arch(const ImportSource *source);          // valid until closed
const WeightList *import_weights(const ImportSource *source); // valid until closed

// The type that loses nothing: DS_BF16 if every tensor is stored so, else DS_F32.
DType import_dtype(const ImportSource *source);

// out[count] = weight i of the list, whole, in our layout ([out, in], heads in Hugging Face's order), as DS_F32 or
// DS_BF16 (rounded to nearest even where the source is finer). Needs room for up to two copies of the weight in fp32.
Err import_read(const ImportSource *source, int i, DType as, void *out);

// Writes the model file `dst` from the source at `path`, tensor by tensor, with tokenizer and chat template where there
// are any, and where it came from. dtype: DS_F32, DS_BF16, or -1 to keep the source's.
Err import_model(const char *path, const char *dst, int dtype);

#endif
