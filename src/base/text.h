// text.h: words for users. Not collective.
#ifndef DS_TEXT_H
#define DS_TEXT_H

#include "base/types.h"

// The entry of names[n] closest to `word` by edit distance (case ignored), NULL if nothing is near.
const char *text_closest(const char *word, const char *const *names, int n);

// Bytes as "1.5 GiB"; out has room for 32; returns out.
char *text_bytes(char out[32], double bytes);

// Strict UTF-8 check of s[n] (no surrogates, no overlong forms). Returns the offset of the first bad byte, or -1.
int64_t text_utf8_bad(const char *s, int64_t n);

// Decodes the code point at s[0..n): its value and *len bytes; an invalid byte gives U+FFFD with *len = 1.
uint32_t text_utf8_next(const char *s, int64_t n, int *len);

// Writes code point c as UTF-8 to out (room for 4); returns the bytes written.
int text_utf8_put(uint32_t c, char *out);

#endif
