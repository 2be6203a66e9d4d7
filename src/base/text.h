// text.h: words for users. Not collective.
#ifndef DS_TEXT_H
#define DS_TEXT_H

#include <stdio.h>

#include "base/types.h"

// The entry of names[n] closest to `word` by edit distance (case ignored), NULL if nothing is near.
const char *text_closest(const char *word, const char *const *names, int n);

// The place of `word` among the words of `list`, which have blanks between, from 1; 0: it is not there.
int text_word(const char *list, const char *word);

// Bytes as "1.5 GiB"; out has room for 32; returns out.
char *text_bytes(char out[32], double bytes);

// Strict UTF-8 check of s[n] (no surrogates, no overlong forms). Returns the offset of the first bad byte, or -1.
int64_t text_utf8_bad(const char *s, int64_t n);

// Decodes the code point at s[0..n): its value and *len bytes; an invalid byte gives U+FFFD with *len = 1.
uint32_t text_utf8_next(const char *s, int64_t n, int *len);

// Writes code point c as UTF-8 to out (room for 4); returns the bytes written.
int text_utf8_put(uint32_t c, char *out);

// ---- what a terminal may get ----

// Of a text that others wrote (a model, data, a file's names) in one piece that begins at s[0..n): what a terminal or a
// log may get of it, so that no byte of it is a command. Control characters (C0, DEL, C1), bytes that are not UTF-8,
// and marks that turn the direction of writing or end lines become visible: \x1b, \u202e; '\t' stays, '\n' too if
// `lines`. Writes at most `room` bytes with a NUL, whole characters only; returns their number without the NUL.
size_t text_visible(const char *s, int64_t n, bool lines, char *out, size_t room);

// The same of a name, in fresh memory, one line. Owner: caller, mem_free.
char *text_shown(const char *name);

// The same to a stream, whatever the length. A text that comes in parts is cut between characters.
void text_print(FILE *f, const char *s, int64_t n, bool lines);

// May a terminal get this code point? ('\t' and '\n': yes.)
bool text_is_plain(uint32_t c);

#endif
