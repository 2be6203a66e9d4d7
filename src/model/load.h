// load.h: model files -> models. Not collective: each rank reads what it holds.
#ifndef DS_LOAD_H
#define DS_LOAD_H

#include "io/modelfile.h"
#include "model/model.h"

// *arch: the file's, with head `head` (an LM can get a scalar head, not the other way; -1: as it is). DS_ERR_DATA.
Err load_arch(const ModelFile *file, const char *path, int head, Arch *arch);

// All weights that m keeps from the file; a scalar head that the file lacks stays as it is. Master weights are not
// touched.
Err load_weights(Model *m, const ModelFile *file, const char *path);

// The file's tokenizer; *tok = NULL if it has none. Owner: caller, tok_free.
struct Tokenizer;
Err load_tokenizer(const ModelFile *file, const char *path, struct Tokenizer **tok);

#endif
