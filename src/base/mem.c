// mem.c: the host allocator: malloc with alignment, zeroes and one answer to failure.
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

enum { ALIGN = 64 };

bool mem_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
bool mem_add(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }

void *mem_alloc(size_t bytes) {
    size_t room;
    if (!mem_add(bytes, ALIGN, &room)) err_fatal("allocation of %zu bytes overflows", bytes);
    void *p = aligned_alloc(ALIGN, room / ALIGN * ALIGN);
    if (!p) err_fatal("out of memory: %zu bytes asked for", bytes);
    memset(p, 0, bytes);
    return p;
}

void *mem_array(int64_t n, size_t size) {
    size_t bytes;
    if (n < 0 || !mem_mul((size_t)n, size, &bytes))
        err_fatal("array of %lld x %zu bytes overflows", (long long)n, size);
    return mem_alloc(bytes);
}

void *mem_grow(void *p, int64_t old_n, int64_t new_n, size_t size) {
    char *q = mem_array(new_n, size);
    if (p && old_n > 0) memcpy(q, p, (size_t)ds_min(old_n, new_n) * size);
    mem_free(p);
    return q;
}

void mem_free(void *p) { free(p); }

char *mem_strndup(const char *s, size_t n) {
    char *p = mem_alloc(n + 1);
    memcpy(p, s, n);
    return p;
}

char *mem_strdup(const char *s) { return mem_strndup(s, strlen(s)); }

char *mem_vprintf(const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    char probe[1]; // not NULL: sanitizers' builds warn of it
    int n = vsnprintf(probe, sizeof probe, fmt, ap);
    char *p = mem_alloc((size_t)n + 1);
    vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

char *mem_printf(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *p = mem_vprintf(fmt, ap);
    va_end(ap);
    return p;
}

FILE *mem_stream_open(MemStream *s) {
    *s = (MemStream){0};
    s->f = open_memstream(&s->text, &s->bytes);
    if (!s->f) err_fatal("out of memory for a text");
    return s->f;
}

char *mem_stream_text(MemStream *s) {
    const bool failed = ferror(s->f);
    if (fclose(s->f) || failed || !s->text) err_fatal("out of memory for a text of %zu bytes", s->bytes);
    char *copy = mem_strndup(s->text, s->bytes);
    free(s->text);
    *s = (MemStream){0};
    return copy;
}
