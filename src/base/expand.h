// expand.h: paths as they stand. Nothing is expanded by this program, so that a run does not depend on who starts it;
// what a shell would have made of a path is a suggestion. Not collective.
#ifndef DS_EXPAND_H
#define DS_EXPAND_H

#include "base/types.h"

// What a shell would make of ~/, $NAME and ${NAME} in a path; NULL if there is none of them, or a variable is not set.
// Owner: caller, mem_free.
char *expand_path(const char *path);

// Why a path is refused of which a shell would make something: "~ and $ are not expanded here; write /people/x/y".
// NULL: it is a plain path. Owner: caller, mem_free.
char *expand_refusal(const char *path);

#endif
