// tok_norm.h: what happens to a text before it is cut into words; for the files of src/token only. Not collective.
#ifndef DS_TOK_NORM_H
#define DS_TOK_NORM_H

#include "base/err.h"

// If s[n] is not valid UTF-8, *fixed[*m] is a fresh copy with U+FFFD for every maximal invalid part (Python's
// errors="replace"); else *fixed = NULL. Owner: caller, mem_free.
void norm_utf8(const char *s, int64_t n, char **fixed, int64_t *m);

// The bytes of a UTF-8 character that s[0..n) begins with, as far as they are right: *whole tells whether all are
// there. 0: it begins none.
int norm_begun(const char *s, int64_t n, bool *whole);

// If valid s[n] is not in Unicode's composed form (NFC), *composed[*m] is it, fresh; else NULL. Owner: caller,
// mem_free.
Err norm_nfc(const char *s, int64_t n, char **composed, int64_t *m);

// SentencePiece's blank, U+2581, is a blank here. If s[n] has one, a fresh copy [*m] with ' ' for each; else NULL.
// Owner: caller, mem_free.
char *norm_blanks(const char *s, int64_t n, int64_t *m);

// Bytes of Unicode white space that s[n] begins with (ends with).
int64_t norm_space_before(const char *s, int64_t n);
int64_t norm_space_after(const char *s, int64_t n);

#endif
