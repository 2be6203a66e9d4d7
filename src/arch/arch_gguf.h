// arch_gguf.h: GGUF metadata and tensor names -> Arch and WeightList. Not collective.
//
// general.architecture llama (also Mistral without a window, SmolLM2), qwen2, qwen3, gpt2. A key of the architecture
// that is not known here is refused by name, since it may change the arithmetic. This room is below src/io, so the file
// is seen through ArchGgufMeta.
#ifndef DS_ARCH_GGUF_H
#define DS_ARCH_GGUF_H

#include "arch/arch.h"
#include "arch/weights.h"

// What a GGUF file says, as its reader gives it.
typedef struct {
    const void *file;
    const char *what;        // file name, begins messages
    const char *const *keys; // [n] all keys
    int n;
    bool (*number)(const void *file, const char *key, double *value); // false: missing or no number
    char *(*string)(const void *file, const char *key);               // NULL: missing; caller frees
    bool (*shape)(const void *file, const char *tensor,
                  int64_t shape[2]); // [rows, cols], cols = 1: vector; false: missing
    const float *rope_freqs;         // rope_freqs.weight [n_rope_freqs], NULL: none
    int64_t n_rope_freqs;
} ArchGgufMeta;

// -> *a, checked by arch_check. DS_ERR_DATA with the key and its value.
Err arch_gguf_parse(const ArchGgufMeta *meta, Arch *a);

// The GGUF name of a weight. DS_ERR_DATA if GGUF has none for this family.
Err arch_gguf_name(const Arch *a, const Weight *w, char out[96]);

// llama.cpp stores the rows of q and k of `llama` files permuted inside each head: file row 2 j + h is Hugging Face's
// row h d/2 + j (h = 0, 1; j < d/2; d = head_dim). The number of heads to undo that for, 0 where rows lie as they are.
int64_t arch_gguf_permuted_heads(const Arch *a, const Weight *w);

// dst[rows * cols] = src with that permutation undone; rows is divisible by 2 * heads. Not in place.
void arch_gguf_unpermute(const float *src, int64_t rows, int64_t cols, int64_t heads, float *dst);

// True if the file may hold this tensor although no weight is read from it ("rope_freqs.weight").
bool arch_gguf_is_extra(const char *name);

#endif
