// params_check.h: what no single key can know. Not collective.
#ifndef DS_PARAMS_CHECK_H
#define DS_PARAMS_CHECK_H

#include "params/params.h"

// Fills in what defaults left open (see params.h), then refuses values that contradict each other, or that this version
// of the program has not built yet. DS_ERR_PARAMS with the place of the value to change.
Err params_check(Params *p);

#endif
