// build.h: dschat-data build: the sources of a spec -> one data set file. Not collective.
#ifndef DS_BUILD_H
#define DS_BUILD_H

#include "data/build_spec.h"
#include "io/origin.h"

// Reads every source as a stream, writes spec->output (its folder is made if missing) as a whole or not at all, and
// says what was taken and what was dropped, and why. The same spec and sources give the same bytes. DS_ERR_PARAMS: the
// template; DS_ERR_DATA: a source or the tokenizer, with file and line; DS_ERR_IO. origin: its entries but the date go
// into the file.
Err build_run(const BuildSpec *spec, const Origin *origin);

#endif
