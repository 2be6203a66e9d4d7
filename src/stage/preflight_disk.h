// preflight_disk.h: the room that a run will take in its folder: products of the stages to come, and checkpoints. Not
// collective.
#ifndef DS_PREFLIGHT_DISK_H
#define DS_PREFLIGHT_DISK_H

#include "arch/arch.h"
#include "params/params.h"

typedef struct {
    int64_t products;                // bytes
    int64_t checkpoint[STAGE_KINDS]; // of one checkpoint of each stage
} DiskNeed;

// A model of shape a will be written as a product (average: and once more), and into each checkpoint of a stage
// (average: with its moving average).
void disk_need_product(DiskNeed *d, const Arch *a, const ModelParams *keys, bool average);
void disk_need_checkpoint(DiskNeed *d, StageKind stage, const Arch *a, const ModelParams *keys, bool average);

// Whether [job] out can be written, and there is room for the products and, beside the [checkpoint] keep newest
// checkpoints, the next one. *words: what is needed and what is free (NULL: not known). Owner: caller, mem_free.
// DS_ERR_IO.
Err disk_check(const DiskNeed *d, const Params *p, char **words);

#endif
