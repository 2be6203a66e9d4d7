// agree.h: one error, the same on all ranks.
#ifndef DS_AGREE_H
#define DS_AGREE_H

#include "comm/group.h"

// Returns DS_OK everywhere if every rank brought DS_OK; else, everywhere, the code of the lowest failing rank, whose
// words become err_text() on all ranks ("rank N: " before them where only some failed). Collective on g.
Err agree_err(const Group *g, Err err);

// What rank 0 alone has looked at: its code and words, everywhere; what the others bring does not count. Collective on
// g.
Err agree_root(const Group *g, Err err);

// The logical or of a flag. Collective on g.
bool agree_any(const Group *g, bool flag);

#endif
