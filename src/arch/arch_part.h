// arch_part.h: what one rank of a tensor group keeps and computes of a model (Megatron's split): whole attention heads,
// columns of the MLP's first matrix and rows of its second, rows of the embedding. Arithmetic only. Not collective.
//
// Parts need not be equal: rank r of t takes ceil(n r / t) .. ceil(n (r + 1) / t) of n, so that rank 0 has the most of
// everything. With at least as many ranks as key heads (grouped query), a key head is kept by several ranks, which
// divide its query heads.
//
// Between the split parts (norms, the residual stream) every rank has all tokens of a micro-batch or, with sequence
// parallelism (Korthikanti et al. 2022), only its share of them.
#ifndef DS_ARCH_PART_H
#define DS_ARCH_PART_H

#include "arch/arch.h"

typedef struct {
    Arch own;       // the model's, with heads, kv_heads, ffn and vocab of this part
    int rank, size; // of the tensor group
    int64_t vocab;  // of the whole model
    int64_t head_first, kv_first, ffn_first, vocab_first; // where the part begins in the whole
    int kv_rank, kv_size;                                 // which of how many ranks that keep the same key heads
    bool sequence;                                        // false after arch_part. Sequence parallelism
} ArchPart;

// Most ranks that the model can be split over: its heads, its vocabulary.
int64_t arch_part_limit(const Arch *whole);

// size <= arch_part_limit; rank 0 of 1: the whole.
void arch_part(ArchPart *p, const Arch *whole, int rank, int size);

#endif
