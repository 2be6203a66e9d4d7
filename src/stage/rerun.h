// rerun.h: what a run was begun with, and whether this start may go on with it. `<out>/params.out` holds every key as
// the run uses it, the hashes of its inputs, and, as comments at the end, every change since it began.
#ifndef DS_RERUN_H
#define DS_RERUN_H

#include "stage/stage.h"

// begun: stages (bits 1 << StageKind) that have a checkpoint or a product; done: those with a product; at: where the
// run stands, for messages ("sft-000012").
//
// Nothing begun: params.out is written anew. Else each key is compared: what changes the results of a stage that has
// begun is refused by name (DS_ERR_PARAMS), and so is an input with another content, unless [job] accept_changes; more
// steps for an unfinished stage, later stages and their keys, and what results do not depend on are noted; params.out
// is written again only with what changed appended. *changes: the recorded changes of results in one line, NULL: none
// (owner: caller, mem_free). Collective on run->world.
Err rerun_settle(const Run *run, int begun, int done, const char *at, char **changes);

#endif
