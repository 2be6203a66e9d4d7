// partition.h: numbers into parts of even sums. Not collective.
#ifndef DS_PARTITION_H
#define DS_PARTITION_H

#include "base/types.h"

// owner[i] = part (0 .. parts - 1) of item i; returns the largest sum of a part. A pure function of its arguments;
// weight[n] >= 0; no part is empty if n >= parts. The better of two ways: longest first to the part with the least
// (Graham 1969), and the largest differencing method (Karmarkar and Karp 1982), whose sums differ far less where parts
// have few items. Time about n (parts + log n).
int64_t partition_even(const int64_t *weight, int64_t n, int parts, int *owner);

#endif
