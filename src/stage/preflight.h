// preflight.h: everything that a later stage needs, looked at before the first: data sets, models, their tokenizers,
// shapes and positions, the checker, the folder and the disk it is on. All that is wrong is said in one message.
#ifndef DS_PREFLIGHT_H
#define DS_PREFLIGHT_H

#include "stage/stage.h"

// What the params themselves leave open: DS_ERR_PARAMS, with what to do, where they name no data set, the default one
// is not there and nothing has run in the folder yet; DS_ERR_IO. For the first moment of a job; opens nothing. Not
// collective.
Err preflight_params(const Params *p);

// *products: bits of StageKind, which stages' products are there. DS_ERR_IO: that cannot be told; a finished stage is
// not run again for it, nor another one left out. Not collective.
Err preflight_products(const Params *p, int *products);

// Looks at what the stages without a product need. ranks: 0 where they are not known; then what depends on them is left
// out. say (may be NULL) gets a line for each thing that was looked at. DS_ERR_PARAMS, DS_ERR_DATA, DS_ERR_IO: of the
// first thing that is wrong, with the words of all. Not collective.
Err preflight(const Params *p, int ranks, int products, void (*say)(const char *line, void *user), void *user);

// Both, before a job writes anything: rank 0 looks, all have its answer. Collective on run->world.
Err preflight_job(const Run *run);

// run->products: which products there are, as rank 0 sees them. DS_ERR_IO. Collective on run->world.
Err preflight_find_products(Run *run);

#endif
