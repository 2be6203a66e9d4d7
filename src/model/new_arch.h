// new_arch.h: the shape of a model that params describe instead of a file. Not collective.
#ifndef DS_NEW_ARCH_H
#define DS_NEW_ARCH_H

#include "arch/arch.h"
#include "params/params.h"

// The published shape that `keys` name, else the one of [actor] arch_* with `vocab` tokens; with this head.
// DS_ERR_PARAMS, DS_ERR_DATA.
Err new_arch(const Params *p, const ModelParams *keys, int64_t vocab, ArchHead head, Arch *a);

#endif
