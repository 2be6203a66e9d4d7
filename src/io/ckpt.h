// ckpt.h: checkpoints: `checkpoints/<stage>-<step>/` with models (weights, moments, averages by logical names),
// trainer.h5, manifest.txt and, last of all, DONE, which holds the manifest's hash. Where they lie and which one counts
// is here; how one is written is ckpt_save.h.
//
// There is no pointer file: the newest folder with a valid DONE counts (stages in the order null, sft, rm, ppo; then
// the step). Not collective unless a function says so.
#ifndef DS_CKPT_H
#define DS_CKPT_H

#include "comm/group.h"
#include "io/kv.h"

// `<dir>/<stage>-<step>`. Owner: caller, mem_free.
char *ckpt_path(const char *dir, const char *stage, int64_t step);
// The other way, from a path or a name; false if it is not a checkpoint's. *stage: static string.
bool ckpt_parse(const char *path, const char **stage, int64_t *step);

// DONE, manifest and sizes of files agree. DS_ERR_DATA with the reason.
Err ckpt_check(const char *path);
// Checks this part's share of the files' hashes (part of parts ranks; 0 of 1: all), after ckpt_check.
Err ckpt_verify(const char *path, int part, int parts);

// All complete-looking checkpoints (a folder with a legal name of this user's own), newest first. A missing dir is
// empty. Owner: caller, h5_names_free. DS_ERR_IO.
Err ckpt_list(const char *dir, H5Names *paths);

// The newest checkpoint in which every file has its hash; *path = NULL if there is none. Damaged and unfinished ones
// are skipped with a warning that tells why; DS_ERR_IO: one cannot be read, which is not taken for damage. Ranks share
// the reading. Collective on g. Owner: caller, mem_free.
Err ckpt_find_newest(const Group *g, const char *dir, char **path);

// trainer.h5 of a checkpoint. Owner: caller, kv_destroy.
Err ckpt_read_state(const char *path, Kv **state);
// `<path>/<model>.h5`, for h5_open_own and h5_parts_read, or modelfile_open. Owner: caller, mem_free.
char *ckpt_model_path(const char *path, const char *model);

// At start, before ckpt_find_newest: removes folders that never got their name (".tmp-..."), and puts back a checkpoint
// that was being replaced (".tmp-old-...") if its replacement was not finished. One rank.
Err ckpt_clean(const char *dir);
// Removes what is older than the newest `keep` checkpoints with a valid DONE (keep >= 1), also older torn ones; what
// cannot be read stays. One rank.
Err ckpt_prune(const char *dir, int keep);

#endif
