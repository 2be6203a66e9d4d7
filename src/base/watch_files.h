// watch_files.h: what the watchdogs of different nodes tell each other: one small file a node in the run's folder,
// written and read by a thread of its own (the courier), which a file system that stands still holds up alone. Not
// collective.
//
// Every rank has a courier; the one of the lowest rank that lives works for its node. It writes the node's slots every
// few seconds, and reads those of other nodes into the board while a rank of the node has been quiet for a while.
#ifndef DS_WATCH_FILES_H
#define DS_WATCH_FILES_H

#include "base/watch_board.h"

// `folder` exists, and is there for this job alone. `mark`: the same on all ranks, another for every start. local
// [n_local]: the ranks of this node, ascending; nodes [n_nodes]: the first rank of each. All kept, folder copied.
void watch_files_start(WatchBoard *b, const char *folder, uint64_t mark, int rank, const int *local, int n_local,
                       const int *nodes, int n_nodes);

// Seconds between two rounds of a courier; set before the start and whenever the watchdog's floor changes.
void watch_files_period(double seconds);

// No file is written any more; the node's is removed, with the last of them the folder.
void watch_files_end(void);

#endif
