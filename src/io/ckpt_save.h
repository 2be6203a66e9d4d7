// ckpt_save.h: writing a checkpoint. Everything goes to `<dir>/.tmp-<stage>-<step>/`, is synced, gets its manifest, is
// renamed; then DONE. A process killed anywhere leaves the previous checkpoint as it was.
#ifndef DS_CKPT_SAVE_H
#define DS_CKPT_SAVE_H

#include "io/ckpt.h"
#include "io/modelfile_save.h"

typedef struct {
    const char *name; // "actor", "critic", ...
    ModelSource source;
} CkptModel;

typedef struct {
    const char *dir; // the folder "checkpoints"; made if missing
    const char *stage;
    int64_t step;
    ModelFiles files;
    int keep;
} CkptOptions;

// Checks free space, writes, and deletes old ones only after the new DONE. `state` is rank 0's. *path (may be NULL):
// the new checkpoint. Collective on g; all ranks return the same code: DS_ERR_IO, DS_ERR_NUMERIC (nothing of the
// new one is left).
Err ckpt_save(const Group *g, const CkptOptions *options, const CkptModel *models, int n_models, const Kv *state,
              char **path);

// Bytes that a checkpoint of these models and state takes at most. Not collective.
int64_t ckpt_save_bytes(const CkptModel *models, int n_models, const Kv *state);
// DS_ERR_IO with both figures if the file system of folder `dir` has less free. Not collective.
Err ckpt_save_check_space(const char *dir, int64_t bytes);

#endif
