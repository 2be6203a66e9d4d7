// checker.h: rules that know the true score of an answer, by name ([ppo] checker). Not collective.
#ifndef DS_CHECKER_H
#define DS_CHECKER_H

#include "base/err.h"

// The score in [0, 1] of an answer to a prompt, both texts NUL-terminated.
typedef double (*Checker)(const char *prompt, const char *answer);

// NULL in *out for the empty name. DS_ERR_PARAMS with the known names for an unknown one.
Err checker_find(const char *name, Checker *out);

// "words", the demo's task. The prompt's last line "Human: ..." is one of
//     Say these words: a b c                  -> a b c
//     Say these words backwards: a b c        -> c b a
//     Say the first of these words: a b c     -> a
//     Say the last of these words: a b c      -> c
// Score: positions at which answer and solution hold the same word / the longer one's number of words. An unknown task:
// 0.
double checker_words(const char *prompt, const char *answer);

#endif
