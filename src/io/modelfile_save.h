// modelfile_save.h: a model that is spread over ranks, into one file or a master over shards.
#ifndef DS_MODELFILE_SAVE_H
#define DS_MODELFILE_SAVE_H

#include "comm/group.h"
#include "io/modelfile.h"

typedef enum { MODEL_FILES_SHARDS, MODEL_FILES_ONE } ModelFiles; // shards | one file, written by rank 0

// What is to be written. meta and tensors are the same on all ranks; pieces are this rank's, and all ranks' together
// tile every tensor exactly once (replicas bring none).
typedef struct {
    const ModelMeta *meta;   // written by rank 0, so that the file opens as a model; NULL: none
    const H5Tensor *tensors; // "/weights/...", in checkpoints also "/adam_m/...", "/adam_v/...", "/ema/..."
    int n_tensors;
    const H5Piece *pieces;
    int n_pieces;
    H5Fetch fetch; // for pieces without data
    void *context;
    const Group *sharing; // ranks that share a shard, which its rank 0 writes (a node's); NULL: each rank its own
} ModelSource;

// Writes `path` as one file (rank 0 does), or as a master over shards in `<stem>.shards/`. An old file of that
// name stays until the new one is whole; old shards, and the master over them, are removed first. Memory: one row.
// *rows (may be NULL): all rows with their hashes, on every rank, with MODEL_FILES_ONE on rank 0 only; owner: caller,
// h5_rows_free. DS_ERR_IO; DS_ERR_NUMERIC: an element is NaN or infinite, with rank, tensor and element; DS_ERR_BUG:
// pieces that do not tile. Then nothing has the name `path`, but an old file that was to be replaced by one file.
// Collective on g; all ranks return the same code.
Err modelfile_save(const Group *g, const char *path, const ModelSource *source, ModelFiles files, H5Rows *rows);

#endif
