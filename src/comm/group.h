// group.h: ordered sets of ranks that communicate: the world, and its data, tensor and ZeRO partitions.
#ifndef DS_GROUP_H
#define DS_GROUP_H

#include "base/err.h"

typedef struct Group Group;

// All ranks. Owner: the room; never destroyed by callers. Not collective after world_init.
const Group *group_world(void);

// Splits `g`: ranks with equal color form a group, ordered by key, then rank. Collective on g. Owner: caller,
// group_destroy.
Group *group_split(const Group *g, int color, int key);
// The `size` ranks of g from `first` on, of which this rank is one; all ranks of g are in one such range, or call
// group_split. Collective on g. Owner: caller, group_destroy.
Group *group_range(const Group *g, int first, int size);
// The ranks of g on this rank's node, in g's order. Collective on g. Owner: caller, group_destroy.
Group *group_split_node(const Group *g);
void group_destroy(Group **g); // Collective on *g. Accepts NULL

// A group of `size` ranks that are not there, for planning: device collectives on it only count bytes. Not collective.
// Owner: caller, group_destroy.
Group *group_dry(int rank, int size);

int group_rank(const Group *g); // Not collective
int group_size(const Group *g); // Not collective

#endif
