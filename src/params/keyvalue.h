// keyvalue.h: shared by keyvalue.c and keyprint.c only. Not collective.
#ifndef DS_KEYVALUE_H
#define DS_KEYVALUE_H

#include "params/keytable.h"

// What a key takes, in words: "a number from 0 to 10", "one of linear, cosine". Owner: caller, mem_free.
char *keyvalue_expected(const ParamKey *key);

// One item of a KEY_TEXTS value, with backslashes where it needs them. Owner: caller, mem_free.
char *keyvalue_encode(const char *item);

#endif
