// layout.h: how the ranks of a job are divided (design: "Rank groups"). The data group is cut into zero groups of
// neighbours, inside which weights, gradients and moments are partitioned; the ranks with the same part in all zero
// groups are its copies.
//
//     8 data ranks, zero = 4:   zero groups 0 1 2 3 | 4 5 6 7      copies 0 4 | 1 5 | 2 6 | 3 7
//
// A step's micro-batches are dealt to `lanes` virtual ranks; rank r takes the lanes r, r + data, r + 2 data, ... in
// turn. Gradients are summed in one binary tree over the lanes, so that equal lanes give equal bits on any number of
// ranks.
#ifndef DS_LAYOUT_H
#define DS_LAYOUT_H

#include "comm/group.h"

typedef struct {
    const Group *data; // view
    Group *zero, *copies;
    Group *dry_data;  // what data is where the layout is dry; else NULL
    int lanes, turns; // turns: lanes of one rank
    bool library;     // false after layout_create. At ZeRO stages 0, 1 gradients are summed once a step, by MPI, in its
                      // order
} Layout;

// Whether this many ranks can be laid out so: zero divides data (0: all of them), lanes is a multiple of data (0:
// data), and the tree is the same for all layouts: a rank with several lanes needs 1, 2, 4, 8 ... data ranks, several
// copies 1, 2, 4, 8 ... ranks in a zero group. DS_ERR_PARAMS with the nearest legal value. Not collective.
Err layout_check(int data, int64_t zero, int64_t lanes);

// Collective on data. zero and lanes as layout_check accepted them. Owner: caller, layout_destroy (Collective on data).
void layout_create(Layout *l, const Group *data, int zero, int lanes);
// The same for rank 0 of `data` ranks that are not there. Not collective. Owner: caller, layout_destroy.
void layout_create_dry(Layout *l, int data, int zero, int lanes);
void layout_destroy(Layout *l); // accepts a zero one

#endif
