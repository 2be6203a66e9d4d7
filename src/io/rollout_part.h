// rollout_part.h: the answers of one rank as rollouts.nc takes them, for history.c. Not collective (all of it).
#ifndef DS_ROLLOUT_PART_H
#define DS_ROLLOUT_PART_H

#include "base/hash.h"
#include "io/history.h"

// This rank's answers, packed in the order of the file, and where they go: run k holds answers [begin[k], begin[k + 1])
// of the part and fills the records from first[k] on.
typedef struct {
    int64_t n, runs, width;
    int64_t *begin, *first;        // [runs + 1], [runs]
    int *iteration, *length, *sum; // [n]
    long long *sample;             // [n]
    uint32_t *token;               // [n][width]
    float *value;                  // [n_vars][n][width]
} RolloutPart;

// Room for n answers.
void part_alloc(RolloutPart *p, int64_t n, int64_t width, int n_vars);
void part_free(RolloutPart *p);

// Packs answer `a` as number i of the part.
void part_set(RolloutPart *p, int64_t i, const RolloutAnswer *a, int iteration, int n_vars);

// The checksum of every answer of the part (recordsum.h).
void part_sums(RolloutPart *p, const Xxh128Hex *header, int n_vars);

#endif
