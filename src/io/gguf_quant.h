// gguf_quant.h: the element types of GGUF tensors and what their bits mean. Not collective.
//
// A quantised type stores blocks of 32 or 256 elements with their scales. The arithmetic below is that of the format's
// own reference (one multiplication, one addition, in fp32, in this order), so results are equal bit by bit.
#ifndef DS_GGUF_QUANT_H
#define DS_GGUF_QUANT_H

#include "base/err.h"

// ggml's numbers of the types that we read.
typedef enum {
    GGUF_T_F32 = 0,
    GGUF_T_F16 = 1,
    GGUF_T_Q4_0 = 2,
    GGUF_T_Q4_1 = 3,
    GGUF_T_Q8_0 = 8,
    GGUF_T_Q4_K = 12,
    GGUF_T_Q6_K = 14,
    GGUF_T_BF16 = 30
} GgufQuantType;

// "Q4_1"; also for types that exist but that we cannot read; NULL for a number that means nothing to us.
const char *gguf_quant_name(uint32_t type);

// Elements and bytes of a block. False if the type is unknown or its name is all we know.
bool gguf_quant_block(uint32_t type, int64_t *elements, size_t *bytes);

// out[blocks * elements] from blocks at `data` (any alignment). The type must be one that gguf_quant_block accepts.
void gguf_quant_to_f32(uint32_t type, const char *data, int64_t blocks, float *out);

#endif
