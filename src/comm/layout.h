// layout.h: how the ranks of a job are divided (design: "Rank groups"). World = data x tensor: neighbours form a tensor
// group, which splits every layer; ranks with the same part of the layers form a data group. The data group is cut into
// zero groups of neighbours, inside which weights, gradients and moments are partitioned; the ranks with the same part
// in all zero groups are its copies.
//
//     8 ranks, tensor = 2, zero = 2:   tensor groups 0 1 | 2 3 | 4 5 | 6 7      data groups 0 2 4 6 | 1 3 5 7
//                                      zero groups 0 2 | 4 6 | 1 3 | 5 7        copies 0 4 | 2 6 | 1 5 | 3 7
//
// A step's micro-batches are dealt to `lanes` virtual ranks; data rank r takes the lanes r, r + data, r + 2 data, ...
// in turn. Gradients are summed in one binary tree over the lanes, so that equal lanes give equal bits on any number of
// data ranks.
#ifndef DS_LAYOUT_H
#define DS_LAYOUT_H

#include "comm/group.h"

typedef struct {
    Group *data, *tensor, *zero, *copies;
    int lanes, turns; // turns: lanes of one rank
    bool library;     // false after layout_create. At ZeRO stages 0, 1 gradients are summed once a step, by MPI, in its
                      // order
    bool sequence;    // false after layout_create. Tensor ranks divide the rows of what they do not split (arch_part.h)
} Layout;

// What a user wishes; 0: all data ranks, for zero and lanes; 1 for tensor.
typedef struct {
    int64_t tensor, zero, lanes;
} LayoutWish;

// Whether this many ranks can be laid out so: tensor divides the ranks, zero divides data = ranks / tensor, lanes is a
// multiple of data, and the tree is the same for all layouts: a rank with several lanes needs 1, 2, 4, 8 ... data
// ranks, several copies 1, 2, 4, 8 ... ranks in a zero group. DS_ERR_PARAMS with the nearest legal value. Not
// collective.
Err layout_check(int ranks, LayoutWish wish);

// Collective on world. wish as layout_check accepted it. Owner: caller, layout_destroy (Collective on world).
void layout_create(Layout *l, const Group *world, LayoutWish wish);
// The same for rank 0 of `ranks` ranks that are not there. Not collective. Owner: caller, layout_destroy.
void layout_create_dry(Layout *l, int ranks, LayoutWish wish);
void layout_destroy(Layout *l); // accepts a zero one

#endif
