// mem.h: host memory. Not collective. Sizes are computed by checked arithmetic; an allocation that fails is fatal (a
// machine that is out of memory cannot be talked to), so callers bound what comes from files before they ask.
#ifndef DS_MEM_H
#define DS_MEM_H

#include <stdarg.h>
#include <stdio.h>

#include "base/types.h"

// Zeroed, 64-byte aligned. bytes = 0 gives a valid pointer. Never NULL. Owner: caller, mem_free.
void *mem_alloc(size_t bytes);

// `n` elements of `size`; fatal on overflow.
void *mem_array(int64_t n, size_t size);
#define MEM_NEW(type, n) ((type *)mem_array((n), sizeof(type)))

// Grows `p` (from mem_*, or NULL) from old_n to new_n elements; the new ones are zero.
void *mem_grow(void *p, int64_t old_n, int64_t new_n, size_t size);

// Accepts NULL.
void mem_free(void *p);
#define MEM_FREE(p) (mem_free(p), (p) = NULL)

char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n);

// printf into fresh memory. Owner: caller, mem_free.
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
char *mem_vprintf(const char *fmt, va_list ap);

// A stream whose text is memory. mem_stream_text closes it and gives what was printed; out of memory is fatal, as
// above. Owner of the text: caller, mem_free.
typedef struct {
    FILE *f;
    char *text; // the library's
    size_t bytes;
} MemStream;
FILE *mem_stream_open(MemStream *s);
char *mem_stream_text(MemStream *s);

// *out = a * b (a + b); false, with *out untouched, if it does not fit.
bool mem_mul(size_t a, size_t b, size_t *out);
bool mem_add(size_t a, size_t b, size_t *out);

#endif
